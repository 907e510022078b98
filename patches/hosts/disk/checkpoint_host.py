"""A diffusers folder or a single file as a host: the touched bytes are overwritten in place, under a rollback journal.

Opening reads headers only and first settles what an interrupted process left. Reading takes a shared lock on the
folder, writing an exclusive one, each for the length of one call and without waiting. A process that has the same file
mapped into its memory sees the new values at once; load models afresh after a write.
"""

import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from rasura.patches._io.file_lock import locked, sole_mover
from rasura.patches._io.rooms import make_rooms
from rasura.patches._io.tensor_bytes import (
    RawValue,
    Storable,
    as_raw_value,
    as_tensor,
    count_bytes,
    digest_tensor,
    view_memory,
)
from rasura.patches.errors import UnsupportedHostError
from rasura.patches.hosts.check_value import check_value
from rasura.patches.hosts.disk.journal.rollback_journal import RollbackJournal
from rasura.patches.hosts.disk.journal.settle_writes import readable, settle
from rasura.patches.hosts.disk.layouts.compvis_layout import find_layout_of, find_model, say_conversion
from rasura.patches.hosts.disk.layouts.diffusers_layout import Layout, TensorLocation
from rasura.patches.hosts.disk.plan_write import plan_write
from rasura.patches.hosts.disk.read_values import digest_present, read_digested, read_values
from rasura.patches.hosts.disk.saved_again import find_cast, say_way_back
from rasura.patches.hosts.disk.state_folder import StateFolder, make_identity
from rasura.patches.hosts.disk.weight_files import WeightFiles
from rasura.patches.hosts.interface import Host, MadeOf, ParameterInfo, RawComposed
from rasura.patches.hosts.uncovered import find_uncovered_on_disk
from rasura.patches.types import Digest, ParamName

if TYPE_CHECKING:  # hashing a model on disk needs no torch
    import torch  # digests of a checkpoint need none

    from rasura.patches.algebra.light.layers import Layer

__all__ = ["CheckpointHost"]


