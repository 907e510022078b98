"""One process's part of a model whose parameters are sharded over several: its own rows or columns, and nothing else.

A `Shards` is a `TorchHost` whose parameters are local tensors: what it keeps, writes, reads back and puts back is this
process's shard. Which box of the whole tensor that is, is told by the device mesh and the placements; a parameter that
is no `DTensor` is a box of everything, which every process has.

FSDP2 gathers parameters for a forward and may leave them gathered: then the module holds a plain tensor that is thrown
away some time later, and a shard that was written is not read before. So before anything is read or written, between
forwards, the modules are resharded (`FSDPModule.reshard`); the next forward gathers again. A gathering that was begun
and not waited for (`unshard(async_op=True)`, prefetching) would bring the old values back: it is waited for first.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from rasura.patches._io.tensor_bytes import encode_raw_bytes
from rasura.patches.errors import BusyError, UnsupportedHostError
from rasura.patches.hosts.interface import ParameterInfo
from rasura.patches.hosts.live.forward_gate import writing
from rasura.patches.hosts.live.module_parameters import LiveParameter, iterate_tensors
from rasura.patches.hosts.live.shared_memory import refuse_shared_memory
from rasura.patches.hosts.live.torch_host import TorchHost
from rasura.patches.hosts.live.write_guards import refuse_shard, refuse_unreadable_shard
from rasura.patches.types import Digest, ParamName

__all__ = ["Box", "Shards", "list_mesh_ranks", "reshard"]


@dataclass(frozen=True, slots=True)
class Box:
    """Where a shard lies in the whole tensor."""

    start: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """How many elements it has."""
        return int(torch.Size(self.shape).numel())

    @property
    def slices(self) -> tuple[slice, ...]:
        """What cuts it out of the whole."""
        return tuple(slice(a, a + n) for a, n in zip(self.start, self.shape, strict=True))

    def meets(self, other: Box) -> bool:
        """Whether the two have an element in common."""
        pairs = zip(self.slices, other.slices, strict=True)
        return bool(self.count and other.count) and all(a.start < b.stop and b.start < a.stop for a, b in pairs)


class Shards(TorchHost):
    """This process's shards; `rasura.patches.hosts.sharded.sharded_host` asks for them all together.

    `read`, `originals`, their digests and `write` are of local tensors here; `parameters` says the whole shapes.
    """

    _gates: ExitStack | None = None
    _staged: Mapping[ParamName, torch.Tensor] = {}
    _before: Mapping[ParamName, torch.Tensor] = {}
    _fresh: Collection[ParamName] = ()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """See `TorchHost`. Forwards may gather meanwhile: modules are looked through whenever they are held."""
        with super().alone():
            self._look.found = None
            yield

    def describe(self) -> tuple[Mapping[ParamName, ParameterInfo], frozenset[ParamName]]:
        """All parameters, and those whose originals this process keeps."""
        return self.parameters(), self.kept()

    def hold(self, seconds: float) -> bool:
        """Keep forwards out and reshard what they left gathered; False where one runs for longer than this.

        Raises:
            BusyError: called from inside a forward.
        """
        self.release()
        held = ExitStack()
        try:
            held.enter_context(writing(self.modules, seconds))
        except BusyError as error:
            if "seconds" in error.details:
                return False
            raise
        self._gates = held
        reshard(self.modules)
        self._look.found = self._look_through()
        return True

    def release(self) -> None:
        """Let forwards in again."""
        held, self._gates, self._look.found = self._gates, None, None
        if held is not None:
            held.close()

    def look(self, names: Iterable[ParamName], original: bool) -> dict[ParamName, tuple[Box, Digest]]:
        """Where the shards lie, and SHA-256 of their values, present or original."""
        wanted = list(names)
        found = self.original_digests(wanted) if original else self.digests(wanted)
        return {name: (box, found[name]) for name, box in self.places(wanted).items()}

    def places(self, names: Iterable[ParamName]) -> dict[ParamName, Box]:
        """Where the shards lie."""
        return {live.name: _box(live.name, live.tensor) for live in self._whole(names)}

    def give(self, name: ParamName, original: bool, mine: bool) -> bytes | None:
        """The values of one shard, in row-major order; None if it is another process's turn."""
        if not mine:
            return None
        (live,) = self._readable([name])
        return encode_raw_bytes(self._originals.value(live) if original else live.tensor)

    def stage(self, name: ParamName, values: bytes) -> None:
        """Take the new values of one shard, to be put later."""
        (live,) = self._select([name])
        shape, dtype = live.tensor.shape, live.tensor.dtype
        flat = torch.frombuffer(bytearray(values), dtype=dtype) if values else torch.empty(0, dtype=dtype)
        self._staged = {**self._staged, name: flat.reshape(shape)}

    def put(self, forget: Collection[ParamName]) -> None:
        """Write what was staged, all or nothing; until `settle` or `undo`, both ways are open.

        Raises:
            RasuraError: see `Host.write`; nothing was written here, or `undo` puts it back.
        """
        fresh = self._staged.keys() - self.kept()
        before = self.read(self._staged)
        self.write(self._staged)
        self._before, self._fresh = before, fresh
        for live in self._select(forget):
            self._originals.check_pristine(live, {})

    def settle(self, forget: Collection[ParamName]) -> None:
        """What was put stays; these originals need not be kept any more."""
        self.write({}, forget=forget)
        self._staged, self._before, self._fresh = {}, {}, ()

    def undo(self) -> None:
        """Put back what was there before `put`; without one, only what was staged is dropped."""
        before, fresh = self._before, self._fresh
        self._staged, self._before, self._fresh = {}, {}, ()
        if before:
            self.write(before, forget=fresh)

    def ensure_writable(self, names: Iterable[ParamName]) -> None:
        """See `TorchHost`; of the shards."""
        wanted = self._select(names)
        for live in wanted:
            refuse_shard(live)
        everything = iterate_tensors(self._components, self._lives().values())
        refuse_shared_memory([live.name for live in wanted], {name: _local(each) for name, each in everything.items()})

    def _select(self, names: Iterable[ParamName]) -> list[LiveParameter]:
        return [replace(live, tensor=_local(live.tensor)) for live in self._whole(names)]

    def _whole(self, names: Iterable[ParamName]) -> list[LiveParameter]:
        lives = super()._select(names)
        for live in lives:
            _refuse_gathered(live)
        return lives

    def _readable(self, names: Iterable[ParamName]) -> list[LiveParameter]:
        lives = self._select(names)
        for live in lives:
            refuse_unreadable_shard(live)
        return lives


