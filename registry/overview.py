"""A stack as a whole: its patches, what supersedes them, where it is applied, and what the composer says of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rasura.patches.errors import RasuraError
from rasura.patches.increment import Strength
from rasura.patches.names import PatchId
from rasura.registry.choices import StackRecord
from rasura.registry.judging import judged
from rasura.registry.records import HostRecord
from rasura.registry.versions import Versions

if TYPE_CHECKING:
    from rasura.patches.verdict import Verdict
    from rasura.registry.store import Registry

__all__ = ["Overview", "StackMember", "hosts_of", "overview"]


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
    """

    record: StackRecord
    base: str
    members: tuple[StackMember, ...]
    hosts: tuple[HostRecord, ...]
    verdict: Verdict | RasuraError


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
            Strength(sixteenths),
            newer if (newer := versions.newest(patch_id)) != patch_id else None,
        )
        for patch_id, sixteenths in record.patches.items()
    )
    by_concept = tuple(sorted(members, key=lambda member: (member.concepts, member.patch_id)))
    base = registry.base(record.base).name
    return Overview(record, base, by_concept, hosts_of(registry, record), _verdict(registry, record))


def hosts_of(registry: Registry, record: StackRecord) -> tuple[HostRecord, ...]:
    """The models whose applied set is that of a stack; of an empty stack, none."""
    if not record.patches:
        return ()
    first = next(iter(record.patches))
    return tuple(host for host in registry.hosts(patch=first) if host.applied == record.patches)


def _verdict(registry: Registry, record: StackRecord) -> Verdict | RasuraError:
    """A revoked key or a damaged file is worth showing, and no reason to show nothing else."""
    try:
        members = {patch_id: Strength(sixteenths) for patch_id, sixteenths in record.patches.items()}
        return judged(registry, members, registry.policy()).verdict
    except RasuraError as error:
        return error
