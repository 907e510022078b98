"""What one transaction on weight files does, and its bytes in the journal.

Format, version 1: 16 bytes of magic, 8 bytes little-endian length of the head, the head as canonical JSON, SHA-256 of
all before, then the old bytes of the changes that are not staged, in the head's order. A staged file ends with the old
bytes of its changes, in the same order. All prove themselves by the change's old digest, so a damaged journal can be
refused but never believed.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from rasura.patches._io import canonical_json
from rasura.patches._io.canonical_json import MAX_INTEGER, Fields
from rasura.patches._io.files import open_regular
from rasura.patches.errors import DigestMismatchError, FormatError
from rasura.patches.hosts.disk.state_folder import owner
from rasura.patches.hosts.disk.weight_files import FileIdentity
from rasura.patches.types import Digest

__all__ = ["RangeChange", "Record", "encode_head", "read_record", "say_damaged"]

_MAGIC: Final = b"rasura journal 1"
_HEAD_LIMIT: Final = 16 * 2**20  # bytes; a change needs some 400
_PREFIX: Final = len(_MAGIC) + 8
_SUM: Final = 32  # bytes of SHA-256
_FILE: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,200}/[A-Za-z0-9_][A-Za-z0-9._-]{0,250}")
_KEPT: Final = re.compile(r"[0-9a-f]{64}\.(?:safetensors|kept)")


@dataclass(frozen=True, slots=True)
class RangeChange:
    """One range of one file and what it holds before and after."""

    file: str
    start: int
    stop: int
    old: Digest
    new: Digest
    staged: str
    """Name of the file in `staging/` that holds the old bytes, or "" where the journal holds them."""

    @property
    def size(self) -> int:
        """How many bytes."""
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Record:
    """All that one transaction does."""

    files: Mapping[str, FileIdentity]
    changes: tuple[RangeChange, ...]
    forget: tuple[str, ...] = ()
    """Names of the files in `originals/` that are not needed once this is committed."""
    rewritten: tuple[str, ...] = ()
    """Names of the files in `staging/` that hold what is still needed of forgotten ones."""

    def staged(self) -> tuple[str, ...]:
        """All files in `staging/` that are kept once this is committed."""
        return tuple(dict.fromkeys([*(change.staged for change in self.changes if change.staged), *self.rewritten]))


def encode_head(record: Record) -> bytes:
    """All of the journal before the old bytes."""
    head = canonical_json.dumps(
        {
            "files": [{"file": file, **asdict(identity)} for file, identity in sorted(record.files.items())],
            "changes": [asdict(change) for change in record.changes],
            "forget": list(record.forget),
            "rewritten": list(record.rewritten),
        }
    )
    prefix = _MAGIC + len(head).to_bytes(8, "little") + head
    return prefix + hashlib.sha256(prefix).digest()


def read_record(path: Path) -> tuple[Record, dict[RangeChange, int]]:
    """The record of a journal file, and where the old bytes of each change begin: in it, or in their staged file.

    Places in staged files are counted from their ends, and so below zero: they end with the old bytes, in order.

    Raises:
        DigestMismatchError: the head is damaged.
        FormatError: no regular file.
        OSError: reading failed.
    """
    with open_regular(path) as (file, status):
        prefix = file.read(_PREFIX)
        length = int.from_bytes(prefix[len(_MAGIC) :], "little")
        if not prefix.startswith(_MAGIC) or length > min(_HEAD_LIMIT, status.st_size):
            raise say_damaged(path, "its first bytes")
        head = file.read(length)
        if file.read(_SUM) != hashlib.sha256(prefix + head).digest():
            raise say_damaged(path, "its head")
    try:
        record = _parse(head, path)
    except FormatError as error:
        raise say_damaged(path, f"its head ({error})") from None
    return record, _offsets(record, _PREFIX + length + _SUM)


def say_damaged(path: Path, what: str) -> DigestMismatchError:
    """The error for a journal that cannot be followed. Nothing was touched, the journal least of all."""
    model, _ = owner(path.parent)
    return DigestMismatchError(
        f"{path}: expected the journal of an interrupted write, got one with {what} damaged; "
        f"the weights in {model} may be half written",
        hint=f"put a fresh copy of the model in place of {model}",
        path=str(path),
    )


def _parse(head: bytes, path: Path) -> Record:
    # A stranger may have put the journal there: names stay below the model's folder, ranges inside tensor bytes.
    what, (model, single) = str(path), owner(path.parent)
    names = re.compile(re.escape(model.name)) if single else _FILE
    fields = Fields.of(canonical_json.loads(head, what=what, limit=_HEAD_LIMIT), what)
    files = dict(_file(item, names) for item in fields.records("files"))
    changes = tuple(_change(item, files) for item in fields.records("changes"))
    forget = fields.texts("forget", characters=80)
    rewritten = fields.optional("rewritten", lambda name: fields.texts(name, characters=80)) or ()
    fields.done()
    if any(not _KEPT.fullmatch(name) for name in (*forget, *rewritten)):
        raise FormatError(f"{what}: expected names of kept originals, got others")
    return Record(files, changes, forget, rewritten)


def _file(fields: Fields, names: re.Pattern[str]) -> tuple[str, FileIdentity]:
    name = fields.text("file", names)
    size = fields.integer("size", 0, MAX_INTEGER)
    identity = FileIdentity(size, fields.integer("data_start", 0, size), fields.digest("header"))
    fields.done()
    return name, identity


def _change(fields: Fields, files: Mapping[str, FileIdentity]) -> RangeChange:
    file = fields.choice("file", files)
    start = fields.integer("start", files[file].data_start, files[file].size)
    stop = fields.integer("stop", start, files[file].size)
    staged = fields.text("staged")
    change = RangeChange(file, start, stop, fields.digest("old"), fields.digest("new"), staged)
    fields.done()
    if staged and not _KEPT.fullmatch(staged):
        raise FormatError(f"expected the name of a staged original, got {staged[:80]!a}")
    return change


def _offsets(record: Record, position: int) -> dict[RangeChange, int]:
    offsets: dict[RangeChange, int] = {}
    for change in record.changes:
        if not change.staged:
            offsets[change] = position
            position += change.size
    ends: dict[str, int] = {}
    for change in reversed(record.changes):
        if change.staged:
            ends[change.staged] = offsets[change] = ends.get(change.staged, 0) - change.size
    return offsets
