"""`rasura gc`: blobs that nothing refers to, removed."""

from datetime import timedelta

import click

from rasura.commands._shared.asking import DRY
from rasura.commands._shared.command import Order, command
from rasura.commands._shared.output import Result, format_size, line, many, short, table

_SHOWN = 20  # blobs of a list for people


@command(None, "gc", mutating=True)
@click.option(
    "--older-than",
    "hours",
    type=click.FloatRange(min=1),
    default=24,
    show_default=True,
    metavar="HOURS",
    help="Leave alone what was stored since; its commit may be on its way.",
)
@DRY
def gc(*, hours: float, dry_run: bool, order: Order) -> Result:
    """Remove stored bytes that no table, no entry of the log and no manifest refers to.

    They come from erasures that were refused and pulls that were cut off. Other processes may write meanwhile.

    Encoded prompts that no erasure asked for since go as well; they are computed again when one does.
    """
    from rasura.registry.standing.garbage import collect

    with order.open() as registry:
        found = collect(registry, order.actor, quiet=timedelta(hours=hours), dry_run=dry_run)
    data = {
        "dry_run": dry_run,
        "removed": [{"digest": blob.digest, "size": blob.size} for blob in found.removed],
        "bytes": found.removed_bytes,
        "recent": found.recent,
        "kept": found.kept,
        "kept_bytes": found.kept_bytes,
        "cached": found.cached,
        "cached_bytes": found.cached_bytes,
    }

    def text() -> None:
        if found.removed:
            table(("blob", "size"), [(short(blob.digest), format_size(blob.size)) for blob in found.removed[:_SHOWN]])
        if (more := len(found.removed) - _SHOWN) > 0:
            line(f"… and {more} more")
        verb = "would remove" if dry_run else "removed"
        line(f"{verb} {many(len(found.removed), 'blob')}, {format_size(found.removed_bytes)}")
        if found.cached:
            line(f"{verb} {many(found.cached, 'cached result')}, {format_size(found.cached_bytes)}")
        line(f"{many(found.kept, 'blob')} in use, {format_size(found.kept_bytes)}")
        if found.recent:
            line(f"{many(found.recent, 'blob')} too new to judge: stored in the last {hours:g} hours")

    return Result(data, text, changed=bool(found.removed or found.cached) and not dry_run)
