"""What `rasura stack` prints of stacks, and what it gives to machines."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rasura.commands._shared.output import NOTHING_MADE, Result, line, short, table
from rasura.commands._shared.views import (
    format_capacity,
    format_measured,
    format_number,
    list_worst,
)
from rasura.patches.algebra.stack import Stack
from rasura.patches.checks.verdict import Accepted
from rasura.patches.errors import RasuraError

if TYPE_CHECKING:
    from rasura.patches.checks.verdict import Verdict
    from rasura.registry._storage.records.choices import StackRecord
    from rasura.registry._storage.records.records import HostRecord
    from rasura.registry.stacks.overview import Overview
    from rasura.registry.takedown.follow import Followed, FollowedPatch


_DRIFTED = 5


def report_followed(made: "Followed", name: str, *, dry_run: bool) -> Result:
    """What `retarget` made: patches, what is left of their concepts there and here, and how far the base drifted."""
    drift = sorted(made.drift.items(), key=lambda item: -item[1])
    data = {
        **encode_stack(made.stack),
        "from": name,
        "reads_otherwise": made.reads_otherwise,
        "drift": made.drift,
        "made": [
            {
                "id": item.patch.patch_id,
                "from": item.old.patch_id,
                "new": item.new,
                "concept": item.patch.manifest.concept.text,
                "responses": item.way,
                "before": dict(item.old.manifest.measured),
                "measured": dict(item.patch.manifest.measured),
                "as_it_is": item.as_it_is,
                "own_promise": item.promise,
                "notices": list(item.doubts),
            }
            for item in made.patches
        ],
        "seconds": round(made.seconds, 4),
        "dry_run": dry_run,
    }

    def text() -> None:
        for item in made.patches:
            for doubt in item.doubts:
                line(doubt)
        verb = "would follow" if dry_run else "follows"
        line(f"stack {made.stack.name} {verb} {name} on {made.base}: {count_patches(made.stack)}")
        line(f"text is read {f'by another {made.reads_otherwise}: solved anew' if made.reads_otherwise else 'alike'}")
        if drift:
            table(("matrix", "changed by"), [(name, format_number(share)) for name, share in drift[:_DRIFTED]])
            if len(drift) > _DRIFTED:
                line(f"and {len(drift) - _DRIFTED} more, which changed less")
        table(("there", "here", "concept", "left there", "left as it is", "left here"), list(map(_left, made.patches)))
        if dry_run:
            line(NOTHING_MADE)

    return Result(data, text, changed=not dry_run)


def _left(item: "FollowedPatch") -> tuple[str, ...]:
    """A patch's row: how much of its concept is left on its own base, on the other without it changed, and with it."""
    old, new = item.old.manifest.measured, item.patch.manifest.measured
    return (
        short(item.old.patch_id),
        short(item.patch.patch_id),
        item.patch.manifest.concept.text,
        format_measured(old.get("residual", "-")),
        "-" if item.as_it_is is None else format_number(item.as_it_is),
        format_measured(new.get("residual", "-")),
    )


def list_properties(view: "Overview") -> list[tuple[str, str]]:
    """The lines above the table of `show`, one a property of the whole stack; further ones belong here."""
    record = view.record
    return [
        ("stack", record.name),
        ("base", f"{view.base} ({short(record.base)})"),
        ("patches", str(len(record.patches))),
        ("verdict", _verdict_line(view)),
        *((("room", format_capacity(view.capacity)),) if view.capacity else ()),
        *(("applied to", _place(host)) for host in view.hosts),
        ("created", f"{record.created_at:%Y-%m-%d %H:%M:%S} UTC"),
        ("changed", f"{record.updated_at:%Y-%m-%d %H:%M:%S} UTC"),
    ]


def _place(host: "HostRecord") -> str:
    """A model's location; of one that was moved or deleted, where it lies now, or that it is not there."""
    from rasura.registry.apply.hosts.moved import is_gone, say_gone

    return f"{host.location} ({say_gone(host)})" if is_gone(host) else host.location


def _verdict_line(view: "Overview") -> str:
    if isinstance(view.verdict, RasuraError):
        return f"cannot be judged: {view.verdict.message}"
    if isinstance(view.verdict, Accepted):
        worst = ", ".join(f"{name} {value} of {limit}" for name, value, limit in list_worst(view.verdict))
        return f"accepted ({worst})" if worst else "accepted"
    return f"refused: {_reasons(view.verdict)[0]}" if _reasons(view.verdict) else "refused"


def encode_verdict(view: "Overview") -> dict[str, Any]:
    """The composer's verdict for machines; `accepted` is null where the stack cannot be judged."""
    if isinstance(view.verdict, RasuraError):
        return {"accepted": None, "error": view.verdict.code, "reasons": [view.verdict.message]}
    worst = {name: {"value": value, "limit": limit} for name, value, limit in list_worst(view.verdict)}
    return {"accepted": isinstance(view.verdict, Accepted), "worst": worst, "reasons": list(_reasons(view.verdict))}


def _reasons(verdict: "Verdict") -> Sequence[str]:
    return [reason.text for reason in getattr(verdict, "reasons", ())]


def report_stack(record: "StackRecord", *, changed: bool, dry_run: bool) -> Result:
    """What a command made of a stack."""
    has = "would have" if dry_run else "has"
    said = f"stack {record.name} {has} {count_patches(record)}" + ("" if changed else ", as before")
    return Result({**encode_stack(record), "dry_run": dry_run}, lambda: line(said), changed=changed and not dry_run)


def count_patches(record: "StackRecord") -> str:
    """So many patches, in words."""
    return f"{len(record.patches)} patch{'' if len(record.patches) == 1 else 'es'}"


def encode_stack(record: "StackRecord") -> dict[str, Any]:
    """A stack for machines."""
    return {
        "name": record.name,
        "base": record.base,
        "patches": {p: str(strength) for p, strength in Stack.of_sixteenths(record.patches).items()},
        "created_at": record.created_at.isoformat(),
        "updated_at": record.updated_at.isoformat(),
    }
