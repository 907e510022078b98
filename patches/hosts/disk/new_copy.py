"""A new copy of a model that nobody sees before it is what it shall be: the way out where a model may not be written.

    .NAME.01234567.copying/          beside the target NAME; its maker holds a lock on it as long as he lives
    .NAME.01234567.copying/NAME      the copy: copied, patched and compared here
    NAME                             where a rename puts it at the end

So a process that is killed leaves nothing at the target, or the whole of what was asked for; what it leaves beside it
is dead for certain, because the kernel drops the lock with the process. A single file has its kept originals in a
folder beside it, which goes first; `published` says that it did, so that it never stays behind alone.
"""

import errno
import os
import re
import shutil
import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from rasura.patches._io.byte_ranges import replace_file, sync_folder
from rasura.patches._io.file_lock import locked
from rasura.patches._io.tensor_bytes import Storable
from rasura.patches.errors import BusyError, HostError, HostWriteError, UnsupportedHostError
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.hosts.disk.copy_model import check_free, copy_files
from rasura.patches.hosts.disk.state_folder import StateFolder, beside_file
from rasura.patches.types import ParamName

__all__ = ["NewCopy", "copy_model", "find_dead", "is_place", "new_copy", "remove_dead", "target_of"]

_PLACE: Final = re.compile(r"\.(.+)\.[0-9a-f]{8}\.copying")
_PUBLISHED: Final = "published"
_PRIVATE: Final = 0o700


class NewCopy(CheckpointHost):
    """A copy that appears at its target once it is written; until then it is at a place that nobody looks at."""

    appeared = False
    """Whether it is at its target."""
    last = False
    """Whether the next write is the last before it appears."""

    @property
    def target(self) -> Path:
        """Where it will be, or is."""
        return self.path if self.appeared else self.path.parent.parent / self.path.name

    @property
    def location(self) -> str:
        """The absolute path of the target."""
        return str(self.target)

    def write(self, tensors: Mapping[ParamName, Storable], *, forget: Collection[ParamName] = ()) -> None:
        """As every host on disk; the last write ends with the copy at its target.

        Raises:
            HostWriteError: it could not be moved to its target.
        """
        super().write(tensors, forget=forget)
        if self.last:
            self.appear()

    def appear(self) -> None:
        """Move it to its target, durably; without effect where it is there.

        Raises:
            HostWriteError: that failed, and it is not there.
            ExistsError: something else came to be there.
        """
        if self.appeared:
            return
        target, place = self.target, self.path.parent
        check_free(target, self)
        try:
            if self._state.single and self._state.exists():
                replace_file(place / _PUBLISHED, [])
                sync_folder(place)
                self._state.path.rename(beside_file(target))
                sync_folder(target.parent)
            self.path.rename(target)
            sync_folder(target.parent)
        except OSError as error:
            raise _failed(target, error) from None
        self.path, self._state, self.appeared = target, StateFolder(target), True


def copy_model(source: Path, out: Path) -> None:
    """Copy the model `source` to `out`, as it was before anything was applied to it; raises as `new_copy`."""
    with new_copy(source, out):
        pass


@contextmanager
def new_copy(source: Path, out: Path) -> Iterator[NewCopy]:
    """A copy of the model `source`, without patches, to be written; it appears at `out` when the block ends.

    Dead copies for the same target are removed first. Where the block raises, nothing stays.

    Raises:
        NotFoundError: no model at `source`.
        UnsupportedHostError: no model that can be patched, or a folder that holds pipes or devices.
        InputError: `out` lies inside `source`, or is no name for a single file.
        ExistsError: `out` exists and is no empty folder.
        BusyError: another process is writing to `source`.
        HostWriteError: copying failed; nothing is left of it.
    """
    host = CheckpointHost.open(source)
    target = Path(os.path.abspath(out))  # noqa: PTH100  # resolve() would follow a link at `out` itself
    try:
        for dead in find_dead(target):
            remove_dead(dead)
        check_free(target, host)
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _failed(target, error) from None
    place = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}.copying"
    copy: NewCopy | None = None
    with ExitStack() as held:
        try:
            place.mkdir(_PRIVATE)
            held.enter_context(locked(place, exclusive=True))
            copy_files(host, place / target.name)
            copy = NewCopy.open(place / target.name)
            yield copy
            copy.appear()
        except BaseException as error:
            if copy is not None and copy.appeared:
                _remove(StateFolder(copy.path).path)
                _remove(copy.path)
            if isinstance(error, OSError):
                raise _failed(target, error) from None
            raise
        finally:
            _remove(place)


def find_dead(target: Path | None = None, *, beside: Path | None = None) -> list[Path]:
    """Places of copies whose makers died: of this target, or all in the folder `beside`.

    Raises:
        OSError: the folder cannot be read.
    """
    folder = target.parent if target is not None else beside
    if folder is None or not folder.is_dir():
        return []
    found = (path for path in folder.iterdir() if _PLACE.fullmatch(path.name))
    return sorted(p for p in found if (target is None or target_of(p).name == target.name) and _is_dead(p))


def is_place(path: Path) -> bool:
    """Whether this is a place of a copy, by its name."""
    return _PLACE.fullmatch(path.name) is not None


def target_of(place: Path) -> Path:
    """Where the copy at this place was meant to go."""
    match = _PLACE.fullmatch(place.name)
    return place.with_name(match[1] if match else place.name)


def remove_dead(place: Path) -> None:
    """Remove what a dead process left of a copy.

    Raises:
        OSError: it cannot be removed.
    """
    target = target_of(place)
    waiting = (place / target.name).is_file() and (place / _PUBLISHED).exists()
    if waiting and not (target.exists() or target.is_symlink()):  # its originals went ahead of it
        with suppress(FileNotFoundError):
            shutil.rmtree(beside_file(target))
    shutil.rmtree(place)


def _is_dead(place: Path) -> bool:
    if place.is_symlink() or not place.is_dir():
        return False
    try:
        with locked(place, exclusive=True):
            return True
    except (BusyError, HostError, UnsupportedHostError):
        return False


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _failed(target: Path, error: OSError) -> HostWriteError:
    hint = "choose a place with more room: --out PATH" if error.errno in {errno.ENOSPC, errno.EDQUOT} else ""
    return HostWriteError(
        f"expected to copy the model to {target}, got {error.strerror or error}; nothing is left of it",
        hint=hint,
        errno=error.errno,
    )
