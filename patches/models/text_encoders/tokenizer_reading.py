"""How a tokenizer reads text beyond vocabulary and merges: what must be part of its identity, and what is as usual.

The identity of a tokenizer is its vocabulary, merges, length and special ids. Everything else that decides ids (added
tokens, normaliser, pre-tokenizer, post-processor, flags) is as one of the known spellings of its class has it; what is
not is named here and becomes part of the identity. Hence an ordinary tokenizer has the same identity whichever version
of transformers wrote its files, fast or slow, and one that was changed has another.

What cannot be said in one form for all versions: a normaliser, pre-tokenizer or post-processor that is none of the
known spellings is compared as it is written, so that saving it again in other words gives another identity.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from rasura.patches._io.canonical_json import JsonValue
from rasura.patches._io.sha256 import digest_of
from rasura.patches.errors import UnsupportedHostError
from rasura.patches.models.text_encoders.sentencepiece_file import read_pieces

__all__ = ["check_one_tokenizer", "describe_file", "describe_loaded", "say_reading"]

_LIMIT: Final = 1 << 27
_SPACES: Final = {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "}
_WORDS: Final = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_MARKED: Final = rf"<\|startoftext\|>|<\|endoftext\|>|{_WORDS}"
_BYTES: Final = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
_METASPACE: Final = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
_TWO_SPACES: Final[list[dict[str, Any]]] = [
    {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": content} for content in ("▁", " ")
]
_STRIP: Final = {"type": "Strip", "strip_left": False, "strip_right": True}
_SPLITS: Final[list[dict[str, Any]]] = [
    {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Removed", "invert": True}
    for pattern in (_WORDS, _MARKED)
]
_USUAL: Final[dict[str, dict[str, list[list[dict[str, Any]]]]]] = {
    "BPE": {
        "normalizer": [[{"type": "NFC"}, _SPACES, {"type": "Lowercase"}]],
        "pre_tokenizer": [[split, _BYTES] for split in _SPLITS],
    },
    "Unigram": {
        "normalizer": [[], [_TWO_SPACES[0]], [_TWO_SPACES[1]], [_STRIP, _TWO_SPACES[0]], [_STRIP, _TWO_SPACES[1]]],
        "pre_tokenizer": [[_METASPACE], [{"type": "WhitespaceSplit"}, _METASPACE]],
    },
}
"""The spellings that transformers wrote for CLIP and T5: the same ids for every text."""

_FLAGS: Final = {
    "dropout": None,
    "continuing_subword_prefix": "",
    "end_of_word_suffix": "</w>",
    "fuse_unk": False,
    "byte_fallback": False,
    "ignore_merges": False,
}
_USUAL_MAPS: Final = frozenset({"1e2c7b43d3ee9755ceaa2ac335e253d8703604e0249ee1e81156c92b46423844"})
"""SHA-256 of SentencePiece's own nmt_nfkc table; every other is named by its digest."""
_SENTINEL: Final = re.compile(r"<extra_id_\d+>")


def describe_loaded(tokenizer: Any) -> dict[str, JsonValue]:
    """What a loaded tokenizer does otherwise than its class; empty for an ordinary one."""
    document = json.loads(tokenizer.backend_tokenizer.to_str())
    named = [getattr(tokenizer, f"{name}_token") for name in ("bos", "eos", "pad", "unk")]
    found = _unusual(document, {str(token) for token in named if token is not None})
    for name, usual in (("padding_side", "right"), ("truncation_side", "right"), ("split_special_tokens", False)):
        if (value := getattr(tokenizer, name, usual)) != usual:
            found[name] = value
    expected = _around_usual(tokenizer)
    if (around := _around(document.get("post_processor"))) != expected:
        found["post_processor"] = _plain(around)
    return found


