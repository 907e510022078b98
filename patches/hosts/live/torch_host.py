"""Live torch modules as a host: values are overwritten in place, so addresses, graphs and compiled code stay valid.

The originals are kept on the module itself (`rasura.patches.hosts.live.originals`), so that a second host over the same
modules finds them. Two locks for all hosts of the process: one for motions (`alone`), one for the tensors, so that a
write never runs in the middle of another, and a read never sees half of one. A write waits for the gate of the modules,
if they have one (`rasura.patches.hosts.live.forward_gate`), before it takes the second, and meanwhile everybody may
read; without a gate, forwards that run meanwhile are the caller's business.
"""

import threading
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, Self

import torch
from torch import nn

from rasura.patches._io.parallel import count_at_once
from rasura.patches._io.tensor_bytes import Storable, as_tensor
from rasura.patches.algebra.compose import Layer
from rasura.patches.errors import UnsupportedHostError
from rasura.patches.hosts.check_value import check_same_kind, check_value, info_of
from rasura.patches.hosts.disk.state_folder import make_identity
from rasura.patches.hosts.interface import COMPONENTS, Host, MadeOf, ParameterInfo, Value
from rasura.patches.hosts.live.bit_compare import same_bits
from rasura.patches.hosts.live.forward_gate import turn, writing
from rasura.patches.hosts.live.kept_originals import KeptOriginals
from rasura.patches.hosts.live.module_parameters import (
    FLOAT_TYPES,
    LiveParameter,
    find_live_parameters,
    find_unsaved,
    iterate_tensors,
    part_of,
    refuse_replaced,
    unwrap,
)
from rasura.patches.hosts.live.originals import HOST_ID, KeepOn
from rasura.patches.hosts.live.overwrite import copy_rows, exchange, restoring
from rasura.patches.hosts.live.shared_memory import refuse_shared_memory
from rasura.patches.hosts.live.value_cache import Remembered, compose_values
from rasura.patches.hosts.live.write_guards import refuse_unreadable, refuse_unwritable
from rasura.patches.hosts.uncovered import find_uncovered
from rasura.patches.types import Digest, ParamName

__all__ = ["TorchHost"]

_MOTION: Final = threading.RLock()
_LOCK: Final = threading.RLock()


class _Look(threading.local):
    """What a thread has found by looking through the modules, while it is busy with them."""

    found: Mapping[ParamName, LiveParameter] | None = None


