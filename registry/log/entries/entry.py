"""An audit entry as bytes: RFC 8785 JSON, version 1. These bytes are what the Merkle tree hashes, so they are fixed.

    {"v":1, "log":"rasura/log/5f0c…", "index":42, "id":"<uuid>", "type":"patch.add",
     "time":"2026-11-21T22:40:00.123456Z", "actor":{"name":"alice"}, "reason":{"text":"…"},
     "outcome":{"status":"success"}, "closes":41, "patches":["<id>", …], "base":"<digest>", "host":"<uuid>",
     "effect":{"before":"<digest>", "after":"<digest>"}, "details":{"layers":32},
     "changes":[{"kind":"patch", "id":"<id>", "record":"<digest>"}]}

Who acts may sign what the entry says: then `actor` has `key`, too, and `signature`, ECDSA P-256 in DER and base64 over
the DSSE pre-authentication encoding (type `ACTOR_TYPE`) of the entry's bytes without `signature`. That holds the
signature to this entry at this place of this log. An entry without one has the bytes of before there were such.

What is absent is left out, never null. `changes` is written by the registry alone: for each row that the same
transaction changed, the digest of the whole record as it is afterwards (`rasura.registry.log.entries.record_digest`).
Replaying them must give the tables. A row that the transaction removed is told of by `{"kind":"stack", "id":"…",
"gone":true}`, which only stacks can be; an entry without one has the bytes that it had before there were such. More
than 128 patches are kept as their number and digest, so that no entry passes 65,535 bytes, the limit of the C2SP `tlog-
tiles` layout; the list itself then lies in the table beside the entry.

A text of a later version is refused, not half understood.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, cast

from rasura.patches._io import canonical_json
from rasura.patches._io.json_fields import Fields, JsonValue, show
from rasura.patches._io.strict_base64 import decode_base64, encode_base64
from rasura.patches.errors import FormatError, InputError
from rasura.patches.types import KeyId, PatchId
from rasura.registry._storage.digests import sha256
from rasura.registry._storage.records.records import Draft, EntryRecord, Outcome
from rasura.registry._storage.records.validation import (
    check_digest,
    check_text,
    check_time,
    check_uuid,
    from_instant,
    instant,
)
from rasura.registry.log.entries.entry_changes import read_change, write_change
from rasura.registry.log.entries.entry_parts import (
    ACTION,
    MAX_CHANGES,
    MAX_ENTRY_BYTES,
    MAX_LISTED,
    OUTCOMES,
    VERSION,
    Placement,
    RowChange,
)
from rasura.registry.log.entries.plain_form import read_quickly
from rasura.registry.log.merkle import hash_leaf

if TYPE_CHECKING:
    from rasura.patches.format.signatures.signing_key import SigningKey

__all__ = [
    "ACTOR_TYPE",
    "MAX_ENTRY_BYTES",
    "MAX_LISTED",
    "Placement",
    "RowChange",
    "decode",
    "encode",
    "read_carefully",
    "split_actor",
]

ACTOR_TYPE: Final = "application/vnd.rasura.entry+json"
"""What an actor's signature is over: its DSSE payload type."""

_MAX_REASON: Final = 4096
_MAX_DETAILS: Final = 64
_MAX_SIGNATURE: Final = 128  # base64 of 72 bytes of DER has 96
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


def encode(
    draft: Draft, place: Placement, changes: Sequence[RowChange] = (), actor: "SigningKey | None" = None
) -> bytes:
    """The entry's bytes; with the key of who acts, signed by it.

    Raises:
        InputError: a field that the log does not carry, or more than 65,535 bytes.
    """
    _check_draft(draft)
    check_uuid("entry id", place.entry_id)
    check_time("entry time", place.time)
    if len(changes) > MAX_CHANGES:
        raise InputError(f"audit entry: expected at most {MAX_CHANGES} changes at once, got {len(changes)}")
    value: dict[str, JsonValue] = {
        "v": VERSION,
        "log": place.log,
        "index": place.index,
        "id": place.entry_id,
        "type": draft.action,
        "time": instant(place.time),
        "actor": {"name": draft.actor},
        "reason": {"text": draft.reason},
        "outcome": _present(status=draft.outcome, error=draft.error),
        "patches": encode_patches(draft.patches),
        "details": dict(draft.details),
        "changes": [write_change(change) for change in changes],
        **_present(base=draft.base, host=draft.host, closes=draft.closes),
    }
    effect = _present(before=draft.before, after=draft.after)
    if effect:
        value["effect"] = effect
    data = canonical_json.dumps(value if actor is None else _sign(value, draft.actor, actor))
    if len(data) > MAX_ENTRY_BYTES:
        raise InputError(f"audit entry: expected at most {MAX_ENTRY_BYTES} bytes, got {len(data)}; shorten the reason")
    return data


