"""The entries of a log as its tables have them, one after the other; memory does not grow with the log.

Nothing is read into objects here: columns are compared with what an entry's bytes say as the texts that both are.
"""

from collections.abc import Generator, Sequence
from typing import Final, NamedTuple

from sqlalchemy import Text, select, type_coerce
from sqlalchemy.orm import Session

from rasura.registry._storage.database.tables import CheckpointRow, EntryPatchRow, EntryRow

__all__ = ["StoredEntry", "read_stored_entries"]

_NONE_LEFT: Final = float("inf"), ""


class StoredEntry(NamedTuple):
    """An entry as it lies in the tables, with what lies beside it."""

    position: int
    leaf: bytes
    body: bytes
    time: str
    action: str
    outcome: str
    host: str | None
    closes: int | None
    note: str | None
    """The checkpoint after it, and the tree under that; None where there is none."""
    frontier: bytes | None
    patches: Sequence[str]


def read_stored_entries(session: Session, batch: int) -> Generator[StoredEntry]:
    """Every entry by its position; `batch` rows of each table are in memory at a time. Close it: it holds cursors."""
    connection, apart = session.connection(), {"yield_per": batch}
    with (
        connection.execute(_ENTRIES, execution_options=apart) as rows,
        connection.execute(_PATCHES, execution_options=apart) as listed,
    ):
        patches = (row for part in listed.partitions() for row in part)
        at, patch_id = next(patches, _NONE_LEFT)
        for row in (row for part in rows.partitions() for row in part):
            beside = []
            while at <= row[0]:  # less than that is at none: such rows are refused before
                beside.append(patch_id)
                at, patch_id = next(patches, _NONE_LEFT)
            yield StoredEntry._make((*row, beside))


_ENTRIES: Final = (
    select(
        EntryRow.position,
        EntryRow.leaf_hash,
        EntryRow.body,
        type_coerce(EntryRow.time, Text),
        EntryRow.action,
        EntryRow.outcome,
        EntryRow.host,
        EntryRow.closes,
        CheckpointRow.note,
        CheckpointRow.frontier,
    )
    .outerjoin(CheckpointRow, CheckpointRow.size == EntryRow.position + 1)
    .order_by(EntryRow.position)
)
_PATCHES: Final = select(EntryPatchRow.position, EntryPatchRow.patch_id).order_by(
    EntryPatchRow.position, EntryPatchRow.ordinal
)
