"""What processes that died left behind, found and put right; and models that are not what they should be, found.

    half-written    a model in the middle of a write: it goes back, or forward, by its journal
    unfinished      an entry of the log that began a motion and has no end: it is ended as done or as failed
    drifted         a model with other weights than the registry last wrote: a person has to decide
    moved           a model that is no longer where the registry saw it last: it notes where it lies now
    kept            an original that is kept though nothing is applied to its parameter
    bisection       a bisection that died between two steps: it goes on, or the model goes back
    leftover        temporary files, half-made copies

There are no stale locks: all are the kernel's, which drops them with their process. Whoever holds one now is alive, and
his model is left alone. The motions among this are logged as such, and one entry says what else was done.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, TypeAlias

from rasura.patches._io.file_lock import locked
from rasura.patches.errors import BusyError, FormatError, NotFoundError, RasuraError
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.hosts.disk.journal.rollback_journal import RollbackJournal
from rasura.patches.hosts.disk.layouts.compvis_layout import find_model
from rasura.patches.hosts.disk.new_copy import find_dead, is_place, remove_dead
from rasura.patches.hosts.disk.state_folder import StateFolder
from rasura.patches.types import ParamName
from rasura.registry._storage.files.durable_files import translated
from rasura.registry._storage.files.leftovers import find_leftovers, remove_leftover
from rasura.registry._storage.records.records import Draft
from rasura.registry.apply.hosts import host_state
from rasura.registry.apply.hosts.moved import find_moved
from rasura.registry.apply.receipt import Actor
from rasura.registry.apply.status import survey
from rasura.registry.registry import Registry
from rasura.registry.stacks.bisection import bisect, bisect_state

__all__ = ["Finding", "Kind", "Outcome", "examine"]

Kind: TypeAlias = Literal[
    "half-written", "unfinished", "drifted", "moved", "kept", "bisection", "leftover", "missing", "busy"
]
Outcome: TypeAlias = Literal["repaired", "repairable", "left", "hopeless"]
"""repairable: with --dry-run, what would be repaired; left: nobody is misled by it; hopeless: a person must decide."""

Progress: TypeAlias = Callable[[str, int, int], None]
_ACTION: Final = "doctor.repair"
_MOVE: Final = "host.move"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be.

    Attributes:
        kind: what it is.
        where: the model, file or entry.
        said: a sentence.
        outcome: what was done about it.
        hint: the next command to type, or "".
    """

    kind: Kind
    where: str
    said: str
    outcome: Outcome
    hint: str = ""


def examine(
    registry: Registry, models: Sequence[Path], actor: Actor, *, dry_run: bool, progress: Progress
) -> tuple[Finding, ...]:
    """Look at models and at the registry's own files, and put right what can be.

    Args:
        registry: where.
        models: which to look at; none for all that the registry knows.
        actor: who and why.
        dry_run: only look. Of a half-written model nothing more can be said then.
        progress: told which model is looked at.

    Raises:
        RegistryError: a leftover cannot be removed.
        RasuraError: a bisection's model cannot go back; see `rasura.registry.apply.operations.switch`.
    """
    places = list(models) or _known(registry)
    dead = _dead_copies(registry, places)
    found = list(_of_copies(registry, dead, repair=not dry_run))
    places = [place for place in places if str(place) not in {finding.where for finding in found}]
    for index, model in enumerate(places):
        progress("looking at models", index, len(places))
        found += _of_model(registry, model, actor, repair=not dry_run)
    progress("looking at models", len(places), len(places))
    found += _of_bisection(registry, actor, repair=not dry_run)
    left = find_leftovers(registry.location, places, registry.now())
    found += _of_leftovers([*dead, *left], repair=not dry_run)
    if any(f.outcome == "repaired" and f.kind in {"half-written", "kept", "bisection", "leftover"} for f in found):
        counted = {
            kind: sum(f.kind == kind and f.outcome == "repaired" for f in found) for kind in {f.kind for f in found}
        }
        registry.note(
            Draft(actor.name, actor.reason, _ACTION, "success", details={k: n for k, n in counted.items() if n})
        )
    return tuple(found)


def _known(registry: Registry) -> list[Path]:
    """Models on disk to which something is applied, or was being applied; live ones went with their process."""
    locations = [host.location for host in registry.hosts() if host.applied]
    locations += [str(entry.details.get("location", "")) for entry in registry.unfinished()]
    return [Path(location) for location in dict.fromkeys(locations) if Path(location).is_absolute()]


def _of_model(registry: Registry, model: Path, actor: Actor, *, repair: bool) -> Iterator[Finding]:
    try:
        half, leftovers = _journal(model)
        if (half or leftovers) and not repair:
            said = "a write was interrupted" if half else "an interrupted write left files that mean nothing"
            yield Finding("half-written", str(model), said, "repairable")
            return
        host = CheckpointHost.open(model)
        if half or leftovers:
            said = (
                "an interrupted write was undone" if host.recovered else "an interrupted write was brought to its end"
            )
            yield Finding("half-written", str(model), said, "repaired")
        with host.alone():
            yield from _of_host(registry, host, actor, repair=repair)
    except BusyError as error:
        yield Finding("busy", str(model), error.message, "left", error.hint)
    except NotFoundError as error:
        record = registry.find_host(str(model.absolute()))
        place = find_moved(record) if record is not None else None
        if place is not None:
            yield from _of_model(registry, place, actor, repair=repair)
        else:
            yield Finding("missing", str(model), error.message, "left", _missing_hint(model, known=record is not None))
    except RasuraError as error:
        yield Finding("drifted", str(model), error.message, "hopeless", error.hint)


