"""Making a registry, and opening one: the folder appears whole or not at all."""

import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from sqlalchemy import inspect
from sqlalchemy.orm import Session

from rasura.patches.errors import ExistsError, NoRegistryError
from rasura.registry import schema
from rasura.registry.entry import Change
from rasura.registry.files import make_folder, sync_folder, translated
from rasura.registry.journal import Clock, Journal
from rasura.registry.location import Location
from rasura.registry.logkey import LogKey
from rasura.registry.records import Draft
from rasura.registry.tables import RegistryRow

__all__ = ["found", "open_journal"]


def found(place: Location, draft: Draft, now: Clock, busy_seconds: float) -> None:
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
        with closing(Journal(building, origin, now, busy_seconds)) as journal:
            journal.append(draft, lambda session: _install(session, journal, str(key.verify_key), str(place)))


def open_journal(place: Location, now: Clock, busy_seconds: float) -> Journal:
    """The registry at a place, its schema checked; nothing is written.

    Raises:
        NoRegistryError: there is none.
        SchemaError: another version, or tables and triggers that are not ours.
    """
    if place.url is None and not place.database.is_file():
        raise NoRegistryError(f"expected a registry at {place.folder}, got none", hint="rasura init")
    with closing(Journal(place, "", now, busy_seconds)) as journal, journal.reading() as session:
        schema.check(session.connection(), str(place))
        row = session.get(RegistryRow, 1)
        origin = "" if row is None else row.origin
    if not origin:
        raise NoRegistryError(f"{place}: expected a registry, got empty tables", hint="rasura init")
    return Journal(place, origin, now, busy_seconds)


def _install(session: Session, journal: Journal, vkey: str, where: str) -> list[Change | None]:
    connection = session.connection()
    present = inspect(connection).get_table_names()
    if present:
        got = "a registry" if "alembic_version" in present else f"the table {present[0]}"
        raise ExistsError(f"{where}: expected an empty database, got {got}")
    schema.upgrade(connection)
    schema.check(connection, where)  # what is made here must open again
    session.add(RegistryRow(number=1, origin=journal.origin, vkey=vkey, created_at=journal.now()))
    return []


@contextmanager
def _building(place: Location) -> Iterator[Location]:
    """A folder beside the final one, renamed at the end; a crash leaves at most this folder."""
    folder = place.folder
    with translated(f"make {folder}"):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ExistsError(f"registry: expected nothing at {folder}, got something", hint="rasura audit log")
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
