"""A diffusers folder on disk as a host: the touched bytes are overwritten in place, under a rollback journal.

Opening reads headers only and first settles what an interrupted process left. Reading takes a shared lock on the
folder, writing an exclusive one, each for the length of one call and without waiting. A process that has the same file
mapped into its memory sees the new values at once; load models afresh after a write.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from rasura.patches.errors import HostError, HostWriteError, NotFiniteError, NotFoundError, UnsupportedHostError
from rasura.patches.hosts import ParameterInfo
from rasura.patches.hosts.journal import Journal
from rasura.patches.hosts.keep import KeptOriginal, StateFolder, new_identity, original_file
from rasura.patches.hosts.layout import Layout, Place, find_layout
from rasura.patches.hosts.lock import locked
from rasura.patches.hosts.ranges import digest_range, read_range
from rasura.patches.hosts.record import Change, Record
from rasura.patches.hosts.weights import WeightFiles
from rasura.patches.names import Digest, ParamName
from rasura.patches.tensors import dtype_name, is_finite, raw_bytes, tensor_digest, torch_dtype

if TYPE_CHECKING:
    import torch

__all__ = ["CheckpointHost"]


class CheckpointHost:
    """A diffusers folder; see `rasura.patches.hosts.Host` for what its methods promise."""

    journal_type: ClassVar[type[Journal]] = Journal

    def __init__(self, folder: Path, layout: Layout, *, recovered: bool, identity: str) -> None:
        """Use `open`."""
        self.folder = folder
        self.recovered = recovered
        """Whether opening put back what an interrupted write had left half done."""
        self._layout = layout
        self._fresh_identity = identity
        self._state = StateFolder(folder)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """The model in `folder`.

        Raises:
            NotFoundError: no such folder.
            UnsupportedHostError: no diffusers folder with safetensors weights, or ambiguous ones.
            FormatError: a weight file or an index that breaks its format.
            BusyError: another process is writing to it.
            DigestMismatchError: an interrupted write that cannot be undone because its journal is damaged.
            HostWriteError: an interrupted write that cannot be undone now.
        """
        try:
            folder = folder.resolve(strict=True)
        except OSError as error:
            raise NotFoundError(f"expected a model folder at {folder}, got {error.strerror}") from None
        layout = find_layout(folder)
        with locked(folder, exclusive=False) as lock, _readable(folder):
            journal = cls.journal_type(StateFolder(folder))
            recovered = False
            if journal.unsettled():
                lock.make(exclusive=True)
                recovered = _settle(journal, folder)
        return cls(folder, layout, recovered=recovered, identity=new_identity())

    @property
    def location(self) -> str:
        """The folder's absolute path."""
        return str(self.folder)

    @property
    def host_id(self) -> str:
        """32 hexadecimal digits that name this folder for as long as something is applied to it."""
        return self._state.identity() or self._fresh_identity

    @property
    def lasting(self) -> bool:
        """Yes."""
        return True

    def known_as(self, host_id: str) -> None:
        """Take this identity in place of a fresh one; without effect while something is applied."""
        self._fresh_identity = host_id

    def alone(self) -> AbstractContextManager[object]:
        """Keep other processes from moving this model; see `Host.alone`.

        Reading and writing lock the model's folder for the length of a call. This locks a folder inside it.
        """
        return locked(self.folder / next(iter(self._layout.files)).partition("/")[0], exclusive=True)

    def kept(self) -> frozenset[ParamName]:
        """The parameters whose originals are kept, which are those that something is applied to."""
        return frozenset(self._state.kept())

    def ensure_writable(self, names: Iterable[ParamName]) -> None:
        """Raise what `write` would raise because of the files that hold these, without changing anything.

        Raises:
            UnsupportedHostError: a link, a file with several names, a read-only file.
            DriftError: a weight file was replaced since this host was opened.
        """
        with WeightFiles(self.folder, self._layout.files, writable=True) as files:
            for name in names:
                files.descriptor(self._place(name).file)

    def parameters(self) -> Mapping[ParamName, ParameterInfo]:
        """Every patchable parameter, in name order, from the headers."""
        return {name: place.info for name, place in self._layout.places.items()}

    def read(self, names: Iterable[ParamName]) -> "dict[ParamName, torch.Tensor]":
        """The present values, on the CPU, in the files' dtypes."""
        with self._reading() as files:
            return {name: _tensor(_present(self._place(name), files), self._place(name).info) for name in names}

    def originals(self, names: Iterable[ParamName]) -> "dict[ParamName, torch.Tensor]":
        """The values before anything was written.

        Raises:
            DigestMismatchError: a kept original was damaged.
        """
        with self._reading() as files:
            kept = self._state.kept()
            return {name: _tensor(self._original(name, kept, files), self._place(name).info) for name in names}

    def digests(self, names: Iterable[ParamName]) -> dict[ParamName, Digest]:
        """SHA-256 of the present bytes; no tensor is made."""
        with self._reading() as files:
            return {name: _digest(self._place(name), files) for name in names}

    def original_digests(self, names: Iterable[ParamName]) -> dict[ParamName, Digest]:
        """SHA-256 of the bytes before anything was written; no tensor is made."""
        with self._reading() as files:
            kept = self._state.kept()
            return {name: kept[name].digest if name in kept else _digest(self._place(name), files) for name in names}

    def write(self, tensors: "Mapping[ParamName, torch.Tensor]", *, forget: Collection[ParamName] = ()) -> None:
        """Write all of these values or none of them; see `Host.write`.

        Raises:
            DriftError: a weight file was replaced since this host was opened.
        """
        for name, tensor in tensors.items():
            _check(self._place(name).info, tensor)
        with locked(self.folder, exclusive=True), _readable(self.folder):
            journal = self.journal_type(self._state)
            _settle(journal, self.folder)
            record, infos = self._record(tensors, forget)
            if record.changes or record.forget:
                by_place = {(p.file, p.start): name for name in tensors for p in [self._place(name)]}
                journal.transact(
                    record, infos, lambda change: raw_bytes(tensors[by_place[change.file, change.start]]), self.host_id
                )

    def _record(
        self, tensors: "Mapping[ParamName, torch.Tensor]", forget: Collection[ParamName]
    ) -> tuple[Record, dict[str, ParameterInfo]]:
        """What has to change, and what each newly kept original is."""
        kept = self._state.kept()
        changes: list[Change] = []
        infos: dict[str, ParameterInfo] = {}
        after: dict[ParamName, Digest] = {}
        with WeightFiles(self.folder, self._layout.files) as files:
            for name, tensor in tensors.items():
                place, after[name] = self._place(name), tensor_digest(tensor)
                if (old := _digest(place, files)) != after[name]:
                    staged = "" if name in kept else original_file(name)
                    changes.append(Change(place.file, place.start, place.stop, old, after[name], staged))
                    infos |= {staged: place.info} if staged else {}
            for name in forget:
                _check_pristine(name, kept, after.get(name) or _digest(self._place(name), files), infos)
        identities = {file: self._layout.files[file] for file in {change.file for change in changes}}
        dropped = tuple(original_file(name) for name in sorted(forget) if name in kept)
        return Record(identities, tuple(changes), dropped), infos

    @contextmanager
    def _reading(self) -> Iterator[WeightFiles]:
        with locked(self.folder, exclusive=False) as lock, _readable(self.folder):
            journal = self.journal_type(self._state)
            if journal.unsettled():  # a process died since this host was opened
                lock.make(exclusive=True)
                _settle(journal, self.folder)
            with WeightFiles(self.folder, self._layout.files) as files:
                yield files

    def _place(self, name: ParamName) -> Place:
        return self._layout.place(name, self.location)

    def _original(self, name: ParamName, kept: Mapping[ParamName, KeptOriginal], files: WeightFiles) -> bytes:
        if name not in kept:
            return _present(self._place(name), files)
        _check_same(self._place(name).info, kept[name].info)
        return kept[name].read()


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        got = error.strerror or str(error)
        raise HostError(f"{folder}: expected a readable model, got {got}", errno=error.errno) from None


