"""A report as it is signed and checked: `report.json`, and `report.html`, which holds the same and the pictures.

    {"document":{…}, "note":"<signed note>", "envelope":{…}}          RFC 8785 JSON; `envelope` may be missing

The note is a C2SP signed note by the log's key over three lines: what it is, the SHA-256 of the document's canonical
bytes, the SHA-256 of the page without what stands between its two markers. There the page holds `report.json`, base64.
So every byte of both files is covered. The envelope is a DSSE envelope over the same two digests by the key that the
document names as `signer`. The document carries a bundle of the log's entries that it tells of
(`rasura.registry.evidence.proofs.log_bundle`), and each event is compared with its entry.

To check a report needs the log's public key and nothing else: no registry, no model, no torch.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rasura.patches._io import canonical_json
from rasura.patches._io.json_fields import Fields
from rasura.patches._io.sha256 import digest_of
from rasura.patches._io.strict_base64 import decode_base64, encode_base64
from rasura.patches.errors import AuditError, FormatError, RasuraError, SignatureError, UntrustedKeyError
from rasura.patches.format.signatures.dsse_envelope import open_envelope, sign_envelope
from rasura.patches.format.signatures.signing_key import PublicKey
from rasura.registry._storage.records.validation import instant
from rasura.registry.evidence.proofs.log_bundle import read_log_bundle
from rasura.registry.log.notes.signed_note import VerifyKey, parse_note, verify_note

if TYPE_CHECKING:
    from collections.abc import Collection

    from rasura.patches._io.json_fields import JsonValue
    from rasura.patches.format.signatures.signing_key import SigningKey
    from rasura.registry._storage.records.records import EntryRecord
    from rasura.registry.log.log_key import LogKey
    from rasura.registry.log.notes.signed_note import Checkpoint

__all__ = ["FORMAT", "MAX_REPORT_BYTES", "VerifiedReport", "is_page", "sign_report", "verify_report"]

FORMAT: Final = "rasura-report/1"
STATEMENT: Final = "rasura/statement/report-v1"
MAX_REPORT_BYTES: Final = 256 * 1024**2
START: Final = b'<script type="text/plain" id="rasura-signed-report">'
END: Final = b"</script>"
_DOCTYPE: Final = b"<!doctype html>"
_WHAT: Final = "report"
_TYPE: Final = "https://in-toto.io/Statement/v1"
_PREDICATE: Final = "urn:rasura:report:v1"


@dataclass(frozen=True, slots=True)
class VerifiedReport:
    """What was found of a report, all of it sound.

    Attributes:
        document: what it says.
        key: the log's, which signed it.
        pinned: whether that key came from outside the file.
        signer: whose own signature it has, too; None: nobody's.
        checkpoint: the log that its entries are in.
        entries: how many of them it carries, each proved.
        page: whether it is the page, with the pictures, or its twin for machines.
    """

    document: Mapping[str, JsonValue]
    key: VerifyKey
    pinned: bool
    signer: PublicKey | None
    checkpoint: Checkpoint
    entries: int
    page: bool


def sign_report(
    document: Mapping[str, JsonValue], page: bytes, log_key: LogKey, signer: SigningKey | None = None
) -> tuple[bytes, bytes]:
    """Sign a report.

    Args:
        document: what it says; names the key of `signer`.
        page: the HTML, with nothing between its markers.
        log_key: the registry's.
        signer: signs beside it.

    Returns:
        `report.json` and `report.html`.
    """
    digests = digest_of(canonical_json.dumps(document)), digest_of(page)
    value: dict[str, JsonValue] = {
        "document": dict(document),
        "note": log_key.sign_statement(STATEMENT, digests),
    }
    if signer is not None:
        envelope = canonical_json.loads(sign_envelope(_statement(*digests), signer), what=_WHAT, limit=1 << 20)
        value["envelope"] = envelope
    data = canonical_json.dumps(value)
    before, after = _split(page)
    return data, before + encode_base64(data).encode() + after


def is_page(data: bytes) -> bool:
    """Whether this is a report's page and not its twin."""
    return data.startswith(_DOCTYPE)