def decode(data: bytes, patches: Sequence[PatchId] | None = ()) -> tuple[EntryRecord, Placement, tuple[RowChange, ...]]:
    """The entry of its bytes, read strictly; `patches` are those the table lists beside it.

    With None for them, those that the bytes spell out are taken; of a list that is too long for that, none.

    Raises:
        FormatError: not canonical, unknown fields, another version, or patches that are not those of the bytes.
    """
    quick = read_quickly(data, patches)
    return quick if quick is not None else read_carefully(data, patches)


def read_carefully(
    data: bytes, patches: Sequence[PatchId] | None
) -> tuple[EntryRecord, Placement, tuple[RowChange, ...]]:
    """As `decode`, field by field: any entry, and what is wrong with what is none."""
    what = "audit entry"
    fields = Fields.of(canonical_json.loads(data, what=what, limit=MAX_ENTRY_BYTES), what)
    fields.integer("v", VERSION, VERSION)
    place = Placement(
        fields.text("log", limit=255),
        fields.integer("index", 0, canonical_json.MAX_INTEGER),
        fields.text("id", limit=36),
        _time(fields),
    )
    changes = tuple(read_change(change) for change in fields.records("changes", limit=MAX_CHANGES))
    beside = _spelt_out(fields) if patches is None else tuple(patches)
    record = _read_record(fields, place, beside, hash_leaf(data), check=patches is not None)
    fields.done()
    return record, place, changes


def _sign(value: dict[str, JsonValue], name: str, key: "SigningKey") -> dict[str, JsonValue]:
    from rasura.patches.format.signatures.dsse_envelope import (
        join_signature,  # needs cryptography; reading entries does not
    )

    who: dict[str, JsonValue] = {"name": name, "key": key.public.key_id}
    signature = join_signature(canonical_json.dumps({**value, "actor": who}), ACTOR_TYPE, key)
    return {**value, "actor": {**who, "signature": encode_base64(signature)}}


def split_actor(data: bytes) -> tuple[KeyId, bytes, bytes] | None:
    """Of an entry that `decode` read: the key of who acted, what it signed, and the signature; None without one."""
    if b'"signature":' not in data:  # of an entry with one, canonical JSON holds these bytes
        return None
    value = canonical_json.loads(data, what="audit entry", limit=MAX_ENTRY_BYTES)
    who = value["actor"] if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(who, dict) or "signature" not in who:
        return None
    signature = decode_base64(str(who["signature"]))
    assert signature is not None  # `decode` looked at it
    signed = {name: said for name, said in who.items() if name != "signature"}
    return KeyId(str(who["key"])), canonical_json.dumps({**value, "actor": signed}), signature


def encode_patches(patches: Sequence[PatchId]) -> JsonValue:
    """Patches as an entry names them: one by one, or as number and digest of the canonical list."""
    if len(patches) <= MAX_LISTED:
        return list(patches)
    digest = sha256(canonical_json.dumps(list(patches)))
    return {"count": len(patches), "sha256": digest}


def _spelt_out(fields: Fields) -> tuple[PatchId, ...]:
    value = fields.value("patches")
    if isinstance(value, list):
        if len(value) > MAX_LISTED or not all(isinstance(each, str) and _DIGEST.fullmatch(each) for each in value):
            raise FormatError(f"audit entry: patches: expected at most {MAX_LISTED} digests")
        return tuple(PatchId(str(each)) for each in value)
    inside = fields.fields("patches")
    inside.integer("count", MAX_LISTED + 1, canonical_json.MAX_INTEGER)
    inside.digest("sha256")
    inside.done()
    return ()


