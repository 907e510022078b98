"""Taking the last motion back: the set that a model or a stack had before it, reached as a motion of its own.

What was there before is replayed from the log, so nothing else has to be remembered. An undo is a motion like any
other: checked against the policy in force now, logged, and undone by the next undo.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rasura.patches.algebra.stack import Stack
from rasura.patches.algebra.strength import ONE, Strength
from rasura.patches.errors import ConflictError, InputError, NotFoundError
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.types import SHORT, Digest, PatchId
from rasura.registry._storage.records.choices import StackRecord
from rasura.registry._storage.records.records import Draft, EntryRecord, HostRecord
from rasura.registry.apply.hosts.host_state import APPLY, REVERT, SET, STRENGTH, SWITCH, read_set
from rasura.registry.apply.motion import move
from rasura.registry.apply.preconditions.loss import Loss, find_losses
from rasura.registry.apply.receipt import Actor, Receipt
from rasura.registry.log.entries.entry import RowChange
from rasura.registry.registry import Registry
from rasura.registry.stacks import edit
from rasura.registry.stacks.bisection import bisect_state
from rasura.registry.standing.models import find_host

__all__ = ["UNDOES", "Undo", "Undone", "plan_undo", "undo"]

UNDOES: Final = "undoes"
"""Name of the detail of an entry that says which entry's motion it takes back."""

_MOTIONS: Final = frozenset({APPLY, REVERT, SWITCH})
_STACK: Final = "stack."
_CREATE: Final = "stack.create"
_PAGE: Final = 200


@dataclass(frozen=True, slots=True)
class Undo:
    """What an undo would do.

    Attributes:
        entry: the motion that it takes back.
        place: the model's location or the stack's name.
        host: the model; None of a stack.
        model: where the model lies; None of a stack.
        base: of the set.
        present: the set that is there.
        wanted: the set that was there before the motion.
        gone: whether that motion deleted the stack, which has to be made again.
        losses: the concepts that come back on a model; of a stack none, because it moves no model.
    """

    entry: EntryRecord
    place: str
    host: HostRecord | None
    model: Path | None
    base: Digest
    present: Stack
    wanted: Stack
    gone: bool
    losses: tuple[Loss, ...]


@dataclass(frozen=True, slots=True)
class Undone:
    """What an undo did: the receipt of a model, or the stack as it is now."""

    receipt: Receipt | None = None
    stack: StackRecord | None = None


def plan_undo(registry: Registry, *, model: Path | None = None, stack: str | None = None) -> Undo:
    """Find the last motion of a model or a stack, or without either the last one of all, and what was before it.

    Raises:
        InputError: both a model and a stack.
        NotFoundError: nothing was ever moved there.
        ConflictError: the motion cannot be inverted: it made the stack, it put originals back over a foreign change,
            it moved a model in a process, or it is a step of a bisection.
    """
    if model is not None and stack is not None:
        raise InputError("undo: expected a model or a stack, got both", hint="rasura undo --model MODEL")
    if stack is not None:
        return _of_stack(registry, stack)
    if model is not None:
        return _of_host(registry, find_host(registry, model), model)
    last = _find_last(registry)
    if last is None:
        raise NotFoundError("nothing was moved yet: there is nothing to undo", hint="rasura log")
    if last.action in _MOTIONS and last.host is not None:
        host = registry.host(last.host)
        return _of_host(registry, host, Path(host.location))
    return _of_stack(registry, str(last.details["stack"]))


def undo(registry: Registry, planned: Undo, actor: Actor, *, dry_run: bool = False) -> Undone:
    """Do it, or with `dry_run` find out whether it could be done.

    Raises:
        ConflictError: something moved since it was planned.
        RasuraError: see `rasura.registry.apply.operations.switch`; nothing changed.
    """
    details: dict[str, str | int] = {UNDOES: planned.entry.index}
    if planned.model is None:
        return Undone(stack=_undo_stack(registry, planned, actor, details, dry_run=dry_run))

    def wanted(present: Stack) -> Stack:
        if present != planned.present:
            raise ConflictError(
                f"{planned.place} moved since that was planned", hint=f"rasura log --model {shlex.quote(planned.place)}"
            )
        return planned.wanted

    details["goal"] = f"undo of entry {planned.entry.index}"
    draft = Draft(actor.name, actor.reason, SWITCH, "success", tuple(planned.wanted), details=details)
    host = CheckpointHost.open(planned.model)
    return Undone(receipt=move(registry, host, wanted, draft, dry_run=dry_run))


