"""The model card of a repository of patches: README.md with front matter, safe whatever the concepts are called.

Concept names come from people who want something erased, and from files that were pulled. Here they become text that
can neither end the front matter nor turn into Markdown or HTML: first `plain` removes what is not visible text, then
`escape_inline` turns punctuation into character references.

What the card says of a patch stands in its front matter too (below `rasura`: `patches`, `bases`): the next push,
from a registry that may not hold that patch, says it again.
"""

from collections.abc import Mapping, Sequence

from rasura.patches.format.file_names import MANIFEST
from rasura.patches.types import SHORT, PatchId
from rasura.registry.hub.card.facts import BaseFacts, CardFacts, PatchFacts, find_superseded, list_bases, list_current
from rasura.registry.hub.card.front_matter import encode_front, split, written_licence
from rasura.registry.hub.card.licences import Licence
from rasura.registry.hub.card.text import escape_inline

WEIGHTS = "pytorch_lora_weights.safetensors"
BEGIN = "<!-- rasura: written by `rasura push`; edit above or below, not in here -->"
END = "<!-- rasura: end -->"


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
    import yaml

    known, body = split(existing)
    front = yaml.safe_dump(
        encode_front(facts, known, licence or Licence(written_licence(known))),
        sort_keys=False,
        allow_unicode=True,
        width=1 << 20,
    )
    return f"---\n{front}---\n{_place(body, _section(facts, repo))}"


def _place(body: str, section: str) -> str:
    head, begun, rest = body.partition(BEGIN)
    _, ended, tail = rest.partition(END)
    if begun and ended:
        return head + section + tail
    return f"{body.rstrip()}\n\n{section}\n" if body.strip() else f"# Concept-erasure patches\n\n{section}\n"


def _section(facts: CardFacts, repo: str) -> str:
    after, current = find_superseded(facts.patches), list_current(facts.patches)
    groups = [(base, [p for p in current if p.base == base]) for base in list_bases(current)]
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
    names = " and ".join(_named(base) for base in list_bases(facts.patches)) or "a base"
    return (
        f"Low-rank weight patches for {names}. Each one suppresses the concepts in its row "
        "and can be taken off again. The patches are signed (`model.sig`, OpenSSF Model Signing); trust the key, not "
        f"this page. Written by rasura {escape_inline(facts.tool_version)}."
    )


def _named(base: BaseFacts) -> str:
    link = f" ([`{base.model}`](https://huggingface.co/{base.model}))" if base.model else ""
    return f"{escape_inline(base.name)}{f', {escape_inline(base.family)}' if base.family else ''}{link}"


def _table(patches: Sequence[PatchFacts], after: Mapping[PatchId, PatchId]) -> str:
    licensed, several = any(patch.licence for patch in patches), len(list_bases(patches)) > 1
    head = ["Patch", "Suppresses", "Becomes", "Method", *(["Base"] if several else []), "State"]
    head += ["Licence"] if licensed else []
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    for patch in patches:
        concepts = ", ".join(escape_inline(concept) for concept in patch.concepts)
        new = after.get(patch.patch_id)
        # the folder's name has seventy characters: as a link it does not push the rest out of sight
        where = f"{patch.path}/{MANIFEST}" if patch.path else MANIFEST
        cells = [
            f"[`{patch.patch_id[:SHORT]}`]({where})",
            concepts,
            escape_inline(patch.anchor),
            escape_inline(patch.method),
        ]
        cells += [escape_inline(patch.base.name)] if several else []
        cells += [f"superseded by `{new[:SHORT]}`" if new else "retired" if patch.retired else "current"]
        cells += [escape_inline(patch.licence)] if licensed else []
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _files(patches: Sequence[PatchFacts]) -> str:
    """Which file is for whom."""
    lines = ["## Which file is for whom", "", "| Program | File |", "| --- | --- |"]
    loads = [base.loads for base in list_bases(patches)]
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
    title = f"## Use with diffusers{f': {escape_inline(base.name)}' if several else ''}"
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
            f"pipelines of the {escape_inline(base.family)} family"
            if base.family
            else f"every pipeline of {escape_inline(base.name)}"
        )
        code = [*_pipeline(base)[:1], "import rasura", *_pipeline(base)[1:], f"rasura.attach(pipe).apply([{names}])"]
        lines += ["", f"In Python, after that; {base.loads.why} {kind}, so rasura writes the weights itself:"]
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
