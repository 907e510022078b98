"""A log, or entries of it with their proofs, as one file that needs no registry: a bundle.

JSON Lines; each line is RFC 8785 JSON. The first is the head, then come records, then entries by index:

    {"checkpoint":"<signed note>","entries":12,"format":"rasura-log/1","records":3,"vkey":"<key>","whole":true}
    {"id":"<patch id>","kind":"patch","record":"<JSON text>"}
    {"entry":"<JSON text>"}
    {"entry":"<JSON text>","patches":["…"],"proof":["<base64>", …]}

An `entry` holds the bytes that the tree hashes. A whole log has all of them and no proofs: its reader builds the tree.
Of some entries each has its inclusion proof (RFC 9162 §2.1.3). `patches` spells out a list that the entry names by
number and digest alone. A `record` is what an entry's change gives the digest of, so that the digest can be read: a
patch with the digests of its files, the public key that signed it. `consistency`, in the head, holds the proof from an
older tree (RFC 9162 §2.1.4), for a reader who kept that one's checkpoint. `links`, in the head of a log whose key was
rotated, leads from its older keys to the one that signs (`rasura.registry.evidence.proofs.handed_on`).

Nothing in the file is believed: not its key, where another is given, and no line that the signed root does not cover.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, Final

from rasura.patches._io import canonical_json
from rasura.patches._io.json_fields import Fields, JsonValue
from rasura.patches.errors import AuditError
from rasura.patches.types import PatchId
from rasura.registry._storage.digests import sha256
from rasura.registry._storage.records.records import EntryRecord
from rasura.registry.evidence.proofs.handed_on import MAX_LINKS, KeyLink, find_signer, read_links, write_links
from rasura.registry.log.entries.entry import MAX_ENTRY_BYTES, RowChange, decode
from rasura.registry.log.merkle import Frontier, hash_leaf, verify_consistency, verify_inclusion
from rasura.registry.log.notes.signed_note import MAX_NOTE_BYTES, Checkpoint, VerifyKey
from rasura.registry.log.notes.strict_base64 import encode_base64, read_base64

__all__ = [
    "FORMAT",
    "MAX_LINE_BYTES",
    "BundleLine",
    "Head",
    "LogBundle",
    "RecordLine",
    "read_log_bundle",
    "write_bundle",
]

FORMAT: Final = "rasura-log/1"
MAX_LINE_BYTES: Final = 4 * 1024**2
"""Most bytes of a line: an entry as a JSON text, with up to ten thousand patches beside it, has less."""

_WHAT: Final = "bundle"
_HASH_BYTES: Final = 32
_MAX_HASHES: Final = 126


@dataclass(frozen=True, slots=True)
class Head:
    """The first line.

    Attributes:
        note: the signed checkpoint that everything is proved against.
        vkey: the log's public key as whoever wrote the file names it.
        whole: whether every entry of the log is here.
        entries: how many entries follow.
        records: how many records follow.
        consistency: an older size and the proof that this log continues that tree; None: there is none.
        links: how the log came to its present key, from the first that it had.
    """

    note: str
    vkey: str
    whole: bool
    entries: int
    records: int
    consistency: tuple[int, tuple[bytes, ...]] | None = None
    links: tuple[KeyLink, ...] = ()

    def to_json(self) -> JsonValue:
        """The line."""
        value: dict[str, JsonValue] = {
            "format": FORMAT,
            "checkpoint": self.note,
            "vkey": self.vkey,
            "whole": self.whole,
            "entries": self.entries,
            "records": self.records,
        }
        if self.consistency is not None:
            size, proof = self.consistency
            value["consistency"] = {"size": size, "proof": [encode_base64(each) for each in proof]}
        if self.links:
            value["links"] = write_links(self.links)
        return value

    @classmethod
    def parse(cls, line: bytes) -> Head:
        """Read the first line.

        Raises:
            FormatError, AuditError: it is none.
        """
        fields = Fields.of(canonical_json.loads(line, what=_WHAT, limit=MAX_LINE_BYTES), _WHAT)
        fields.choice("format", (FORMAT,))
        inside = fields.optional("consistency", fields.fields)
        older = None
        if inside is not None:
            older = inside.integer("size", 1, canonical_json.MAX_INTEGER), _read_hashes(inside, "proof")
            inside.done()
        links = read_links(tuple(fields.records("links", limit=MAX_LINKS))) if fields.has("links") else ()
        head = cls(
            fields.text("checkpoint", limit=MAX_NOTE_BYTES),
            fields.text("vkey", limit=1024),
            fields.flag("whole"),
            fields.integer("entries", 0, canonical_json.MAX_INTEGER),
            fields.integer("records", 0, canonical_json.MAX_INTEGER),
            older,
            links,
        )
        fields.done()
        return head


@dataclass(frozen=True, slots=True)
class RecordLine:
    """A record, as the canonical JSON whose digest an entry gives."""

    kind: str
    id: str
    text: str

    def to_json(self) -> JsonValue:
        """The line."""
        return {"kind": self.kind, "id": self.id, "record": self.text}


@dataclass(frozen=True, slots=True)
class BundleLine:
    """An entry; `proof` is None in a whole log, `beside` the patches that its bytes do not spell out."""

    entry: bytes
    proof: tuple[bytes, ...] | None
    beside: tuple[PatchId, ...] = ()

    def to_json(self) -> JsonValue:
        """The line."""
        value: dict[str, JsonValue] = {"entry": self.entry.decode()}
        if self.proof is not None:
            value["proof"] = [encode_base64(each) for each in self.proof]
        if self.beside:
            value["patches"] = list(self.beside)
        return value


def write_bundle(head: Head, records: Iterable[RecordLine], entries: Iterable[BundleLine]) -> Iterator[bytes]:
    """The file, line by line."""
    yield canonical_json.dumps(head.to_json()) + b"\n"
    for record in records:
        yield canonical_json.dumps(record.to_json()) + b"\n"
    for line in entries:
        yield canonical_json.dumps(line.to_json()) + b"\n"


@dataclass(slots=True)
class LogBundle:
    """A bundle that is being read: `entries` gives one verified entry after the other, and the end verifies the whole.

    Attributes:
        head: the first line.
        checkpoint: the log that its entries are in; signed by `key`.
        key: whose signature was verified.
        pinned: the key that came from outside the file, if one did: this one, or one that led to it.
        kept: size of the older checkpoint that this log was shown to continue; None where none was given.
        records: what was read of them, by kind and identifier; each is the one that an entry tells of once the end is
            reached.
    """

    head: Head
    checkpoint: Checkpoint
    key: VerifyKey
    pinned: VerifyKey | None
    kept: int | None
    records: dict[tuple[str, str], str]
    _file: IO[bytes]
    _old: Checkpoint | None
    _untold: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Digest to kind and identifier of the records that no entry has told of so far."""

    def entries(self) -> Iterator[EntryRecord]:
        """Every entry, the oldest first, each verified before it is given; the last check comes after the last one.

        Raises:
            AuditError, FormatError: the first thing found wrong.
        """
        tree, last = Frontier(), -1
        roots: dict[int, bytes] = {}
        for _ in range(self.head.entries):
            line = _read_entry(_next_line(self._file))
            entry, place, changes = decode(line.entry, line.beside or None)
            if place.log != self.checkpoint.origin or place.index <= last:
                wanted = f"an entry of {self.checkpoint.origin} after {last}"
                raise AuditError(f"{_WHAT}: expected {wanted}, got {place.index} of {place.log}")
            last = place.index
            leaf = hash_leaf(line.entry)
            if self.head.whole:
                tree = self._grow(tree, leaf, place.index, line)
                if self._old is not None and tree.size == self._old.size:
                    roots[tree.size] = tree.root()
            elif line.proof is None:
                raise AuditError(f"{_WHAT}: entry {place.index}: expected its proof, got none")
            else:
                verify_inclusion(place.index, self.checkpoint.size, leaf, line.proof, self.checkpoint.root)
            self._tell(changes)
            yield entry
        self._finish(tree, roots)

    def _grow(self, tree: Frontier, leaf: bytes, index: int, line: BundleLine) -> Frontier:
        if index != tree.size or line.proof is not None:
            raise AuditError(f"{_WHAT}: a whole log: expected entry {tree.size} without a proof, got {index}")
        return tree.append(leaf)

    def _tell(self, changes: Sequence[RowChange]) -> None:
        for change in changes:
            if change.record is not None and self._untold.get(change.record) == (change.kind, change.id):
                del self._untold[change.record]

    def _finish(self, tree: Frontier, roots: dict[int, bytes]) -> None:
        if self._file.read(1):
            raise AuditError(f"{_WHAT}: expected {self.head.entries} entries, got more")
        if self.head.whole and (tree.size, tree.root()) != (self.checkpoint.size, self.checkpoint.root):
            raise AuditError(
                f"{_WHAT}: expected {self.checkpoint.size} entries with root {self.checkpoint.root.hex()}, got "
                f"{tree.size} with {tree.root().hex()}"
            )
        if self.head.whole and self._old is not None and roots.get(self._old.size) != self._old.root:
            raise AuditError(f"{_WHAT}: its first {self._old.size} entries are not those of the kept checkpoint")
        for kind, key in self._untold.values():
            raise AuditError(f"{_WHAT}: no entry in it tells of {kind} {key} as it stands there")


