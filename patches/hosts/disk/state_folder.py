"""The folder beside the weights in which a checkpoint host keeps what it needs to go back.

    <model>/.rasura-host/host.json                       a random identity, for the registry
    <model>/.rasura-host/originals/<sha256>.safetensors  untouched parameters of one weight file, for stock tools, too
    <model>/.rasura-host/staging/                        originals of a write that is under way
    <model>/.rasura-host/journal[.done]                  see `rasura.patches.hosts.disk.journal.rollback_journal`

Beside a single file `x.safetensors` it is `.x.safetensors.rasura-host`, and the originals are called `<sha256>.kept`:
programs that look for checkpoints in all folders below theirs would offer them otherwise.

What one write is the first to touch in a weight file is one file there: hundreds of parameters would be as many files
to make durable one by one. Its metadata hold the SHA-256 of each. One parameter whose metadata say `sha256` is of an
earlier version.

It exists exactly as long as something is applied: after the last revert nothing of it is left.
"""

import errno
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rasura.patches._io import canonical_json
from rasura.patches._io.byte_ranges import read_into, replace_file, sync_folder
from rasura.patches._io.canonical_json import Fields, JsonValue
from rasura.patches._io.files import open_regular, read_regular
from rasura.patches._io.safetensors_file import CHECKPOINT_LIMITS, read_header
from rasura.patches._io.sha256 import digest_of
from rasura.patches.errors import DigestMismatchError, FormatError, HostError, NotFoundError
from rasura.patches.hosts.interface import ParameterInfo
from rasura.patches.types import Digest, ParamName

__all__ = ["STATE_FOLDER", "KeptOriginal", "StateFolder", "beside_file", "encode_header", "make_identity", "owner"]

STATE_FOLDER: Final = ".rasura-host"

_IDENTITY_LIMIT: Final = 4096  # bytes of host.json
_FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class KeptOriginal:
    """A parameter's value before anything was written, in a file of its own."""

    path: Path
    info: ParameterInfo
    start: int
    """First byte of the values in the file."""
    stop: int
    digest: Digest
    """SHA-256 of the values, as it was when they were kept."""

    def read(self) -> bytearray:
        """The values; raises as `read_into`."""
        found = bytearray(self.stop - self.start)
        self.read_into(memoryview(found))
        return found

    def read_into(self, room: memoryview) -> None:
        """Put the values into this room, which has their size.

        Raises:
            DigestMismatchError: the file was damaged.
            FormatError: something else than a regular file is in its place.
            HostError: the file cannot be read.
        """
        try:
            with open_regular(self.path) as (file, _):
                read_into(room, file.fileno(), self.start)
        except OSError as error:
            raise HostError(f"{self.path}: expected a readable file, got {error.strerror}") from None
        except NotFoundError as error:
            raise HostError(error.message) from None
        if (got := digest_of(room)) != self.digest:
            raise DigestMismatchError(
                f"{self.path}: expected the original of {self.info.name} with SHA-256 {self.digest}, got {got}",
                hint="take a fresh copy of the base model",
                parameter=self.info.name,
            )


