"""The verifier on its way through a log: entry after entry, with the tree, the keys and the tables so far."""

import sys
from collections.abc import Mapping, Sequence
from datetime import datetime

from rasura.patches.errors import AuditError, FormatError, InputError
from rasura.patches.types import KeyId
from rasura.registry._storage.records.validation import from_instant
from rasura.registry.log.actors import Actors
from rasura.registry.log.entries.replay import Replay
from rasura.registry.log.entries.signers import Trust
from rasura.registry.log.merkle import EMPTY_ROOT, GrowingTree, hash_leaf
from rasura.registry.log.notes.signed_note import Checkpoint, PlainNotes, parse_note, verify_note
from rasura.registry.log.rotation import KeyChain
from rasura.registry.log.verifying.faults import find_fault
from rasura.registry.log.verifying.said import Said, read_said
from rasura.registry.log.verifying.stored import StoredEntry

__all__ = ["Walk"]


class Walk:
    """The verifier between two entries."""

    def __init__(self, chain: KeyChain, pems: Mapping[KeyId, str], known: Sequence[Checkpoint], closely: int) -> None:
        """Begin in front of the first entry.

        Args:
            chain: the keys that signed, one after the other.
            pems: the keys of those who acted.
            known: trees that this log must have been at some time.
            closely: index of the first entry at whose checkpoint the signature is verified.
        """
        self.replay = Replay()
        self.actors = Actors(pems)
        self.tree = GrowingTree()
        self.note = ""
        self.signatures = 0
        self.begun: set[int] = set()
        self.backwards: list[int] = []
        self._trust = Trust()
        self._chain = chain
        self._notes = _NotesByKey(chain)
        self._known = known
        self._sizes = frozenset(tree.size for tree in known)
        self._roots: dict[int, bytes] = {0: EMPTY_ROOT}
        self._closely = closely
        self._first = ""
        self._last = ""

    @property
    def times(self) -> tuple[datetime, datetime]:
        """Those of the first entry and of the last; there must be one."""
        return from_instant(self._first), from_instant(self._last)

    def step(self, stored: StoredEntry) -> None:
        """Checks one entry and the checkpoint after it.

        Raises:
            AuditError: the first thing found wrong.
        """
        index = self.tree.size
        if stored.position != index:
            find_fault("order", index, f"expected entry {index}, got {stored.position}")
        if hash_leaf(stored.body) != stored.leaf:
            find_fault("leaf", index, "its bytes are not those that were hashed")
        said = self._read(index, stored)
        self.tree.append(stored.leaf)
        root = self.tree.root()
        self._check_note(index, stored, root)
        self._follow(index, said)
        if said.changes:
            self.replay.follow(said, said.changes)
        body = None if said.plain else stored.body
        if (odd := self.actors.follow(said, body, self._trust)) is not None:
            find_fault("actor", index, odd)
        if said.changes or said.outcome == "begun":
            self._trust.follow(said, said.changes)
        if self.tree.size in self._sizes:
            self._roots[self.tree.size] = root

    def finish(self, last_checkpoint: int) -> None:
        """Checks what only the end shows: a cut tail, and checkpoints of entries that are not there.

        Raises:
            AuditError: the first thing found wrong.
        """
        size = self.tree.size
        for tree in self._known:
            if size < tree.size:
                find_fault("cut", size, f"expected {tree.size} entries as signed, got {size}")
            if self._roots[tree.size] != tree.root:
                find_fault("exchanged", tree.size, "the entries up to here are not those that were signed")
        if last_checkpoint != size:
            find_fault(
                "checkpoint", last_checkpoint, f"expected checkpoints up to {size}, got one of {last_checkpoint}"
            )
        if size == 0:
            find_fault("empty", 0, "expected at least the entry that made the registry")

    def _read(self, index: int, stored: StoredEntry) -> Said:
        try:
            said = read_said(stored.body, stored.patches)
        except (FormatError, InputError) as error:
            find_fault("entry", index, error.message)
        if said.index != index or said.log != self._chain.name:
            find_fault("place", index, f"its bytes say entry {said.index} of {said.log}")
        if (stored.time, stored.action, stored.outcome, stored.host, stored.closes) != (
            said.time,
            said.action,
            said.outcome,
            said.host,
            said.closes,
        ):
            find_fault("columns", index, "the columns beside it are not what its bytes say")
        return said

    def _check_note(self, index: int, stored: StoredEntry, root: bytes) -> None:
        """The checkpoint signs this tree; of one far back in a long log, only that it says so."""
        note, size = stored.note, index + 1
        if note is None:
            find_fault("checkpoint", index, "it has no checkpoint")
        closely, plain = index >= self._closely, self._notes.at(index)
        if plain is not None and (plain.verify if closely else plain.match)(note, size, root):
            self.signatures += closely
        else:
            self._read_note(index, note, Checkpoint(self._chain.name, size, root))
        if stored.frontier != self.tree.to_bytes():
            find_fault("frontier", index, "the tree stored with its checkpoint is another")
        self.note = note

    def _read_note(self, index: int, note: str, tree: Checkpoint) -> None:
        """Any note: with signatures of others, or where the log is handed on; and what is wrong with what is none."""
        try:
            parsed = parse_note(note.encode())
            for key in self._chain.signers(index):
                verify_note(parsed, [key])
            signed = Checkpoint.parse(parsed.text)
        except AuditError as error:
            find_fault("signature", index, error.message)
        if signed != tree:
            find_fault("root", index, "the entries up to it are not those that its checkpoint signs")
        self.signatures += 1

    def _follow(self, index: int, said: Said) -> None:
        if said.time < self._last:
            self.backwards.append(index)
        self._first, self._last = self._first or said.time, said.time
        if said.closes is not None:
            if said.closes not in self.begun:
                find_fault("closes", index, f"it ends entry {said.closes}, which is not begun")
            self.begun.discard(said.closes)
        if said.outcome == "begun":
            self.begun.add(index)


class _NotesByKey:
    """What the checkpoints of a log look like, which has had one key after the other."""

    def __init__(self, chain: KeyChain) -> None:
        self._chain = chain
        self._next = 0
        """Index from which on it has to be asked again who signs."""
        self._now: PlainNotes | None = None

    def at(self, index: int) -> PlainNotes | None:
        """The form of the checkpoint after an entry, asked for in order; None where two keys sign it."""
        if index >= self._next:
            signers = self._chain.signers(index)
            alone = len(signers) == 1
            self._now = PlainNotes(signers[0]) if alone else None
            self._next = next((at for at in self._chain.at if at > index), sys.maxsize) if alone else index + 1
        return self._now