def read_log_bundle(file: IO[bytes], *, vkey: VerifyKey | None = None, kept: bytes | None = None) -> LogBundle:
    """Begin to read a bundle: its head is verified, its entries as they are asked for.

    Args:
        file: opened for reading bytes.
        vkey: the log's public key, from somebody who kept it, or one that has handed the log on since. None: the file
            is believed when it names its own.
        kept: a checkpoint of this log that somebody kept, a signed note: the log must continue it.

    Raises:
        AuditError: it is no bundle, the checkpoint is not signed by the key, or it does not continue the kept one.
        FormatError: a line is not what it should be.
    """
    head = Head.parse(_next_line(file))
    named = VerifyKey.parse(head.vkey)
    if vkey is not None and vkey != named and not head.links:
        raise AuditError(f"{_WHAT}: expected a log of key {vkey}, got one of {named}", check="key")
    checkpoint, signer = find_signer(head.note, head.links, vkey or named)
    if signer.key != named:
        raise AuditError(f"{_WHAT}: expected the key {signer.key}, which signs the log, got {named}", check="key")
    if head.entries > checkpoint.size or (head.whole and head.entries != checkpoint.size):
        raise AuditError(f"{_WHAT}: expected entries of a log of {checkpoint.size}, got {head.entries}")
    old = None if kept is None else signer.read(kept)
    if old is not None:
        _check_continues(head, checkpoint, old)
    records: dict[tuple[str, str], str] = {}
    untold: dict[str, tuple[str, str]] = {}
    for _ in range(head.records):
        record = _read_record(_next_line(file))
        at = record.kind, record.id
        if at in records:
            raise AuditError(f"{_WHAT}: {record.kind} {record.id} stands there twice")
        records[at] = record.text
        untold[sha256(record.text.encode())] = at
    return LogBundle(head, checkpoint, signer.key, vkey, old.size if old else None, records, file, old, untold)


