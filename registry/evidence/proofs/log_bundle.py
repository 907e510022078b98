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

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO

from rasura.patches.errors import AuditError
from rasura.registry._storage.digests import sha256
from rasura.registry._storage.records.records import EntryRecord
from rasura.registry.evidence.proofs.bundle_lines import (
    BUNDLE,
    BundleLine,
    Head,
    read_entry,
    read_line,
    read_record,
)
from rasura.registry.evidence.proofs.handed_on import find_signer
from rasura.registry.log.entries.entry import RowChange, decode
from rasura.registry.log.merkle import Frontier, hash_leaf
from rasura.registry.log.notes.signed_note import Checkpoint, VerifyKey
from rasura.registry.log.verifying.merkle_proofs import verify_consistency, verify_inclusion

__all__ = ["LogBundle", "read_log_bundle"]


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
            line = read_entry(read_line(self._file))
            entry, place, changes = decode(line.entry, line.beside or None)
            if place.log != self.checkpoint.origin or place.index <= last:
                wanted = f"an entry of {self.checkpoint.origin} after {last}"
                raise AuditError(f"{BUNDLE}: expected {wanted}, got {place.index} of {place.log}")
            last = place.index
            leaf = hash_leaf(line.entry)
            if self.head.whole:
                tree = self._grow(tree, leaf, place.index, line)
                if self._old is not None and tree.size == self._old.size:
                    roots[tree.size] = tree.root()
            elif line.proof is None:
                raise AuditError(f"{BUNDLE}: entry {place.index}: expected its proof, got none")
            else:
                verify_inclusion(place.index, self.checkpoint.size, leaf, line.proof, self.checkpoint.root)
            self._tell(changes)
            yield entry
        self._finish(tree, roots)

    def _grow(self, tree: Frontier, leaf: bytes, index: int, line: BundleLine) -> Frontier:
        if index != tree.size or line.proof is not None:
            raise AuditError(f"{BUNDLE}: a whole log: expected entry {tree.size} without a proof, got {index}")
        return tree.append(leaf)

    def _tell(self, changes: Sequence[RowChange]) -> None:
        for change in changes:
            if change.record is not None and self._untold.get(change.record) == (change.kind, change.id):
                del self._untold[change.record]

    def _finish(self, tree: Frontier, roots: dict[int, bytes]) -> None:
        if self._file.read(1):
            raise AuditError(f"{BUNDLE}: expected {self.head.entries} entries, got more")
        if self.head.whole and (tree.size, tree.root()) != (self.checkpoint.size, self.checkpoint.root):
            raise AuditError(
                f"{BUNDLE}: expected {self.checkpoint.size} entries with root {self.checkpoint.root.hex()}, got "
                f"{tree.size} with {tree.root().hex()}"
            )
        if self.head.whole and self._old is not None and roots.get(self._old.size) != self._old.root:
            raise AuditError(f"{BUNDLE}: its first {self._old.size} entries are not those of the kept checkpoint")
        for kind, key in self._untold.values():
            raise AuditError(f"{BUNDLE}: no entry in it tells of {kind} {key} as it stands there")


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
    head = Head.parse(read_line(file))
    named = VerifyKey.parse(head.vkey)
    if vkey is not None and vkey != named and not head.links:
        raise AuditError(f"{BUNDLE}: expected a log of key {vkey}, got one of {named}", check="key")
    checkpoint, signer = find_signer(head.note, head.links, vkey or named)
    if signer.key != named:
        raise AuditError(f"{BUNDLE}: expected the key {signer.key}, which signs the log, got {named}", check="key")
    if head.entries > checkpoint.size or (head.whole and head.entries != checkpoint.size):
        raise AuditError(f"{BUNDLE}: expected entries of a log of {checkpoint.size}, got {head.entries}")
    old = None if kept is None else signer.read(kept)
    if old is not None:
        _check_continues(head, checkpoint, old)
    records: dict[tuple[str, str], str] = {}
    untold: dict[str, tuple[str, str]] = {}
    for _ in range(head.records):
        record = read_record(read_line(file))
        at = record.kind, record.id
        if at in records:
            raise AuditError(f"{BUNDLE}: {record.kind} {record.id} stands there twice")
        records[at] = record.text
        untold[sha256(record.text.encode())] = at
    return LogBundle(head, checkpoint, signer.key, vkey, old.size if old else None, records, file, old, untold)


def _check_continues(head: Head, checkpoint: Checkpoint, old: Checkpoint) -> None:
    """Of a whole log this shows while its entries are read; of a part, by the proof in its head."""
    if old.size > checkpoint.size:
        raise AuditError(
            f"{BUNDLE}: expected at least the {old.size} entries of the kept checkpoint, got {checkpoint.size}"
        )
    if head.whole or old.size == 0:
        return
    if old.size == checkpoint.size:
        verify_consistency(old.size, checkpoint.size, old.root, checkpoint.root, ())
        return
    size, proof = head.consistency or (0, ())
    if size != old.size:
        raise AuditError(
            f"{BUNDLE}: it has no proof that it continues the tree of {old.size} entries",
            hint="rasura audit export --format bundle --checkpoint FILE -o BUNDLE",
        )
    verify_consistency(old.size, checkpoint.size, old.root, checkpoint.root, proof)
