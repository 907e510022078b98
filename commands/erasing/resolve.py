"""`rasura patch rebase`, `join` and `retarget`: patches solved anew."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rasura.commands._shared.asking import DRY
from rasura.commands._shared.command import IDS, Order, command
from rasura.commands._shared.output import NOTHING_MADE, Result, line, short, table
from rasura.commands._shared.progress import progress
from rasura.commands._shared.retyping import retype
from rasura.commands._shared.views import encode_conditioning, format_conditioning, format_measured, format_number
from rasura.patches.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rasura.patches.solving.conditioning import Conditioning
    from rasura.patches.types import PatchId
    from rasura.registry.erase.rebase import Anew, Resolved
    from rasura.registry.erase.retarget import Retargeted
    from rasura.registry.registry import Registry

_PATH = click.Path(path_type=Path)
_PROTECT = click.option("--protect", multiple=True, metavar="ID", help="Patch to leave alone, or 'all'; repeatable.")
_DROP = click.option("--drop", multiple=True, metavar="ID", help="Patch to leave alone no longer; repeatable.")
_RETAIN = click.option(
    "--retain", type=_PATH, metavar="FILE[:COLUMN]", help="The retain file, if the registry lacks its words."
)
_COLUMN = click.option("--retain-column", metavar="NAME", help="The same as a column behind the file's name.")
_HELD_OUT = click.option("--held-out", type=_PATH, metavar="FILE[:COLUMN]", help="Where leak is only measured.")
_KEY = click.option("--key", metavar="NAME", help="Key to sign with [default: the only one].")
_NUMBERS = ("residual", "effect", "leak_retained", "leak_held_out", "free", "protected")


@command(None, "rebase", mutating=True)
@IDS
@click.option("--onto-stack", metavar="STACK", help="Leave all patches of this stack alone.")
@_PROTECT
@_DROP
@_RETAIN
@_COLUMN
@_HELD_OUT
@_KEY
@DRY
def rebase(
    *,
    ids: tuple[str, ...],
    onto_stack: str | None,
    protect: tuple[str, ...],
    order: Order,
    dry_run: bool,
    **options: Any,
) -> Result:
    """Solve patches anew beside the targets of others, and of each other: new patches that supersede the old ones."""
    from rasura.registry.erase import rebase as resolving

    with order.open() as registry, progress() as tell:
        found = [registry.resolve_patch(i) for i in ids]
        stack = registry.stack(onto_stack).patches if onto_stack else ()
        how = _how(registry, found, (*protect, *(i for i in stack if i not in found)), **options)
        draft = order.draft("patch.rebase")
        made = resolving.rebase(registry, found, how, draft, tell, dry_run=dry_run)
    return _result(made, None, dry_run=dry_run)


@command(None, "join", mutating=True)
@IDS
@_PROTECT
@_DROP
@_RETAIN
@_COLUMN
@_HELD_OUT
@_KEY
@DRY
def join(
    *,
    ids: tuple[str, ...],
    protect: tuple[str, ...],
    order: Order,
    dry_run: bool,
    **options: Any,
) -> Result:
    """Solve patches together that were made alike: still one a concept, and each leaves the others alone."""
    from rasura.registry.erase import rebase as resolving

    with order.open() as registry, progress() as tell:
        found = [registry.resolve_patch(i) for i in ids]
        how = _how(registry, found, protect, **options)
        draft = order.draft("patch.join")
        made, judged = resolving.join(registry, found, how, draft, tell, dry_run=dry_run)
    return _result(made, judged, dry_run=dry_run)


@command(None, "retarget", mutating=True)
@click.argument("patch_ref", metavar="ID")
@click.option("--base", "base_ref", required=True, metavar="MODEL", help="Registered base, or a diffusers folder.")
@_RETAIN
@_COLUMN
@_HELD_OUT
@_KEY
@DRY
def retarget(
    *,
    patch_ref: str,
    base_ref: str,
    order: Order,
    dry_run: bool,
    **options: Any,
) -> Result:
    """Express a closed-form patch on another UNet that shares the text encoder: same detector, its own responses."""
    from rasura.registry.erase import retarget as retargeting

    with order.open() as registry, progress() as tell:
        how = _how(registry, [], (), drop=(), **options)
        draft = order.draft("patch.retarget")
        old = registry.resolve_patch(patch_ref)
        made = retargeting.retarget(registry, old, base_ref, how, draft=draft, progress=tell, dry_run=dry_run)
    return _moved(made, dry_run=dry_run)


def _moved(made: "Retargeted", *, dry_run: bool) -> Result:
    old, new = made.old.manifest.measured, made.patch.manifest.measured
    data = {
        "id": made.patch.patch_id,
        "from": made.old.patch_id,
        "new": made.new,
        "concept": made.patch.manifest.concept.text,
        "base": made.base,
        "responses": made.way,
        "fit": made.fit,
        "seconds": round(made.seconds, 4),
        "before": dict(old),
        "measured": dict(new),
        "own_promise": {"before": made.promise_old, "after": made.promise_new},
        "notices": list(made.doubts),
        "dry_run": dry_run,
    }
    rows = [(name.replace("_", " "), *_both(name, old, new)) for name in _NUMBERS if name in new]
    rows.append(("own promise", _number(made.promise_old), _number(made.promise_new)))

    def text() -> None:
        for doubt in made.doubts:
            line(doubt)
        verb = "would be" if dry_run else "is"
        line(
            f"{short(made.old.patch_id)} ({made.patch.manifest.concept.text}) {verb} {short(made.patch.patch_id)} on "
            f"{made.base}: responses from {made.way}, fit {format_number(made.fit)}, "
            f"solved in {1000 * made.seconds:.0f} ms"
        )
        table(("number", "there", "here"), rows)
        if dry_run:
            line(NOTHING_MADE)

    return Result(data, text, changed=made.new and not dry_run)


def _how(
    registry: "Registry",
    ids: "list[PatchId]",
    protect: tuple[str, ...],
    *,
    drop: tuple[str, ...],
    retain: Path | None,
    retain_column: str | None,
    held_out: Path | None,
    key: str | None,
) -> "Anew":
    from rasura.patches.prompts.concept_prompts import HELD_OUT
    from rasura.patches.prompts.retain_set import load_held_out
    from rasura.registry.erase.rebase import Anew, check_protect, find_all_others

    named = [registry.resolve_patch(prefix) for prefix in protect if prefix != "all"]
    try:
        check_protect(ids, named)
    except InputError as error:
        others = [prefix for prefix in protect if prefix == "all" or registry.resolve_patch(prefix) not in ids]
        error.hint = retype(protect=others)
        raise
    everything = find_all_others(registry, ids) if "all" in protect else ()
    return Anew(
        tuple(dict.fromkeys([*named, *everything])),
        tuple(registry.resolve_patch(prefix) for prefix in drop),
        retain,
        retain_column,
        load_held_out(held_out) if held_out else HELD_OUT,
        key,
    )


def _result(made: "tuple[Resolved, ...]", judged: "Conditioning | None", *, dry_run: bool) -> Result:
    notices = [
        f"{short(item.patch.patch_id)} may touch {concept}, which {short(item.old.patch_id)} left alone: no patch here "
        "erases it"
        for item in made
        for concept in item.lost
    ]
    notices += [
        f"{short(item.patch.patch_id)} promises nothing: {item.patch.manifest.eraser.name} only weighs what it protects"
        for item in made
        if item.patch.manifest.protected.basis.rank == 0 and not item.patch.tensors.spans
    ]
    notices += [doubt for item in made for doubt in item.doubts]
    if judged is not None:
        notices += format_conditioning(judged)
    data: dict[str, Any] = {"patches": [_data(item) for item in made], "notices": notices, "dry_run": dry_run}
    if judged is not None:
        data["conditioning"] = encode_conditioning(judged)
    changed = not dry_run and any(item.new for item in made)
    return Result(data, lambda: _print(made, notices, dry_run=dry_run), changed=changed)


def _data(item: "Resolved") -> dict[str, Any]:
    manifest = item.patch.manifest
    return {
        "id": item.patch.patch_id,
        "supersedes": item.old.patch_id,
        "new": item.new,
        "concept": manifest.concept.text,
        "before": dict(item.before),
        "measured": dict(manifest.measured),
        "protects": list(manifest.protected.patches),
        "pairs": [{"other": p.other, "concept": p.concept, "before": p.before, "after": p.after} for p in item.pairs],
        "lost": list(item.lost),
    }


def _print(made: "tuple[Resolved, ...]", notices: list[str], *, dry_run: bool) -> None:
    for notice in notices:
        line(notice)
    rows = []
    for item in made:
        old, new = item.before, item.patch.manifest.measured
        names = (short(item.old.patch_id), short(item.patch.patch_id), item.patch.manifest.concept.text)
        rows += [(*names, n.replace("_", " "), *_both(n, old, new)) for n in _NUMBERS if n in new]
        rows += [
            (*names, f"on {short(pair.other)} {pair.concept}", _number(pair.before), _number(pair.after))
            for pair in item.pairs
        ]
    table(("old", "new", "concept", "number", "before", "after"), rows)
    if dry_run:
        line(NOTHING_MADE)


def _both(name: str, old: "Mapping[str, str]", new: "Mapping[str, str]") -> tuple[str, str]:
    """A measured number before and after."""
    return format_measured(old.get(name, "-")), format_measured(new.get(name, "-"))


def _number(value: float | None) -> str:
    return "-" if value is None else format_number(value)
