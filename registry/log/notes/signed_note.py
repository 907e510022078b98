"""Signed notes and checkpoints, as the C2SP specifications `signed-note` and `tlog-checkpoint` define them.

A note is a text and the signatures under it; a checkpoint is a note whose text says how long a log is and what its
Merkle root is:

    rasura/log/5f0c…                     origin: the log's name
    8                                    size: entries so far
    XcnaeacGWamtVZy3Ad7ZoqudgjqtL0lg…    root hash, base64

    — rasura/log/5f0c… 56kMABbmueAL…     name, base64 of key id (4 bytes) and signature (64 bytes)

Only Ed25519 (type 0x01) is known here. Signatures by keys that nobody asked about are ignored, as the specification
demands, so that witnesses can add theirs.
"""

import binascii
import functools
import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rasura.patches._io.json_fields import show
from rasura.patches.errors import AuditError
from rasura.registry.log.notes.strict_base64 import encode_base64, read_base64

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

__all__ = [
    "Checkpoint",
    "Note",
    "NoteSignature",
    "PlainNotes",
    "VerifyKey",
    "parse_note",
    "sign_note",
    "verify_note",
]

MAX_NOTE_BYTES: Final = 64 * 1024
MAX_SIGNATURES: Final = 64
"""Signature lines in one note; the specification asks readers to take at least 16."""

_ED25519: Final = 0x01
_ID_BYTES: Final = 4
_ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_DASH: Final = "\N{EM DASH} "
_NAME: Final = re.compile(r"[^\s+\x00-\x1f]{1,255}")
_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f]")
_MAX_SIZE: Final = 2**63 - 1

_P: Final = 2**255 - 19
_Y8: Final = 2707385501144840649318225287225658788936804267575313519463743609750303402022
# The y coordinates of the eight points whose order divides 8. For such a key a signature over ANY message verifies.
_SMALL_ORDER_Y: Final = frozenset({0, 1, _P - 1, _Y8, _P - _Y8})


@dataclass(frozen=True, slots=True)
class VerifyKey:
    """A named Ed25519 public key: who may sign notes.

    Raises:
        AuditError: a name with spaces or `+`, or a point of small order or in a non-canonical encoding.
    """

    name: str
    public: bytes
    """RFC 8032 encoding, 32 bytes."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise AuditError(f"note key: expected a name without spaces and +, got {show(self.name)}")
        _check_point(self.public)

    @property
    def key_id(self) -> bytes:
        """First four bytes of SHA-256(name, newline, type, public key)."""
        return hashlib.sha256(self.name.encode() + b"\n" + bytes([_ED25519]) + self.public).digest()[:_ID_BYTES]

    @classmethod
    def parse(cls, text: str) -> "VerifyKey":
        """The key of a `name+hex(id)+base64(type and key)` text; `str(VerifyKey.parse(t)) == t`.

        Raises:
            AuditError: another form, another algorithm, or an id that is not the key's.
        """
        name, _, rest = text.partition("+")
        key_id, _, encoded = rest.partition("+")
        raw = read_base64(encoded, "note key")
        if not raw or raw[0] != _ED25519:
            raise AuditError(f"note key {show(name)}: expected Ed25519 (type 01), got type {raw[:1].hex() or 'none'}")
        key = cls(name, raw[1:])
        if key_id != key.key_id.hex():
            raise AuditError(f"note key {show(name)}: expected id {key.key_id.hex()}, got {show(key_id)}")
        return key

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{encode_base64(bytes([_ED25519]) + self.public)}"

    def accepts(self, message: bytes, signature: bytes) -> bool:
        """Whether the signature is this key's over the message (RFC 8032 §5.1.7)."""
        from cryptography.exceptions import InvalidSignature  # lists verify nothing

        try:
            _read_public(self.public).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One line under a note: who says to have signed, and the bytes."""

    name: str
    key_id: bytes
    value: bytes

    def __str__(self) -> str:
        return f"{_DASH}{self.name} {encode_base64(self.key_id + self.value)}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """A text that ends with a newline, and the signatures under it; nothing is verified yet."""

    text: str
    signatures: tuple[NoteSignature, ...]

    def __str__(self) -> str:
        return self.text + "\n" + "".join(map(str, self.signatures))


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log commits to: its name, its number of entries and their Merkle root (32 bytes)."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        """The three lines that are signed."""
        return f"{self.origin}\n{self.size}\n{encode_base64(self.root)}\n"

    @classmethod
    def parse(cls, text: str) -> "Checkpoint":
        """The checkpoint of a note's text. Extension lines are refused: a later signature type would not cover them.

        Raises:
            AuditError: another form.
        """
        lines = text.split("\n")
        if len(lines) != 4 or lines[3]:  # noqa: PLR2004 - origin, size, root, and nothing after the last newline
            raise AuditError(f"checkpoint: expected three lines, got {text.count(chr(10))}")
        origin, size, root = lines[:3]
        if not origin or not _SIZE.fullmatch(size) or int(size) > _MAX_SIZE:
            raise AuditError(f"checkpoint: expected an origin and a decimal size, got {show(origin)} and {show(size)}")
        digest = read_base64(root, "checkpoint root")
        if len(digest) != hashlib.sha256().digest_size:
            raise AuditError(f"checkpoint: expected a root of 32 bytes, got {len(digest)}")
        return cls(origin, int(size), digest)


def parse_note(data: bytes) -> Note:
    """Reads a note strictly; nothing is verified.

    Raises:
        AuditError: too long, not UTF-8, control characters, no signature, or a malformed signature line.
    """
    if len(data) > MAX_NOTE_BYTES:
        raise AuditError(f"note: expected at most {MAX_NOTE_BYTES} bytes, got {len(data)}")
    try:
        whole = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise AuditError(f"note: expected UTF-8, got a stray byte at {error.start}") from None
    if _CONTROL.search(whole) or not whole.endswith("\n"):
        raise AuditError("note: expected lines that end with a newline and no other control characters")
    at = whole.rfind("\n\n")  # the last empty line: the text may have some of its own
    lines = whole[at + 2 :].split("\n")[:-1] if at >= 0 else []
    if not 0 < len(lines) <= MAX_SIGNATURES:
        raise AuditError(f"note: expected an empty line and 1 to {MAX_SIGNATURES} signatures, got {len(lines)}")
    return Note(whole[: at + 1], tuple(map(_parse_signature, lines)))


def sign_note(text: str, name: str, key: "Ed25519PrivateKey") -> Note:
    """The text with one signature. Ed25519 is deterministic: the same text and key give the same note.

    Raises:
        AuditError: a name that no note can carry, or a text that does not end with a newline.
    """
    if not text.endswith("\n") or _CONTROL.search(text):
        raise AuditError("note: expected a text of lines that end with a newline")
    verifier = VerifyKey(name, key.public_key().public_bytes_raw())
    return Note(text, (NoteSignature(name, verifier.key_id, key.sign(text.encode())),))


class PlainNotes:
    """Checkpoints that one key alone signed, as a log writes them: one spelling each, known without being read."""

    __slots__ = ("_between", "_key", "_rest", "_start")

    def __init__(self, key: VerifyKey) -> None:
        self._key = key
        self._start = f"{key.name}\n"
        self._between = f"\n{_DASH}{key.name} "
        self._rest = _find_form(key)

    def match(self, note: str, size: int, root: bytes) -> bool:
        """Whether a note is the checkpoint of this tree with one signature that says to be the key's; not verified."""
        return self._find_signature(note, self._write_text(size, root)) is not None

    def verify(self, note: str, size: int, root: bytes) -> bool:
        """Whether a note is the checkpoint of this tree, and its one signature is the key's."""
        text = self._write_text(size, root)
        line = self._find_signature(note, text)
        return line is not None and self._key.accepts(text.encode(), binascii.a2b_base64(line)[_ID_BYTES:])

    def _write_text(self, size: int, root: bytes) -> str:
        return f"{self._start}{size}\n{encode_base64(root)}\n"

    def _find_signature(self, note: str, text: str) -> str | None:
        before = text + self._between
        found = self._rest.fullmatch(note, len(before)) if note.startswith(before) else None
        return None if found is None else found[0]