class CheckpointHost(Host):
    """A model on disk; see `rasura.patches.hosts.interface.Host` for what its methods promise."""

    journal_type: ClassVar[type[RollbackJournal]] = RollbackJournal

    def __init__(self, path: Path, layout: Layout, *, recovered: bool, identity: str) -> None:
        """Use `open`."""
        self.path = path
        """The folder or the file."""
        self.recovered = recovered
        """Whether opening put back what an interrupted write had left half done."""
        self._layout = layout
        self._fresh_identity = identity
        self._state = StateFolder(path)
        self.single = self._state.single
        """Whether the model is one file, in which there is no tokenizer."""
        self._held: Mapping[ParamName, Digest] = {}
        self._seen: Mapping[ParamName, RawValue] = {}  # what of it is not kept yet, with digests

    @classmethod
    def open(cls, path: Path) -> Self:
        """The model in a diffusers folder, or in a single file (`rasura.patches.hosts.disk.layouts.compvis_names`).

        Raises:
            NotFoundError: nothing is there.
            UnsupportedHostError: neither a folder with safetensors weights nor such a file, or ambiguous ones.
            FormatError: a weight file or an index that breaks its format.
            BusyError: another process is writing to it.
            DigestMismatchError: an interrupted write that cannot be undone because its journal is damaged.
            HostWriteError: an interrupted write that cannot be undone now.
        """
        path = find_model(path)
        layout = find_layout_of(path)
        with locked(path, exclusive=False) as lock, readable(path):
            journal = cls.journal_type(StateFolder(path))
            recovered = False
            if journal.unsettled():
                lock.make(exclusive=True)
                recovered = settle(journal, path)
        return cls(path, layout, recovered=recovered, identity=make_identity())

    @property
    def folder(self) -> Path:
        """The folder, for those who need more of it than weights.

        Raises:
            UnsupportedHostError: the model is a single file.
        """
        if self.single:
            raise UnsupportedHostError(
                f"{self.path}: expected a diffusers folder, whose tokenizer and text encoder can be loaded, got a "
                "single file: patches are made on folders and applied to both",
                hint=say_conversion(self.path, self._layout),
            )
        return self.path

    def model_folder(self) -> Path | None:
        """The folder; None of a single file."""
        return None if self.single else self.path

    def uncovered(self) -> tuple[str, ...]:
        """What `model_index.json` names that patches do not touch."""
        return () if self.single else find_uncovered_on_disk(self.path)

    @property
    def location(self) -> str:
        """The absolute path."""
        return str(self.path)

    @property
    def host_id(self) -> str:
        """32 hexadecimal digits that name this model for as long as something is applied to it."""
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

        Reading and writing lock the model's folder for the length of a call. This locks a folder inside it; of a single
        file, the same file in another way.
        """
        if self.single:
            return sole_mover(self.path)
        return locked(self.path / next(iter(self._layout.files)).partition("/")[0], exclusive=True)

    def kept(self) -> frozenset[ParamName]:
        """The parameters whose originals are kept, which are those that something is applied to."""
        return frozenset(self._state.kept())

    def ensure_writable(self, names: Iterable[ParamName]) -> None:
        """Raise what `write` would raise because of the files that hold these, without changing anything.

        Raises:
            UnsupportedHostError: a link, a file with several names, a read-only file; a parameter of which the file
                holds a running average, too, or of which another format lies beside it.
            DriftError: a weight file was replaced since this host was opened.
        """
        with WeightFiles(self._state.root, self._layout.files, writable=True) as files:
            for name in names:
                self._check_alone(name)
                component = name.partition(".")[0]
                if (second := self._layout.second.get(component)) is not None:
                    raise UnsupportedHostError(
                        f"{self.path / component}: expected one set of weights, got 2: {second} lies beside the "
                        "safetensors, is not patched, and would bring the concept back for whoever loads it",
                        hint=f"move {second} out of {self.path / component}, or write to a copy without it (--out DIR)",
                    )
                files.descriptor(self._place(name).file)

    def cast_since(self) -> tuple[str, str] | None:
        """The dtype that a patched parameter had and the one it has, where its file was written again in another."""
        return find_cast({name: kept.info for name, kept in self._state.kept().items()}, self.parameters())

    def say_way_back(self, was: str, now: str) -> str:
        """What helps a model that was saved again in another type than the one in which it was patched."""
        return say_way_back(self.location, was, now)

    def parameters(self) -> Mapping[ParamName, ParameterInfo]:
        """Every patchable parameter, in name order, from the headers."""
        return {name: place.info for name, place in self._layout.places.items()}

    def read(self, names: Iterable[ParamName]) -> "dict[ParamName, torch.Tensor]":
        """The present values, on the CPU, in the files' dtypes."""
        with self._reading() as files:
            return _as_tensors(read_values(self._layout, self.location, names, {}, files))

    def originals(self, names: Iterable[ParamName]) -> "dict[ParamName, torch.Tensor]":
        """The values before anything was written.

        Raises:
            DigestMismatchError: a kept original was damaged.
        """
        return _as_tensors(self.untouched(names))

    def untouched(self, names: Iterable[ParamName]) -> dict[ParamName, RawValue]:
        """As `originals`, as bytes."""
        with self._reading() as files:
            return read_values(self._layout, self.location, names, self._state.kept(), files)

    def examine(self, names: Iterable[ParamName]) -> tuple[dict[ParamName, RawValue], dict[ParamName, Digest]]:
        """As `untouched`, hashed while they are read. The next write keeps what was seen, if it is still there."""
        with self._reading() as files:
            kept = self._state.kept()
            values, digests = read_digested(self._layout, self.location, names, kept, files)
        self._seen = {name: replace(value, digest=digests[name]) for name, value in values.items() if name not in kept}
        return values, digests

    def digests(self, names: Iterable[ParamName]) -> dict[ParamName, Digest]:
        """SHA-256 of the present bytes; no tensor is made."""
        with self._reading() as files:
            return digest_present(self._layout, self.location, names, files)

    def original_digests(self, names: Iterable[ParamName]) -> dict[ParamName, Digest]:
        """SHA-256 of the bytes before anything was written; no tensor is made."""
        with self._reading() as files:
            kept = self._state.kept()
            wanted = list(names)
            known = {name: kept[name].digest for name in wanted if name in kept}
            fresh = [name for name in wanted if name not in known]
            return {**digest_present(self._layout, self.location, fresh, files), **known}

    def compose(
        self,
        layers: "Mapping[ParamName, Layer]",
        originals: Mapping[ParamName, Storable],
        made_of: Mapping[ParamName, MadeOf],
    ) -> dict[ParamName, RawComposed]:
        """What parameters are under a set of patches, as bytes: no torch is imported for it. See `Host.compose`."""
        del made_of  # nothing is remembered here
        if "torch" in sys.modules:  # whoever has it composes three times as fast, to the same bits
            from rasura.patches.algebra.compose import compose_digested  # needs torch, which is there

            data = make_rooms({name: count_bytes(originals[name]) for name in layers})
            infos = self.parameters()
            rooms = {name: RawValue(infos[name].dtype, infos[name].shape, data[name]) for name in layers}
            found = compose_digested(
                {name: as_tensor(originals[name]) for name in layers},
                layers.values(),
                {name: as_tensor(room) for name, room in rooms.items()},
            )
            return {n: RawComposed(replace(rooms[n], digest=digest), digest) for n, (_, digest) in found.items()}
        from rasura.patches.algebra.light.compose_raw import compose_raw  # needs numpy; moving bytes does not

        values = compose_raw({name: as_raw_value(value) for name, value in originals.items()}, layers.values())
        return {name: RawComposed(value, digest_tensor(value)) for name, value in values.items()}

    def hold_to(self, digests: Mapping[ParamName, Digest]) -> None:
        """See `Host.hold_to`."""
        self._held = dict(digests)

    def write(self, tensors: Mapping[ParamName, Storable], *, forget: Collection[ParamName] = ()) -> None:
        """Write all of these values or none of them; see `Host.write`.

        Raises:
            DriftError: a weight file was replaced since this host was opened, or a value was changed since it was
                checked; nothing was changed.
        """
        held, self._held = self._held, {}
        seen, self._seen = self._seen, {}
        for name, tensor in tensors.items():
            check_value(self._place(name).info, tensor)
            self._check_alone(name)
        with locked(self.path, exclusive=True), readable(self.path):
            journal = self.journal_type(self._state)
            settle(journal, self.path)
            record, staged = plan_write(self._state, self._layout, self.location, tensors, forget=forget, held=held)
            if record.changes or record.forget:
                names = {(place.file, place.start): name for name in tensors for place in [self._place(name)]}
                journal.transact(
                    record,
                    staged,
                    lambda change: view_memory(tensors[names[change.file, change.start]]),
                    lambda change: seen.get(names[change.file, change.start]),
                    self.host_id,
                )

    @contextmanager
    def _reading(self) -> Iterator[WeightFiles]:
        with locked(self.path, exclusive=False) as lock, readable(self.path):
            journal = self.journal_type(self._state)
            if journal.unsettled():  # a process died since this host was opened
                lock.make(exclusive=True)
                settle(journal, self.path)
            with WeightFiles(self._state.root, self._layout.files) as files:
                yield files

    def _place(self, name: ParamName) -> TensorLocation:
        return self._layout.place(name, self.location)

    def _check_alone(self, name: ParamName) -> None:
        if name in self._layout.doubled:
            raise UnsupportedHostError(
                f"{self.location}: expected one copy of {name}, got a running average (model_ema) beside it, with "
                "which some programs draw: what is erased would still be there",
                hint="write a copy without it: --out FILE",
                parameter=name,
            )


def _as_tensors(values: Mapping[ParamName, RawValue]) -> "dict[ParamName, torch.Tensor]":
    return {name: as_tensor(value) for name, value in values.items()}
