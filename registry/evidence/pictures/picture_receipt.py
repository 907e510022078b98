"""What a served model was when it drew a picture: small, signed by the log's key, checked with that key alone.

    {"document":{"format":"rasura-picture/1", "time":"…", "model":"…", "host":"…", "base":"…", "state":"…",
                 "patches":[{"id":"…","concepts":["dog"],"strength":"1"}], "stack":"…", "looked":true, "picture":"…",
                 "log":{"vkey":"…","checkpoint":"…","links":[]}},
     "note":"<signed note>"}                                              RFC 8785 JSON

`stack` is the SHA-256 of the canonical JSON of patches and sixteenths, `state` the digest of the parameters that they
touch as the log has it, `looked` whether those were hashed and compared for this receipt, `picture` the SHA-256 of the
picture, null where it was not at hand. What never was written to has a null `host`, `base` and `state`. `checkpoint` is
the newest of the log: whoever has the log finds in its entries up to there that this stack was on that host. The note
is a C2SP signed note over `rasura/statement/picture-v1` and the SHA-256 of the document's canonical bytes.

A PNG carries it as a text chunk (`rasura.registry.evidence.pictures.png_text`); `picture` is then the digest of the
picture without the chunk, so that neither goes with another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rasura.patches._io import canonical_json
from rasura.patches._io.json_fields import Fields
from rasura.patches._io.sha256 import digest_of
from rasura.patches.algebra.strength import ONE, Strength
from rasura.patches.errors import AuditError, FormatError, InputError
from rasura.patches.types import Digest, PatchId
from rasura.registry._storage.records.validation import from_instant, instant
from rasura.registry.evidence.pictures.png_text import is_png, put_text, take_text
from rasura.registry.evidence.proofs.handed_on import MAX_LINKS, find_signer, read_links, write_links
from rasura.registry.evidence.proofs.take_out import export_checkpoint, link_keys
from rasura.registry.log.notes.signed_note import MAX_NOTE_BYTES, VerifyKey, parse_note, verify_note

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from rasura.patches._io.json_fields import JsonValue
    from rasura.registry._storage.records.records import HostRecord
    from rasura.registry.log.notes.signed_note import Checkpoint
    from rasura.registry.registry import Registry

__all__ = [
    "MAX_RECEIPT_BYTES",
    "PictureReceipt",
    "ReceiptPatch",
    "VerifiedReceipt",
    "embed_receipt",
    "make_receipt",
    "verify_receipt",
]

MAX_RECEIPT_BYTES: Final = 16 * 1024**2
STATEMENT: Final = "rasura/statement/picture-v1"

_FORMAT: Final = "rasura-picture/1"
_KEYWORD: Final = "rasura-receipt"
_WHAT: Final = "picture receipt"
_MAX_PATCHES: Final = 100_000


@dataclass(frozen=True, slots=True)
class ReceiptPatch:
    """A patch that was in force: its identity, what it erases, its strength."""

    patch_id: PatchId
    concepts: tuple[str, ...]
    strength: Strength


@dataclass(frozen=True, slots=True)
class PictureReceipt:
    """What a receipt says.

    Attributes:
        time: when it was made.
        model: what the model is called.
        host: identity of the model in the log; None: nothing was ever applied to it.
        base: digest of its base; None as for `host`.
        state: digest of the touched parameters, as the log has it; None as for `host`.
        patches: what was in force.
        looked: whether the touched parameters were hashed and compared for it.
        picture: SHA-256 of the picture; None: it was not at hand.
    """

    time: datetime
    model: str
    host: str | None
    base: Digest | None
    state: Digest | None
    patches: tuple[ReceiptPatch, ...]
    looked: bool
    picture: Digest | None

    def in_force(self, concept: str) -> tuple[ReceiptPatch, ...]:
        """The patches in force that are for this concept, whatever its case, at whatever strength."""
        return tuple(p for p in self.patches if concept.casefold() in {each.casefold() for each in p.concepts})

    def erased(self, concept: str) -> tuple[ReceiptPatch, ...]:
        """The patches that erased this concept, whatever its case; empty: it was not erased by name.

        A patch erases at strength 1; at any other it did less, more or the opposite.
        """
        found = self.in_force(concept)
        return found if all(patch.strength == ONE for patch in found) else ()


@dataclass(frozen=True, slots=True)
class VerifiedReceipt:
    """A receipt, all of it sound.

    Attributes:
        receipt: what it says.
        checkpoint: the log as it was.
        key: the log's, which signed it.
        pinned: whether that key, or one that led to it, came from outside the file.
        bound: whether the picture lay with it and is the one that it is about.
    """

    receipt: PictureReceipt
    checkpoint: Checkpoint
    key: VerifyKey
    pinned: bool
    bound: bool


def make_receipt(
    registry: Registry, model: str, record: HostRecord | None, *, picture: bytes | None, looked: bool
) -> bytes:
    """Sign what a model is now.

    Args:
        registry: which moves it.
        model: what it is called.
        record: what the registry knows of it; None: nothing was ever applied.
        picture: what was drawn, as it is stored or sent; None: not at hand.
        looked: whether the model was compared with the record just now.

    Raises:
        RegistryError: the log's key is not here, or others may read it.
        AuditError: the newest checkpoint is not signed by it.
    """
    applied = {} if record is None else dict(record.applied)
    concepts = {each: registry.patch(each).concepts for each in applied}
    patches: list[JsonValue] = [
        {"id": p, "concepts": list(concepts[p]), "strength": str(Strength(applied[p]))} for p in sorted(applied)
    ]
    document: dict[str, JsonValue] = {
        "format": _FORMAT,
        "time": instant(registry.now()),
        "model": model,
        "host": None if record is None else record.host_id,
        "base": None if record is None else record.base,
        "state": None if record is None else record.state,
        "patches": patches,
        "stack": _digest_stack(applied),
        "looked": looked,
        "picture": None if picture is None else digest_of(picture),
        "log": {
            "vkey": registry.log_vkey(),
            "checkpoint": export_checkpoint(registry).decode(),
            "links": write_links(link_keys(registry)),
        },
    }
    note = registry.log_key.sign_statement(STATEMENT, (digest_of(canonical_json.dumps(document)),))
    return canonical_json.dumps({"document": document, "note": note})


def embed_receipt(picture: bytes, receipt: bytes) -> bytes:
    """A PNG with the receipt that was made for it.

    Raises:
        FormatError: no PNG, or one that carries a receipt already.
    """
    return put_text(picture, _KEYWORD, receipt)


def verify_receipt(data: bytes, *, vkey: VerifyKey | None = None, picture: bytes | None = None) -> VerifiedReceipt:
    """Check every byte of a receipt, and of the picture that carries it.

    Args:
        data: a receipt, or a PNG that carries one.
        vkey: the log's public key, from somebody who kept it, or one that has handed the log on since. None: the file
            is believed when it names its own.
        picture: the picture beside a receipt that lies alone.

    Raises:
        FormatError: it is no receipt, or a picture without one.
        AuditError: it is not signed by the log's key, or is about another picture.
    """
    if is_png(data):
        picture, data = take_text(data, _KEYWORD)
    fields = Fields.of(canonical_json.loads(data, what=_WHAT, limit=MAX_RECEIPT_BYTES), _WHAT)
    document, note = fields.value("document"), fields.text("note", limit=MAX_NOTE_BYTES)
    fields.done()
    said = Fields.of(document, _WHAT)
    receipt = _read(said)
    log = said.fields("log")
    named = VerifyKey.parse(log.text("vkey", limit=1024))
    links = read_links(tuple(log.records("links", limit=MAX_LINKS)))
    checkpoint, signer = find_signer(log.text("checkpoint", limit=MAX_NOTE_BYTES), links, vkey or named)
    log.done()
    said.done()
    if signer.key != named:
        raise AuditError(f"{_WHAT}: expected a log of key {signer.key}, got one of {named}", check="key")
    _check_note(note, named, digest_of(canonical_json.dumps(document)))
    if picture is not None and digest_of(picture) != receipt.picture:
        raise AuditError(f"{_WHAT}: it is about another picture than this one", check="picture")
    return VerifiedReceipt(receipt, checkpoint, named, vkey is not None, picture is not None)


def _check_note(text: str, key: VerifyKey, digest: Digest) -> None:
    note = parse_note(text.encode())
    verify_note(note, [key])
    if len(note.signatures) != 1 or note.text != f"{STATEMENT}\n{digest}\n":
        raise AuditError(f"{_WHAT}: what it says is not what was signed")


def _read(said: Fields) -> PictureReceipt:
    said.choice("format", (_FORMAT,))
    patches = tuple(map(_read_patch, said.records("patches", limit=_MAX_PATCHES)))
    stack = said.digest("stack")
    if stack != _digest_stack({each.patch_id: each.strength.sixteenths for each in patches}):
        raise FormatError(f"{_WHAT}: stack: expected the digest of its patches, got another")
    return PictureReceipt(
        _read_time(said),
        said.text("model", limit=4096),
        None if said.is_null("host") else said.text("host", limit=64),
        None if said.is_null("base") else said.digest("base"),
        None if said.is_null("state") else said.digest("state"),
        patches,
        said.flag("looked"),
        None if said.is_null("picture") else said.digest("picture"),
    )


def _read_time(said: Fields) -> datetime:
    try:
        return from_instant(said.text("time", limit=32))
    except InputError as error:
        raise FormatError(f"{_WHAT}: {error.message}") from None


def _read_patch(fields: Fields) -> ReceiptPatch:
    concepts: Sequence[str] = fields.texts("concepts", limit=1000, characters=512)
    patch = ReceiptPatch(
        PatchId(fields.digest("id")), tuple(concepts), Strength.parse(fields.text("strength", limit=32))
    )
    fields.done()
    return patch


def _digest_stack(applied: Mapping[PatchId, int]) -> Digest:
    return digest_of(canonical_json.dumps({str(patch_id): sixteenths for patch_id, sixteenths in applied.items()}))
