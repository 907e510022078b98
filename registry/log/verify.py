"""Verifying the audit log: the entries, the tree over them, the signatures, and that the tables are what they tell.

What each part catches, from an attacker who can write the database but not the `keys` folder:

* an entry that was changed, swapped, forged or removed: the tree's root is no longer the one that was signed;
* a checkpoint that was changed or signed by another key: the signature;
* a tail that was cut, or an old copy that was restored: `last_signed` knows a longer log;
* an entry in the name of somebody whose key did not sign it, where the policy asks for that: the actor's signature;
* a row of the tables that was changed while the log was left alone: replaying the log gives another digest.

Whoever holds the signing key can write a log that passes all of this. Only a checkpoint kept elsewhere shows that:
compare one that you kept with `LogReport.checkpoint`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, NamedTuple, NoReturn, Protocol, cast

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from rasura.patches.errors import AuditError, FormatError, InputError
from rasura.patches.types import KeyId, PatchId
from rasura.registry._storage.database.tables import CheckpointRow, EntryPatchRow, EntryRow, KeyRow
from rasura.registry._storage.records.records import EntryRecord
from rasura.registry.log.actors import Actors
from rasura.registry.log.entries.entry import Placement, RowChange, decode
from rasura.registry.log.entries.record_digest import Record
from rasura.registry.log.entries.replay import Replay, compare
from rasura.registry.log.entries.signers import Trust
from rasura.registry.log.log_key import LogKey
from rasura.registry.log.merkle import EMPTY_ROOT, GrowingTree, hash_leaf
from rasura.registry.log.notes.signed_note import Checkpoint, VerifyKey, has_form, parse_note, verified_by
from rasura.registry.log.rotation import KeyChain, read_chain

__all__ = ["CLOSELY", "Audited", "LogReport", "verify_log"]

CLOSELY: Final = 10_000
"""Of how many of the newest checkpoints the signature is verified unless more is asked for: a second of work."""

_BATCH: Final = 2000
_HINT: Final = "keep this copy as evidence, then restore the registry from a backup"


class Audited(Protocol):
    """What an audit asks of a registry. The log lies below everything that it tells of, so it names no `Registry`."""

    @property
    def log_key(self) -> LogKey:
        """The key that signs the log, and its memory."""

    def snapshot(self) -> AbstractContextManager[Session]:
        """One snapshot of all tables as they are."""

    def records(self, session: Session) -> Iterable[Record]:
        """Every record that the tables hold, of every kind that the log tells of."""


@dataclass(frozen=True, slots=True)
class LogReport:
    """What a sound log says of itself."""

    vkey: str
    """The public key that signs now, in the spelling of C2SP signed notes; its name is the log's."""
    size: int
    root: bytes
    """Merkle root over all entries: 32 bytes."""
    checkpoint: str
    """The newest signed note. Keep a copy where nobody can change it, and compare later."""
    first: datetime
    last: datetime
    unfinished: tuple[int, ...]
    """Entries that began something which no entry ended."""
    backwards: tuple[int, ...]
    """Entries whose time is before that of the entry in front of them: a clock was set back."""
    pinned: bool = False
    """Whether the key came from outside the registry; else the registry was believed when it named its own."""
    replaced: bool = False
    """Whether the key from outside is an older one, which has handed the log on since: pin `vkey` from now on."""
    rotations: tuple[int, ...] = ()
    """Entries at which the log was handed to another key, signed by the old one and the new."""
    remembered: bool = True
    """Whether the registry's memory of what it signed last was at hand, which shows a cut tail."""
    signed: int = 0
    """Entries that carry a signature of who acted; of all others it is claimed."""
    kept: int | None = None
    """Size of the checkpoint from outside that this log continues; None where none was given."""
    signatures: int = 0
    """Of how many checkpoints, the newest among them, the signature was verified."""


