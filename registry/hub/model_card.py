"""The model card of a repository of patches: README.md with front matter, safe whatever the concepts are called.

Concept names come from people who want something erased, and from files that were pulled. Here they become text that
can neither end the front matter nor turn into Markdown or HTML: first `plain` removes what is not visible text, then
`inline` turns punctuation into character references.

What the card says of a patch stands in its front matter too (below `rasura`: `patches`, `bases`): the next push,
from a registry that may not hold that patch, says it again.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from rasura.patches.errors import FormatError, InputError
from rasura.patches.types import Digest, PatchId
from rasura.registry.hub.families import FAMILIES, FamilyFacts, facts_of
from rasura.registry.hub.licences import KEYS, Licence
from rasura.registry.hub.refs import COMFYUI

TAGS = ("lora", "diffusers", "text-to-image", "concept-erasure", "safety", "rasura")
WEIGHTS = "pytorch_lora_weights.safetensors"
MAX_CARD = 1 << 20  # bytes of a README.md that is read before it is rewritten
MAX_TEXT = 200  # characters of a name in the card
BEGIN = "<!-- rasura: written by `rasura push`; edit above or below, not in here -->"
END = "<!-- rasura: end -->"
SHORT: Final = 12

_MODEL = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?", re.ASCII)
_ID = re.compile(r"[0-9a-f]{64}")
_FOLDER = re.compile(r"(patches/[0-9a-f]{64})?")
_FAMILY_TAGS = frozenset(facts.tag for facts in FAMILIES.values())
_RISKY = re.compile(
    r"[!-+./:-@\[-`{-~]|(?<![^\W_])-|-(?![^\W_])"
)  # all ASCII punctuation but a comma and inner hyphens


@dataclass(frozen=True, slots=True)
class BaseFacts:
    """A base, as the card speaks of it.

    Attributes:
        digest: identity of its weights.
        name: in words.
        family: a name of `rasura.registry.hub.families`, or "" where it is not known.
        model: its id on the Hub, or "" when nobody has said one.
    """

    digest: Digest
    name: str
    family: str = ""
    model: str = ""

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.digest):
            raise InputError(f"expected a base's SHA-256, got {self.digest[:80]!a}")
        if self.model and not _MODEL.fullmatch(self.model):
            raise InputError(f"expected a base model's Hub id such as org/name, got {self.model!r}")

    @property
    def loads(self) -> FamilyFacts:
        """What programs load of it."""
        return facts_of(self.family)


@dataclass(frozen=True, slots=True)
class PatchFacts:
    """A line of the card's table.

    Attributes:
        patch_id: SHA-256 of the patch's manifest.
        concepts: what it suppresses, as a person wrote it.
        method: name of the eraser.
        base: the base that it was computed on.
        anchor: what the concepts become, or "".
        path: folder in the repository; "" is its root. `push` fills it in.
        licence: as signed in its manifest, or "".
        supersedes: the patches that it takes the place of.
        successor: a patch that takes its place, as the registry knows, or None; those of the repository count anyway.
        comfyui: its file for ComfyUI in the repository, or ""; current patches alone have one.
        retired: whether who pushed it, or knows it, has retired it.
    """

    patch_id: PatchId
    concepts: tuple[str, ...]
    method: str
    base: BaseFacts
    anchor: str = ""
    path: str = ""
    licence: str = ""
    supersedes: tuple[PatchId, ...] = ()
    successor: PatchId | None = None
    comfyui: str = ""
    retired: bool = False


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What the card says.

    Attributes:
        tool_version: version of rasura that writes the card.
        patches: the patches that are pushed.
        license: the licence that was asked for, or None; `rasura.registry.hub.licences` says what counts then.
        later: for patches that the registry has a successor of, such a one; those of the repository are told so, too.
        retired: for every patch that the registry holds, whether it is retired.
    """

    tool_version: str
    patches: tuple[PatchFacts, ...]
    license: str | None = None
    later: Mapping[PatchId, PatchId] = field(default_factory=dict)
    retired: Mapping[PatchId, bool] = field(default_factory=dict)


