"""Originals that are about to be kept: which file each goes into, and how that is written.

What one write is the first to touch in a weight file is one file. Where a write forgets some originals of such a file,
and not all, the others are written into a new one, and the old one is dropped when that is durable.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from rasura.patches._io.byte_ranges import NewFiles, copy_known, copy_range, write_range
from rasura.patches._io.tensor_bytes import DTYPES, RawValue
from rasura.patches.errors import DriftError
from rasura.patches.hosts.disk.journal.journal_record import RangeChange, Record
from rasura.patches.hosts.disk.layouts.diffusers_layout import TensorLocation
from rasura.patches.hosts.disk.state_folder import KeptOriginal, StateFolder, encode_header
from rasura.patches.hosts.interface import ParameterInfo
from rasura.patches.types import SHORT, ParamName

__all__ = ["StagedFile", "begin_file", "copy_old", "place_unstaged", "plan_rewritten", "sort_into_files"]


@dataclass(frozen=True, slots=True)
class StagedFile:
    """A file of `staging/`, which is moved to `originals/` when the write is committed."""

    name: str
    file: str = ""
    """The weight file, which may be read by whoever may read this."""
    fresh: tuple[tuple[RangeChange, ParameterInfo], ...] = ()
    """What is kept for the first time; in this order their bytes are the file's last."""
    carried: tuple[KeptOriginal, ...] = ()
    """What was kept in a file that goes."""


def sort_into_files(state: StateFolder, places: Mapping[ParamName, TensorLocation]) -> dict[ParamName, str]:
    """Of parameters that are touched for the first time: the file that each is to be kept in, one for a weight file.

    In the order in which they are to lie there: wide elements first, so that all of them are aligned.
    """
    by_file: dict[str, list[ParamName]] = {}
    for name in sorted(places, key=lambda name: (-DTYPES[places[name].info.dtype][1], name)):
        by_file.setdefault(places[name].file, []).append(name)
    return {name: file for names in by_file.values() for file in [state.name_file(names)] for name in names}


def plan_rewritten(
    state: StateFolder, kept: Mapping[ParamName, KeptOriginal], gone: Collection[ParamName]
) -> tuple[list[str], list[StagedFile]]:
    """What becomes of kept files when some parameters are forgotten: those that go, and those that take their place."""
    by_file: dict[Path, list[KeptOriginal]] = {}
    for original in kept.values():
        by_file.setdefault(original.path, []).append(original)
    dropped: list[str] = []
    rewritten: list[StagedFile] = []
    for path, originals in sorted(by_file.items()):
        if not any(original.info.name in gone for original in originals):
            continue
        dropped.append(path.name)
        if left := tuple(original for original in originals if original.info.name not in gone):
            rewritten.append(StagedFile(state.name_file(original.info.name for original in left), carried=left))
    return dropped, rewritten


def begin_file(staged: StagedFile, made: NewFiles, path: Path, mode: int) -> list[tuple[RangeChange, int, int]]:
    """Begin a file with its header and what is carried over.

    Returns:
        Where the old bytes of each change go: the file's descriptor, and the first byte.
    """
    sizes = [(original.info, original.digest, original.stop - original.start) for original in staged.carried]
    sizes += [(info, change.old, change.size) for change, info in staged.fresh]
    header = encode_header(sizes)
    target, at = made.begin(path, [header], mode=mode), len(header)
    for original in staged.carried:
        write_range(target, at, [original.read()])
        at += original.stop - original.start
    found = []
    for change, _ in staged.fresh:
        found.append((change, target, at))
        at += change.size
    return found


def place_unstaged(record: Record, pending: int, at: int) -> list[tuple[RangeChange, int, int]]:
    """Where in the journal, open as `pending`, old bytes go of what is not staged; the first at `at`."""
    found = []
    for change in record.changes:
        if not change.staged:
            found.append((change, pending, at))
            at += change.size
    return found


def copy_old(change: RangeChange, source: int, target: int, at: int, seen: RawValue | None) -> None:
    """Write the old bytes of a change into a file from `at` on. They must be those that were checked.

    Args:
        change: which bytes.
        source: the weight file.
        target: the file that keeps them.
        at: where in it.
        seen: the bytes that were checked, with their digest; without them the file's are hashed as they pass.

    Raises:
        DriftError: somebody wrote to the weight file meanwhile.
    """
    if seen is not None and seen.digest == change.old:
        same = copy_known(source, change.start, memoryview(seen.data), target, at)
    else:
        same = copy_range(source, change.start, change.stop, target, at) == change.old
    if not same:
        raise DriftError(
            f"{change.file}: expected the bytes from {change.start} with SHA-256 {change.old[:SHORT]}…, got others: "
            "somebody changed them meanwhile; nothing was written",
            hint="stop what writes to this model, and try again",
            file=change.file,
        )
