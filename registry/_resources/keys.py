"""Public keys that sign patches: adding, trusting, revoking, finding."""

from datetime import datetime

from rasura.registry._resources.resource import Opened
from rasura.registry._storage.records import Draft, KeyRecord
from rasura.registry.rows import keys

__all__ = ["Keys"]


class Keys(Opened):
    """What a registry does with keys."""

    def add_key(self, record: KeyRecord, entry: Draft) -> bool:
        """Adds a public key; False where it is here under this name.

        Raises:
            ExistsError: the key has another name here, or the name another key.
        """
        return self._journal.change(entry, lambda session: [keys.insert(session, record)]) is not None

    def set_trusted(self, key: str, trusted: bool, entry: Draft) -> bool:
        """Sets whether signatures by this key (name, id or abbreviation) count; False where they do so already.

        Raises:
            NotFoundError, AmbiguousIdError: no such key, or several.
        """
        return self._journal.change(entry, lambda session: [keys.update(session, key, trusted=trusted)]) is not None

    def revoke_key(self, key: str, at: datetime, entry: Draft) -> bool:
        """Revokes a key for good; False where it is revoked, whose first date stays.

        Raises:
            NotFoundError, AmbiguousIdError: no such key, or several.
        """
        return self._journal.change(entry, lambda session: [keys.update(session, key, revoked_at=at)]) is not None

    def keys(self) -> tuple[KeyRecord, ...]:
        """All keys by name."""
        with self.reading() as session:
            return keys.every(session)

    def key(self, ref: str) -> KeyRecord:
        """The key with this name, identifier or abbreviation.

        Raises:
            NotFoundError, AmbiguousIdError: no such key, or several.
        """
        with self.reading() as session:
            return keys.load(session, ref)
