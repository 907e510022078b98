"""The index of what the log tells, as a file that is asked and never read whole.

An SQLite file of its own, `.rasura/keys/told`, out of reach of whoever can write only the registry's database. Rows are
added and never changed, but for the end of what was begun, and each carries its entry's index: any of them can be asked
for as of any size of the log, so that a reader is not disturbed by what a writer adds.

Nothing in it is durable, and nothing depends on it: what cannot be read, or is not the log's, is read from the log.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rasura.patches.types import Digest
from rasura.registry._storage.files.durable_files import translated

__all__ = ["Line", "ToldFile"]

_VERSION: Final = 2  # 1 was a text with a line for each entry
_PRIVATE: Final = 0o600
_WAIT_SECONDS: Final = 5.0
_SCHEMA: Final = f"""
CREATE TABLE line (
  idx INTEGER PRIMARY KEY, leaf BLOB NOT NULL, root BLOB NOT NULL, action TEXT NOT NULL, outcome TEXT NOT NULL,
  closes INTEGER, ended INTEGER
);
CREATE INDEX line_action ON line (action, outcome, idx);
CREATE INDEX line_open ON line (idx) WHERE outcome = 'begun' AND ended IS NULL;
CREATE TABLE record (
  kind TEXT NOT NULL, id TEXT NOT NULL, idx INTEGER NOT NULL, record TEXT, PRIMARY KEY (kind, id, idx)
) WITHOUT ROWID;
PRAGMA user_version = {_VERSION};
"""


@dataclass(frozen=True, slots=True)
class Line:
    """One entry: its leaf, the root after it, and what of it decisions rest on."""

    leaf: bytes
    root: bytes
    action: str
    outcome: str
    closes: int | None
    changes: tuple[tuple[str, str, Digest | None], ...]


class ToldFile:
    """An open index. `sqlite3.Error` of any call: it cannot be read; then the log has to be."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._process = 0
        self.distrusted = False
        """Whether it was found to be wrong; it is made anew with the next entry."""
        self._connection: sqlite3.Connection | None = None

    def size(self) -> int:
        """How many entries it knows; 0 of one that is not there or is none."""
        if self.distrusted:
            return 0
        try:
            return int(self._ask("SELECT coalesce(max(idx) + 1, 0) FROM line")[0][0])
        except sqlite3.Error:
            self.close()
            return 0

    def root_at(self, size: int) -> bytes | None:
        """The root over the first `size` entries."""
        found = self._ask("SELECT root FROM line WHERE idx = ?", size - 1)
        return bytes(found[0][0]) if found else None

    def leaf(self, index: int) -> bytes | None:
        """The leaf hash of an entry."""
        found = self._ask("SELECT leaf FROM line WHERE idx = ?", index)
        return bytes(found[0][0]) if found else None

    def action(self, index: int) -> str:
        """What an entry says was done."""
        return str(self._ask("SELECT action FROM line WHERE idx = ?", index)[0][0])

    def record(self, kind: str, key: str, size: int) -> Digest | None:
        """The digest that the first `size` entries give of a record; None where they tell of none, or of its end."""
        query = "SELECT record FROM record WHERE kind = ? AND id = ? AND idx < ? ORDER BY idx DESC LIMIT 1"
        found = self._ask(query, kind, key, size)
        return Digest(found[0][0]) if found and found[0][0] is not None else None

    def keys(self, kind: str, size: int) -> set[str]:
        """The identifiers of all records of a kind that there are after the first `size` entries."""
        query = "SELECT id, record, max(idx) FROM record WHERE kind = ? AND idx < ? GROUP BY id"
        return {key for key, record, _ in self._ask(query, kind, size) if record is not None}

    def begun(self, size: int) -> set[int]:
        """Entries that began something which none of the first `size` ended."""
        found = {index for (index,) in self._ask("SELECT idx FROM line WHERE outcome = 'begun' AND ended IS NULL")}
        found |= {
            index for (index,) in self._ask("SELECT closes FROM line WHERE idx >= ? AND closes IS NOT NULL", size)
        }
        return {index for index in found if index < size}

    def of_action(self, action: str, size: int) -> set[int]:
        """The entries of an action, of the first `size`."""
        return {index for (index,) in self._ask("SELECT idx FROM line WHERE action = ? AND idx < ?", action, size)}

    def newest(self, action: str, outcome: str, size: int) -> int | None:
        """The last entry of an action with this outcome, of the first `size`."""
        query = "SELECT max(idx) FROM line WHERE action = ? AND outcome = ? AND idx < ?"
        found = self._ask(query, action, outcome, size)[0][0]
        return None if found is None else int(found)

    def extend(self, start: int, lines: Sequence[Line]) -> None:
        """Add the entries from `start` on; from 0 on, in a new file. Whoever calls has the right to append to the log.

        Raises:
            RegistryError: the folder cannot be written.
        """
        if start == 0:
            self._create()
        with self._lock:
            connection = self._opened()
            with connection:
                if connection.execute("SELECT 1 FROM line WHERE idx >= ? LIMIT 1", (start,)).fetchone() is not None:
                    _cut(connection, start)
                for index, line in enumerate(lines, start):
                    values = index, line.leaf, line.root, line.action, line.outcome, line.closes
                    connection.execute("INSERT OR REPLACE INTO line VALUES (?, ?, ?, ?, ?, ?, NULL)", values)
                    if line.closes is not None:
                        connection.execute("UPDATE line SET ended = ? WHERE idx = ?", (index, line.closes))
                    for kind, key, record in line.changes:
                        connection.execute(
                            "INSERT OR REPLACE INTO record VALUES (?, ?, ?, ?)", (kind, key, index, record)
                        )

    def close(self) -> None:
        """Give the file up; the next question opens it again."""
        with self._lock:
            if self._connection is not None and self._process == os.getpid():
                self._connection.close()
            self._connection = None

    def _create(self) -> None:
        new = self._path.with_name(f"{self._path.name}.new")
        with translated(f"write {self._path}"):
            for path in (new, new.with_name(f"{new.name}-journal")):
                path.unlink(missing_ok=True)
            os.close(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _PRIVATE))
            with contextlib.closing(_connect(new)) as connection:
                connection.executescript(_SCHEMA)
            self.close()
            self._path.with_name(f"{self._path.name}-journal").unlink(missing_ok=True)
            new.replace(self._path)
        self.distrusted = False

    def _ask(self, query: str, *values: object) -> list[Any]:
        with self._lock:
            return self._opened().execute(query, values).fetchall()

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None or self._process != os.getpid():  # SQLite is not to be carried over a fork
            self._connection = None
            try:
                mode = self._path.lstat().st_mode
            except OSError as error:
                raise sqlite3.OperationalError(str(error)) from None
            if not stat.S_ISREG(mode):
                raise sqlite3.OperationalError("no regular file")
            connection = _connect(self._path)
            try:
                if connection.execute("PRAGMA user_version").fetchone()[0] != _VERSION:
                    raise sqlite3.DatabaseError("another version")  # as what cannot be read
            except sqlite3.Error:
                connection.close()
                raise
            self._connection, self._process = connection, os.getpid()
        return self._connection


def _cut(connection: sqlite3.Connection, start: int) -> None:
    """Forget the entries from `start` on, of a registry that was put back to an older copy."""
    for statement in (
        "DELETE FROM line WHERE idx >= ?",
        "DELETE FROM record WHERE idx >= ?",
        "UPDATE line SET ended = NULL WHERE ended >= ?",
    ):
        connection.execute(statement, (start,))


def _connect(path: Path) -> sqlite3.Connection:
    """Transactions that hold against a killed process, not against a power cut: see the module."""
    mode = "rw" if os.access(path, os.W_OK) else "ro"
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=_WAIT_SECONDS, check_same_thread=False
    )
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA trusted_schema = OFF")
    return connection
