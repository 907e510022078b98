"""One entry of the log with the proof that it is in it: a C2SP `tlog-proof` file.

    c2sp.org/tlog-proof@v1
    extra eyJhY3Rvci…                    base64 of the entry's bytes, and of links, where the key was rotated
    index 42
    vBoGQ7EuTS18d5GPROD095qDi2z57Ftc…    siblings from the leaf to the root, base64, one a line

    rasura/log/5f0c…                     the checkpoint, a signed note
    …

The format calls `extra` unauthenticated, and by itself it is; here it holds what the leaf is the hash of, so that one
file says what happened and proves it. Whoever has the log's public key needs nothing else: no registry, no rasura. An
entry has no newline in it; behind one stand the links from older keys of the log to the present one, as RFC 8785 JSON
(`rasura.registry.evidence.proofs.handed_on`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from rasura.patches._io import canonical_json
from rasura.patches._io.json_fields import Fields
from rasura.patches.errors import AuditError
from rasura.registry._storage.records.records import EntryRecord
from rasura.registry.evidence.proofs.handed_on import (
    MAX_LINKS,
    MAX_LINKS_BYTES,
    KeyLink,
    Signer,
    find_signer,
    read_links,
    write_links,
)
from rasura.registry.log.entries.entry import MAX_ENTRY_BYTES, RowChange, decode
from rasura.registry.log.merkle import hash_leaf
from rasura.registry.log.notes.signed_note import MAX_NOTE_BYTES, Checkpoint, VerifyKey, parse_note, verify_note
from rasura.registry.log.notes.strict_base64 import encode_base64, read_base64
from rasura.registry.log.verifying.merkle_proofs import verify_inclusion

__all__ = ["HEADER", "MAX_PROOF_BYTES", "EntryProof", "ProvenEntry", "read_checkpoint", "verify_proof"]

HEADER: Final = "c2sp.org/tlog-proof@v1"
MAX_PROOF_BYTES: Final = 2 * (MAX_ENTRY_BYTES + MAX_LINKS_BYTES) + MAX_NOTE_BYTES + 8192
"""Most bytes of a file: an entry and links in base64, 63 hashes and a note."""

_MAX_HASHES: Final = 63
_HASH_BYTES: Final = 32
_INDEX_DIGITS: Final = 19
_WHAT: Final = "proof file"


@dataclass(frozen=True, slots=True)
class EntryProof:
    """What such a file holds; nothing is verified yet.

    Attributes:
        index: the entry's place in the log.
        entry: its bytes.
        proof: the siblings from the leaf up to the root, 32 bytes each (RFC 9162 §2.1.3.1).
        note: the signed checkpoint.
        links: how the log came to the key that signs it, from the first that it had.
    """

    index: int
    entry: bytes
    proof: tuple[bytes, ...]
    note: str
    links: tuple[KeyLink, ...] = ()

    def to_bytes(self) -> bytes:
        """The file."""
        beside = b"\n" + canonical_json.dumps({"links": write_links(self.links)}) if self.links else b""
        lines = [
            HEADER,
            f"extra {encode_base64(self.entry + beside)}",
            f"index {self.index}",
            *map(encode_base64, self.proof),
            "",
            "",
        ]
        return "\n".join(lines).encode() + self.note.encode()

    @classmethod
    def parse(cls, data: bytes) -> EntryProof:
        """Read a file strictly: one spelling for each value.

        Raises:
            AuditError: it is none, or one without the entry's bytes.
        """
        if len(data) > MAX_PROOF_BYTES:
            raise AuditError(f"{_WHAT}: expected at most {MAX_PROOF_BYTES} bytes, got {len(data)}")
        try:
            head, empty, note = data.decode("utf-8").partition("\n\n")
        except UnicodeDecodeError as error:
            raise AuditError(f"{_WHAT}: expected UTF-8, got a stray byte at {error.start}") from None
        lines = head.split("\n")
        if not empty or lines[0] != HEADER:
            raise AuditError(f"{_WHAT}: expected the line {HEADER} and an empty line before the checkpoint")
        if len(lines) < 3 or not lines[1].startswith("extra ") or not lines[2].startswith("index "):  # noqa: PLR2004
            raise AuditError(f"{_WHAT}: expected the lines extra (the entry's bytes) and index behind the first")
        if len(lines) - 3 > _MAX_HASHES:
            raise AuditError(f"{_WHAT}: expected at most {_MAX_HASHES} hashes, got {len(lines) - 3}")
        index = lines[2].removeprefix("index ")
        if not index.isascii() or not index.isdecimal() or str(int(index[:_INDEX_DIGITS])) != index:
            raise AuditError(f"{_WHAT}: expected an index in plain decimals, got {index[:40]!r}")
        proof = tuple(read_base64(line, _WHAT, size=_HASH_BYTES) for line in lines[3:])
        entry, newline, beside = read_base64(lines[1].removeprefix("extra "), _WHAT).partition(b"\n")
        return cls(int(index), entry, proof, note, _read_beside(beside) if newline else ())


@dataclass(frozen=True, slots=True)
class ProvenEntry:
    """An entry that is in a log.

    Attributes:
        entry: what it says.
        changes: what the rows became that it changed.
        text: its bytes, which are RFC 8785 JSON.
        checkpoint: the log that it is in.
        note: that checkpoint as it was signed.
        signer: who vouches for it.
    """

    entry: EntryRecord
    changes: tuple[RowChange, ...]
    text: str
    checkpoint: Checkpoint
    note: str
    signer: Signer


def verify_proof(data: bytes, key: VerifyKey) -> ProvenEntry:
    """What a proof file proves, given the log's public key.

    Args:
        data: the file.
        key: of the log, from somebody who is believed; the file's own word would prove nothing. One that has handed the
            log on since will do.

    Raises:
        AuditError: the file is none, the checkpoint is not signed by this key or one that it led to, or the entry is
            not in that log.
        FormatError: the bytes in it are no entry.
    """
    found = EntryProof.parse(data)
    checkpoint, signer = find_signer(found.note, found.links, key)
    verify_inclusion(found.index, checkpoint.size, hash_leaf(found.entry), found.proof, checkpoint.root)
    entry, place, changes = decode(found.entry, None)
    if (place.log, place.index) != (checkpoint.origin, found.index):
        raise AuditError(
            f"{_WHAT}: expected entry {found.index} of {checkpoint.origin}, its bytes say {place.index} of {place.log}"
        )
    return ProvenEntry(entry, changes, found.entry.decode(), checkpoint, found.note, signer)


def _read_beside(data: bytes) -> tuple[KeyLink, ...]:
    fields = Fields.of(canonical_json.loads(data, what=_WHAT, limit=MAX_LINKS_BYTES + 64), _WHAT)
    links = read_links(tuple(fields.records("links", limit=MAX_LINKS)))
    fields.done()
    if not links:
        raise AuditError(f"{_WHAT}: expected links behind the entry, got none")
    return links


def read_checkpoint(note: bytes, key: VerifyKey) -> Checkpoint:
    """The checkpoint in a note that this key signed.

    Raises:
        AuditError: not signed by it, another log's, or no checkpoint.
    """
    parsed = parse_note(note)
    verify_note(parsed, [key])
    checkpoint = Checkpoint.parse(parsed.text)
    if checkpoint.origin != key.name:
        raise AuditError(f"checkpoint: expected the log {key.name}, got {checkpoint.origin}")
    return checkpoint
