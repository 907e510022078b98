"""Making a registry, opening one, and bringing an old one up to date.

A new folder appears whole or not at all. The tables of an old registry change in one transaction with the entry of the
log that says so.
"""

import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from sqlalchemy import inspect
from sqlalchemy.orm import Session

from rasura.patches.errors import BusyError, ExistsError, NoRegistryError
from rasura.registry._storage.database import schema
from rasura.registry._storage.database.database import Database
from rasura.registry._storage.database.tables import RegistryRow
from rasura.registry._storage.files.durable_files import make_folder, sync_folder, translated
from rasura.registry._storage.location import Location
from rasura.registry._storage.records.records import Draft
from rasura.registry.log.entries.entry import RowChange
from rasura.registry.log.log_key import LogKey
from rasura.registry.log.writer import Clock, LogWriter

__all__ = ["foresee", "found_registry", "open_journal", "upgrade"]


def found_registry(place: Location, draft: Draft, now: Clock, busy_seconds: float) -> None:
    """Makes the folder, the log key, the tables and the first entry.

    Raises:
        ExistsError: the folder has files, or the database tables.
        RegistryError: it cannot be written; nothing is left behind.
    """
    with _building(place) as building:
        origin = f"rasura/log/{uuid.uuid4().hex}"
        key = LogKey.create(building.keys, origin)
        make_folder(building.blobs)
        if building.url is None:
            building.database.touch(mode=0o644)
        with closing(LogWriter(building, origin, now, busy_seconds)) as journal:
            journal.begin(draft, lambda session: _install(session, journal, str(key.verify_key), str(place)))


def foresee(place: Location, busy_seconds: float) -> None:
    """Looks whether `found_registry` would find the place free; nothing is written.

    Raises:
        ExistsError: the folder has files, or the database tables.
        RegistryError: the database cannot be read.
    """
    _check_free(place.folder)
    if place.url is not None:
        with closing(Database(place, busy_seconds=busy_seconds)) as database, database.reading() as session:
            _check_empty(session, str(place))


def open_journal(place: Location, now: Clock, busy_seconds: float) -> LogWriter:
    """The registry at a place, its schema checked; nothing is written.

    Raises:
        NoRegistryError: there is none.
        SchemaError: another version, or tables and triggers that are not ours.
    """
    with _looking(place, busy_seconds) as session:
        schema.check(session.connection(), str(place))
        origin = _origin(session, place)
    return LogWriter(place, origin, now, busy_seconds)


def upgrade(place: Location, draft: Draft, now: Clock, busy_seconds: float, *, dry_run: bool = False) -> str | None:
    """Brings the tables to this program's version, and says so in the log: both or neither; a dry run only looks.

    Returns:
        The version they were at; None where there was nothing to do.

    Raises:
        NoRegistryError: there is none.
        SchemaError: a version that this program does not know, or tables and triggers that are not ours.
        BusyError: another process writes, or was faster.
    """
    with _looking(place, busy_seconds) as session:
        version = schema.check_known(session.connection(), str(place))
        origin = _origin(session, place)
    if version == schema.HEAD:
        return None
    if dry_run:
        return version
    draft = replace(draft, details={**draft.details, "from": version, "to": schema.HEAD})
    with closing(LogWriter(place, origin, now, busy_seconds)) as journal:
        journal.append(draft, lambda session: _migrate(session, str(place), version))
    return version


@contextmanager
def _looking(place: Location, busy_seconds: float) -> Iterator[Session]:
    if place.url is None and not place.database.is_file():
        raise NoRegistryError(f"expected a registry at {place.folder}, got none", hint="rasura init")
    with closing(Database(place, busy_seconds=busy_seconds)) as database, database.reading() as session:
        yield session


def _origin(session: Session, place: Location) -> str:
    row = session.get(RegistryRow, 1)
    if row is None or not row.origin:
        raise NoRegistryError(f"{place}: expected a registry, got empty tables", hint="rasura init")
    return row.origin


def _migrate(session: Session, where: str, version: str) -> list[RowChange | None]:
    connection = session.connection()
    if schema.check_known(connection, where) != version:  # since we looked, before we had the right to write
        raise BusyError(f"{where}: another process is upgrading it", hint="try again")
    schema.upgrade(connection)
    schema.check(connection, where)
    return []


def _install(session: Session, journal: LogWriter, vkey: str, where: str) -> list[RowChange | None]:
    connection = session.connection()
    _check_empty(session, where)
    schema.upgrade(connection)
    schema.check(connection, where)  # what is made here must open again
    session.add(RegistryRow(number=1, origin=journal.origin, vkey=vkey, created_at=journal.now()))
    return []


def _check_empty(session: Session, where: str) -> None:
    present = inspect(session.connection()).get_table_names()
    if present:
        got = "a registry" if "alembic_version" in present else f"the table {present[0]}"
        raise ExistsError(f"{where}: expected an empty database, got {got}")


def _check_free(folder: Path) -> None:
    with translated(f"make {folder}"):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ExistsError(f"registry: expected nothing at {folder}, got something", hint="rasura status")


@contextmanager
def _building(place: Location) -> Iterator[Location]:
    """A folder beside the final one, renamed at the end; a crash leaves at most this folder."""
    folder = place.folder
    _check_free(folder)
    with translated(f"make {folder}"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f"{folder.name}-new-", dir=folder.parent))
    try:
        yield replace(place, folder=temporary)
        with translated(f"make {folder}"):
            temporary.chmod(0o755)
            sync_folder(temporary)
            temporary.rename(folder)  # takes the place of an empty folder, of nothing else
            sync_folder(folder.parent)
    finally:
        with suppress(OSError):
            shutil.rmtree(temporary)