def plain(text: str) -> str:
    """Visible text on one line: control, bidirectional and other invisible characters as `[U+202E]`, length bounded."""
    shown = (" " if c.isspace() else c if unicodedata.category(c)[0] != "C" else f"[U+{ord(c):04X}]" for c in text)
    joined = " ".join(unicodedata.normalize("NFC", "".join(shown)).split())
    return joined if len(joined) <= MAX_TEXT else joined[: MAX_TEXT - 1] + "…"


def inline(text: str) -> str:
    """`plain` text that Markdown and HTML show as it is: risky punctuation becomes a character reference."""
    return _RISKY.sub(lambda match: f"&#{ord(match[0])};", plain(text))


def superseded(patches: Sequence[PatchFacts]) -> dict[PatchId, PatchId]:
    """The patches of which a successor is known, each with one; of those in the card, the one that is current.

    A patch and its successors in a circle supersede nothing: somebody made that up.
    """
    later: dict[PatchId, PatchId] = {p.patch_id: p.successor for p in patches if p.successor}
    later |= {old: patch.patch_id for patch in patches for old in patch.supersedes if old != patch.patch_id}
    here = {patch.patch_id for patch in patches}
    return {old: new for old in later if old in here and (new := _last(old, later)) is not None}


def list_current(patches: Sequence[PatchFacts]) -> list[PatchFacts]:
    """Those that are to be loaded: neither retired nor superseded."""
    after = superseded(patches)
    return [patch for patch in patches if patch.patch_id not in after and not patch.retired]


def _last(start: PatchId, later: Mapping[PatchId, PatchId]) -> PatchId | None:
    seen, at = {start}, start
    while at in later:
        at = later[at]
        if at in seen:
            return None
        seen.add(at)
    return at


def render(facts: CardFacts, repo: str, existing: str = "", licence: Licence | None = None) -> str:
    """The README.md of a repository after a push.

    What a person wrote is kept: keys of the front matter that are not ours, and the text outside our two marks.

    Args:
        facts: with every patch that the repository will hold, each with its path.
        repo: the repository's id, for the lines to type.
        existing: the README.md that is there, or "".
        licence: what the card says of it; None: what stands there already.

    Raises:
        FormatError: the existing front matter cannot be read.
    """
    known, body = split(existing)
    front = yaml.safe_dump(
        _front(facts, known, licence or Licence(written_licence(known))),
        sort_keys=False,
        allow_unicode=True,
        width=1 << 20,
    )
    return f"---\n{front}---\n{_place(body, _section(facts, repo))}"


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
    names = [name for name in listed if isinstance(name, str) and _MODEL.fullmatch(name)]
    return names[0] if len(names) == 1 else ""


def split(text: str) -> tuple[dict[str, Any], str]:
    """A card's front matter and the text below it.

    Raises:
        FormatError: a front matter that is no YAML mapping.
    """
    match = re.match(r"\s*---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", text, re.DOTALL)
    if match is None and not text.startswith("---"):
        return {}, text
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
        case {"sha256": str(digest), "name": str(name), **rest} if _ID.fullmatch(digest):
            family, model = str(rest.get("family") or ""), str(rest.get("model") or "")
            known = family if family in FAMILIES else ""
            return BaseFacts(Digest(digest), plain(name), known, model if _MODEL.fullmatch(model) else "")
    return None


def _row(row: object, bases: Mapping[Digest, BaseFacts]) -> PatchFacts | None:
    match row:
        case {"id": str(name), "path": str(path), "concepts": list(concepts), "method": str(method), **rest} if (
            _ID.fullmatch(name) and _FOLDER.fullmatch(path)
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
                PatchId(successor) if _ID.fullmatch(successor) else None,
                file if COMFYUI.fullmatch(file) else "",
                rest.get("retired") is True,
            )
    return None


def _ids(value: object) -> tuple[PatchId, ...]:
    listed = value if isinstance(value, list) else []
    return tuple(PatchId(each) for each in listed if isinstance(each, str) and _ID.fullmatch(each))