class TorchHost(Host):
    """Modules in memory; see `rasura.patches.hosts.interface.Host` for what its methods promise."""

    def __init__(
        self, components: Mapping[str, nn.Module], label: str, *, keep_on: KeepOn = "cpu", remember: int = 2
    ) -> None:
        """A host of these components.

        Args:
            components: modules by their names in a pipeline, such as `unet` or `text_encoder`.
            label: what a person calls this host.
            keep_on: where originals are kept: `cpu`, `pinned`, `device`, or the base's own folder.
            remember: how many values of each touched parameter to remember (`rasura.patches.hosts.live.value_cache`).

        Raises:
            UnsupportedHostError: no component that a patch may touch.
        """
        self.modules = tuple(module for name, module in components.items() if name in COMPONENTS)
        """The components as they were given, with whatever is wrapped around them."""
        self._components = {name: unwrap(module) for name, module in components.items() if name in COMPONENTS}
        if not self._components:
            raise UnsupportedHostError(
                f"{label}: expected one of the components {', '.join(COMPONENTS)}, "
                f"got {', '.join(components) or 'none'}",
                hint="TorchHost({'unet': module}, 'my model')",
            )
        self._label = label
        self.memory = Remembered(remember)
        """Values that the model has had."""
        self._originals = KeptOriginals(self._components, label, keep_on, self.memory)
        self._fresh_identity = make_identity()
        self._look = _Look()
        self._source: Callable[[], object] = lambda: None  # of lone modules nobody can say that they were replaced

    @classmethod
    def of(cls, model: object, label: str = "", *, keep_on: KeepOn = "cpu", remember: int = 2) -> Self:
        """A host of a diffusers pipeline, or of one of its modules, whose part is told by its class.

        Raises:
            UnsupportedHostError: neither of these.
        """
        parts = getattr(model, "components", None)
        pipeline = isinstance(parts, Mapping)
        if not isinstance(parts, Mapping):
            parts = {part_of(model): model}
        modules = {str(name): part for name, part in parts.items() if isinstance(part, nn.Module)}
        made = cls(modules, label or type(model).__name__, keep_on=keep_on, remember=remember)
        if pipeline:  # weakly: a handle keeps no pipeline alive
            made._source = weakref.ref(model)
        return made

    def pipeline_parts(self) -> Mapping[str, object]:
        """The components of the pipeline that was given; nothing of a lone module, or of a pipeline that is gone."""
        parts = getattr(self._source(), "components", None)
        return {str(name): part for name, part in parts.items()} if isinstance(parts, Mapping) else {}

    def uncovered(self) -> tuple[str, ...]:
        """What the pipeline has besides that patches do not touch; nothing of a lone module."""
        kinds = {name: type(part).__name__ for name, part in self.pipeline_parts().items()}
        for name, module in self._components.items():
            projection = type(getattr(module, "encoder_hid_proj", None)).__name__
            kinds |= {f"{name}.encoder_hid_proj": projection} if "IPAdapter" in projection else {}
        return find_uncovered(kinds)

    @property
    def location(self) -> str:
        """The label."""
        return self._label

    @property
    def host_id(self) -> str:
        """32 hexadecimal digits; kept on the modules, as the originals are, for as long as something is applied."""
        found = [module.__dict__[HOST_ID] for module in self._components.values() if HOST_ID in module.__dict__]
        return str(found[0]) if found else self._fresh_identity

    @property
    def lasting(self) -> bool:
        """No: it ends with the process."""
        return False

    def known_as(self, host_id: str) -> None:
        """Take this identity in place of a fresh one; without effect while something is applied."""
        self._fresh_identity = host_id

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other threads from moving any live host; see `Host.alone`. Modules are looked through once.

        Raises:
            BusyError: another thread moves one, and this one is inside a forward or a request, which the other may be
                waiting for.
        """
        with turn(_MOTION), self._one_look():
            yield

    def kept(self) -> frozenset[ParamName]:
        """The parameters whose originals are kept, which are those that something is applied to."""
        return self._originals.names()

    def parameters(self) -> Mapping[ParamName, ParameterInfo]:
        """Every floating-point parameter that a checkpoint would hold, in name order; adapters are no part of it."""
        twins = find_unsaved(self._components)
        found = {
            live.name: live.tensor
            for live in self._lives().values()
            if live.tensor.dtype in FLOAT_TYPES and live.name not in twins
        }
        return {name: info_of(name, found[name]) for name in sorted(found)}

    def read(self, names: Iterable[ParamName]) -> dict[ParamName, torch.Tensor]:
        """The present values: copies on the CPU."""
        with _LOCK:
            return {live.name: copy_rows(live.tensor, "cpu") for live in self._readable(names)}

    def originals(self, names: Iterable[ParamName]) -> dict[ParamName, torch.Tensor]:
        """The values before anything was written: copies on the CPU."""
        with _LOCK:
            return {live.name: copy_rows(self._originals.value(live), "cpu") for live in self._readable(names)}

    def lent(self, names: Iterable[ParamName]) -> dict[ParamName, torch.Tensor]:
        """As `originals`, without copying: where they are kept, to be read before the next write and never written."""
        with _LOCK:
            return {live.name: self._originals.value(live).detach() for live in self._readable(names)}

    def compose(
        self,
        layers: Mapping[ParamName, Layer],
        originals: Mapping[ParamName, Storable],
        made_of: Mapping[ParamName, MadeOf],
    ) -> dict[ParamName, Value]:
        """What parameters are under a set of patches; values that it has had are neither composed nor hashed again."""
        tensors = {name: as_tensor(value) for name, value in originals.items()}
        return compose_values(layers, tensors, made_of, self.memory)

    def digests(self, names: Iterable[ParamName]) -> dict[ParamName, Digest]:
        """SHA-256 of the present values' raw bytes."""
        with _LOCK:
            return self.memory.digests({live.name: live.tensor for live in self._readable(names)})

    def original_digests(self, names: Iterable[ParamName]) -> dict[ParamName, Digest]:
        """SHA-256 of the raw bytes before anything was written."""
        with _LOCK:
            originals = {live.name: self._originals.value(live) for live in self._readable(names)}
            return self.memory.digests(originals, held=self._originals.held(originals))

    def ensure_writable(self, names: Iterable[ParamName]) -> None:
        """Refuse now what `write` would have to refuse; see `rasura.patches.hosts.live.write_guards` for the cases."""
        wanted = self._select(names)
        refuse_unwritable(wanted)
        refuse_shared_memory([live.name for live in wanted], iterate_tensors(self._components, self._lives().values()))

    def write(self, tensors: Mapping[ParamName, Storable], *, forget: Collection[ParamName] = ()) -> None:
        """Write all of these values or none of them; see `Host.write`."""
        self._write({name: as_tensor(value) for name, value in tensors.items()}, forget)

    def _write(self, tensors: Mapping[ParamName, torch.Tensor], forget: Collection[ParamName]) -> None:
        # First the turn of motions, then the gate, then the tensors: while a write waits for forwards, others read on.
        # Looked through anew: until now, forwards may have moved parameters about.
        with turn(_MOTION), writing(self.modules), _LOCK, self._one_look():
            self.ensure_writable(tensors)
            lives = {live.name: live for live in self._select({*tensors, *forget})}
            for name, tensor in tensors.items():
                check = check_same_kind if self.memory.known_finite(name, tensor) else check_value
                check(info_of(name, lives[name].tensor), tensor)
            # What has these bits already is left alone: nothing is kept of it, and nothing is copied.
            same = count_at_once(lambda name: same_bits(lives[name].tensor, tensors[name]), tensors)
            changed = {name: new for (name, new), equal in zip(tensors.items(), same, strict=True) if not equal}
            for name in forget:
                self._originals.check_pristine(lives[name], changed)
            touched = [lives[name] for name in changed]
            with self._originals.keeping(touched, self.host_id) as held, restoring(lives, changed, held):
                exchange(lives, changed)  # and read back, before anything is let go of
            for name in forget:
                self._originals.forget(name)

    @contextmanager
    def _one_look(self) -> Iterator[None]:
        before, self._look.found = self._look.found, self._look_through()  # blocks may lie inside of one another
        try:
            yield
        finally:
            self._look.found = before

    def _lives(self) -> Mapping[ParamName, LiveParameter]:
        return self._look_through() if self._look.found is None else self._look.found

    def _look_through(self) -> Mapping[ParamName, LiveParameter]:
        refuse_replaced(self._source(), self._components)
        return {live.name: live for live in find_live_parameters(self._components)}

    def _select(self, names: Iterable[ParamName]) -> list[LiveParameter]:
        live = self._lives()
        wanted = list(names)
        for name in wanted:
            if name not in live:
                raise UnsupportedHostError(
                    f"{self._label}: expected a parameter {name}, got none",
                    hint="use the architecture that the patch was computed on",
                    parameter=name,
                )
        return [live[name] for name in wanted]

    def _readable(self, names: Iterable[ParamName]) -> list[LiveParameter]:
        lives = self._select(names)
        for live in lives:
            refuse_unreadable(live)
        return lives