def describe_file(folder: Path, tokenizer: Any) -> dict[str, JsonValue]:
    """What `tokenizer.json` says otherwise, for those who obey it where this version of transformers does not."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        return {}
    document = _read(path)
    found = _unusual(document, None)
    if document.get("post_processor") is not None:
        around = _around(document["post_processor"])
        if around != _around_usual(tokenizer):
            found["post_processor"] = _plain(around)
    elif tokenizer.eos_token_id is not None:
        found["post_processor"] = None
    return found


def check_one_tokenizer(folder: Path) -> None:
    """Refuse a folder whose files for slow and for fast tokenizers read text in two ways.

    Raises:
        UnsupportedHostError: naming the file that disagrees.
    """
    if not (folder / "tokenizer.json").is_file():
        return
    model = _read(folder / "tokenizer.json").get("model")
    if not isinstance(model, dict):
        return
    if (path := folder / "vocab.json").is_file():
        if _read(path) != {**model.get("vocab", {})}:
            raise _two(path)
        if _declared(folder) != _added(_read(folder / "tokenizer.json")):
            raise _two(folder / "added_tokens.json")
    if (path := folder / "merges.txt").is_file() and _merges(path) != [
        tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair) for pair in model.get("merges", [])
    ]:
        raise _two(path)
    if (path := folder / "spiece.model").is_file() and isinstance(model.get("vocab"), list):
        pieces = [piece for piece, _ in model["vocab"]]
        theirs = list(read_pieces(_bytes(path)))
        if theirs != pieces[: len(theirs)] or not all(map(_SENTINEL.fullmatch, pieces[len(theirs) :])):
            raise _two(path)


def say_reading(reading: Mapping[str, JsonValue]) -> str:
    """One phrase for messages: what a tokenizer does otherwise."""
    added = reading.get("added")
    words = [str(token[1]) for token in added if isinstance(token, list)] if isinstance(added, list) else []
    said = [f"added tokens {', '.join(map(repr, words[:3]))}{', …' if len(words) > 3 else ''}"] if words else []  # noqa: PLR2004  # as many as a line holds
    said += [f"another {name}" for name in sorted(reading) if name != "added"]
    return ", ".join(said) or "as its class reads"


def _unusual(document: dict[str, Any], named: set[str] | None) -> dict[str, JsonValue]:
    """Parts of a tokenizer.json that are none of the known spellings; added tokens where special ones are named."""
    model = document.get("model") or {}
    kind = "Unigram" if "scores" in model or isinstance(model.get("vocab"), list) else "BPE"
    found: dict[str, JsonValue] = {}
    for part in ("normalizer", "pre_tokenizer"):
        steps = [_spelled(step) for step in _flat(document.get(part))]
        steps = [step for step in steps if step is not None]
        if steps not in _USUAL[kind][part]:
            found[part] = _plain(steps)
    if kind == "BPE":
        flags = {name: model.get(name, usual) for name, usual in _FLAGS.items()}
        odd = {name: value for name, value in flags.items() if (value or _FLAGS[name]) != _FLAGS[name]}
        if odd:
            found["model"] = _plain(odd)
    if named is not None and (added := [token for token in _tokens(document) if not _is_usual(token, named, model)]):
        found["added"] = _plain([[t["id"], t["content"], *(bool(t.get(name)) for name in _SIDES)] for t in added])
        # A plain added token is looked for in the normalised text.
        found["raw"] = [t["id"] for t in added if not t.get("normalized")]
    return found


_SIDES: Final = ("single_word", "lstrip", "rstrip", "special")


def _is_usual(token: Mapping[str, Any], named: set[str], model: Mapping[str, Any]) -> bool:
    content, vocabulary = str(token["content"]), model.get("vocab")
    if isinstance(vocabulary, list):  # nobody writes a sentinel; the special ids are part of the identity
        return content in named or _SENTINEL.fullmatch(content) is not None
    same = isinstance(vocabulary, dict) and vocabulary.get(content) == token["id"]
    return content in named and same and not any(token.get(side) for side in _SIDES[:3])


def _tokens(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    return sorted(document.get("added_tokens") or [], key=lambda token: token["id"])


def _flat(part: Any) -> Iterator[dict[str, Any]]:
    """The steps of a part, sequences laid open."""
    if isinstance(part, dict) and part.get("type") == "Sequence":
        for step in part.get("normalizers") or part.get("pretokenizers") or part.get("processors") or []:
            yield from _flat(step)
    elif isinstance(part, dict):
        yield part


def _spelled(step: dict[str, Any]) -> dict[str, Any] | None:
    """One step in one spelling for all versions; None for one that changes nothing."""
    kind = step.get("type")
    if kind == "Precompiled":
        digest = digest_of(base64.b64decode(step.get("precompiled_charsmap") or ""))
        return None if digest in _USUAL_MAPS else {"type": "Precompiled", "sha256": digest}
    if kind == "ByteLevel":
        spaced = bool(step.get("add_prefix_space", True))
        return {"type": "ByteLevel", "add_prefix_space": spaced, "use_regex": bool(step.get("use_regex", True))}
    if kind == "Metaspace":
        old = "always" if step.get("add_prefix_space", True) else "never"
        scheme = step.get("prepend_scheme", old)
        return _METASPACE | {
            "replacement": step.get("replacement", "▁"),
            "prepend_scheme": scheme,
            "split": step.get("split", True),
        }
    return step


def _around(processor: Any) -> tuple[list[int], list[int]]:
    """The ids that a post-processor puts before and after a text."""
    before: list[int] = []
    after: list[int] = []
    for step in _flat(processor):
        if step.get("type") in ("RobertaProcessing", "BertProcessing"):
            before, after = [step["cls"][1], *before], [*after, step["sep"][1]]
        elif step.get("type") == "TemplateProcessing":
            known, seen = step.get("special_tokens", {}), False
            for item in step.get("single", []):
                if "Sequence" in item:
                    seen = True
                else:
                    ids = known[item["SpecialToken"]["id"]]["ids"]
                    before, after = (before, [*after, *ids]) if seen else ([*before, *ids], after)
    return before, after


def _around_usual(tokenizer: Any) -> tuple[list[int], list[int]]:
    bos = tokenizer.bos_token_id
    return ([] if bos is None else [int(bos)], [int(tokenizer.eos_token_id)])


def _plain(value: Any) -> JsonValue:
    """The same as JSON without floats."""
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    found: JsonValue = value
    return found


def _added(document: dict[str, Any]) -> dict[str, int]:
    """Tokens that a vocabulary does not hold."""
    vocabulary = document["model"].get("vocab", {})
    return {token["content"]: token["id"] for token in _tokens(document) if token["content"] not in vocabulary}


def _declared(folder: Path) -> dict[str, int]:
    """Added tokens by the files of slow tokenizers, without what the vocabulary holds."""
    found: dict[str, int] = {}
    if (path := folder / "added_tokens.json").is_file():
        found |= {str(content): int(at) for content, at in _read(path).items()}
    if (path := folder / "tokenizer_config.json").is_file():
        decoder = _read(path).get("added_tokens_decoder") or {}
        found |= {str(token["content"]): int(at) for at, token in decoder.items() if isinstance(token, dict)}
    vocabulary = _read(folder / "vocab.json")
    return {content: at for content, at in found.items() if content not in vocabulary}


def _merges(path: Path) -> list[tuple[str, ...]]:
    lines = _bytes(path).decode("utf-8", "replace").split("\n")
    return [tuple(line.split()) for line in lines if line.strip() and not line.startswith("#version")]


def _bytes(path: Path) -> bytes:
    if (size := path.stat().st_size) > _LIMIT:
        raise UnsupportedHostError(f"{path}: expected at most {_LIMIT} bytes, got {size}")
    return path.read_bytes()


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(_bytes(path))
    except (ValueError, RecursionError) as error:
        raise UnsupportedHostError(f"{path}: expected JSON, got {error}") from None
    if not isinstance(found, dict):
        raise UnsupportedHostError(f"{path}: expected a JSON object, got {type(found).__name__}")
    return found


def _two(path: Path) -> UnsupportedHostError:
    return UnsupportedHostError(
        f"{path.parent}: expected one tokenizer, got two that read text in different ways: {path.name} does not say "
        "what tokenizer.json says, and programs differ in which they read",
        hint=f"keep the one that you serve, and move {path.name} or tokenizer.json out of {path.parent}",
        path=str(path),
    )