def _read_record(
    fields: Fields, place: Placement, patches: tuple[PatchId, ...], leaf: bytes, *, check: bool
) -> EntryRecord:
    if check and encode_patches(patches) != fields.value("patches"):
        raise FormatError(f"audit entry {place.index}: the patches beside it are not those it names")
    actor, actor_key = _read_actor(fields.fields("actor"))
    outcome = fields.fields("outcome")
    effect = fields.optional("effect", fields.fields) or Fields({}, "effect")
    record = EntryRecord(
        index=place.index,
        time=place.time,
        actor=actor,
        action=fields.text("type", ACTION),
        outcome=cast("Outcome", outcome.choice("status", OUTCOMES)),
        reason=_inner(fields, "reason", "text"),
        patches=patches,
        base=fields.optional("base", fields.digest),
        host=fields.optional("host", fields.text),
        before=effect.optional("before", effect.digest),
        after=effect.optional("after", effect.digest),
        details=_read_details(fields.fields("details")),
        leaf_hash=leaf,
        error=outcome.optional("error", outcome.text),
        closes=fields.optional("closes", lambda name: fields.integer(name, 0, canonical_json.MAX_INTEGER)),
        entry_id=place.entry_id,
        actor_key=actor_key,
    )
    outcome.done()
    effect.done()
    return record


def _read_actor(fields: Fields) -> tuple[str, KeyId | None]:
    name = fields.text("name")
    key = fields.optional("key", fields.digest)
    if key is not None and decode_base64(fields.text("signature", limit=_MAX_SIGNATURE)) is None:
        raise FormatError("audit entry: actor: signature: expected base64 (RFC 4648 §4), got something else")
    fields.done()
    return name, None if key is None else KeyId(key)


def _inner(fields: Fields, outer: str, name: str) -> str:
    inside = fields.fields(outer)
    text = inside.text(name)
    inside.done()
    return text


def _time(fields: Fields) -> datetime:
    try:
        return from_instant(fields.text("time", limit=27))
    except InputError as error:
        raise FormatError(f"audit entry: {error}") from None


def _read_details(fields: Fields) -> Mapping[str, str | int]:
    details = {name: fields.value(name) for name in fields.names()}
    if any(isinstance(v, bool) or not isinstance(v, str | int) for v in details.values()):
        raise FormatError("audit entry: details: expected texts and integers")
    return MappingProxyType(cast("dict[str, str | int]", details))


def _present(**values: JsonValue) -> dict[str, JsonValue]:
    return {name: value for name, value in values.items() if value is not None}


def _check_draft(draft: Draft) -> None:
    """Everything that the reader would refuse is refused here, before it is signed."""
    check_text("actor", draft.actor, limit=255)
    check_text("reason", draft.reason, limit=_MAX_REASON, empty=True)
    if not ACTION.fullmatch(draft.action) or draft.outcome not in OUTCOMES:
        raise InputError(f"audit entry: expected noun.verb and an outcome, got {show(draft.action)}, {draft.outcome}")
    for patch_id in draft.patches:
        check_digest("patch id", patch_id)
    for what, digest in (("base", draft.base), ("before", draft.before), ("after", draft.after)):
        if digest is not None:
            check_digest(what, digest)
    if draft.host is not None:
        check_uuid("host", draft.host)
    if draft.error is not None:
        check_text("error", draft.error, limit=64)
    _check_details(draft.details)


def _check_details(details: Mapping[str, object]) -> None:
    if len(details) > _MAX_DETAILS:
        raise InputError(f"audit entry: expected at most {_MAX_DETAILS} details, got {len(details)}")
    for name, value in details.items():
        check_text("name of a detail", name, limit=64)
        if isinstance(value, str):
            check_text(f"detail {name}", value, limit=_MAX_REASON, empty=True)
        elif not isinstance(value, int) or isinstance(value, bool) or abs(value) > canonical_json.MAX_INTEGER:
            raise InputError(f"detail {name}: expected a text or an integer within ±(2^53 - 1), got {show(value)}")
