"""The model card of a repository of patches: README.md with front matter, safe whatever the concepts are called.

Concept names come from people who want something erased, and from files that were pulled. Here they become text that
can neither end the front matter nor turn into Markdown or HTML: first `plain` removes what is not visible text, then
`inline` turns punctuation into character references.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rasura.patches.errors import FormatError, InputError
from rasura.patches.types import PatchId

TAGS = ("lora", "diffusers", "text-to-image", "concept-erasure", "safety", "rasura")
WEIGHTS = "pytorch_lora_weights.safetensors"
MAX_CARD = 1 << 20  # bytes of a README.md that is read before it is rewritten
MAX_TEXT = 200  # characters of a name in the card
BEGIN = "<!-- rasura: written by `rasura push`; edit above or below, not in here -->"
END = "<!-- rasura: end -->"

_MODEL = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?", re.ASCII)
_WORD = re.compile(r"[a-z0-9][a-z0-9.+-]{0,63}")
_ID = re.compile(r"[0-9a-f]{64}")
_FOLDER = re.compile(r"(patches/[0-9a-f]{64})?")
_RISKY = re.compile(
    r"[!-+./:-@\[-`{-~]|(?<![^\W_])-|-(?![^\W_])"
)  # all ASCII punctuation but a comma and inner hyphens


@dataclass(frozen=True, slots=True)
class PatchFacts:
    """A line of the card's table.

    Attributes:
        patch_id: SHA-256 of the patch's manifest.
        concepts: what it suppresses, as a person wrote it.
        method: name of the eraser.
        anchor: what the concepts become, or "".
        path: folder in the repository; "" is its root. `push` fills it in.
    """

    patch_id: PatchId
    concepts: tuple[str, ...]
    method: str
    anchor: str = ""
    path: str = ""


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What the card says.

    Attributes:
        base_name: the base in words.
        tool_version: version of rasura that writes the card.
        patches: the patches that are pushed.
        base_model: the base's id on the Hub, or None when it is not there.
        license: the Hub's short name of the licence; a patch inherits that of its base.
        family: tag of the architecture, `stable-diffusion` or `stable-diffusion-xl`.
    """

    base_name: str
    tool_version: str
    patches: tuple[PatchFacts, ...]
    base_model: str | None = None
    license: str = "creativeml-openrail-m"
    family: str = "stable-diffusion"

    def __post_init__(self) -> None:
        if self.base_model is not None and not _MODEL.fullmatch(self.base_model):
            raise InputError(f"expected a base model's Hub id such as org/name, got {self.base_model!r}")
        for field in (self.license, self.family):
            if not _WORD.fullmatch(field):
                raise InputError(f"expected a short name in lower case such as creativeml-openrail-m, got {field!r}")


def plain(text: str) -> str:
    """Visible text on one line: control, bidirectional and other invisible characters as `[U+202E]`, length bounded."""
    shown = (" " if c.isspace() else c if unicodedata.category(c)[0] != "C" else f"[U+{ord(c):04X}]" for c in text)
    joined = " ".join(unicodedata.normalize("NFC", "".join(shown)).split())
    return joined if len(joined) <= MAX_TEXT else joined[: MAX_TEXT - 1] + "…"


def inline(text: str) -> str:
    """`plain` text that Markdown and HTML show as it is: risky punctuation becomes a character reference."""
    return _RISKY.sub(lambda match: f"&#{ord(match[0])};", plain(text))


def render(facts: CardFacts, repo: str, existing: str = "") -> str:
    """The README.md of a repository after a push.

    What a person wrote is kept: keys of the front matter that are not ours, and the text outside our two marks.

    Args:
        facts: with every patch that the repository will hold, each with its path.
        repo: the repository's id, for the lines to type.
        existing: the README.md that is there, or "".

    Raises:
        FormatError: the existing front matter cannot be read.
    """
    from huggingface_hub import ModelCardData

    known, body = split(existing)
    front = ModelCardData(**{**known, **_front(facts, known)}, ignore_metadata_errors=True).to_yaml()
    return f"---\n{front}\n---\n{_place(body, _section(facts, repo))}"


def rows(existing: str) -> tuple[PatchFacts, ...]:
    """The patches that a card of ours names; lines that are not as we write them are left out.

    Raises:
        FormatError: the front matter cannot be read.
    """
    ours = split(existing)[0].get("rasura")
    listed = ours.get("patches") if isinstance(ours, dict) else None
    found = (_row(row) for row in listed) if isinstance(listed, list) else ()
    return tuple(row for row in found if row)


