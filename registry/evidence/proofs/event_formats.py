"""Entries of the log in the words of other systems: CloudEvents, OCSF, CEF, in-toto.

Each is one line an entry. They are for search and alarms; what proves an entry are its own bytes, whose hash is named.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Final

from rasura.patches._io import canonical_json
from rasura.patches._io.json_fields import JsonValue
from rasura.registry._storage.records.records import EntryRecord
from rasura.registry._storage.records.validation import instant

__all__ = ["EVENT_FORMATS", "to_cef", "to_cloudevent", "to_jsonl", "to_ocsf", "to_statement"]

_PREFIX: Final = "rasura."
_PREDICATE: Final = "urn:rasura:log-entry:v1"

# OCSF, class Entity Management: https://schema.ocsf.io/classes/entity_management; its activities 10 and 11 are of 1.9.
_OCSF_VERSION: Final = "1.9.0-dev"
_OCSF_CATEGORY: Final = 3
_OCSF_CLASS: Final = 3004
_CREATE, _READ, _UPDATE, _DELETE, _ACTIVATE, _DEACTIVATE, _OTHER = 1, 2, 3, 4, 10, 11, 99
_OCSF_ACTIVITY: Final = {
    "apply": _ACTIVATE,
    "approve": _UPDATE,
    "revert": _DEACTIVATE,
    "add": _CREATE,
    "adopt": _CREATE,
    "create": _CREATE,
    "open": _CREATE,
    "erase": _CREATE,
    "join": _CREATE,
    "pull": _CREATE,
    "rebase": _CREATE,
    "retarget": _CREATE,
    "delete": _DELETE,
    "forget": _DELETE,
    "gc": _DELETE,
    "close": _UPDATE,
    "hold": _UPDATE,
    "release": _UPDATE,
    "reopen": _UPDATE,
    "repair": _UPDATE,
    "retire": _DEACTIVATE,
    "revoke": _DEACTIVATE,
    "set": _UPDATE,
    "sign": _UPDATE,
    "switch": _UPDATE,
    "trust": _UPDATE,
    "unretire": _ACTIVATE,
    "update": _UPDATE,
    "upgrade": _UPDATE,
}
_OCSF_NAMES: Final = {
    _CREATE: "Create",
    _READ: "Read",
    _UPDATE: "Update",
    _DELETE: "Delete",
    _ACTIVATE: "Activate",
    _DEACTIVATE: "Deactivate",
    _OTHER: "Other",
}
_OCSF_STATUS: Final = {"success": 1, "done": 1, "refused": 2, "failed": 2, "begun": 99}
_SEVERITY: Final = {"success": 1, "done": 1, "begun": 1, "refused": 3, "failed": 4}
"""OCSF severity_id: 1 informational, 3 medium, 4 high."""
_CEF_SEVERITY: Final = {"success": 3, "done": 3, "begun": 2, "refused": 6, "failed": 8}
"""CEF: 0 to 10."""


def to_jsonl(entry: EntryRecord, body: bytes) -> bytes:  # noqa: ARG001 - all formats are called alike
    """The entry's own bytes: SHA-256 of 0x00 and the line without its newline is its leaf in the tree."""
    return body


def to_cloudevent(entry: EntryRecord, body: bytes) -> bytes:
    """A CloudEvent 1.0 in its JSON format; the data is the entry."""
    value = _parsed(body)
    event: dict[str, JsonValue] = {
        "specversion": "1.0",
        "id": entry.entry_id,
        "source": f"urn:{str(value['log']).replace('/', ':')}",
        "type": _PREFIX + entry.action,
        "time": instant(entry.time),
        "datacontenttype": "application/json",
        "logindex": entry.index,
        "leafhash": entry.leaf_hash.hex(),
        "outcome": entry.outcome,
        "data": value,
    }
    subject = entry.host or (entry.patches[0] if entry.patches else entry.base)
    return canonical_json.dumps(event if subject is None else {**event, "subject": subject})