class StateFolder:
    """Paths and contents of one `.rasura-host`. Changing it is the journal's business."""

    def __init__(self, model: Path) -> None:
        self.model = model
        beside = beside_file(model)
        self.single = model.is_file() or (not model.is_dir() and beside.is_dir())
        """Whether the model is one file; also of one that is gone, as long as this is still there."""
        self.root = model.parent if self.single else model
        """The folder that the names of weight files are relative to."""
        self.path = beside if self.single else model / STATE_FOLDER
        self._suffix = ".kept" if self.single else ".safetensors"
        self.originals = self.path / "originals"
        self.staging = self.path / "staging"

    def exists(self) -> bool:
        """Whether the model holds anything of ours."""
        return self.path.is_dir() and not self.path.is_symlink()

    def identity(self) -> str | None:
        """The host's id, 32 hexadecimal digits, or None where nothing is applied.

        Raises:
            FormatError: `host.json` is not one of ours.
        """
        try:
            data = read_regular(self.path / "host.json", _IDENTITY_LIMIT)
        except NotFoundError:
            return None
        what = str(self.path / "host.json")
        fields = Fields.of(canonical_json.loads(data, what=what, limit=_IDENTITY_LIMIT), what)
        if fields.integer("format", 1, 2**31) != _FORMAT:
            raise FormatError(f"{what}: expected format {_FORMAT}, got a newer one", hint="upgrade rasura")
        identity = fields.text("id", limit=32)
        fields.done()
        return identity

    def name_file(self, names: Iterable[ParamName]) -> str:
        """The file name under which these parameters' originals are kept; their own names may be too long for one."""
        return digest_of("\n".join(sorted(names)).encode()) + self._suffix

    def keeps(self) -> bool:
        """Whether any original is kept."""
        return any(self._files())

    def _files(self) -> list[Path]:
        if not self.originals.is_dir():
            return []
        return sorted(path for path in self.originals.iterdir() if path.suffix == self._suffix)

    def create(self, identity: str) -> None:
        """Make the folder with this identity, unless it exists with one; what is in it is durable once it is synced.

        Raises:
            OSError: writing failed.
        """
        fresh = not self.exists()
        for folder in (self.path, self.originals, self.staging):
            folder.mkdir(exist_ok=True)
            if folder.is_symlink():
                raise NotADirectoryError(errno.ENOTDIR, f"{folder} is a link", str(folder))
        if self.identity() is None:
            replace_file(self.path / "host.json", [canonical_json.dumps({"format": _FORMAT, "id": identity})])
        if fresh:
            sync_folder(self.root)

    def remove_if_empty(self) -> None:
        """Leave no trace when no original is kept any more; what a power cut brings back, the next opening removes.

        Raises:
            OSError: removing failed.
        """
        if not self.exists() or self.keeps():
            return
        (self.path / "host.json").unlink(missing_ok=True)
        for folder in (self.staging, self.originals, self.path):
            if folder.is_dir():
                folder.rmdir()

    def kept(self) -> dict[ParamName, KeptOriginal]:
        """All kept originals, by parameter.

        Raises:
            FormatError: something in `originals` that is no file of ours.
            HostError: one cannot be read.
        """
        try:
            found = [original for path in self._files() for original in _read_kept(path)]
        except OSError as error:
            raise HostError(f"{self.originals}: expected readable files, got {error.strerror}") from None
        except NotFoundError as error:
            raise HostError(error.message) from None
        return {original.info.name: original for original in found}


def beside_file(model: Path) -> Path:
    """The state folder of a single file."""
    return model.with_name(f".{model.name}{STATE_FOLDER}")


def make_identity() -> str:
    """A fresh host id: 122 random bits as 32 hexadecimal digits."""
    return uuid.uuid4().hex


def owner(state: Path) -> tuple[Path, bool]:
    """The model that a state folder belongs to, and whether that is a single file."""
    if state.name == STATE_FOLDER:
        return state.parent, False
    return state.with_name(state.name.removeprefix(".").removesuffix(STATE_FOLDER)), True


def encode_header(originals: Iterable[tuple[ParameterInfo, Digest, int]]) -> bytes:
    """What stands before raw values so that the file is a safetensors file.

    Args:
        originals: of each value, in their order: what it is, its SHA-256, and how many bytes.
    """
    header: dict[str, JsonValue] = {}
    digests: dict[str, JsonValue] = {}
    position = 0
    for info, digest, size in originals:
        offsets: JsonValue = [position, position + size]
        header[info.name] = {"dtype": info.dtype, "shape": list(info.shape), "data_offsets": offsets}
        digests[info.name] = digest
        position += size
    text = canonical_json.dumps({"__metadata__": digests, **header})
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _read_kept(path: Path) -> list[KeptOriginal]:
    with open_regular(path) as (file, status):
        header = read_header(file, status.st_size, what=str(path), limits=CHECKPOINT_LIMITS)
    digests = dict(header.metadata)
    if len(header.tensors) == 1 and "sha256" in digests:  # of an earlier version
        digests = {header.tensors[0].name: digests.pop("sha256"), **digests}
    if digests.keys() != {tensor.name for tensor in header.tensors}:
        raise FormatError(f"{path}: expected kept originals and their digests, got something else")
    return [
        KeptOriginal(
            path,
            ParameterInfo(ParamName(tensor.name), tensor.dtype, tensor.shape),
            header.data_start + tensor.start,
            header.data_start + tensor.stop,
            Digest(digests[tensor.name]),
        )
        for tensor in header.tensors
    ]
