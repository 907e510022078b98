"""Where a registry stands: what is in force on which model, and what is open.

What is in force is what the registry wrote last; whether it still is there, only hashing says (`Sight`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from rasura.patches.algebra.stack import Stack
from rasura.patches.errors import NotFoundError, RasuraError
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.hosts.uncovered import find_uncovered_on_disk
from rasura.patches.types import PatchId
from rasura.registry._storage.records.base_records import BaseSummary
from rasura.registry._storage.records.choices import StackRecord
from rasura.registry._storage.records.records import EntryRecord, HostRecord, KeyRecord, PatchRecord
from rasura.registry.apply.hosts.moved import is_gone, say_gone
from rasura.registry.apply.status import survey
from rasura.registry.log.entries.stored_entries import EntryFilter
from rasura.registry.registry import Registry
from rasura.registry.stacks.bisection import bisect_state
from rasura.registry.stacks.bisection.bisect_state import Bisection
from rasura.registry.standing.successors import Lineage
from rasura.registry.trust.keys.revocation import find_uncounted
from rasura.registry.trust.roles.roles import name_resigner

__all__ = ["Placed", "Sight", "Standing", "find_placed", "is_live", "take_stock"]

Progress: TypeAlias = Callable[[str, int, int], None]
Sight: TypeAlias = Literal["recorded", "as written", "changed", "unreadable", "gone", "live"]
"""recorded: nobody looked; as written, changed: its touched parameters were hashed; unreadable: they could not be;
gone: nothing lies at its location; live: it is or was in a process, where no command can look."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A model that something was applied to.

    Attributes:
        host: what the registry knows of it.
        base: name of its base.
        applied: the set that was written last.
        stacks: named stacks that are exactly this set.
        last: the entry that ended its last motion; None where the log has none.
        sight: what is known of the weights that are there now.
        said: why, where that is no good news.
        uncovered: parts of its pipeline that no patch touches, and what they bring to the picture.
    """

    host: HostRecord
    base: str
    applied: Stack
    stacks: tuple[str, ...]
    last: EntryRecord | None
    sight: Sight
    said: str = ""
    uncovered: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Standing:
    """A registry as a whole.

    Attributes:
        location: where it is; never a password.
        origin: name of its log.
        entries: how many entries the log has.
        last: the newest of them.
        bases: every base.
        keys: names of the trusted keys whose private halves are here.
        registered: how many patches there are.
        patches: those of them that are in force, in a stack, or signed by no key that counts, by identifier.
        superseded: patches to the newest one that supersedes them.
        retired: patches that are retired.
        placed: models, those with something in force first.
        stacks: every named stack.
        unfinished: motions of the log that were begun and never ended.
        bisection: the one that is going on, or over and not put away.
        uncounted: patches that no key which counts has signed any more, and the key that once did.
        resigners: of each of these, a key that is here and may sign it again; "" where there is none.
    """

    location: str
    origin: str
    entries: int
    last: EntryRecord
    bases: tuple[BaseSummary, ...]
    keys: tuple[str, ...]
    registered: int
    patches: Mapping[PatchId, PatchRecord]
    superseded: Mapping[PatchId, PatchId]
    retired: frozenset[PatchId]
    placed: tuple[Placed, ...]
    stacks: tuple[StackRecord, ...]
    unfinished: tuple[EntryRecord, ...]
    bisection: Bisection | None
    uncounted: Mapping[PatchId, KeyRecord]
    resigners: Mapping[PatchId, str]

    @property
    def in_force(self) -> frozenset[PatchId]:
        """Patches that are applied somewhere."""
        return frozenset(patch_id for placed in self.placed for patch_id in placed.applied)


def take_stock(registry: Registry, *, look: bool, progress: Progress) -> Standing:
    """Gather all that. Reads only.

    Args:
        registry: where.
        look: hash the touched parameters of every model on disk, and compare.
        progress: told which model is looked at.
    """
    entry = registry.entries(limit=1)[0]
    placed, stacks = find_placed(registry, look=look, progress=progress), registry.stacks()
    uncounted = find_uncounted(registry)
    named = {*uncounted, *(p for each in placed for p in each.applied), *(p for each in stacks for p in each.patches)}
    patches = {record.patch_id: record for record in registry.patches_of(sorted(named))}
    with Lineage(registry) as lineage:
        superseded = lineage.all_successors()
    return Standing(
        location=str(registry.location),
        origin=registry.origin,
        entries=entry.index + 1,
        last=entry,
        bases=registry.bases(),
        keys=tuple(key.name for key in registry.keys() if key.owned and key.trusted and key.revoked_at is None),
        registered=registry.count_patches(),
        patches=patches,
        superseded=superseded,
        retired=registry.retired_patches(),
        placed=placed,
        stacks=stacks,
        unfinished=registry.unfinished(),
        bisection=_bisection(registry),
        uncounted=uncounted,
        resigners={patch_id: name_resigner(registry, patches[patch_id]) for patch_id in uncounted},
    )


def find_placed(registry: Registry, *, look: bool, progress: Progress) -> tuple[Placed, ...]:
    """Every model of the registry, those with something in force first. Arguments as for `take_stock`."""
    names = {base.digest: base.name for base in registry.bases()}
    stacks = registry.stacks()
    hosts = sorted(registry.hosts(), key=lambda host: (not host.applied, host.location))
    found = []
    for at, host in enumerate(hosts):
        progress("looking at models", at, len(hosts))
        sight, said = _sighted(registry, host, look=look)
        same = tuple(stack.name for stack in stacks if stack.patches and dict(stack.patches) == dict(host.applied))
        last = registry.entries(EntryFilter(host=host.host_id, outcome="done"), limit=1)
        applied = Stack.of_sixteenths(host.applied)
        uncovered = find_uncovered_on_disk(Path(host.location))
        found.append(Placed(host, names[host.base], applied, same, last[0] if last else None, sight, said, uncovered))
    progress("looking at models", len(hosts), len(hosts))
    return tuple(found)


def is_live(location: str) -> bool:
    """Whether a location is that of a model in a process: those on disk have absolute paths."""
    return not Path(location).is_absolute()


def _sighted(registry: Registry, host: HostRecord, *, look: bool) -> tuple[Sight, str]:
    if is_live(host.location):
        return "live", ""
    if is_gone(host):
        return "gone", say_gone(host)
    if not look:
        return "recorded", ""
    try:
        report = survey(registry, CheckpointHost.open(Path(host.location)), deep=False, progress=lambda *_: None)
    except RasuraError as error:
        return "unreadable", error.message
    if report.drifted:
        return "changed", f"of {len(report.drifted)} parameters, not all are what the registry last wrote"
    return "as written", ""


def _bisection(registry: Registry) -> Bisection | None:
    try:
        return bisect_state.load_bisection(registry)
    except NotFoundError:
        return None
