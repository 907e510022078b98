"""Hosts and the stacks applied to them."""

from dataclasses import replace

from rasura.patches.types import PatchId
from rasura.registry._resources.resource import Opened
from rasura.registry._storage.records import Draft, EntryRecord, HostRecord
from rasura.registry.rows import hosts

__all__ = ["Hosts"]


class Hosts(Opened):
    """What a registry does with hosts."""

    def hosts(self, *, patch: PatchId | None = None) -> tuple[HostRecord, ...]:
        """All hosts by location, or those that `patch` is applied to."""
        with self.reading() as session:
            return hosts.every(session, patch=patch)

    def host(self, ref: str) -> HostRecord:
        """The host with this identifier or location.

        Raises:
            NotFoundError: no such host.
        """
        with self.reading() as session:
            return hosts.load(session, ref)

    def find_host(self, ref: str) -> HostRecord | None:
        """The host with this identifier or location, None where there is none."""
        with self.reading() as session:
            return hosts.find(session, ref)

    def set_host(self, record: HostRecord, entry: Draft) -> EntryRecord:
        """Adds a host, or replaces what is known of it, its stack included. The entry is written even without a change.

        Raises:
            ExistsError: another host is at this location.
            NotFoundError: its base, or a patch of its stack, is not in this registry.
        """
        draft = replace(entry, host=entry.host or record.host_id, base=entry.base or record.base)
        return self._journal.append(draft, lambda session: [hosts.save(session, record)])
