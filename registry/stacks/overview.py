"""A stack as a whole: its patches, what supersedes them, where it is applied, and what the composer says of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rasura.patches.algebra.stack import Stack
from rasura.patches.algebra.strength import Strength
from rasura.patches.errors import RasuraError
from rasura.patches.types import PatchId
from rasura.registry._storage.records.choices import StackRecord
from rasura.registry._storage.records.records import HostRecord
from rasura.registry.registry import Registry
from rasura.registry.stacks.versions import Versions

if TYPE_CHECKING:
    from rasura.patches.checks.kernels.capacity import Capacity
    from rasura.patches.checks.verdict import Verdict
    from rasura.registry.trust.check import Judged

__all__ = ["Overview", "StackMember", "list_hosts_of", "overview"]


@dataclass(frozen=True, slots=True)
class StackMember:
    """A patch of a stack; `newer` is the newest registered patch that supersedes it."""

    patch_id: PatchId
    concepts: tuple[str, ...]
    strength: Strength
    newer: PatchId | None


@dataclass(frozen=True, slots=True, eq=False)
class Overview:
    """What there is to say of a stack.

    Attributes:
        record: the stack.
        base: name of its base.
        members: its patches by concept.
        hosts: models whose set is exactly this.
        verdict: what the composer says, or the error that kept it from saying anything.
        capacity: the room that it takes; None where that error came in between, or nothing reads text embeddings.
    """

    record: StackRecord
    base: str
    members: tuple[StackMember, ...]
    hosts: tuple[HostRecord, ...]
    verdict: Verdict | RasuraError
    capacity: Capacity | None


def overview(registry: Registry, name: str) -> Overview:
    """Look at a stack.

    Raises:
        NotFoundError: no such stack.
    """
    record = registry.stack(name)
    versions = Versions.of(registry, record.base)
    members = tuple(
        StackMember(
            patch_id,
            versions.records[patch_id].concepts,
            strength,
            newer if (newer := versions.newest(patch_id)) != patch_id else None,
        )
        for patch_id, strength in Stack.of_sixteenths(record.patches).items()
    )
    by_concept = tuple(sorted(members, key=lambda member: (member.concepts, member.patch_id)))
    base = registry.base(record.base).name
    found = _judged(registry, record)
    verdict, room = (found, None) if isinstance(found, RasuraError) else (found.verdict, found.capacity)
    return Overview(record, base, by_concept, list_hosts_of(registry, record), verdict, room)


def list_hosts_of(registry: Registry, record: StackRecord) -> tuple[HostRecord, ...]:
    """The models whose applied set is that of a stack; of an empty stack, none."""
    if not record.patches:
        return ()
    first = next(iter(record.patches))
    return tuple(host for host in registry.hosts(patch=first) if host.applied == record.patches)


def _judged(registry: Registry, record: StackRecord) -> Judged | RasuraError:
    """A revoked key or a damaged file is worth showing, and no reason to show nothing else."""
    from rasura.registry.trust.check import judge_registered  # needs torch; a list of stacks does not

    try:
        return judge_registered(registry, Stack.of_sixteenths(record.patches), registry.policy())
    except RasuraError as error:
        return error