def to_ocsf(entry: EntryRecord, body: bytes) -> bytes:
    """An OCSF event of the class Entity Management (3004)."""
    activity = _OCSF_ACTIVITY.get(entry.action.rpartition(".")[2], _OTHER)
    noun = entry.action.partition(".")[0]
    event: dict[str, JsonValue] = {
        "category_uid": _OCSF_CATEGORY,
        "category_name": "Identity & Access Management",
        "class_uid": _OCSF_CLASS,
        "class_name": "Entity Management",
        "activity_id": activity,
        "activity_name": _OCSF_NAMES[activity],
        "type_uid": _OCSF_CLASS * 100 + activity,
        "severity_id": _SEVERITY[entry.outcome],
        "status_id": _OCSF_STATUS[entry.outcome],
        "status": entry.outcome,
        "time": int(entry.time.timestamp() * 1000),
        "message": f"{entry.action} {entry.outcome}",
        "metadata": {
            "version": _OCSF_VERSION,
            "uid": entry.entry_id,
            "sequence": entry.index,
            "log_name": str(_parsed(body)["log"]),
            "product": {"name": "rasura", "vendor_name": "rasura"},
        },
        "actor": {"user": {"name": entry.actor}},
        "entity": {
            "type": "model" if entry.host else noun,
            "uid": entry.host or (entry.patches[0] if entry.patches else entry.base) or noun,
        },
        "unmapped": {"entry": _parsed(body), "leaf_hash": entry.leaf_hash.hex()},
    }
    if entry.reason:
        event["comment"] = entry.reason
    if entry.error:
        event["status_detail"] = entry.error
    return canonical_json.dumps(event)


def to_cef(entry: EntryRecord, body: bytes) -> bytes:  # noqa: ARG001
    """A line of the Common Event Format, version 0."""
    head = ("CEF:0", "rasura", "registry", "1", entry.action, f"{entry.action} {entry.outcome}")
    fields: dict[str, str | int | None] = {
        "rt": int(entry.time.timestamp() * 1000),
        "externalId": entry.entry_id,
        "suser": entry.actor,
        "outcome": entry.outcome,
        "reason": entry.error,
        "msg": entry.reason or None,
        "dvchost": entry.host,
        **_labelled("cs1", "patchIds", " ".join(entry.patches) or None),
        **_labelled("cs2", "digestBefore", entry.before),
        **_labelled("cs3", "digestAfter", entry.after),
        **_labelled("cs4", "base", entry.base),
        **_labelled("cs5", "leafHash", entry.leaf_hash.hex()),
        "cn1Label": "logIndex",
        "cn1": entry.index,
    }
    said = " ".join(f"{name}={_cef_value(str(value))}" for name, value in fields.items() if value is not None)
    line = "|".join((*map(_cef_head, head), str(_CEF_SEVERITY[entry.outcome]), said))
    return line.encode()


def to_statement(entry: EntryRecord, body: bytes) -> bytes:
    """An in-toto Statement v1 about the entry's bytes and the patches that it names; unsigned, the log signs."""
    value = _parsed(body)
    subjects: list[JsonValue] = [
        {"name": f"{value['log']}#{entry.index}", "digest": {"sha256": hashlib.sha256(body).hexdigest()}}
    ]
    subjects += [{"name": f"patch {patch[:12]}", "digest": {"rasuraPatchId": str(patch)}} for patch in entry.patches]
    if entry.after is not None:
        subjects.append({"name": f"model {entry.host}", "digest": {"rasuraTensorSet": str(entry.after)}})
    return canonical_json.dumps(
        {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": subjects,
            "predicateType": _PREDICATE,
            "predicate": {"entry": value, "leafHash": entry.leaf_hash.hex()},
        }
    )


EVENT_FORMATS: Final[Mapping[str, Callable[[EntryRecord, bytes], bytes]]] = {
    "jsonl": to_jsonl,
    "cloudevents": to_cloudevent,
    "ocsf": to_ocsf,
    "cef": to_cef,
    "intoto": to_statement,
}
"""By the name that the command line gives them."""


def _parsed(body: bytes) -> dict[str, JsonValue]:
    value = canonical_json.parse(body, what="audit entry", limit=len(body))
    assert isinstance(value, dict)
    return value


def _labelled(name: str, label: str, value: str | None) -> dict[str, str | None]:
    return {} if value is None else {f"{name}Label": label, name: value}


def _cef_head(text: str) -> str:
    """Backslash and pipe are escaped; a line break cannot stand in a head."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ").replace("\r", " ")


def _cef_value(text: str) -> str:
    """Backslash, equals sign and line breaks are escaped."""
    return text.replace("\\", "\\\\").replace("=", "\\=").replace("\n", "\\n").replace("\r", "\\r")
