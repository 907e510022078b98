"""The digest that the audit log keeps of each record; a row that was changed behind the log's back no longer has it."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime
from functools import cache
from typing import Final, TypeAlias, cast

from rasura.patches._io import canonical_json
from rasura.patches._io.json_fields import JsonValue
from rasura.patches.types import Digest
from rasura.registry._storage.digests import sha256
from rasura.registry._storage.records.base_records import BaseRecord, BasisRecord, RetainSetRecord
from rasura.registry._storage.records.case_record import CaseRecord
from rasura.registry._storage.records.choices import PolicyRecord, StackRecord
from rasura.registry._storage.records.records import (
    EvaluationRecord,
    HostRecord,
    KeyRecord,
    PatchRecord,
    SignatureRecord,
)
from rasura.registry._storage.records.validation import instant

__all__ = ["Record", "encode_record", "fingerprint"]

_ATOMS: Final = frozenset({str, int, bool, type(None)})

Record: TypeAlias = (
    KeyRecord
    | BaseRecord
    | RetainSetRecord
    | BasisRecord
    | PatchRecord
    | SignatureRecord
    | HostRecord
    | EvaluationRecord
    | StackRecord
    | PolicyRecord
    | CaseRecord
)
"""What has rows, and of which the log tells."""


def fingerprint(record: Record) -> Digest:
    """SHA-256 of `encode_record`."""
    return sha256(encode_record(record))


def encode_record(record: Record) -> bytes:
    """The record's RFC 8785 JSON: field names and values, times as RFC 3339 text in UTC."""
    return canonical_json.dumps(_plain(record))


def _plain(value: object) -> JsonValue:
    if is_dataclass(value):
        return {name: _inner(getattr(value, name)) for name in _field_names(cast("type", type(value)))}
    if isinstance(value, datetime):
        return instant(value)
    if isinstance(value, Mapping):
        return {str(name): _inner(child) for name, child in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_inner(child) for child in value]
    return cast("JsonValue", value)


def _inner(value: object) -> JsonValue:
    """As `_plain`; a base has thousands of texts and numbers, and those need no look."""
    return cast("JsonValue", value) if type(value) in _ATOMS else _plain(value)


@cache
def _field_names(record: type) -> tuple[str, ...]:
    return tuple(part.name for part in fields(record))