def _check_continues(head: Head, checkpoint: Checkpoint, old: Checkpoint) -> None:
    """Of a whole log this shows while its entries are read; of a part, by the proof in its head."""
    if old.size > checkpoint.size:
        raise AuditError(
            f"{_WHAT}: expected at least the {old.size} entries of the kept checkpoint, got {checkpoint.size}"
        )
    if head.whole or old.size == 0:
        return
    if old.size == checkpoint.size:
        verify_consistency(old.size, checkpoint.size, old.root, checkpoint.root, ())
        return
    size, proof = head.consistency or (0, ())
    if size != old.size:
        raise AuditError(
            f"{_WHAT}: it has no proof that it continues the tree of {old.size} entries",
            hint="rasura audit export --format bundle --checkpoint FILE -o BUNDLE",
        )
    verify_consistency(old.size, checkpoint.size, old.root, checkpoint.root, proof)


def _next_line(file: IO[bytes]) -> bytes:
    line = file.readline(MAX_LINE_BYTES + 1)
    if not line.endswith(b"\n"):
        said = "a longer one" if len(line) > MAX_LINE_BYTES else "the end of the file"
        raise AuditError(f"{_WHAT}: expected a line of at most {MAX_LINE_BYTES} bytes, got {said}")
    return line[:-1]


def _read_record(line: bytes) -> RecordLine:
    fields = Fields.of(canonical_json.loads(line, what=_WHAT, limit=MAX_LINE_BYTES), _WHAT)
    found = RecordLine(
        fields.text("kind", limit=32), fields.text("id", limit=64), fields.text("record", limit=MAX_LINE_BYTES)
    )
    fields.done()
    return found


def _read_entry(line: bytes) -> BundleLine:
    fields = Fields.of(canonical_json.loads(line, what=_WHAT, limit=MAX_LINE_BYTES), _WHAT)
    entry = fields.text("entry", limit=MAX_ENTRY_BYTES).encode()
    proof = _read_hashes(fields, "proof") if fields.has("proof") else None
    beside = tuple(map(PatchId, fields.texts("patches"))) if fields.has("patches") else ()
    fields.done()
    return BundleLine(entry, proof, beside)


def _read_hashes(fields: Fields, name: str) -> tuple[bytes, ...]:
    return tuple(read_base64(each, _WHAT, size=_HASH_BYTES) for each in fields.texts(name, _MAX_HASHES))
