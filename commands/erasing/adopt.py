"""`rasura adopt`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rasura.commands._shared.asking import DRY
from rasura.commands._shared.command import Order, command
from rasura.commands._shared.lists import HELD_OUT, RETAIN, RETAIN_COLUMN, TRUNCATE, say_lists
from rasura.commands._shared.output import NOTHING_MADE, Result, line, short, table
from rasura.commands._shared.progress import progress
from rasura.commands._shared.views import format_measured
from rasura.patches.lists.role import TEMPLATES

if TYPE_CHECKING:
    from rasura.registry.erase.adopt import Adoption, Foundling

_PATH = click.Path(path_type=Path)
_MAKERS = ("esd", "uce", "rece", "mace", "speed", "ca", "spm", "lora", "other")
_BETTER = 0.95
"""A scale is worth a sentence if it leaves so much less."""
_COMPARED = ("residual", "effect", "leak_null", "leak_retained", "leak_held_out")


@command(None, "adopt", mutating=True)
@click.argument("source", type=_PATH, metavar="FILE")
@click.option("--base", "base_ref", required=True, metavar="MODEL", help="The base that it was made on.")
@click.option("--model", type=_PATH, metavar="DIR", help="Where the base lies now, if it was moved.")
@click.option("--concept", required=True, metavar="TEXT", help="What it erases.")
@click.option("--anchor", default="", metavar="TEXT", help="What that becomes.")
@click.option("--method", default="other", type=click.Choice(_MAKERS), show_default=True, help="What made it.")
@RETAIN
@RETAIN_COLUMN
@HELD_OUT
@TRUNCATE
@click.option(
    "--take",
    default="separable",
    type=click.Choice(["separable", "whole"]),
    show_default=True,
    help="What sees nothing that is kept, or everything, promising nothing.",
)
@click.option("--leave-out", is_flag=True, help="Adopt without the layers that no patch can hold.")
@click.option("--scale", type=float, metavar="NUMBER", help="Multiply the change by this; -1 turns an adapter round.")
@click.option("--rank", type=click.IntRange(1, 1024), metavar="N", help="Most detectors of the patch [default: 64].")
@click.option("--energy", type=float, metavar="SHARE", help="Share of each layer's change to carry [default: 0.9999].")
@click.option(
    "--tokens", type=click.Choice(["last", "subject", "tail", "end"]), help="Which tokens stand for the concept."
)
@click.option("--template", "templates", multiple=True, metavar="TEXT", help="Prompt with one {}; repeatable.")
@click.option("--templates", "template_file", type=_PATH, metavar="FILE", help="Prompts, one a line.")
@click.option("--rank-rule", metavar="RULE", help="Cut of the retained spectrum [default: relative:1e-3].")
@click.option("--protect", multiple=True, metavar="ID", help="Patch to leave untouched, or 'all'; repeatable.")
@click.option("--licence", default="", metavar="NAME", help="Licence of the patch.")
@click.option("--key", metavar="NAME", help="Key to sign with [default: the only one].")
@DRY
def adopt(
    *,
    base_ref: str,
    model: Path | None,
    protect: tuple[str, ...],
    key: str | None,
    order: Order,
    dry_run: bool,
    **choices: Any,
) -> Result:
    """Make a signed patch of an erasure that another program made: weights, a LoRA or an SPM."""
    from rasura.registry.erase import adopt as adopting

    read: list[dict[str, Any]] = []
    with order.open() as registry, progress() as tell:
        found = adopting.adopt(
            registry,
            base_ref,
            _adoption(**choices),
            key=key,
            draft=order.draft("patch.adopt"),
            progress=tell,
            model=model,
            protect=[registry.resolve_patch(prefix) for prefix in protect if prefix != "all"],
            protect_others="all" in protect,
            dry_run=dry_run,
            told=lambda fitted: read.extend(say_lists(fitted)),
        )
    data = {**_data(found), "read": read, "dry_run": dry_run}
    return Result(data, lambda: _print(found, dry_run=dry_run), changed=found.new and not dry_run)


def _adoption(
    *,
    source: Path,
    concept: str,
    anchor: str,
    method: str,
    retain: Path | None,
    retain_column: str | None,
    held_out: Path | None,
    take: str,
    leave_out: bool,
    scale: float | None,
    energy: float | None,
    rank: int | None,
    template_file: Path | None,
    templates: tuple[str, ...],
    truncate: bool,
    **others: Any,
) -> "Adoption":
    from rasura.patches.prompts.concept_prompts import Target
    from rasura.patches.prompts.retain_set import load_held_out, load_retain_set, load_texts
    from rasura.registry.erase.adopt import Adoption, Portion

    own = load_texts(template_file, TEMPLATES) if template_file else ()
    return Adoption(
        source,
        Target(concept, anchor, own),
        load_retain_set(retain, retain_column, truncate=truncate) if retain else None,
        method,
        Portion(take == "whole", leave_out, scale, energy, rank),
        templates=templates,
        held_out=load_held_out(held_out, truncate=truncate) if held_out else (),
        **others,
    )


def _data(found: "Foundling") -> dict[str, Any]:
    manifest = found.patch.manifest
    return {
        "id": found.patch.patch_id,
        "new": found.new,
        "concept": manifest.concept.text,
        "anchor": manifest.concept.anchor,
        "form": found.form,
        "separable": manifest.separable,
        "measured": dict(manifest.measured),
        "notices": list(found.doubts),
        "removed_from_retain": list(found.retain.removed) if found.retain else [],
        "changes": [
            {"name": s.name, "reads": s.kind, "change": f"{s.change:.3e}", "weight": f"{s.weight:.3e}"}
            for s in found.sizes
        ],
        "size": sum(map(len, found.patch.files().values())),
    }


def _print(found: "Foundling", *, dry_run: bool) -> None:
    manifest = found.patch.manifest
    measured = manifest.measured
    if found.retain and found.retain.removed:
        line(f"not retained, because they name the target: {', '.join(found.retain.removed)}")
    rows = [
        (name.replace("_", " "), format_measured(measured.get(f"given_{name}", "-")), format_measured(measured[name]))
        for name in _COMPARED
        if name in measured
    ]
    table(("number", "as it came", "adopted"), rows)
    for text in (*_sentences(measured), *found.doubts):
        line(text)
    fresh = "would be new" if dry_run else "is new"
    said = fresh if found.new else "was here already"
    proof = (
        "separable" if manifest.separable else "not separable: what it does to other prompts is measured, not proved"
    )
    line(f"{short(found.patch.patch_id)} {said}: {manifest.concept.text}, {proof}")
    if dry_run:
        line(NOTHING_MADE)


def _sentences(measured: Any) -> list[str]:
    """What became of the change, part by part; shares are of its Frobenius norm."""
    said = {name: format_measured(value) for name, value in measured.items()}
    rank = f"the rank loses {said['lost']} of that, {said['lost_targets']} on the concept"
    found = [f"taken {said['taken']} of the change's norm, rank {measured['rank']}; {rank}"]
    scale = float(measured.get("best_scale", "0"))
    if scale and float(measured["best_residual"]) < _BETTER * float(measured["residual"]):
        found.append(f"with --scale {scale:g} it would erase the most: residual {said['best_residual']}")
    if float(measured["rest"]):
        found.append(f"rest {said['rest']}, rank {measured['rest_rank']}: acts on what is kept, not adopted")
    if int(measured["left_out_layers"]):
        found.append(f"left out {said['left_out']}, {measured['left_out_layers']} parameters")
    return found