def _front(facts: CardFacts, known: Mapping[str, Any], licence: Licence) -> dict[str, Any]:
    bases = _bases(facts.patches)
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


def _bases(patches: Iterable[PatchFacts]) -> list[BaseFacts]:
    """Each base once, in the order of its patches."""
    return list(dict.fromkeys(patch.base for patch in patches))


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


def _place(body: str, section: str) -> str:
    head, begun, rest = body.partition(BEGIN)
    _, ended, tail = rest.partition(END)
    if begun and ended:
        return head + section + tail
    return f"{body.rstrip()}\n\n{section}\n" if body.strip() else f"# Concept-erasure patches\n\n{section}\n"


def _section(facts: CardFacts, repo: str) -> str:
    after, current = superseded(facts.patches), list_current(facts.patches)
    groups = [(base, [p for p in current if p.base == base]) for base in _bases(current)]
    parts = [
        _about(facts),
        _table(facts.patches, after),
        _files(facts.patches),
        *(_diffusers(base, patches, repo, several=len(groups) > 1) for base, patches in groups if base.loads.diffusers),
        _others(current),
        _rasura(groups, repo),
        _check(facts.patches, repo),
        LIMITS,
    ]
    return "\n\n".join((BEGIN, *filter(None, parts), END))


LIMITS = """## What this is, and what it is not

A patch is a suppression measure: it makes the base much less likely to draw the concept when prompted for it, and its
manifest records how that was measured. It does not delete training data from the weights, other prompts or fine-tuning
may bring the concept back, and it does not by itself satisfy any law or policy."""


def _about(facts: CardFacts) -> str:
    names = " and ".join(_named(base) for base in _bases(facts.patches)) or "a base"
    return (
        f"Low-rank weight patches for {names}. Each one suppresses the concepts in its row "
        "and can be taken off again. The patches are signed (`model.sig`, OpenSSF Model Signing); trust the key, not "
        f"this page. Written by rasura {inline(facts.tool_version)}."
    )


def _named(base: BaseFacts) -> str:
    link = f" ([`{base.model}`](https://huggingface.co/{base.model}))" if base.model else ""
    return f"{inline(base.name)}{f', {inline(base.family)}' if base.family else ''}{link}"


def _table(patches: Sequence[PatchFacts], after: Mapping[PatchId, PatchId]) -> str:
    licensed, several = any(patch.licence for patch in patches), len(_bases(patches)) > 1
    head = ["Patch", "Suppresses", "Becomes", "Method", *(["Base"] if several else []), "State", "Folder"]
    head += ["Licence"] if licensed else []
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    for patch in patches:
        concepts = ", ".join(inline(concept) for concept in patch.concepts)
        new = after.get(patch.patch_id)
        cells = [f"`{patch.patch_id[:SHORT]}`", concepts, inline(patch.anchor), inline(patch.method)]
        cells += [inline(patch.base.name)] if several else []
        cells += [f"superseded by `{new[:SHORT]}`" if new else "retired" if patch.retired else "current"]
        cells += [f"`{patch.path}`" if patch.path else "the root"]
        cells += [inline(patch.licence)] if licensed else []
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _files(patches: Sequence[PatchFacts]) -> str:
    """Which file is for whom."""
    lines = ["## Which file is for whom", "", "| Program | File |", "| --- | --- |"]
    loads = [base.loads for base in _bases(patches)]
    if any(each.diffusers for each in loads):
        lines.append(f"| diffusers | a patch's folder, by its `{WEIGHTS}` |")
    if any(patch.comfyui for patch in patches):
        lines.append("| ComfyUI, A1111, Forge | the file in `comfyui/` that has the patch's id in its name |")
    if any(each.comfyui for each in loads):
        lines.append(f"| ComfyUI (transformers) | a patch's `{WEIGHTS}` as it is |")
    lines.append("| rasura | the whole folder: weights, manifest, basis, targets, signature |")
    if any(patch.comfyui for patch in patches):
        lines += ["", f"ComfyUI finds no layer of a UNet in `{WEIGHTS}` and loads nothing of it, without an error."]
    return "\n".join(lines)


