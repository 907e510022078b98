"""A process that dies in the middle of its work on files, and the power with it.

`PowerCut.install` counts every call of this process that changes files (`os.pwrite`, `fsync`, `rename`, `replace`,
`link`, `unlink`, `mkdir`, `rmdir`) and ends it by SIGKILL in one of them. The calls themselves are the real ones. With a seed, what the
medium may not have had yet is lost first:

    bytes     written since the last fsync of their file: each 512-byte sector may be old, new, or noise
    names     changed since the last fsync of their folder: the last few changes never happened

Files grow and change in any order between two fsyncs; names change in the order in which they were changed.
"""

import os
import random
import signal
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["PowerCut"]

_SECTOR = 512
_CALLS = ("pwrite", "fsync", "rename", "replace", "link", "unlink", "mkdir", "rmdir")


@dataclass(frozen=True, slots=True)
class _Write:
    descriptor: int
    """Ours, so that it stays open."""
    inode: int
    start: int
    old: bytes
    new: bytes


@dataclass(frozen=True, slots=True)
class _Naming:
    folders: frozenset[Path]
    undo: Callable[[], object]


class PowerCut:
    """Kill this process in its call number `at`, counted from 0; -1 lets it live."""

    def __init__(self, at: int, seed: int | None) -> None:
        self.calls = 0
        self._at = at
        self._chance = None if seed is None else random.Random(seed)
        self._writes: list[_Write] = []
        self._namings: list[_Naming] = []
        self._real = {name: getattr(os, name) for name in _CALLS}

    def install(self) -> None:
        """From here on the calls are counted."""
        for name in self._real:
            setattr(os, name, getattr(self, f"_{name}"))

    def remove(self) -> None:
        """From here on they are not."""
        for name, real in self._real.items():
            setattr(os, name, real)

    def strike(self) -> None:
        """The end."""
        if self._chance is not None:
            self._lose(self._chance)
        os.kill(os.getpid(), signal.SIGKILL)

    def _counted(self, name: str, *arguments: Any, **options: Any) -> Any:
        last = self.calls == self._at
        if last and name != "pwrite":
            self.strike()
        self.calls += 1
        result = self._real[name](*arguments, **options)
        if last:
            self.strike()
        return result

    def _pwrite(self, descriptor: int, data: Any, start: int) -> Any:
        if self._chance is not None:
            with open(f"/proc/self/fd/{descriptor}", "rb") as file:  # noqa: PTH123  # no path: the file may have no name
                old = os.pread(file.fileno(), len(data), start)
            inode = os.fstat(descriptor).st_ino
            self._writes.append(_Write(os.dup(descriptor), inode, start, old, bytes(data)))
        return self._counted("pwrite", descriptor, data, start)

    def _fsync(self, descriptor: int) -> Any:
        result = self._counted("fsync", descriptor)
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            folder = Path(f"/proc/self/fd/{descriptor}").readlink()
            self._namings = [naming for naming in self._namings if folder not in naming.folders]
        else:
            self._writes = [write for write in self._writes if write.inode != status.st_ino]
        return result

    def _rename(self, source: Any, target: Any) -> Any:
        return self._renamed("rename", Path(source), Path(target))

    def _replace(self, source: Any, target: Any) -> Any:
        return self._renamed("replace", Path(source), Path(target))

    def _renamed(self, name: str, source: Path, target: Path) -> Any:
        replaced = target.read_bytes() if target.is_file() and self._chance is not None else None
        result = self._counted(name, source, target)

        def undo() -> None:
            self._real["rename"](target, source)
            if replaced is not None:
                target.write_bytes(replaced)

        self._namings.append(_Naming(frozenset({source.parent, target.parent}), undo))
        return result

    def _link(self, source: Any, target: Any, **options: Any) -> Any:
        source, target = Path(source), Path(target)
        result = self._counted("link", source, target, **options)
        self._namings.append(_Naming(frozenset({target.parent}), lambda: self._real["unlink"](target)))
        return result

    def _unlink(self, path: Any, *, dir_fd: int | None = None) -> Any:
        if dir_fd is not None:
            return self._counted("unlink", path, dir_fd=dir_fd)
        path = Path(path)
        data = path.read_bytes() if path.is_file() and self._chance is not None else b""
        result = self._counted("unlink", path)
        self._namings.append(_Naming(frozenset({path.parent}), lambda: path.write_bytes(data)))
        return result

    def _mkdir(self, path: Any, *rest: Any) -> Any:
        path = Path(path)
        result = self._counted("mkdir", path, *rest)
        self._namings.append(_Naming(frozenset({path.parent}), lambda: _remove(path, self._real)))
        return result

    def _rmdir(self, path: Any, *, dir_fd: int | None = None) -> Any:
        if dir_fd is not None:
            return self._counted("rmdir", path, dir_fd=dir_fd)
        path = Path(path)
        result = self._counted("rmdir", path)
        self._namings.append(_Naming(frozenset({path.parent}), lambda: self._real["mkdir"](path)))
        return result

    def _lose(self, chance: random.Random) -> None:
        for write in reversed(self._writes):
            for at in range(0, len(write.new), _SECTOR):
                old, new = write.old[at : at + _SECTOR], write.new[at : at + _SECTOR]
                left = chance.choice([old.ljust(len(new), b"\0"), new, chance.randbytes(len(new))])
                self._real["pwrite"](write.descriptor, left, write.start + at)
            if len(write.old) < len(write.new) and chance.random() < 0.5:  # the file's length was lost, too
                os.ftruncate(write.descriptor, write.start + chance.randint(len(write.old), len(write.new)))
        kept = chance.randint(0, len(self._namings))
        for naming in reversed(self._namings[kept:]):
            if all(folder.exists() for folder in naming.folders):  # not where its removal has reached the medium
                naming.undo()


def _remove(folder: Path, real: dict[str, Callable[..., Any]]) -> None:
    for path in folder.iterdir():  # made in a folder that never was
        if path.is_dir():
            _remove(path, real)
        else:
            real["unlink"](path)
    real["rmdir"](folder)