@functools.lru_cache(maxsize=16)
def _find_form(key: VerifyKey) -> re.Pattern[str]:
    """Of the rest of a signature line: 68 bytes in base64, the first four of them the key's id."""
    start = encode_base64(key.key_id + bytes(2))  # 8 characters; the sixth has two bits of the id
    sixth = _ALPHABET.index(start[5]) & 0b110000
    return re.compile(
        rf"{re.escape(start[:5])}[{re.escape(_ALPHABET[sixth : sixth + 16])}][A-Za-z0-9+/]{{84}}[AEIMQUYcgkosw048]=\n"
    )


def verify_note(note: Note, keys: Collection[VerifyKey]) -> tuple[VerifyKey, ...]:
    """Those of `keys` that signed the note, each once however often it signed. Unknown signers are ignored.

    Raises:
        AuditError: a signature that claims to be by one of `keys` and is not, or none by any of them.
    """
    message = note.text.encode()
    found: dict[bytes, VerifyKey] = {}
    for signature in note.signatures:
        for key in keys:
            if (key.name, key.key_id) != (signature.name, signature.key_id):
                continue
            if not key.accepts(message, signature.value):
                raise AuditError(f"note: the signature by {key.name} does not verify", signer=key.name)
            found.setdefault(key.public, key)
    if not found:
        wanted = ", ".join(key.name for key in keys)
        raise AuditError(f"note: expected a signature by {wanted}, got {show(note.signatures[0].name)}")
    return tuple(found.values())


@functools.lru_cache(maxsize=16)
def _read_public(public: bytes) -> "Ed25519PublicKey":
    """The key of its 32 bytes; reading a long log asks for the same one again and again."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    return Ed25519PublicKey.from_public_bytes(public)


def _parse_signature(line: str) -> NoteSignature:
    name, _, encoded = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not _NAME.fullmatch(name):
        raise AuditError(f"note: expected a signature line, got {show(line)}")
    raw = read_base64(encoded, "note signature")
    if len(raw) <= _ID_BYTES:
        raise AuditError(f"note: expected a key id and a signature by {show(name)}, got {len(raw)} bytes")
    return NoteSignature(name, raw[:_ID_BYTES], raw[_ID_BYTES:])


def _check_point(public: bytes) -> None:
    """Refuses keys that accept forgeries: points of small order, and y coordinates not reduced modulo p."""
    if len(public) != hashlib.sha256().digest_size:
        raise AuditError(f"note key: expected 32 bytes, got {len(public)}")
    y = int.from_bytes(public, "little") & (2**255 - 1)  # the top bit is the sign of x
    if y >= _P or y in _SMALL_ORDER_Y:
        raise AuditError("note key: expected a point of large order in its canonical encoding")