def _diffusers(base: BaseFacts, patches: Sequence[PatchFacts], repo: str, *, several: bool) -> str:
    title = f"## Use with diffusers{f': {inline(base.name)}' if several else ''}"
    names = ", ".join(f'"{patch.patch_id[:SHORT]}"' for patch in patches)
    code = [*_pipeline(base), *(_load(patch, repo) for patch in patches)]
    code += [f"pipe.set_adapters([{names}])"] if len(patches) > 1 else []
    note = (
        "Name the file: without `weight_name`, diffusers picks one of the repository's LoRA files by itself. "
        "Loading this way adds the increments in floating point and checks no signature."
    )
    return "\n".join([title, "", "```python", *code, "```", "", note])


def _pipeline(base: BaseFacts) -> list[str]:
    where = base.model or "path/to/the/base"
    return ["from diffusers import DiffusionPipeline", "", f'pipe = DiffusionPipeline.from_pretrained("{where}")']


def _load(patch: PatchFacts, repo: str) -> str:
    where = f', subfolder="{patch.path}"' if patch.path else ""
    return f'pipe.load_lora_weights("{repo}"{where}, weight_name="{WEIGHTS}", adapter_name="{patch.patch_id[:SHORT]}")'


def _others(current: Sequence[PatchFacts]) -> str:
    files = [patch for patch in current if patch.comfyui]
    whole = [patch for patch in current if patch.base.loads.comfyui]
    if not files and not whole:
        return ""
    lines = [f"* `{patch.comfyui}`" for patch in files]
    lines += [f"* `{f'{patch.path}/' if patch.path else ''}{WEIGHTS}`" for patch in whole]
    names = "ComfyUI, A1111 and Forge" if files else "ComfyUI"
    text = "Put these into the folder for LoRA files and load each with strength 1:"
    signed = (
        "No signature covers the files in `comfyui/`: the format has no place for one. The signed patches give them "
    )
    signed += "anew, exported as kohya."
    return "\n".join([f"## Use with {names}", "", text, "", *lines, *(["", signed] if files else [])])


def _rasura(groups: Sequence[tuple[BaseFacts, Sequence[PatchFacts]]], repo: str) -> str:
    text = "This verifies the signature against the keys that you trust before anything is kept."
    lines = ["## Use with rasura", "", "```console", f"$ rasura pull {repo}", "```", "", text]
    for base, patches in groups:
        if base.loads.diffusers:
            continue
        names = ", ".join(f'"{patch.patch_id[:SHORT]}"' for patch in patches)
        kind = (
            f"pipelines of the {inline(base.family)} family"
            if base.family
            else f"every pipeline of {inline(base.name)}"
        )
        why = f"diffusers cannot be promised to load LoRA files into {kind}"
        if base.family:
            why = f"diffusers has no LoRA loader for {kind}"
        code = [*_pipeline(base)[:1], "import rasura", *_pipeline(base)[1:], f"rasura.attach(pipe).apply([{names}])"]
        lines += ["", f"In Python, after that; {why}, so rasura writes the weights itself:"]
        lines += ["", "```python", *code, "```"]
    return "\n".join(lines)


def _check(patches: Sequence[PatchFacts], repo: str) -> str:
    """How to check a signature with the tools of OpenSSF, in what the Hub gives out."""
    path = next((patch.path for patch in patches), "")
    folder = f"patches-of-{repo.rpartition('/')[2]}"
    where = f"{folder}/{path}" if path else folder
    lines = [
        "## Check a signature without rasura",
        "",
        "```console",
        f"$ hf download {repo} --local-dir {folder}",
        f"$ model_signing verify key {where} --signature {where}/model.sig \\",
        "    --public_key KEY.pub --ignore_unsigned_files",
        "```",
    ]
    rest = "it does not cover this page, the other patches, or what a download adds"
    if path:
        return "\n".join([*lines, "", "With `--ignore_unsigned_files` it looks at what the signature covers alone."])
    why = f"`--ignore_unsigned_files` is needed: the signature covers the patch in the root; {rest}."
    return "\n".join([*lines, "", why])