def _journal(model: Path) -> tuple[bool, bool]:
    """Whether a write was interrupted after its beginning, and whether one left anything at all; reads only.

    Raises:
        BusyError: somebody is writing right now.
    """
    path = find_model(model)
    with locked(path, exclusive=False):
        journal = RollbackJournal(StateFolder(path))
        return journal.interrupted(), journal.unsettled()


def _missing_hint(model: Path, *, known: bool) -> str:
    state = StateFolder(model)
    if state.exists():
        return f"move the model back beside {state.path}, which keeps its originals"
    return "if it was moved: rasura doctor --model WHERE" if known else ""


def _of_moved(registry: Registry, host: CheckpointHost, actor: Actor, *, repair: bool) -> Iterator[Finding]:
    """What is known of a model by another place, where it is no longer: of a copy, `find_record` refuses to tell."""
    record = host_state.find_record(registry, host)
    if record is None or record.location == host.location:
        return
    said = f"it was {record.location} when the registry saw it last"
    if repair:
        details = {"from": record.location, "location": host.location}
        draft = Draft(actor.name, actor.reason, _MOVE, "success", tuple(record.applied), details=details)
        registry.set_host(replace(record, location=host.location), draft)
    yield Finding("moved", host.location, said, _done(repair))


def _of_host(registry: Registry, host: CheckpointHost, actor: Actor, *, repair: bool) -> Iterator[Finding]:
    entry = host_state.find_unfinished_motion(registry, host)
    if entry is not None:
        done = host_state.find_reached(registry, host, entry) is not None
        said = f"entry {entry.index}, {entry.action}, has no end; the model is {'past' if done else 'before'} it"
        if repair:
            host_state.settle_motion(registry, host)
        yield Finding("unfinished", host.location, said, _done(repair))
    yield from _of_moved(registry, host, actor, repair=repair)
    report = survey(registry, host, deep=False, progress=lambda *_: None)
    touched = frozenset(host_state.list_touched(registry, report.applied))
    needless = sorted(host.kept() - touched)
    yield from _of_kept(host, needless, repair=repair)
    if odd := [name for name in report.drifted if name in touched]:
        said = f"of {len(odd)} touched parameters, not all are what the registry last wrote"
        cast = host.cast_since()
        hint = f"rasura patch revert --all --force {host_state.model_option(host)}"
        if cast is not None:
            hint = host.say_way_back(*cast)
        yield Finding("drifted", host.location, said, "hopeless", hint)


def _of_kept(host: CheckpointHost, names: Sequence[ParamName], *, repair: bool) -> Iterator[Finding]:
    """Originals of parameters that no applied patch touches: of no use where the parameter is its original."""
    if not names:
        return
    present, original = host.digests(names), host.original_digests(names)
    same = [name for name in names if present[name] == original[name]]
    if same:
        if repair:
            host.write({}, forget=same)
        yield Finding("kept", host.location, f"{len(same)} originals were kept that nothing needs", _done(repair))
    if other := [name for name in names if name not in same]:
        said = f"{len(other)} parameters were written by another registry, or by one that was lost: {other[0]} first"
        yield Finding("drifted", host.location, said, "hopeless", "rasura doctor --registry THAT")


def _of_bisection(registry: Registry, actor: Actor, *, repair: bool) -> Iterator[Finding]:
    """One whose process died in a step goes on if the step was taken, else the model gets back what it had before."""
    try:
        state = bisect_state.load_bisection(registry)
    except NotFoundError:
        return
    except FormatError as error:
        path = registry.location.folder / bisect_state.FILE
        yield Finding("bisection", str(path), error.message, "left", f"rm {shlex.quote(str(path))}")
        return
    gone = not Path(state.location).exists()
    if state.reached and not gone:
        return
    where, what = state.location, f"the bisection of stack {state.stack}"
    try:
        if gone:
            said = f"{what} has no model any more: put away"
            if repair:
                bisect.reset(registry, actor, leave=True)
        elif repair and bisect.present(registry, state) == state.subset:
            said = f"{what} died after a step: it goes on"
            bisect_state.save_bisection(registry, replace(state, reached=True))
        else:
            said = f"{what} died in a step: the model goes back to what it had before"
            if repair:
                bisect.reset(registry, actor)
    except BusyError as error:
        yield Finding("busy", where, error.message, "left", error.hint)
        return
    yield Finding("bisection", where, said, _done(repair))


def _dead_copies(registry: Registry, models: Sequence[Path]) -> list[Path]:
    folders = dict.fromkeys([*(model.parent for model in models), registry.location.folder.parent])
    with translated("look for copies of models"):
        return [path for folder in folders for path in find_dead(beside=folder)]


def _of_copies(registry: Registry, dead: Sequence[Path], *, repair: bool) -> Iterator[Finding]:
    """New copies that were begun and never stood at their target."""
    for path in dead:
        for entry in host_state.find_unborn(registry, path):
            said = f"entry {entry.index}, {entry.action} to a new copy, has no end; the copy was never there"
            yield Finding("unfinished", str(entry.details["location"]), said, _done(repair))
        if repair:
            host_state.settle_unborn(registry, path)


def _of_leftovers(leftovers: Sequence[Path], *, repair: bool) -> Iterator[Finding]:
    for path in leftovers:
        if repair:
            with translated(f"remove {path}"):
                (remove_dead if is_place(path) else remove_leftover)(path)
        yield Finding("leftover", str(path), "a process that died left it half written", _done(repair))


def _done(repair: bool) -> Outcome:
    return "repaired" if repair else "repairable"
