"""What every noun stands on: the journal and the blobs of one open registry."""

from contextlib import AbstractContextManager

from sqlalchemy.orm import Session

from rasura.registry._storage.files.blobs import BlobStore
from rasura.registry.log.writer import LogWriter

__all__ = ["Opened"]


class Opened:
    """The database, the log and the blobs of one registry, open."""

    def __init__(self, journal: LogWriter) -> None:
        self._journal = journal
        self.blobs = BlobStore(journal.location.blobs)

    def reading(self) -> AbstractContextManager[Session]:
        """One snapshot of all tables, for the registry's own modules; rows are held to what the log tells of them."""
        return self._journal.reading()

    def snapshot(self) -> AbstractContextManager[Session]:
        """One snapshot of all tables as they are, for an audit."""
        return self._journal.snapshot()