def _settle(journal: Journal, folder: Path) -> bool:
    try:
        return journal.settle()
    except OSError as error:
        if not journal.interrupted():  # only leftovers that could not be removed, which mislead nobody
            return False
        raise HostWriteError(
            f"{folder}: expected to finish an interrupted write, got {error.strerror or error}; it is kept for later",
            hint="make the folder writable, free some space and try again",
            errno=error.errno,
        ) from None


def _check(info: ParameterInfo, tensor: "torch.Tensor") -> None:
    got = ParameterInfo(info.name, dtype_name(tensor.dtype), tuple(tensor.shape))
    _check_same(info, got)
    if not is_finite(tensor):
        raise NotFiniteError(f"{info.name}: expected finite numbers, got NaN or infinity", parameter=info.name)


def _check_same(info: ParameterInfo, got: ParameterInfo) -> None:
    if got != info:
        raise UnsupportedHostError(
            f"{info.name}: expected {info.dtype} {list(info.shape)}, got {got.dtype} {list(got.shape)}",
            parameter=info.name,
        )


def _check_pristine(
    name: ParamName, kept: Mapping[ParamName, KeptOriginal], after: Digest, changed: Mapping[str, ParameterInfo]
) -> None:
    """Refuse to forget the only copy of an original."""
    if (name in kept and kept[name].digest != after) or original_file(name) in changed:
        raise HostWriteError(
            f"{name}: expected to be as it was before its original is forgotten, got other values; nothing was changed",
            parameter=name,
        )


def _digest(place: Place, files: WeightFiles) -> Digest:
    return digest_range(files.descriptor(place.file), place.start, place.stop)


def _present(place: Place, files: WeightFiles) -> bytes:
    return b"".join(read_range(files.descriptor(place.file), place.start, place.stop))


def _tensor(data: bytes, info: ParameterInfo) -> "torch.Tensor":
    import torch

    if not data:
        return torch.empty(info.shape, dtype=torch_dtype(info.dtype))
    return torch.frombuffer(bytearray(data), dtype=torch_dtype(info.dtype)).reshape(info.shape)
