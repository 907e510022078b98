"""Which patches supersede others, and what concepts are called besides, remembered beside the log's index.

So a page of a list reads no old manifests. A patch's identity covers its manifest, so what it names as superseded and
as other names of its concept can never become something else: the file
`.rasura/keys/superseding` is only ever added to. Like `told` beside it, it is out of reach of whoever can write only
the registry's database, and no authority: lists show what it says; what protects, joins and rebases reads the manifests
(`rasura.registry.stacks.versions`). What cannot be read or written is found out anew.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, TypeVar

from rasura.patches.errors import NotFoundError
from rasura.patches.format.manifest import MANIFEST_LIMIT, NAMES_SIGN, Manifest
from rasura.patches.models.text_encoders.plain_text import normal
from rasura.patches.types import Digest, PatchId
from rasura.registry._storage.records.records import PatchOutline, PatchRecord
from rasura.registry.registry import Registry

__all__ = ["Lineage", "find_called", "find_successors"]

_T = TypeVar("_T")

FILE: Final = "superseding"
_PRIVATE: Final = 0o600
_WAIT_SECONDS: Final = 1.0
# Canonical JSON has one spelling of each, and no text can contain it: its quotes would be escaped.
_SUPERSEDES_NOTHING: Final = b'"supersedes":[]'
_NAMES: Final = b'"names":"'
_NAMES_OF: Final = "SELECT names FROM names WHERE patch = ?"
_SCHEMA: Final = (
    "DROP TABLE IF EXISTS seen",  # of patches whose other names were not asked for
    "CREATE TABLE IF NOT EXISTS read (patch TEXT PRIMARY KEY) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS names (patch TEXT PRIMARY KEY, names TEXT) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS supersedes (old TEXT, new TEXT, PRIMARY KEY (old, new)) WITHOUT ROWID",
)


class Lineage(AbstractContextManager["Lineage"]):
    """What is remembered of all patches, caught up with once; of what cannot be read or written, all manifests anew."""

    def __init__(self, registry: Registry) -> None:
        """Read the manifests of patches that came since.

        Raises:
            NotFoundError, DigestMismatchError, FormatError: the manifest of a patch that is new here is missing or
                damaged.
        """
        self._registry = registry
        self._connection = _remember(registry) or _find_out_anew(registry)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def successors(self, page: Iterable[PatchRecord]) -> Mapping[PatchId, PatchId]:
        """For each of these patches that another one of its base supersedes: the newest that does and is not itself."""
        return self._asked(lambda connection: _find(connection, self._registry, [_outline(record) for record in page]))

    def all_successors(self) -> Mapping[PatchId, PatchId]:
        """As `successors`, of every patch that is superseded."""

        def find(connection: sqlite3.Connection) -> Mapping[PatchId, PatchId]:
            pairs = connection.execute("SELECT old, new FROM supersedes ORDER BY old, new").fetchall()
            outlines = self._registry.outline_patches(sorted({PatchId(each) for pair in pairs for each in pair}))
            superseded = dict.fromkeys(PatchId(old) for old, _ in pairs)
            page = [outlines[old] for old in superseded if old in outlines]
            return _find(connection, self._registry, page, dict(outlines))

        return self._asked(find)

    def other_names(self, page: Iterable[PatchRecord]) -> Mapping[PatchId, tuple[str, ...]]:
        """What the concepts of these patches are called besides, as manifests say; of those that have such names."""

        def find(connection: sqlite3.Connection) -> Mapping[PatchId, tuple[str, ...]]:
            asked = ((r.patch_id, connection.execute(_NAMES_OF, (r.patch_id,)).fetchone()) for r in page)
            return {patch_id: tuple(row[0].split(NAMES_SIGN)) for patch_id, row in asked if row}

        return self._asked(find)

    def called(self, name: str) -> frozenset[PatchId]:
        """The patches whose concepts are called so besides."""
        wanted = normal(name)

        def find(connection: sqlite3.Connection) -> frozenset[PatchId]:
            rows = connection.execute("SELECT patch, names FROM names")
            return frozenset(PatchId(i) for i, names in rows if wanted in map(normal, names.split(NAMES_SIGN)))

        return self._asked(find)

    def _asked(self, find: Callable[[sqlite3.Connection], _T]) -> _T:
        try:
            return find(self._connection)
        except (sqlite3.Error, OSError):
            self._connection.close()
            self._connection = _find_out_anew(self._registry)
            return find(self._connection)


def find_successors(registry: Registry, page: Iterable[PatchRecord]) -> Mapping[PatchId, PatchId]:
    """See `Lineage`; of one page."""
    with Lineage(registry) as lineage:
        return lineage.successors(page)


def find_called(registry: Registry, name: str) -> frozenset[PatchId]:
    """See `Lineage`; of one name."""
    with Lineage(registry) as lineage:
        return lineage.called(name)


def _remember(registry: Registry) -> sqlite3.Connection | None:
    """The file, with all patches in it; None where it cannot be read or written."""
    with suppress(sqlite3.Error, OSError):
        connection = _open(registry.keys_folder / FILE)
        try:
            with connection:
                _catch_up(connection, registry)
        except BaseException:
            connection.close()
            raise
        return connection
    return None


def _find_out_anew(registry: Registry) -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    with connection:
        _catch_up(connection, registry)
    return connection


def _open(path: Path) -> sqlite3.Connection:
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _PRIVATE))
    connection = sqlite3.connect(path, timeout=_WAIT_SECONDS)
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA synchronous = OFF")  # nothing depends on it
    return connection


def _find(
    connection: sqlite3.Connection,
    registry: Registry,
    page: Iterable[PatchOutline],
    known: dict[PatchId, PatchOutline] | None = None,
) -> Mapping[PatchId, PatchId]:
    records = {} if known is None else known
    found = {}
    for record in page:
        heads = _walk(connection, registry, record, records)
        if heads:
            found[record.patch_id] = max(heads, key=lambda new: (new.added_at, new.patch_id)).patch_id
    return found


def _catch_up(connection: sqlite3.Connection, registry: Registry) -> None:
    """Read the manifests of patches that came since."""
    for statement in _SCHEMA:
        connection.execute(statement)
    # Neither ever loses one (a database that was put back to an older state is refused when it is opened), so that as
    # many are the same. What somebody took out by hand, an audit says.
    if connection.execute("SELECT count(*) FROM read").fetchone()[0] == registry.count_patches():
        return
    seen = {patch_id for (patch_id,) in connection.execute("SELECT patch FROM read")}
    for patch_id in registry.list_patch_ids():
        if patch_id in seen:
            continue
        superseded, names = _read(registry, patch_id)
        connection.executemany(
            "INSERT OR IGNORE INTO supersedes VALUES (?, ?)", [(old, patch_id) for old in superseded]
        )
        if names:
            connection.execute("INSERT OR IGNORE INTO names VALUES (?, ?)", (patch_id, NAMES_SIGN.join(names)))
        connection.execute("INSERT OR IGNORE INTO read VALUES (?)", (patch_id,))


def _read(registry: Registry, patch_id: PatchId) -> tuple[tuple[PatchId, ...], tuple[str, ...]]:
    """What a patch supersedes, and what its concept is called besides; most manifests say neither."""
    data = registry.blobs.read(Digest(patch_id), limit=MANIFEST_LIMIT)  # a patch is named by its manifest's digest
    if _SUPERSEDES_NOTHING in data and _NAMES not in data:
        return (), ()
    manifest = Manifest.from_bytes(data)
    return manifest.supersedes, manifest.names


def _outline(record: PatchRecord) -> PatchOutline:
    return PatchOutline(record.patch_id, record.base, record.added_at)


def _walk(
    connection: sqlite3.Connection, registry: Registry, start: PatchOutline, records: dict[PatchId, PatchOutline]
) -> list[PatchOutline]:
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
    connection: sqlite3.Connection, registry: Registry, old: PatchId, records: dict[PatchId, PatchOutline]
) -> list[PatchId]:
    """The patches here that name one as superseded; their records are read once."""
    rows = connection.execute("SELECT new FROM supersedes WHERE old = ? ORDER BY new", (old,)).fetchall()
    found = [PatchId(new) for (new,) in rows]
    for new in found:
        with suppress(NotFoundError):  # removed by hand, which an audit says
            if new not in records:
                records[new] = _outline(registry.patch(new))
    return [new for new in found if new in records]