def list_mesh_ranks(modules: Iterable[nn.Module]) -> frozenset[int]:
    """The processes over which any parameter of these modules is sharded."""
    tensors = [t for module in modules for t in (*module.parameters(), *module.buffers()) if isinstance(t, DTensor)]
    meshes = {id(tensor.device_mesh): tensor.device_mesh for tensor in tensors}
    return frozenset(int(rank) for mesh in meshes.values() for rank in mesh.mesh.flatten())


def reshard(modules: Iterable[nn.Module]) -> None:
    """Have FSDP throw away what it has gathered, or is gathering, so that the modules hold their shards again."""
    for module in modules:
        for each in module.modules():
            if isinstance(each, FSDPModule):
                if _gathering(each):
                    each.unshard()
                each.reshard()


def _local(tensor: torch.Tensor) -> torch.Tensor:
    """The very memory of this process's shard."""
    with torch.no_grad():  # with gradients it would be a view that autograd follows
        return tensor.to_local().detach() if isinstance(tensor, DTensor) else tensor


def _box(name: ParamName, tensor: torch.Tensor) -> Box:
    if not isinstance(tensor, DTensor):
        return Box((0,) * tensor.ndim, tuple(tensor.shape))
    shape, start = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
    partial = any(placement.is_partial() for placement in tensor.placements)
    if partial or tuple(shape) != tuple(_local(tensor).shape) or len(start) != tensor.ndim:
        raise UnsupportedHostError(
            f"{name}: expected a part of a tensor, got {list(_local(tensor).shape)} of {list(tensor.shape)} placed as "
            f"{', '.join(map(str, tensor.placements))}",
            hint="redistribute it to Shard or Replicate placements",
            parameter=name,
        )
    return Box(tuple(start), tuple(shape))


def _refuse_gathered(live: LiveParameter) -> None:
    under = any(isinstance(module, FSDPModule) for _, module in live.ancestors)
    if under and not isinstance(live.tensor, DTensor):
        raise UnsupportedHostError(
            f"{live.name}: expected a shard, got a plain tensor inside of fully_shard: one that is gathered, or that "
            "FSDP was told to ignore",
            hint="call module.reshard() on the modules that were given to fully_shard",
            parameter=live.name,
        )


def _gathering(module: FSDPModule) -> bool:
    """Whether a gathering was begun that nobody waited for; where torch does not tell, yes: waiting is never wrong."""
    state: Any = module._get_fsdp_state()  # noqa: SLF001  # torch has no public name for it
    groups = getattr(state, "_fsdp_param_groups", None) or [getattr(state, "_fsdp_param_group", None)]
    return any(getattr(group, "_all_gather_result", True) is not None for group in groups if group is not None)
