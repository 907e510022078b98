"""The front matter of a model card: what the next push reads of it, and what it says."""

import re
from collections.abc import Mapping
from typing import Any

from rasura.patches.errors import FormatError
from rasura.patches.types import Digest, PatchId
from rasura.registry.hub.card.facts import ID, MODEL, BaseFacts, CardFacts, PatchFacts, list_bases
from rasura.registry.hub.card.families import FAMILIES
from rasura.registry.hub.card.licences import KEYS, Licence
from rasura.registry.hub.card.text import plain
from rasura.registry.hub.refs import COMFYUI

TAGS = ("lora", "diffusers", "text-to-image", "concept-erasure", "safety", "rasura")
MAX_CARD = 1 << 20  # bytes of a README.md that is read before it is rewritten
_FOLDER = re.compile(r"(patches/[0-9a-f]{64})?")
_FAMILY_TAGS = frozenset(facts.tag for facts in FAMILIES.values())


def rows(existing: str) -> tuple[PatchFacts, ...]:
    """The patches that a card of ours names; lines that are not as we write them are left out.

    Raises:
        FormatError: the front matter cannot be read.
    """
    ours = split(existing)[0].get("rasura")
    listed, bases = (ours.get(key) if isinstance(ours, dict) else None for key in ("patches", "bases"))
    known = {base.digest: base for base in map(_base, bases if isinstance(bases, list) else ()) if base}
    found = (_row(row, known) for row in listed) if isinstance(listed, list) else ()
    return tuple(row for row in found if row)


def written_licence(known: Mapping[str, Any]) -> dict[str, str]:
    """What a front matter says of its licence."""
    return {key: str(known[key]) for key in KEYS if isinstance(known.get(key), str) and known[key]}


def written_base(existing: str) -> str:
    """The one base that a front matter names, whoever wrote it; "" for none or several."""
    model = split(existing)[0].get("base_model")
    listed = model if isinstance(model, list) else [model]
    names = [name for name in listed if isinstance(name, str) and MODEL.fullmatch(name)]
    return names[0] if len(names) == 1 else ""


def split(text: str) -> tuple[dict[str, Any], str]:
    """A card's front matter and the text below it.

    Raises:
        FormatError: a front matter that is no YAML mapping.
    """
    match = re.match(r"\s*---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", text, re.DOTALL)
    if match is None and not text.startswith("---"):
        return {}, text
    import yaml

    try:
        front = yaml.safe_load(match[1]) if match else None
    except (yaml.YAMLError, ValueError, RecursionError):  # a date that is none is a ValueError
        front = None
    if match is None or not isinstance(front, dict):
        hint = "mend README.md on the Hub, or remove it"
        raise FormatError("README.md: expected front matter in YAML, got something else", hint=hint)
    return front, text[match.end() :]


def _base(row: object) -> BaseFacts | None:
    match row:
        case {"sha256": str(digest), "name": str(name), **rest} if ID.fullmatch(digest):
            family, model = str(rest.get("family") or ""), str(rest.get("model") or "")
            known = family if family in FAMILIES else ""
            return BaseFacts(Digest(digest), plain(name), known, model if MODEL.fullmatch(model) else "")
    return None


def _row(row: object, bases: Mapping[Digest, BaseFacts]) -> PatchFacts | None:
    match row:
        case {"id": str(name), "path": str(path), "concepts": list(concepts), "method": str(method), **rest} if (
            ID.fullmatch(name) and _FOLDER.fullmatch(path)
        ):
            base = bases.get(Digest(str(rest.get("base"))))
            if base is None:
                return None
            file = str(rest.get("comfyui") or "")
            successor = str(rest.get("successor") or "")
            return PatchFacts(
                PatchId(name),
                tuple(plain(str(concept)) for concept in concepts),
                plain(method),
                base,
                plain(str(rest.get("anchor") or "")),
                path,
                plain(str(rest.get("licence") or "")),
                _ids(rest.get("supersedes")),
                PatchId(successor) if ID.fullmatch(successor) else None,
                file if COMFYUI.fullmatch(file) else "",
                rest.get("retired") is True,
            )
    return None


def _ids(value: object) -> tuple[PatchId, ...]:
    listed = value if isinstance(value, list) else []
    return tuple(PatchId(each) for each in listed if isinstance(each, str) and ID.fullmatch(each))


def encode_front(facts: CardFacts, known: Mapping[str, Any], licence: Licence) -> dict[str, Any]:
    """The front matter after a push: a person's keys, the Hub's, and below `rasura` ours."""
    bases = list_bases(facts.patches)
    models = list(dict.fromkeys(base.model for base in bases if base.model))
    families = list(dict.fromkeys(base.loads.tag for base in bases if base.loads.tag))
    tags = known.get("tags")
    others = [tag for tag in (tags if isinstance(tags, list) else []) if tag not in {*_FAMILY_TAGS, *TAGS}]
    front: dict[str, Any] = {
        **{key: value for key, value in known.items() if key not in KEYS or key in licence.front},
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        **licence.front,
        "tags": list(dict.fromkeys([*others, *TAGS[:3], *families, *TAGS[3:]])),
        "rasura": {
            "version": plain(facts.tool_version),
            "bases": [_listed_base(base) for base in bases],
            "patches": [_listed(patch) for patch in facts.patches],
        },
    }
    if models:
        front |= {"base_model": models[0] if len(models) == 1 else models, "base_model_relation": "adapter"}
    return front


def _listed_base(base: BaseFacts) -> dict[str, Any]:
    row = {"sha256": str(base.digest), "name": plain(base.name)}
    return row | {key: value for key, value in {"family": base.family, "model": base.model}.items() if value}


def _listed(patch: PatchFacts) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": str(patch.patch_id),
        "path": patch.path,
        "concepts": [plain(concept) for concept in patch.concepts],
        "method": plain(patch.method),
        "base": str(patch.base.digest),
    }
    more = {
        "anchor": plain(patch.anchor),
        "licence": plain(patch.licence),
        "supersedes": [str(old) for old in patch.supersedes],
        "successor": str(patch.successor or ""),
        "comfyui": patch.comfyui,
        "retired": patch.retired,
    }
    return row | {key: value for key, value in more.items() if value}
