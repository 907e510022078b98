"""Changes of records, as entries of the log tell of them: which record, and its digest afterwards.

How a row is called in the log stands here alone; what the bytes of an entry look like is `entry.py`.
"""

from collections.abc import Mapping
from typing import Final

from rasura.patches._io.json_fields import Fields, JsonValue, show
from rasura.patches.errors import FormatError
from rasura.patches.types import PatchId
from rasura.registry._storage.records.choices import StackRecord
from rasura.registry._storage.records.records import HostRecord
from rasura.registry.log.entries.entry_parts import MAX_LISTED, REMOVABLE, RowChange
from rasura.registry.log.entries.record_digest import Record, fingerprint

__all__ = ["encode_change", "identify_record", "members", "read_change", "removal_of", "write_change"]


_KINDS: Final = {
    "KeyRecord": ("key", "key_id"),
    "BaseRecord": ("base", "digest"),
    "RetainSetRecord": ("retain_set", "digest"),
    "BasisRecord": ("basis", "digest"),
    "PatchRecord": ("patch", "patch_id"),
    "SignatureRecord": ("signature", "digest"),
    "HostRecord": ("host", "host_id"),
    "EvaluationRecord": ("evaluation", "digest"),
    "StackRecord": ("stack", "name"),
    "PolicyRecord": ("policy", "scope"),
    "CaseRecord": ("case", "case_id"),
}


def identify_record(record: Record) -> tuple[str, str]:
    """What the log calls a record: its kind and identifier."""
    kind, key = _KINDS[type(record).__name__]
    return kind, getattr(record, key)


def encode_change(record: Record, before: Record | None = None) -> RowChange:
    """The change that leaves `record` in the tables; `before` is what was there, for hosts and stacks."""
    kind, key = identify_record(record)
    present, old = members(record), members(before) or {}
    if present is None:
        return RowChange(kind, key, fingerprint(record))
    moved = {p: present.get(p, 0) for p in sorted({*old, *present}) if present.get(p, 0) != old.get(p, 0)}
    return RowChange(kind, key, fingerprint(record), moved if len(moved) <= MAX_LISTED else None)


def removal_of(record: Record) -> RowChange:
    """The change that removes `record` from the tables."""
    kind, key = identify_record(record)
    assert kind in REMOVABLE
    return RowChange(kind, key, None)


def members(record: Record | None) -> Mapping[PatchId, int] | None:
    """The patches of a record whose set the log follows step by step, strengths in sixteenths; None for the others."""
    if isinstance(record, HostRecord):
        return record.applied
    return record.patches if isinstance(record, StackRecord) else None


def write_change(change: RowChange) -> JsonValue:
    """The JSON object of an entry's line."""
    if change.record is None:
        return {"kind": change.kind, "id": change.id, "gone": True}
    value: dict[str, JsonValue] = {"kind": change.kind, "id": change.id, "record": change.record}
    return (
        value
        if change.applied is None
        else {**value, "applied": {str(patch): sixteenths for patch, sixteenths in change.applied.items()}}
    )


def read_change(fields: Fields) -> RowChange:
    """The change that a JSON object tells of.

    Raises:
        FormatError: it tells of none, or of one that cannot be.
    """
    applied = None
    if fields.has("applied"):
        inside = fields.fields("applied")
        applied = {PatchId(name): inside.integer(name, -64, 64) for name in inside.names()}
    kind, key = fields.text("kind", limit=32), fields.text("id", limit=64)
    change = _read_removal(fields, kind, key) if fields.has("gone") else None
    change = change or RowChange(kind, key, fields.digest("record"), applied)
    fields.done()
    return change


def _read_removal(fields: Fields, kind: str, key: str) -> RowChange:
    if not fields.flag("gone") or fields.has("applied") or kind not in REMOVABLE:
        raise FormatError(f"audit entry: changes: expected a {'/'.join(REMOVABLE)} that is gone, got {show(kind)}")
    return RowChange(kind, key, None)