def verify_log(
    registry: Audited,
    *,
    vkey: VerifyKey | None = None,
    kept: bytes | None = None,
    closely: int | None = CLOSELY,
    batch: int = _BATCH,
) -> LogReport:
    """Verifies the whole log and the tables against it; see the numbers in the code. Needs no secret.

    Args:
        registry: which; a copy without the folder `keys` will do.
        vkey: the log's public key, from somebody who kept it, or one that handed the log on. None: the registry is
            believed when it names its own.
        kept: a checkpoint of this log that somebody kept, a signed note: the log must continue it.
        closely: of how many of the newest checkpoints the signature is verified, beside those that hand the log on;
            None: of all. Of the others the text is compared with the tree: what they sign, the newest signs, too.
        batch: entries in memory at a time.

    Raises:
        AuditError: the first thing found wrong; `details["check"]` names the check and `details["index"]` the entry.
        RegistryError: the database or the key cannot be read.
    """
    # (1): the key and its memory, before the database: between the two readings the log can only have grown.
    memory = registry.log_key.recall().committed if registry.log_key.is_here() else None
    here = [key for key in (registry.log_key.public_here(), registry.log_key.next_here()) if key is not None]
    with registry.snapshot() as session:
        chain = read_chain(session)
        named = chain.last
        if here and named not in here:  # of a rotation that a crash interrupted, either
            raise AuditError(f"audit log: expected key {here[0]}, got {named}", hint=_HINT, check="key")
        if vkey is not None and vkey not in chain.keys:
            raise AuditError(f"audit log: expected key {vkey}, got {named}", hint=_HINT, check="key")
        _check_registry(session)
        old = _read_kept(kept, chain) if kept is not None else None
        pems = {KeyId(row.key_id): row.pem for row in session.scalars(select(KeyRow))}
        size = session.scalar(select(func.max(EntryRow.position))) or 0
        walk = _Walk(chain, pems, [tree for tree in (memory, old) if tree is not None], _start(size, closely))
        for stored in _rows(session, batch):
            # (2): each entry's place, bytes and copied columns, and the signature of who acted, if it has one.
            # (3): its checkpoint's signature, size and root.
            walk.step(stored)
        # (4): the log is as long as it was when it was last signed, and had that root there.
        walk.finish(session)
        # (5): the tables are what the entries tell, and hold no row that belongs to nothing.
        _check_whole(session)
        compare(registry.records(session), walk.replay)
    return replace(
        walk.report(),
        pinned=vkey is not None,
        replaced=vkey not in (None, chain.last),
        remembered=memory is not None,
        kept=old.size if old else None,
    )


class _Stored(NamedTuple):
    """An entry as it lies in the tables, with what lies beside it."""

    position: int
    leaf: bytes
    body: bytes
    copied: tuple[datetime, str, str, str | None, int | None]
    """Time, action, outcome, host and what it closes, as their columns have them."""
    patches: Sequence[PatchId]
    note: tuple[str, bytes] | None
    """The checkpoint after it, and the tree under that; None where there is none."""


class _Walk:
    """The verifier between two entries."""

    def __init__(self, chain: KeyChain, pems: Mapping[KeyId, str], known: Sequence[Checkpoint], closely: int) -> None:
        self.replay = Replay()
        self.actors = Actors(pems)
        self._trust = Trust()
        self._chain = chain
        self._known = known
        self._closely = closely
        self._signatures = 0
        self._roots: dict[int, bytes] = {0: EMPTY_ROOT}
        self._tree = GrowingTree()
        self._note = ""
        self._first: datetime | None = None
        self._last: datetime | None = None
        self._begun: set[int] = set()
        self._backwards: list[int] = []

    def step(self, stored: _Stored) -> None:
        """Checks one entry and the checkpoint after it."""
        index = self._tree.size
        if stored.position != index:
            _broken("order", index, f"expected entry {index}, got {stored.position}")
        if hash_leaf(stored.body) != stored.leaf:
            _broken("leaf", index, "its bytes are not those that were hashed")
        entry, changes = self._read(stored)
        self._tree.append(stored.leaf)
        root = self._tree.root()
        self._check_note(index, stored.note, root)
        self._follow(entry)
        self.replay.follow(entry, changes)
        if (odd := self.actors.follow(entry, stored.body, self._trust.trusted)) is not None:
            _broken("actor", index, odd)
        self._trust.follow(entry, changes)
        if any(self._tree.size == tree.size for tree in self._known):
            self._roots[self._tree.size] = root

    def finish(self, session: Session) -> None:
        """Checks what only the end shows: a cut tail, and checkpoints of entries that are not there."""
        size = self._tree.size
        for tree in self._known:
            if size < tree.size:
                _broken("cut", size, f"expected {tree.size} entries as signed, got {size}")
            if self._roots[tree.size] != tree.root:
                _broken("exchanged", tree.size, "the entries up to here are not those that were signed")
        beyond = session.scalar(select(func.max(CheckpointRow.size))) or 0
        if beyond != size:
            _broken("checkpoint", beyond, f"expected checkpoints up to {size}, got one of {beyond}")
        if size == 0:
            _broken("empty", 0, "expected at least the entry that made the registry")

    def report(self) -> LogReport:
        """What was found, all of it sound."""
        assert self._first is not None  # `finish` refuses a log without entries
        assert self._last is not None
        return LogReport(
            vkey=str(self._chain.last),
            signed=self.actors.signed,
            rotations=self._chain.at,
            size=self._tree.size,
            root=self._tree.root(),
            checkpoint=self._note,
            first=self._first,
            last=self._last,
            unfinished=tuple(sorted(self._begun)),
            backwards=tuple(self._backwards),
            signatures=self._signatures,
        )

    def _read(self, stored: _Stored) -> tuple[EntryRecord, tuple[RowChange, ...]]:
        index = stored.position
        try:
            entry, place, changes = decode(stored.body, stored.patches)
        except (FormatError, InputError) as error:
            _broken("entry", index, error.message)
        self._check_place(index, place)
        if stored.copied != (entry.time, entry.action, entry.outcome, entry.host, entry.closes):
            _broken("columns", index, "the columns beside it are not what its bytes say")
        return entry, changes

    def _check_place(self, index: int, place: Placement) -> None:
        if (place.log, place.index) != (self._chain.name, index):
            _broken("place", index, f"its bytes say entry {place.index} of {place.log}")

    def _check_note(self, index: int, note: tuple[str, bytes] | None, root: bytes) -> None:
        """The checkpoint signs this tree; of one far back in a long log, only that it says so."""
        if note is None:
            _broken("checkpoint", index, "it has no checkpoint")
        text, frontier = note
        signers, tree = self._chain.signers(index), Checkpoint(self._chain.name, self._tree.size, root)
        closely = index >= self._closely or len(signers) > 1
        if closely or not has_form(text, tree, signers[0]):
            try:
                parsed = parse_note(text.encode())
                for key in signers:
                    verified_by(parsed, [key])
                signed = Checkpoint.parse(parsed.text)
            except AuditError as error:
                _broken("signature", index, error.message)
            if signed != tree:
                _broken("root", index, "the entries up to it are not those that its checkpoint signs")
            self._signatures += 1
        if frontier != self._tree.to_bytes():
            _broken("frontier", index, "the tree stored with its checkpoint is another")
        self._note = text

    def _follow(self, entry: EntryRecord) -> None:
        if self._last is not None and entry.time < self._last:
            self._backwards.append(entry.index)
        self._first, self._last = self._first or entry.time, entry.time
        if entry.closes is not None:
            if entry.closes not in self._begun:
                _broken("closes", entry.index, f"it ends entry {entry.closes}, which is not begun")
            self._begun.discard(entry.closes)
        if entry.outcome == "begun":
            self._begun.add(entry.index)