def split(text: str) -> tuple[dict[str, Any], str]:
    """A card's front matter and the text below it.

    Raises:
        FormatError: a front matter that is no YAML mapping.
    """
    if not text.startswith("---"):
        return {}, text
    from huggingface_hub import ModelCard

    try:
        card = ModelCard(text, ignore_metadata_errors=True)
        return dict(card.data.to_dict()), card.text  # type: ignore[no-untyped-call]
    except Exception as error:  # YAML and the card library raise whatever they like
        hint = "mend README.md on the Hub, or remove it"
        raise FormatError("README.md: expected front matter in YAML, got something else", hint=hint) from error


def _row(row: object) -> PatchFacts | None:
    match row:
        case {"id": str(name), "path": str(path), "concepts": list(concepts), "method": str(method), **rest} if (
            _ID.fullmatch(name) and _FOLDER.fullmatch(path)
        ):
            words = tuple(plain(str(concept)) for concept in concepts)
            return PatchFacts(PatchId(name), words, plain(method), plain(str(rest.get("anchor") or "")), path)
    return None


def _front(facts: CardFacts, known: Mapping[str, Any]) -> dict[str, Any]:
    tags = known.get("tags")
    mine = [*TAGS[:3], facts.family, *TAGS[3:]]
    front: dict[str, Any] = {
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "license": known.get("license") or facts.license,
        "tags": [*(tags if isinstance(tags, list) else []), *mine],
        "rasura": {"version": plain(facts.tool_version), "patches": [_listed(patch) for patch in facts.patches]},
    }
    if facts.base_model:
        front |= {"base_model": facts.base_model, "base_model_relation": "adapter"}
    return front


def _listed(patch: PatchFacts) -> dict[str, Any]:
    words = [plain(concept) for concept in patch.concepts]
    row = {"id": str(patch.patch_id), "path": patch.path, "concepts": words, "method": plain(patch.method)}
    return {**row, "anchor": plain(patch.anchor)} if patch.anchor else row


def _place(body: str, section: str) -> str:
    head, begun, rest = body.partition(BEGIN)
    _, ended, tail = rest.partition(END)
    if begun and ended:
        return head + section + tail
    return f"{body.rstrip()}\n\n{section}\n" if body.strip() else f"# Concept-erasure patches\n\n{section}\n"


def _section(facts: CardFacts, repo: str) -> str:
    parts = (_about(facts), _table(facts.patches), _diffusers(facts, repo), _rasura(repo), LIMITS)
    return "\n\n".join((BEGIN, *parts, END))


LIMITS = """## What this is, and what it is not

A patch is a suppression measure: it makes the base much less likely to draw the concept when prompted for it, and its
manifest records how that was measured. It does not delete training data from the weights, other prompts or fine-tuning
may bring the concept back, and it does not by itself satisfy any law or policy."""


def _about(facts: CardFacts) -> str:
    link = f" ([`{facts.base_model}`](https://huggingface.co/{facts.base_model}))" if facts.base_model else ""
    return (
        f"Low-rank weight patches for {inline(facts.base_name)}{link}. Each one suppresses the concepts in its row "
        "and can be taken off again. The patches are signed (`model.sig`, OpenSSF Model Signing); trust the key, not "
        f"this page. Written by rasura {inline(facts.tool_version)}."
    )


def _table(patches: Sequence[PatchFacts]) -> str:
    lines = ["| Patch | Suppresses | Becomes | Method | Folder |", "| --- | --- | --- | --- | --- |"]
    for patch in patches:
        concepts = ", ".join(inline(concept) for concept in patch.concepts)
        folder = f"`{patch.path}`" if patch.path else "the root"
        cells = (f"`{patch.patch_id[:12]}`", concepts, inline(patch.anchor), inline(patch.method), folder)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _diffusers(facts: CardFacts, repo: str) -> str:
    base = facts.base_model or "path/to/the/base"
    load = [_load(patch, repo) for patch in facts.patches[:3]]
    names = ", ".join(f'"{patch.patch_id[:12]}"' for patch in facts.patches[:3])
    several = [f"pipe.set_adapters([{names}])"] if len(load) > 1 else []
    code = ["from diffusers import DiffusionPipeline", "", f'pipe = DiffusionPipeline.from_pretrained("{base}")']
    note = (
        "Name the file: without `weight_name`, diffusers picks one of the repository's LoRA files by itself. "
        "Loading this way adds the increments in floating point and checks no signature."
    )
    return "\n".join(["## Use with diffusers", "", "```python", *code, *load, *several, "```", "", note])


def _load(patch: PatchFacts, repo: str) -> str:
    where = f', subfolder="{patch.path}"' if patch.path else ""
    return f'pipe.load_lora_weights("{repo}"{where}, weight_name="{WEIGHTS}", adapter_name="{patch.patch_id[:12]}")'


def _rasura(repo: str) -> str:
    text = "This verifies the signature against the keys that you trust before anything is kept."
    return "\n".join(["## Use with rasura", "", "```console", f"$ rasura pull {repo}", "```", "", text])
