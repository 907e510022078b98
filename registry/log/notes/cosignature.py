"""Cosignatures of checkpoints, as C2SP `tlog-cosignature` (v1) defines them: somebody else saw this tree, at this time.

A line under the note like a signature, but of type 0x04: its value is the time (seconds since 1970, 8 bytes big-endian)
and an Ed25519 signature over

    cosignature/v1
    time 1767225600
    <the checkpoint's three lines>

The key's identity has the type in it, so that the same key as a log's has another one here.
"""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from rasura.patches._io.json_fields import show
from rasura.patches.errors import AuditError
from rasura.registry.log.notes.signed_note import Note, NoteSignature, VerifyKey
from rasura.registry.log.notes.strict_base64 import encode_base64, read_base64

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = ["WitnessKey", "cosign", "find_cosignature"]

_TYPE: Final = 0x04
_TIME_BYTES: Final = 8
_SIGNATURE_BYTES: Final = 64
_ID_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class WitnessKey:
    """A named Ed25519 public key of a witness.

    Raises:
        AuditError: see `VerifyKey`.
    """

    name: str
    public: bytes
    """RFC 8032 encoding, 32 bytes."""

    def __post_init__(self) -> None:
        VerifyKey(self.name, self.public)  # which refuses what is no key

    @property
    def key_id(self) -> bytes:
        """First four bytes of SHA-256(name, newline, type, public key)."""
        return hashlib.sha256(self.name.encode() + b"\n" + bytes([_TYPE]) + self.public).digest()[:_ID_BYTES]

    @classmethod
    def parse(cls, text: str) -> "WitnessKey":
        """The key of a `name+hex(id)+base64(type and key)` text.

        Raises:
            AuditError: another form, another algorithm, or an id that is not the key's.
        """
        name, _, rest = text.partition("+")
        key_id, _, encoded = rest.partition("+")
        raw = read_base64(encoded, "witness key")
        if not raw or raw[0] != _TYPE:
            raise AuditError(
                f"witness key {show(name)}: expected a cosignature key (type 04), got type {raw[:1].hex() or 'none'}"
            )
        key = cls(name, raw[1:])
        if key_id != key.key_id.hex():
            raise AuditError(f"witness key {show(name)}: expected id {key.key_id.hex()}, got {show(key_id)}")
        return key

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{encode_base64(bytes([_TYPE]) + self.public)}"


def cosign(text: str, name: str, key: "Ed25519PrivateKey", time: datetime) -> NoteSignature:
    """A witness's line under a checkpoint.

    Args:
        text: the checkpoint's three lines.
        name: of the witness.
        key: its own.
        time: when it saw the tree.
    """
    seconds = int(time.timestamp())
    witness = WitnessKey(name, key.public_key().public_bytes_raw())
    value = seconds.to_bytes(_TIME_BYTES, "big") + key.sign(_message(text, seconds))
    return NoteSignature(name, witness.key_id, value)


def find_cosignature(note: Note, witness: WitnessKey) -> datetime:
    """When a witness saw the tree of a note.

    Raises:
        AuditError: it did not sign, or what stands there is not its signature.
    """
    for signature in note.signatures:
        if (signature.name, signature.key_id) != (witness.name, witness.key_id):
            continue
        if len(signature.value) != _TIME_BYTES + _SIGNATURE_BYTES:
            raise AuditError(f"cosignature by {witness.name}: expected 72 bytes, got {len(signature.value)}")
        seconds = int.from_bytes(signature.value[:_TIME_BYTES], "big")
        message = _message(note.text, seconds)
        if not VerifyKey(witness.name, witness.public).accepts(message, signature.value[_TIME_BYTES:]):
            raise AuditError(f"the cosignature by {witness.name} does not verify", signer=witness.name)
        try:
            return datetime.fromtimestamp(seconds, UTC)
        except (ValueError, OverflowError, OSError):
            raise AuditError(f"cosignature by {witness.name}: its time is none: {seconds}") from None
    raise AuditError(f"note: expected a cosignature by {witness.name}, got none")


def _message(text: str, seconds: int) -> bytes:
    return f"cosignature/v1\ntime {seconds}\n{text}".encode()
