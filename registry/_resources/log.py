"""The audit log: adding to it, and reading it."""

from collections.abc import Sequence

from rasura.patches.errors import AuditError
from rasura.patches.types import PatchId
from rasura.registry._resources.resource import Opened
from rasura.registry._storage.records.records import Draft, EntryRecord
from rasura.registry.log import ledger
from rasura.registry.log.entries import stored_entries
from rasura.registry.log.entries.entry import RowChange
from rasura.registry.log.entries.stored_entries import EntryFilter
from rasura.registry.log.notes.signed_note import Checkpoint, VerifyKey
from rasura.registry.log.rotation import read_key
from rasura.registry.log.told.checks import check_actions, check_entries, check_newest, check_unfinished

__all__ = ["Log"]


class Log(Opened):
    """What a registry does with its log."""

    def note(self, draft: Draft) -> EntryRecord:
        """Appends an entry that changes nothing else: a refusal, a failure, a beginning.

        Raises:
            InputError: the draft cannot be an entry.
            NotFoundError: the entry it closes is not open.
        """
        return self._journal.append(draft)

    def rotate_log_key(self, draft: Draft) -> EntryRecord:
        """Hands the log to a new key, which signs from now on; `log.rotate` names both, and both sign it.

        Raises:
            InputError: the draft cannot be an entry.
            RegistryError: the key is not here, or cannot be written; nothing was changed.
        """
        return self._journal.rotate(draft)

    def foresee_rotation(self) -> VerifyKey:
        """The key that `rotate_log_key` would take out of use, which signs now; nothing is written.

        Raises:
            RegistryError: its private half is not here.
            AuditError: what is here is another key.
        """
        named = VerifyKey.parse(self.log_vkey())
        here = self._journal.key.verify_key
        if here != named:
            raise AuditError(f"the log is signed by {named}, and the key that is here is {here}", check="key")
        return named

    def entries(
        self,
        which: EntryFilter | None = None,
        *,
        newest: bool = True,
        limit: int | None = None,
        after: int | None = None,
    ) -> tuple[EntryRecord, ...]:
        """Entries by index, the newest first unless asked otherwise; `after` is the last index of the page before."""
        with self.reading() as session:
            found = stored_entries.every(session, which or EntryFilter(), newest=newest, limit=limit, after=after)
            check_entries(session, found)
            action = which.action if which is not None else None
            if action is not None and which == EntryFilter(action=action) and (limit, after) == (None, None):
                check_actions(session, action, found)
            return found

    def newest_entry(self, action: str) -> EntryRecord | None:
        """The newest entry that says this was done, held to what was signed; None where none does."""
        with self.reading() as session:
            which = EntryFilter(action=action, outcome="success")
            found = stored_entries.every(session, which, newest=True, limit=1, after=None)
            check_entries(session, found)
            check_newest(session, action, found)
            return found[0] if found else None

    def first_entries(self, patches: Sequence[PatchId], actions: Sequence[str]) -> dict[PatchId, EntryRecord]:
        """For each of these patches the first entry of these actions that names it and says success, where one does."""
        with self.reading() as session:
            found = stored_entries.find_first(session, patches, actions)
            check_entries(session, [entry for _, entry in found])
            return dict(found)

    def changes_at(self, index: int) -> tuple[RowChange, ...]:
        """Everything that the entry of this index changed; nothing where there is no such entry."""
        with self.reading() as session:
            found = stored_entries.changes_at(session, index)
            if found is None:
                return ()
            check_entries(session, found[:1])
            return found[1]

    def changes_of_host(self, host_id: str) -> tuple[tuple[EntryRecord, RowChange], ...]:
        """Every entry that changed a host, with what it changed of it, the oldest first."""
        with self.reading() as session:
            return stored_entries.changes_of(session, "host", host_id)

    def changes_of_stack(self, name: str) -> tuple[tuple[EntryRecord, RowChange], ...]:
        """Every entry that changed the stack of this name, or one that had it before, the oldest first."""
        with self.reading() as session:
            return stored_entries.changes_of(session, "stack", name)

    def unfinished(self, host: str | None = None) -> tuple[EntryRecord, ...]:
        """Entries that began something (on `host`) which no later entry ended, the oldest first."""
        with self.reading() as session:
            every = stored_entries.find_unfinished(session)
            check_entries(session, every)
            check_unfinished(session, every)
            return tuple(entry for entry in every if host is None or entry.host == host)

    def head(self) -> Checkpoint:
        """How long the log is, and its root: what a document names that rests on the log as it is."""
        with self.reading() as session:
            return ledger.tree(session, self._journal.origin)[0]

    def log_vkey(self) -> str:
        """The log's public key, as the registry names it; no secret is read.

        Raises:
            AuditError: it names none, or one that is none.
        """
        with self.snapshot() as session:
            return str(read_key(session))

    def root_at(self, size: int) -> bytes | None:
        """The root over the first `size` entries, as it was signed then; None where the log was never that long.

        Raises:
            AuditError: the checkpoint of that size does not parse or is not the tree's.
        """
        with self.reading() as session:
            return ledger.root_at(session, self._journal.origin, size)
