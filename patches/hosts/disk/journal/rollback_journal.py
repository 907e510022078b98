"""The rollback journal: byte ranges of several files change together or not at all, whenever the power goes.

Before a byte of a model is overwritten, its old value is on the medium twice over: in the model, and either in the
journal or, when the range is touched for the first time, in a staged original. The steps, each durable before the next:

    1. stage    write the originals of parameters touched for the first time to `staging/`, one file for a weight file
    2. journal  write `journal.tmp`: every range with its old and new digest, old bytes of all that is not staged
    3. begin    rename it to `journal`: from here on an interrupted write is rolled back
    4. write    the new bytes in place
    5. compare  read them back and compare digests
    6. commit   rename `journal` to `journal.done`: from here on the new model is the model
    7. finish   move staged originals to `originals/`, drop forgotten ones, remove `journal.done`

`settle` looks at what is there and does the rest: nothing named `journal`: sweep 1 and 2 away; `journal`: put the old
bytes back, compare, sweep; `journal.done`: repeat 7. Each of these may itself be interrupted and repeated.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

from rasura.patches._io.byte_ranges import (
    NewFiles,
    digest_ranges,
    digest_written,
    read_range,
    restore_range,
    sync_folder,
    write_range,
)
from rasura.patches._io.files import open_regular
from rasura.patches._io.parallel import count_at_once
from rasura.patches._io.tensor_bytes import RawValue
from rasura.patches.errors import FormatError, HostWriteError, NotFoundError
from rasura.patches.hosts.disk.journal.journal_record import RangeChange, Record, encode_head, read_record, say_damaged
from rasura.patches.hosts.disk.journal.stage_originals import StagedFile, begin_file, copy_old, place_unstaged
from rasura.patches.hosts.disk.state_folder import StateFolder
from rasura.patches.hosts.disk.weight_files import WeightFiles
from rasura.patches.types import Digest

__all__ = ["RollbackJournal"]

_Seen: TypeAlias = Callable[[RangeChange], "RawValue | None"]
_DigestAll: TypeAlias = Callable[[Iterable[tuple[int, int, int]]], list[Digest]]
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class RollbackJournal:
    """Transactions on the weight files of one model. The caller holds the model's lock."""

    def __init__(self, state: StateFolder) -> None:
        self._state = state
        self._pending = state.path / "journal"
        self._done = state.path / "journal.done"

    def reached(self, step: str) -> None:
        """Called between any two steps. Does nothing here; the tests stop a process in it."""

    def unsettled(self) -> bool:
        """Whether an earlier process left something for `settle` to do."""
        if not self._state.exists():
            return False
        left = (self._pending, self._done, self._pending.with_name("journal.tmp"))
        return any(path.exists() for path in left) or any(_entries(self._state.staging)) or not self._state.keeps()

    def interrupted(self) -> bool:
        """Whether a write was begun and not finished: the model, or the way back, is not what it should be."""
        return self._pending.exists() or self._done.exists()

    def transact(
        self,
        record: Record,
        staged: Sequence[StagedFile],
        fresh: Callable[[RangeChange], memoryview],
        seen: _Seen,
        identity: str,
    ) -> None:
        """Do all of `record`, or nothing.

        Args:
            record: what changes.
            staged: the files of what is kept for the first time, or anew.
            fresh: the new bytes of a change.
            seen: its old bytes with their digest, where somebody has them.
            identity: the host's id, should it have none yet.

        Raises:
            HostWriteError: nothing was changed (or, if even going back failed, the next opening will go back).
            UnsupportedHostError: a file that must not be written through.
            DriftError: a file was replaced meanwhile.
        """
        try:
            with WeightFiles(self._state.root, record.files, writable=True) as files:
                self._prepare(record, staged, files, seen, identity)
                self._overwrite(record, files, fresh)
            self._pending.rename(self._done)
            sync_folder(self._state.path)
        except BaseException as error:
            self._go_back(error)
            if isinstance(error, OSError):
                raise _failed(self._state.model, error, "nothing was changed") from None
            raise
        self.reached("committed")
        # The new model stands. What cannot be tidied up now is tidied up by the next opening.
        with suppress(OSError):
            self._finish(record)
            self._sweep()

    def settle(self) -> bool:
        """Bring the model to the old or the new state after an interruption; True if old bytes were put back.

        Raises:
            DigestMismatchError: the journal is damaged and the model is neither old nor new.
            DriftError: a weight file was replaced since the interruption.
            OSError: reading or writing failed; call again.
        """
        if not self._state.exists():
            return False
        rolled_back = False
        if self._done.exists():
            self._finish(read_record(self._done)[0])
        elif self._pending.exists():
            rolled_back = self._roll_back()
        self._sweep()
        return rolled_back

    def _prepare(
        self, record: Record, staged: Sequence[StagedFile], files: WeightFiles, seen: _Seen, identity: str
    ) -> None:
        """Steps 1 to 3."""
        for change in record.changes:
            files.descriptor(change.file)  # refused before anything is made
        self._state.create(identity)
        self.reached("folder made")
        with NewFiles() as made:
            places = [place for file in staged for place in self._begin(file, made, files)]
            pending = made.begin(self._pending, [head := encode_head(record)], mode=_mode(record.files, files))
            self.reached("journal partly written")
            places += place_unstaged(record, pending, len(head))
            count_at_once(lambda place: self._keep(*place, files, seen(place[0])), places)
            for file in staged:
                made.put(self._state.staging / file.name)
                self.reached("original staged")
            if staged:
                sync_folder(self._state.staging)
            self.reached("originals durable")
            made.put(self._pending)
        self.reached("journal named")
        sync_folder(self._state.path)
        self.reached("begun")

    def _begin(self, file: StagedFile, made: NewFiles, files: WeightFiles) -> list[tuple[RangeChange, int, int]]:
        mode = _mode([file.file], files) if file.file else stat.S_IMODE(file.carried[0].path.stat().st_mode)
        begun = begin_file(file, made, self._state.staging / file.name, mode)
        self.reached("original begun")
        return begun

    def _keep(
        self, change: RangeChange, target: int, at: int, files: WeightFiles, seen: RawValue | None = None
    ) -> None:
        copy_old(change, files.descriptor(change.file), target, at, seen)
        self.reached("original written" if change.staged else "journal partly written")

    def _overwrite(self, record: Record, files: WeightFiles, fresh: Callable[[RangeChange], memoryview]) -> None:
        """Steps 4 and 5."""
        for change in record.changes:
            data = fresh(change)
            half = len(data) // 2
            write_range(files.descriptor(change.file), change.start, [data[:half]])
            self.reached("range half written")
            write_range(files.descriptor(change.file), change.start + half, [data[half:]])
            self.reached("range written")
        files.sync()
        self.reached("files durable")
        for change, got in _digests(record.changes, files, digest_written).items():
            if got != change.new:
                raise HostWriteError(
                    f"{self._state.root / change.file}: expected to read back {change.new} from byte {change.start}, "
                    f"got {got}; nothing was changed",
                    hint="check the disk",
                )
        self.reached("compared")

    def _go_back(self, error: BaseException) -> None:
        try:
            self.settle()
        except OSError as second:
            raise _failed(
                self._state.model, second, f"going back after {error!r} failed; the next command will go back"
            ) from error

    def _roll_back(self) -> bool:
        """Put the old bytes back wherever something else is; True if there were any such places."""
        record, offsets = read_record(self._pending)
        with WeightFiles(self._state.root, record.files, writable=True) as files:
            present = _digests(record.changes, files, digest_ranges)
            wrong = [change for change in record.changes if present[change] != change.old]
            if lost := [change for change in wrong if self._old_digest(change, offsets) != change.old]:
                if any(present[change] != change.new for change in record.changes):
                    raise say_damaged(self._pending, f"the old bytes of {lost[0].file} from {lost[0].start}")
                self._pending.rename(self._done)  # all of the new model is there, and no way back: it stands
                self._finish(record)
                return False
            for change in wrong:
                pieces = self._old_bytes(change, offsets)
                restore_range(files.descriptor(change.file), change.start, pieces)
                self.reached("range put back")
            files.sync()
            for change, got in _digests(wrong, files, digest_written).items():
                if got != change.old:
                    raise OSError(errno.EIO, f"read back {got} from byte {change.start}, expected {change.old}")
        self.reached("put back")
        self._pending.unlink(missing_ok=True)
        sync_folder(self._state.path)
        return bool(wrong)

    def _finish(self, record: Record) -> None:
        """Step 7."""
        for name in record.staged():
            if (self._state.staging / name).exists():
                (self._state.staging / name).rename(self._state.originals / name)
                self.reached("original kept")
        for name in record.forget:
            (self._state.originals / name).unlink(missing_ok=True)
            self.reached("original forgotten")
        if record.staged() or record.forget:
            sync_folder(self._state.originals)
        # A power cut may bring it back: all of this is then done once more, before the next write begins.
        self._done.unlink(missing_ok=True)
        self.reached("finished")

    def _sweep(self) -> None:
        """Remove what belongs to no transaction, and everything when nothing is kept any more."""
        for path in [*_entries(self._state.staging), *self._state.path.glob("*.tmp")]:
            path.unlink(missing_ok=True)
            self.reached("leftover removed")
        self._state.remove_if_empty()
        self.reached("swept")

    def _old_bytes(self, change: RangeChange, offsets: Mapping[RangeChange, int]) -> Iterator[bytes]:
        path = self._state.staging / change.staged if change.staged else self._pending
        with open_regular(path) as (file, status):
            size = status.st_size
            start = max(offsets[change] + (size if change.staged else 0), 0)
            yield from read_range(file.fileno(), start, min(start + change.size, size))

    def _old_digest(self, change: RangeChange, offsets: Mapping[RangeChange, int]) -> Digest | None:
        state = hashlib.sha256()
        try:
            for piece in self._old_bytes(change, offsets):
                state.update(piece)
        except (NotFoundError, FormatError):
            return None
        return Digest(state.hexdigest())


def _mode(named: Iterable[str], files: WeightFiles) -> int:
    """Who may read all of these files may read what is kept of them."""
    found = 0o666
    for file in named:
        found &= os.fstat(files.descriptor(file)).st_mode
    return found


def _digests(changes: Iterable[RangeChange], files: WeightFiles, digest: _DigestAll) -> dict[RangeChange, Digest]:
    """What is in the files now."""
    listed = list(changes)
    found = digest((files.descriptor(change.file), change.start, change.stop) for change in listed)
    return dict(zip(listed, found, strict=True))


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _failed(model: Path, error: OSError, outcome: str) -> HostWriteError:
    hint = "free some space and try again" if error.errno in _FULL else ""
    return HostWriteError(
        f"{model}: expected to write the model, got {error.strerror or error}; {outcome}", hint=hint, errno=error.errno
    )
