"""Connections and transactions, for SQLite and PostgreSQL alike.

* Readers see one snapshot and cannot write: `mode=ro` and DEFERRED, or REPEATABLE READ READ ONLY.
* Writers stand in line from their first statement: BEGIN IMMEDIATE, or an advisory lock. A transaction that reads
  first and asks for the lock later fails at once when another one wrote in between, however long it would wait.
* SQLite journals with WAL and FULL only where its version is free of the WAL-reset bug (sqlite.org/wal.html); all
  others use DELETE and EXTRA. Both survive a power cut after each acknowledged commit.
* Whatever the driver raises leaves here as an error of ours.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool
from sqlalchemy.util import LRUCache

from rasura.patches._io.json_fields import show
from rasura.patches.errors import BusyError, InputError, NoRegistryError, RegistryError
from rasura.registry._storage.location import Location

__all__ = ["Database", "journal_mode"]

BUSY_SECONDS: Final = 30.0
"""How long a writer waits in line."""

_ADVISORY_LOCK: Final = 0x7261737572610001  # "rasura", 1: one line of writers per PostgreSQL database
_CONNECT_SECONDS: Final = 10

_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_LOCK_NOT_AVAILABLE: Final = frozenset({"55P03", "40001", "40P01"})
_PRAGMAS: Final = (
    "foreign_keys=ON",
    "recursive_triggers=ON",  # otherwise INSERT OR REPLACE deletes rows behind the triggers' back
    "trusted_schema=OFF",
    "cell_size_check=ON",
    "mmap_size=0",
)
# What SQLite keeps beside its file while it writes, and a writer that was killed left there.
_BESIDE: Final = ("-journal", "-wal")
# Statements of readers and writers, of every registry that a process opens: compiling one costs more than running it.
_COMPILED: Final[LRUCache[Any, Any]] = LRUCache(500)
# A file that another process left half written can be mended only by a connection that may write.
_HOT_JOURNAL: Final = frozenset({sqlite3.SQLITE_READONLY_ROLLBACK, sqlite3.SQLITE_READONLY_RECOVERY})


def journal_mode(version: tuple[int, ...]) -> tuple[str, str]:
    """`journal_mode` and `synchronous` for a SQLite: WAL only without the WAL-reset bug (3.7.0 to 3.51.2)."""
    sound = version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51) or (3, 44, 6) <= version < (3, 45)
    return ("WAL", "FULL") if sound else ("DELETE", "EXTRA")


class Database:
    """A database that is open for reading, and for writing when somebody does."""

    def __init__(self, location: Location, *, busy_seconds: float = BUSY_SECONDS) -> None:
        self._where = str(location)
        self._location = location
        self._busy = busy_seconds
        self._reader = _sqlite(location, busy_seconds, write=False) if location.url is None else None
        self._writer: Engine | None = None

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A snapshot to read from.

        Raises:
            RegistryError: the database is unreadable or damaged.
            BusyError: a writer held it for too long.
        """
        with _foreign(self._where):
            if self._location.url is None:
                self._mend()
            with (self._reader or self._engine()).connect() as connection:
                if connection.dialect.name == "postgresql":
                    connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
                with Session(connection) as session:
                    yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A transaction that is alone in changing anything; all of it is kept or, on any error, none.

        Raises:
            BusyError: another process wrote for too long.
            RegistryError: disk full, read-only, refused by a trigger, or damaged; nothing was changed.
        """
        with _foreign(self._where), self._engine().begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text(f"SET LOCAL lock_timeout = {int(self._busy * 1000)}"))
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
            with Session(connection, join_transaction_mode="rollback_only") as session:
                yield session
                session.flush()

    def close(self) -> None:
        """Gives up all connections."""
        for engine in (self._reader, self._writer):
            if engine is not None:
                engine.dispose()

    def _engine(self) -> "Engine":
        if self._writer is None:
            url = self._location.url
            self._writer = _sqlite(self._location, self._busy, write=True) if url is None else _postgres(url)
        return self._writer

    def _mend(self) -> None:
        """Rolls back what a killed writer left behind; readers alone may not."""
        if not any(Path(f"{self._location.database}{suffix}").exists() for suffix in _BESIDE):
            return  # SQLite's own condition for that
        try:
            with closing(_connect(self._location, self._busy, write=False)) as connection:
                connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode not in _HOT_JOURNAL:
                raise
            with closing(_connect(self._location, self._busy, write=True)) as connection:
                connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()


def _sqlite(location: Location, busy: float, *, write: bool) -> "Engine":
    # The file's path never becomes part of a URL: `%`, `?` and `#` in it would mean something there.
    shared = _shared()

    connect: Any = partial(_connect, location, busy, write=write)  # of what it gives SQLAlchemy's protocol asks more
    pool = NullPool(connect, dialect=shared.dialect)
    engine = Engine(pool, shared.dialect, shared.url, execution_options={"compiled_cache": _COMPILED})

    @event.listens_for(engine, "begin")
    def begin(connection: "Connection") -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


@cache
def _shared() -> "Engine":
    """What no file decides: the dialect, which has looked at the library once."""
    engine = create_engine("sqlite://", poolclass=NullPool)
    engine.connect().close()
    return engine


def _connect(location: Location, busy: float, *, write: bool) -> sqlite3.Connection:
    uri = f"{location.database.as_uri()}?mode={'rw' if write else 'ro'}"
    connection = sqlite3.connect(uri, timeout=busy, uri=True, isolation_level=None, check_same_thread=False)
    journal, synchronous = journal_mode(sqlite3.sqlite_version_info)
    try:
        for pragma in (*_PRAGMAS, *((f"journal_mode={journal}", f"synchronous={synchronous}") if write else ())):
            connection.execute(f"PRAGMA {pragma}").close()
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _postgres(url: str) -> "Engine":
    try:
        return create_engine(url, pool_pre_ping=True, connect_args={"connect_timeout": _CONNECT_SECONDS})
    except ModuleNotFoundError as error:
        raise RegistryError(
            "PostgreSQL: expected the driver psycopg, got none", hint="pip install 'rasura[postgres]'"
        ) from error
    except (SQLAlchemyError, ValueError):  # no detail: a password may be in it
        raise RegistryError("PostgreSQL: expected a database URL, got one that does not parse") from None


@contextmanager
def _foreign(where: str) -> Iterator[None]:
    """Turns what drivers raise into errors of ours."""
    try:
        yield
    except DBAPIError as error:
        raise _translate(where, error.orig) from error
    except sqlite3.Error as error:
        raise _translate(where, error) from error
    except SQLAlchemyError as error:
        raise RegistryError(f"registry {where}: {error}") from error
    except UnicodeEncodeError as error:  # what somebody asked for; nothing like it can be stored
        raise InputError(f"registry: expected Unicode text, got half a character in {show(error.object)}") from None


def _translate(where: str, error: Any) -> RegistryError | BusyError:
    code = getattr(error, "sqlite_errorcode", None)
    state = getattr(error, "sqlstate", None)
    first = str(error).strip().partition("\n")[0]
    if (code is not None and code & 0xFF in _BUSY) or state in _LOCK_NOT_AVAILABLE:
        return BusyError(f"registry {where}: another process is writing ({first})", hint="try again")
    if code is not None and code & 0xFF == sqlite3.SQLITE_CANTOPEN:
        return NoRegistryError(f"registry {where}: expected a database, got none ({first})", hint="rasura init")
    return RegistryError(f"registry {where}: {first}")