def verify_report(data: bytes, *, vkey: VerifyKey | None = None, keys: Collection[PublicKey] = ()) -> VerifiedReport:
    """Check every byte of a report.

    Args:
        data: the page or its twin.
        vkey: the log's public key, from somebody who kept it, or one that has handed the log on since. None: the file
            is believed when it names its own.
        keys: whose own signatures count; with any, the report must have one of them.

    Raises:
        FormatError: it is no report.
        AuditError: it is not signed by the log's key, or tells of entries that are not in the log.
        SignatureError, UntrustedKeyError: the signature beside it is bad, or not by one of `keys`.
    """
    page = is_page(data)
    twin = _take_out(data) if page else data
    fields = Fields.of(canonical_json.loads(twin, what=_WHAT, limit=MAX_REPORT_BYTES), _WHAT)
    document, note = fields.value("document"), fields.text("note", limit=1 << 16)
    envelope = fields.value("envelope") if fields.has("envelope") else None
    fields.done()
    said = Fields.of(document, _WHAT)
    said.choice("format", (FORMAT,))
    log = said.fields("log")
    named = VerifyKey.parse(log.text("vkey", limit=1024))
    digests = _read_note(note, named)
    if digests[0] != digest_of(canonical_json.dumps(document)):
        raise AuditError(f"{_WHAT}: what it says is not what was signed")
    if page and digests[1] != digest_of(_empty(data)):
        raise AuditError(f"{_WHAT}: the page is not the one that was signed")
    signer = _read_envelope(said, envelope, digests, keys)
    # The bundle ties the key that signed to the one that was kept, across rotations.
    key, checkpoint, entries = _read_bundle(log.text("bundle", limit=MAX_REPORT_BYTES).encode(), vkey)
    if key != named:
        raise AuditError(f"{_WHAT}: expected a log of key {key}, got one of {named}", check="key")
    _compare_events(said, entries)
    assert isinstance(document, Mapping)
    return VerifiedReport(document, key, vkey is not None, signer, checkpoint, len(entries), page)


def _read_note(text: str, key: VerifyKey) -> tuple[str, str]:
    note = parse_note(text.encode())
    verify_note(note, [key])
    lines = note.text.split("\n")
    if len(note.signatures) != 1 or len(lines) != 4 or lines[0] != STATEMENT or lines[3]:  # noqa: PLR2004
        raise AuditError(f"{_WHAT}: its note is none about a report")
    return lines[1], lines[2]


def _statement(document: str, page: str) -> bytes:
    subject: list[JsonValue] = [
        {"name": "document", "digest": {"sha256": document}},
        {"name": "page", "digest": {"sha256": page}},
    ]
    return canonical_json.dumps({"_type": _TYPE, "subject": subject, "predicateType": _PREDICATE, "predicate": {}})


def _read_envelope(
    said: Fields, envelope: JsonValue, digests: tuple[str, str], keys: Collection[PublicKey]
) -> PublicKey | None:
    named = said.value("signer")
    if (named is None) != (envelope is None):
        raise SignatureError(f"{_WHAT}: names a signer and has no signature, or the other way round")
    if named is None:
        if keys:
            raise SignatureError(f"{_WHAT}: expected a signature by one of the keys, got the log's alone")
        return None
    own = PublicKey.load(said.fields("signer").text("pem"))
    payload, _ = open_envelope(canonical_json.dumps(envelope), [own])
    if payload != _statement(*digests):
        raise SignatureError(f"{_WHAT}: the signature by {own.key_id} is over something else")
    if keys and own.key_id not in {key.key_id for key in keys}:
        raise UntrustedKeyError(f"{_WHAT}: expected a known key, got one by {own.key_id}", key_id=own.key_id)
    return own


def _read_bundle(bundle: bytes, vkey: VerifyKey | None) -> tuple[VerifyKey, Checkpoint, tuple[EntryRecord, ...]]:
    try:
        found = read_log_bundle(io.BytesIO(bundle), vkey=vkey)
        return found.key, found.checkpoint, tuple(found.entries())
    except RasuraError as error:
        raise AuditError(f"{_WHAT}: its entries of the log: {error.message}") from None


def _compare_events(said: Fields, entries: tuple[EntryRecord, ...]) -> None:
    """What the report tells of the log is what the log says."""
    names = ("time", "actor", "action", "outcome")
    told = [
        (event.integer("index", 0, canonical_json.MAX_INTEGER), *(event.text(name) for name in names))
        for event in said.records("events")
    ]
    proved = [(e.index, instant(e.time), e.actor, e.action, e.outcome) for e in entries]
    if told != proved:
        raise AuditError(f"{_WHAT}: its events are not the entries that it carries")


def _split(page: bytes) -> tuple[bytes, bytes]:
    """The page up to and from the place of its twin.

    Raises:
        FormatError: there is no such place, or several.
    """
    before, start, rest = page.partition(START)
    inside, end, after = rest.partition(END)
    if not start or not end or START in rest:
        raise FormatError(f"{_WHAT}: expected a page that holds a signed report, got another")
    del inside
    return before + start, end + after


def _empty(page: bytes) -> bytes:
    before, after = _split(page)
    return before + after


def _take_out(page: bytes) -> bytes:
    before, after = _split(page)
    data = decode_base64(page[len(before) : len(page) - len(after)].decode("ascii", "replace"))
    if data is None:
        raise FormatError(f"{_WHAT}: expected base64 in the page's signed part, got something else")
    return data