def _rows(session: Session, batch: int) -> Iterator[_Stored]:
    """Entries by index with their patches and checkpoints, a batch at a time: memory does not grow with the log."""
    start = 0
    while True:
        rows = session.execute(_ENTRIES.where(EntryRow.position >= start).limit(batch)).all()
        if not rows:
            return
        last = rows[-1][0]
        notes = session.execute(_NOTES.where(CheckpointRow.size > start, CheckpointRow.size <= last + 1)).all()
        beside = {size: (note, frontier) for size, note, frontier in notes}
        patches: dict[int, list[PatchId]] = {}
        listed = _PATCHES.where(EntryPatchRow.position >= start, EntryPatchRow.position <= last)
        for position, patch_id in session.execute(listed):
            patches.setdefault(position, []).append(PatchId(patch_id))
        for position, leaf, body, *copied in rows:
            columns = cast("tuple[datetime, str, str, str | None, int | None]", tuple(copied))
            yield _Stored(position, leaf, body, columns, patches.get(position, ()), beside.get(position + 1))
        start = last + 1


_ENTRIES: Final = select(
    EntryRow.position,
    EntryRow.leaf_hash,
    EntryRow.body,
    EntryRow.time,
    EntryRow.action,
    EntryRow.outcome,
    EntryRow.host,
    EntryRow.closes,
).order_by(EntryRow.position)
_NOTES: Final = select(CheckpointRow.size, CheckpointRow.note, CheckpointRow.frontier)
_PATCHES: Final = select(EntryPatchRow.position, EntryPatchRow.patch_id).order_by(
    EntryPatchRow.position, EntryPatchRow.ordinal
)


def _start(last: int, closely: int | None) -> int:
    """From which entry on the signatures of checkpoints are verified."""
    return 0 if closely is None else last + 1 - closely


def _read_kept(note: bytes, chain: KeyChain) -> Checkpoint:
    """The checkpoint that somebody kept, if one of this log's keys signed it."""
    try:
        parsed = parse_note(note)
        verified_by(parsed, chain.keys)
        return Checkpoint.parse(parsed.text)
    except AuditError as error:
        raise AuditError(f"kept checkpoint: {error.message}", hint="--checkpoint FILE", check="kept") from None


def _check_whole(session: Session) -> None:
    """What SQLite itself finds wrong with its file: torn pages, indexes that differ, and rows without their parent.

    A row whose parent is missing is part of no record, and would become part of one as soon as the parent is added.
    PostgreSQL cannot be asked; there such rows need a superuser.
    """
    connection = session.connection()
    if connection.dialect.name != "sqlite":
        return
    found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
    if found != "ok":
        raise AuditError(f"database: expected a sound file, got: {found}", hint=_HINT, check="database")
    orphan = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
    if orphan is not None:
        raise AuditError(
            f"audit log and tables differ: a row of {orphan[0]} belongs to no {orphan[2]}", hint=_HINT, check="tables"
        )


def _check_registry(session: Session) -> None:
    stray = session.scalar(
        select(EntryPatchRow.position).where(EntryPatchRow.position.not_in(select(EntryRow.position))).limit(1)
    )
    if stray is not None:
        _broken("patches", stray, "patches are listed for an entry that is not there")


def _broken(check: str, index: int, message: str) -> NoReturn:
    raise AuditError(f"audit log, entry {index}: {message}", hint=_HINT, check=check, index=index)
