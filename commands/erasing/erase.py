"""`rasura erase`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rasura.commands._shared.command import Order, command
from rasura.commands._shared.lists import say_lists
from rasura.commands._shared.output import NOTHING_MADE, Result, line, short, table
from rasura.commands._shared.progress import progress
from rasura.commands._shared.retyping import retyping_anchors
from rasura.commands._shared.views import encode_conditioning, format_conditioning, format_measured
from rasura.commands.erasing.erase_request import find_protected, read_request, request_options
from rasura.commands.erasing.takedown_hints import mending_concepts
from rasura.patches.obstacles import Obstacles

if TYPE_CHECKING:
    from rasura.patches.erasers.request import EraseRequest
    from rasura.registry.erase.erase import Erased

_PATH = click.Path(path_type=Path)
_SHOWN = ("rank", "residual", "leak_retained", "leak_held_out")


@command(None, "erase", mutating=True)
@click.option("--base", "base_ref", required=True, metavar="MODEL", help="Registered base, or a diffusers folder.")
@request_options
@click.option("--protect", multiple=True, metavar="ID", help="Patch to leave untouched, or 'all'; repeatable.")
@click.option("--onto-stack", metavar="STACK|@MODEL", help="Leave untouched what this stack or model has.")
@click.option("--device", default="cpu", show_default=True, metavar="NAME", help="Where the UNet runs, if it must.")
@click.option("--work", type=_PATH, metavar="DIR", help="Where a training keeps its state, to go on after a kill.")
@click.option("--licence", default="", metavar="NAME", help="Licence of the patch.")
@click.option("--key", metavar="NAME", help="Key to sign with [default: the only one].")
@click.option("--dry-run", is_flag=True, help="Solve, measure and show, and register nothing.")
def erase(
    *,
    base_ref: str,
    protect: tuple[str, ...],
    onto_stack: str | None,
    device: str,
    work: Path | None,
    key: str | None,
    dry_run: bool,
    order: Order,
    **asked: Any,
) -> Result:
    """Erase concepts from a base model: one signed, separable patch each, registered and not yet applied."""
    from rasura.registry.erase import erase as erasure

    read: list[dict[str, Any]] = []
    obstacles, anchors = Obstacles(), asked["anchors"]
    retyping = retyping_anchors(asked["concepts"], anchors, "")
    with order.open(obstacles) as registry, progress() as tell, mending_concepts(asked), retyping:
        request = read_request(obstacles, **asked)
        protected = find_protected(registry, protect, onto_stack, obstacles)
        if request is None or obstacles:
            erasure.look_ahead_of_erasure(registry, base_ref, key, protected, obstacles, dry_run=dry_run)
            obstacles.refuse()
        assert request is not None
        made = erasure.erase(
            registry,
            base_ref,
            request,
            key=key,
            protect=protected,
            protect_others="all" in protect,
            dry_run=dry_run,
            draft=order.draft("patch.erase"),
            progress=tell,
            device=device,
            work=work,
            told=lambda fitted: read.extend(say_lists(fitted)),
        )
        judged = erasure.judge_conditioning(made)
    notices = _notices(request, made, anchors) + (format_conditioning(judged) if judged else [])
    data = {
        **_encode(request, made),
        "read": read,
        "conditioning": encode_conditioning(judged) if judged else None,
        "notices": notices,
        "dry_run": dry_run,
    }
    changed = not dry_run and any(item.new for item in made)
    return Result(data, lambda: _print(made, notices, dry_run=dry_run), changed=changed)


def _encode(request: "EraseRequest", made: "tuple[Erased, ...]") -> dict[str, Any]:
    removed = list(request.retain.removed) if request.retain else []
    return {"patches": [_data(item) for item in made], "removed_from_retain": removed}


def _notices(request: "EraseRequest", made: "tuple[Erased, ...]", anchors: tuple[str, ...]) -> list[str]:
    found, retain = [], request.retain
    if "auto" in anchors:
        found += [
            f"anchor of {item.patch.manifest.concept.text}: {item.patch.manifest.concept.anchor}" for item in made
        ]
    found += [doubt for item in made for doubt in item.doubts]
    if retain and retain.removed:
        found.append(f"not retained, because they name a target: {', '.join(retain.removed)}")
    if retain and retain.repeated:
        found.append(f"{retain.repeated} lines of {retain.source} repeat others")
    if request.held_out_from and not any(True for _ in request.held_out_prompts()):
        found.append(
            f"leak held out: not measured, because every text of {request.held_out_from.source} names a target or is "
            "retained"
        )
    return found + [_one_sided(item, other) for item in made for other in item.patch.manifest.protected.patches]


def _one_sided(item: "Erased", other: str) -> str:
    new, concept = short(item.patch.patch_id), item.patch.manifest.concept.text
    return (
        f"one-sided: {new} leaves the targets of {short(other)} alone, which is older and does not protect {concept}: "
        f"where {new} is taken out again, what {short(other)} does to {concept} stays"
    )


def _data(item: "Erased") -> dict[str, Any]:
    manifest = item.patch.manifest
    return {
        "id": item.patch.patch_id,
        "new": item.new,
        "concept": manifest.concept.text,
        "anchor": manifest.concept.anchor,
        "method": manifest.eraser.name,
        "separable": manifest.separable,
        "measured": dict(manifest.measured),
        "one_sided": list(manifest.protected.patches),
        "size": sum(map(len, item.patch.files().values())),
        **({"read_as": manifest.base.read_as} if manifest.base.read_as else {}),
    }


def _print(made: "tuple[Erased, ...]", notices: list[str], *, dry_run: bool) -> None:
    for notice in notices:
        line(notice)
    rows = [
        (
            short(data["id"]),
            data["concept"],
            data["anchor"] or "(nothing)",
            *(format_measured(data["measured"].get(name, "-")) for name in _SHOWN),
            f"{data['measured']['protected']}/{data['measured']['width']}",
        )
        for data in map(_data, made)
    ]
    table(("patch", "concept", "becomes", "rank", "residual", "leak retained", "leak held out", "protected"), rows)
    for data in map(_data, made):
        if not data["separable"]:
            line(f"{short(data['id'])} is not separable: what it does to other prompts is measured, not proved")
    if any("read_as" in data for data in map(_data, made)):
        line("text was read in bfloat16: what is exact is so of rows as this encoder gives them; others are near")
    if dry_run:
        line(NOTHING_MADE)