def _undo_stack(
    registry: Registry, planned: Undo, actor: Actor, details: Mapping[str, str | int], *, dry_run: bool
) -> StackRecord:
    if planned.gone:
        return edit.create(
            registry, planned.place, planned.wanted, actor, base=planned.base, details=details, dry_run=dry_run
        )
    return edit.set_members(
        registry,
        planned.place,
        planned.wanted,
        actor,
        expected=planned.present,
        details=details,
        dry_run=dry_run,
    )


def _find_last(registry: Registry) -> EntryRecord | None:
    after: int | None = None
    while page := registry.entries(limit=_PAGE, after=after):
        for entry in page:
            moved = entry.action in _MOTIONS and entry.outcome == "done"
            if moved or (entry.action.startswith(_STACK) and entry.outcome == "success"):
                return entry
        after = page[-1].index
    return None


def _of_host(registry: Registry, host: HostRecord, model: Path) -> Undo:
    changes = registry.changes_of_host(host.host_id)
    found = _last_motion(registry, changes)
    if found is None:
        raise NotFoundError(f"nothing was ever applied to {host.location}", hint="rasura host list")
    entry, before, after = found
    _check_invertible(registry, host, entry, before, after)
    losses = find_losses(registry, after, before)
    return Undo(entry, host.location, host, model, host.base, after, before, gone=False, losses=losses)


def _check_invertible(registry: Registry, host: HostRecord, entry: EntryRecord, before: Stack, after: Stack) -> None:
    """Refuse a motion that has no inverse."""
    if not Path(host.location).is_absolute():
        raise ConflictError(
            f"entry {entry.index} moved {host.location}, which is in a process: expected a model on disk",
            hint="rasura host list",
        )
    if "force" in entry.details:
        again = " ".join(f"{p[:SHORT]}" for p in before)
        raise ConflictError(
            f"entry {entry.index} put the originals back over what something else had written: what was there before "
            "is not known, so there is no way back to it",
            hint=f"rasura patch apply {again} --model {shlex.quote(host.location)}",
        )
    if after.sixteenths != dict(host.applied):
        raise ConflictError(f"entry {entry.index} is not the last word on {host.location}", hint="rasura audit verify")
    try:
        bisection = bisect_state.load_bisection(registry)
    except NotFoundError:
        return
    if bisection.location == host.location:
        raise ConflictError(
            f"entry {entry.index} is a step of the bisection of stack {bisection.stack}",
            hint="rasura patch bisect reset",
        )


def _last_motion(
    registry: Registry, changes: Sequence[tuple[EntryRecord, RowChange]]
) -> tuple[EntryRecord, Stack, Stack] | None:
    """The last entry that changed a host's set, with the sets before and after it."""
    found = None
    present = Stack()
    for entry, change in changes:
        before, present = present, _after(registry, entry, change, present)
        if entry.action in _MOTIONS and before != present:
            found = entry, before, present
    return found


def _after(registry: Registry, entry: EntryRecord, change: RowChange, before: Stack) -> Stack:
    """The set after an entry; one that moved too many to spell them out says so in another way."""
    if change.applied is not None:
        return _moved(before, change.applied)
    if entry.action == SWITCH:
        return read_set(registry, Digest(str(entry.details[SET])))
    if entry.action == REVERT:
        return before.without(entry.patches)
    if entry.action == APPLY:
        strength = Strength(int(entry.details.get(STRENGTH, ONE.sixteenths)))
        return before.with_(dict.fromkeys(entry.patches, strength))
    return before


def _moved(before: Stack, moves: Mapping[PatchId, int]) -> Stack:
    after = {**before.sixteenths, **moves}
    return Stack.of_sixteenths({patch_id: number for patch_id, number in after.items() if number})


def _of_stack(registry: Registry, name: str) -> Undo:
    changes = registry.changes_of_stack(name)
    if not changes:
        raise NotFoundError(f"stack: expected one called {name}, got none", hint="rasura stack list")
    sets = [Stack()]
    for entry, change in changes:
        if change.record is None:
            sets.append(sets[-1])
            continue
        if change.applied is None:
            raise ConflictError(
                f"entry {entry.index} moved too many patches of stack {name} at once to spell them out: what it was "
                "before is not in the log",
                hint=f"rasura stack show {name}",
            )
        sets.append(_moved(Stack() if entry.action == _CREATE else sets[-1], change.applied))
    entry, change = changes[-1]
    if entry.action == _CREATE:
        raise ConflictError(
            f"entry {entry.index} made stack {name}: before it there was none", hint=f"rasura stack delete {name}"
        )
    before, present = sets[-2], sets[-1]
    gone = change.record is None
    base = entry.base
    assert base is not None  # every entry about a stack names it
    return Undo(entry, name, None, None, base, Stack() if gone else present, before, gone=gone, losses=())
