"""`rasura erase`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from rasura.commands.frame import command, open_registry
from rasura.commands.output import Result, line, progress, short, table

if TYPE_CHECKING:
    from rasura.patches.concepts import Target
    from rasura.patches.request import EraseRequest
    from rasura.registry.erasure import Erased

_T = TypeVar("_T")


@command(None, "erase", mutating=True)
@click.option("--base", "base_ref", required=True, metavar="MODEL", help="Registered base, or a diffusers folder.")
@click.option("--concept", "concepts", multiple=True, required=True, metavar="TEXT", help="What to erase; repeatable.")
@click.option(
    "--anchor",
    "anchors",
    multiple=True,
    metavar="TEXT",
    help="What it becomes: one for all or one each.",
)
@click.option(
    "--retain",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="What to keep, one a line, or CSV.",
)
@click.option("--retain-column", metavar="NAME", help="Column of a CSV retain file [default: concept, else the first].")
@click.option("--held-out", type=click.Path(path_type=Path), metavar="FILE", help="Where leak is only measured.")
@click.option("--method", type=click.Choice(["null-space"]), default="null-space", show_default=True, help="Eraser.")
@click.option("--layers", type=click.Choice(["k", "v", "kv"]), default="v", show_default=True, help="Projections.")
@click.option(
    "--tokens",
    type=click.Choice(["last", "subject", "tail"]),
    default="tail",
    show_default=True,
    help="Which tokens stand for the concept.",
)
@click.option("--template", "templates", multiple=True, metavar="TEXT", help="Prompt with one {}; repeatable.")
@click.option(
    "--templates",
    "template_files",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help="Prompts, one a line: one file for all concepts or one each.",
)
@click.option("--rank-rule", default="relative:1e-3", show_default=True, metavar="RULE", help="Cut of the spectrum.")
@click.option("--rank", type=click.IntRange(1, 1024), default=32, show_default=True, help="Most detectors of a patch.")
@click.option("--energy", type=float, default=0.9, show_default=True, help="Share of the effect kept.")
@click.option("--ridge", type=float, default=1e-2, show_default=True, help="Softness of the solution, relative.")
@click.option("--protect", multiple=True, metavar="ID", help="Patch to leave untouched, or 'all'; repeatable.")
@click.option("--licence", default="", metavar="NAME", help="Licence of the patch.")
@click.option("--key", metavar="NAME", help="Key to sign with [default: the only one].")
def erase(
    *,
    base_ref: str,
    concepts: tuple[str, ...],
    anchors: tuple[str, ...],
    template_files: tuple[Path, ...],
    protect: tuple[str, ...],
    key: str | None,
    registry_at: str | None,
    reason: str,
    actor: str,
    **choices: Any,
) -> Result:
    """Erase concepts from a base model: one signed, separable patch each, registered and not yet applied."""
    from rasura.registry import erasure
    from rasura.registry.records import Draft

    with open_registry(registry_at) as registry, progress() as tell:
        request = _request(_targets(concepts, anchors, template_files), **choices)
        guarded = _protected(registry, protect)
        draft = Draft(actor, reason, "patch.erase", "success")
        made = erasure.erase(registry, base_ref, request, key=key, protect=guarded, draft=draft, progress=tell)
    removed = list(request.retain.removed) if request.retain else []
    data = {"patches": [_data(item) for item in made], "removed_from_retain": removed}
    return Result(data, lambda: _print(made, removed), changed=any(item.new for item in made))


def _targets(
    concepts: tuple[str, ...], anchors: tuple[str, ...], template_files: tuple[Path, ...]
) -> "tuple[Target, ...]":
    from rasura.patches.concepts import Target
    from rasura.patches.retain import load_retain_set

    for what, given in (("anchors", anchors), ("template files", template_files)):
        if len(given) not in {0, 1, len(concepts)}:
            raise click.UsageError(
                f"{len(concepts)} concepts and {len(given)} {what}: expected one for all, or one each"
            )
    templates = [load_retain_set(path).concepts for path in template_files]
    return tuple(
        Target(concept, anchor, own)
        for concept, anchor, own in zip(
            concepts, _spread(anchors, "", len(concepts)), _spread(templates, (), len(concepts)), strict=True
        )
    )


def _spread(given: "Sequence[_T]", default: "_T", count: int) -> "list[_T]":
    """One for all, or one each."""
    return list(given) if len(given) == count else [given[0] if given else default] * count


def _request(
    targets: "tuple[Target, ...]",
    *,
    retain: Path,
    retain_column: str | None,
    held_out: Path | None,
    templates: tuple[str, ...],
    rank_rule: str,
    rank: int,
    energy: float,
    ridge: float,
    layers: str,
    tokens: str,
    licence: str,
    method: str,
) -> "EraseRequest":
    from rasura.patches.concepts import GENERIC_TEMPLATES, HELD_OUT
    from rasura.patches.erasers.nullspace import NullSpaceOptions
    from rasura.patches.request import EraseRequest
    from rasura.patches.retain import load_retain_set
    from rasura.patches.subspace import RankRule

    del method  # one so far
    kept = load_retain_set(retain, retain_column).without(target.concept for target in targets)
    return EraseRequest(
        targets,
        kept,
        templates=templates or GENERIC_TEMPLATES,
        tokens=tokens,
        layers=layers,
        rule=RankRule.parse(rank_rule),
        options=NullSpaceOptions(ridge=ridge, energy=energy, rank_limit=rank),
        held_out=load_retain_set(held_out).concepts if held_out else HELD_OUT,
        licence=licence,
    )


def _protected(registry: Any, protect: tuple[str, ...]) -> list[Any]:
    if "all" in protect:
        return [record.patch_id for record in registry.patches()]
    return [registry.resolve_patch(prefix) for prefix in protect]


def _data(item: "Erased") -> dict[str, Any]:
    manifest = item.patch.manifest
    return {
        "id": item.patch.patch_id,
        "new": item.new,
        "concept": manifest.concept.text,
        "anchor": manifest.concept.anchor,
        "measured": dict(manifest.measured),
        "size": sum(map(len, item.patch.files().values())),
    }


def _print(made: "tuple[Erased, ...]", removed: list[str]) -> None:
    if removed:
        line(f"not retained, because they name a target: {', '.join(removed)}")
    rows = [
        (
            short(data["id"]),
            data["concept"],
            data["anchor"] or "(nothing)",
            data["measured"]["rank"],
            data["measured"]["residual"],
            data["measured"]["leak_retained"],
            data["measured"]["leak_held_out"],
            f"{data['measured']['protected']}/{data['measured']['width']}",
        )
        for data in map(_data, made)
    ]
    table(("patch", "concept", "becomes", "rank", "residual", "leak retained", "leak held out", "protected"), rows)
