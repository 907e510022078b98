"""Which patches supersede others, remembered beside the log's index, so that a page of a list reads no old manifests.

A patch's identity covers its manifest, so what it names as superseded can never become something else: the file
`.rasura/keys/superseding` is only ever added to. Like `told` beside it, it is out of reach of whoever can write only
the registry's database, and no authority: lists show what it says; what protects, joins and rebases reads the manifests
(`rasura.registry.stacks.versions`). What cannot be read or written is found out anew.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

from rasura.patches.errors import NotFoundError
from rasura.patches.types import PatchId
from rasura.registry._storage.records.records import PatchRecord
from rasura.registry.registry import Registry

__all__ = ["find_successors"]

FILE: Final = "superseding"
_PRIVATE: Final = 0o600
_WAIT_SECONDS: Final = 1.0
_FEW: Final = 100
_SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS seen (patch TEXT PRIMARY KEY) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS supersedes (old TEXT, new TEXT, PRIMARY KEY (old, new)) WITHOUT ROWID",
)


def find_successors(registry: Registry, page: Iterable[PatchRecord]) -> Mapping[PatchId, PatchId]:
    """For each of these patches that another one of its base supersedes: the newest that does, and is not superseded.

    Raises:
        NotFoundError, DigestMismatchError, FormatError: the manifest of a patch that is new here is missing or damaged.
    """
    path = registry.keys_folder / FILE
    with suppress(sqlite3.Error, OSError), closing(_open(path)) as connection, connection:
        return _find(connection, registry, page)
    with closing(sqlite3.connect(":memory:")) as connection, connection:
        return _find(connection, registry, page)


def _open(path: Path) -> sqlite3.Connection:
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _PRIVATE))
    connection = sqlite3.connect(path, timeout=_WAIT_SECONDS)
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA synchronous = OFF")  # nothing depends on it
    return connection


def _find(connection: sqlite3.Connection, registry: Registry, page: Iterable[PatchRecord]) -> Mapping[PatchId, PatchId]:
    for statement in _SCHEMA:
        connection.execute(statement)
    _catch_up(connection, registry)
    records: dict[PatchId, PatchRecord] = {}
    found = {}
    for record in page:
        heads = _walk(connection, registry, record, records)
        if heads:
            found[record.patch_id] = max(heads, key=lambda new: (new.added_at, new.patch_id)).patch_id
    return found


def _catch_up(connection: sqlite3.Connection, registry: Registry) -> None:
    """Read the manifests of patches that came since."""
    seen = {patch_id for (patch_id,) in connection.execute("SELECT patch FROM seen")}
    new = [patch_id for patch_id in registry.list_patch_ids() if patch_id not in seen]
    records = registry.patches() if len(new) > _FEW else map(registry.patch, new)
    for record in records:
        if record.patch_id in seen:
            continue
        pairs = [(old, record.patch_id) for old in registry.list_superseded(record)]
        connection.executemany("INSERT OR IGNORE INTO supersedes VALUES (?, ?)", pairs)
        connection.execute("INSERT OR IGNORE INTO seen VALUES (?)", (record.patch_id,))


def _walk(
    connection: sqlite3.Connection, registry: Registry, start: PatchRecord, records: dict[PatchId, PatchRecord]
) -> list[PatchRecord]:
    """Of all that supersede a patch, directly or by way of others, those that nothing supersedes."""
    found: dict[PatchId, bool] = {}
    ahead = [start.patch_id]
    while ahead:
        at = ahead.pop()
        later = [
            new
            for new in _later(connection, registry, at, records)
            if records[new].base == start.base and new not in {at, start.patch_id}
        ]
        if at != start.patch_id:
            found[at] = not later
        ahead += [new for new in later if new not in found]
    return [records[patch_id] for patch_id, is_head in found.items() if is_head]


def _later(
    connection: sqlite3.Connection, registry: Registry, old: PatchId, records: dict[PatchId, PatchRecord]
) -> list[PatchId]:
    """The patches here that name one as superseded; their records are read once."""
    rows = connection.execute("SELECT new FROM supersedes WHERE old = ? ORDER BY new", (old,)).fetchall()
    found = [PatchId(new) for (new,) in rows]
    for new in found:
        with suppress(NotFoundError):  # removed by hand, which an audit says
            if new not in records:
                records[new] = registry.patch(new)
    return [new for new in found if new in records]
