"""Four processes that hold tensors placed in every way: `python sharding_mesh.py OUT`; each prints a JSON object into OUT.

Run by a test; the processes find each other through a file in OUT. The judge of each scenario is a host of the same
tensors that are not sharded.
"""

import json
import os
import sys
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from support.sharded.ranks import fork_ranks
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module

from rasura.patches._io.tensor_bytes import is_finite
from rasura.patches.errors import RasuraError
from rasura.patches.hosts.live.torch_host import TorchHost
from rasura.patches.hosts.sharded.process_team import Team
from rasura.patches.hosts.sharded.shard import Shards, list_mesh_ranks
from rasura.patches.hosts.sharded.sharded_host import ShardedHost
from rasura.patches.types import ParamName

PROCESSES: Final = 4
SHAPES: Final = {"rows": (5, 6), "columns": (6, 5), "one": (1, 4), "copies": (3, 4), "boxes": (5, 7), "hybrid": (5, 4)}
"""Of four processes some have less than others, and some nothing at all."""
_ROWS, _COPIES = ParamName("unet.rows"), ParamName("unet.copies")
_WIDE, _WEIGHT = ParamName("unet.linear.weight"), ParamName("unet.weight")


def plain() -> nn.Module:
    """All parameters, not sharded; equal in every process."""
    torch.manual_seed(0)
    model = nn.Module()
    for name, shape in SHAPES.items():
        model.register_parameter(name, nn.Parameter(torch.randn(shape)))
    model.half_rows = nn.Parameter(torch.randn(7, 3).to(torch.bfloat16))
    model.unsharded = nn.Parameter(torch.randn(2, 3))
    model.linear = nn.Linear(6, 8)
    return model


def sharded() -> nn.Module:
    """The same, placed on a line or a square of processes."""
    line, square = init_device_mesh("cpu", (4,)), init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))
    places: dict[str, tuple[Any, list[Any]]] = {
        "rows": (line, [Shard(0)]),
        "half_rows": (line, [Shard(0)]),
        "columns": (line, [Shard(1)]),
        "one": (line, [Shard(0)]),
        "copies": (line, [Replicate()]),
        "boxes": (square, [Shard(0), Shard(1)]),
        "hybrid": (square, [Replicate(), Shard(0)]),
    }
    model = plain()
    for name, (mesh, placements) in places.items():
        setattr(model, name, nn.Parameter(distribute_tensor(model.get_parameter(name).data, mesh, placements)))
    linear = model.get_submodule("linear")
    parallelize_module(linear, square["tensor"], ColwiseParallel())
    fully_shard(linear, mesh=square["data"])
    return model


class Stopped(Shards):
    """Ctrl-C while everybody writes."""

    def put(self, _: object) -> None:
        raise KeyboardInterrupt


class Mortal(Shards):
    """A process that is killed while everybody writes."""

    def put(self, _: object) -> None:
        os._exit(0)


class Run:
    """What one process does; every scenario in all, in this order."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.model = sharded()
        self.truth = TorchHost({"unet": plain()}, "plain")
        self.names = list(self.truth.parameters())
        self.found: dict[str, Any] = {}

    def host(self, kind: type[Shards] = Shards, seconds: float | None = None) -> ShardedHost:
        limit = None if seconds is None else timedelta(seconds=seconds)
        shards = kind({"unet": self.model}, "shards")
        return ShardedHost(shards, Team(list_mesh_ranks([self.model]), limit))

    def local(self) -> list[torch.Tensor]:
        with torch.no_grad():
            parameters = [p.to_local() if isinstance(p, DTensor) else p for p in self.model.parameters()]
            return [p.detach().clone() for p in parameters]

    def unchanged(self, act: Callable[[], object]) -> list[Any]:
        """How a call ended, and whether every bit is what it was and nothing is kept."""
        before, how = self.local(), "done"
        try:
            act()
        except (RasuraError, KeyboardInterrupt) as error:
            how = f"{type(error).__name__}: {error}"
        same = all(torch.equal(a, b) for a, b in zip(self.local(), before, strict=True))
        return [how, same, "_rasura_originals" in vars(self.model)]

    def cycle(self) -> None:
        """Read, write and go back, as a host of the whole does."""
        host, before = self.host(), self.local()
        new = {n: torch.full_like(t, 0.5) + t for n, t in self.truth.read(self.names).items()}
        ask: Callable[[str, Callable[[], Any]], Any] = host.together
        self.found["places"] = [str(p.placements) for p in self.model.parameters() if isinstance(p, DTensor)][-2:]
        self.found["parameters"] = ask("parameters", host.parameters) == self.truth.parameters()
        self.found["digests"] = ask("digests", lambda: host.digests(self.names)) == self.truth.digests(self.names)
        ask("write", lambda: host.write(new))
        self.truth.write(new)
        self.found["written"] = ask("digests", lambda: host.digests(self.names)) == self.truth.digests(self.names)
        whole = {f"unet.{n}": p.full_tensor() for n, p in self.model.named_parameters() if isinstance(p, DTensor)}
        self.found["full"] = all(torch.equal(tensor, new[ParamName(n)]) for n, tensor in whole.items())
        kept = vars(self.model)["_rasura_originals"]
        self.found["kept"] = {n: list(t.shape) for n, t in kept.items() if t.shape != new[n].shape}
        self.found["all kept"] = ask("kept", host.kept) == {*self.names}
        old = ask("originals", lambda: host.originals(self.names))
        self.found["originals"] = all(torch.equal(old[n], t) for n, t in self.truth.originals(self.names).items())
        ask("write", lambda: host.write(old, forget=self.names))
        self.truth.write(old, forget=self.names)
        self.found["back"] = all(torch.equal(a, b) for a, b in zip(self.local(), before, strict=True))
        self.found["left"] = "_rasura_originals" in vars(self.model)

    def regrouped(self) -> None:
        """After a forward, FSDP may hold the weights in groups of two: copies, too, though they are shards."""
        torch.manual_seed(1)
        layer, truth, given = nn.Linear(6, 8), nn.Linear(6, 8), torch.randn(3, 6)
        truth.load_state_dict(layer.state_dict())
        sharded_layer: Any = fully_shard(layer, mesh=init_device_mesh("cpu", (4,)), reshard_after_forward=2)
        weight: Any = layer.get_parameter
        with torch.no_grad():
            before, same = sharded_layer(given), truth(given)
            self.found["held"] = list(weight("weight").to_local().shape)
            weight("weight").to_local().mul_(3)
            sharded_layer.reshard()
            self.found["group lost"] = torch.equal(sharded_layer(given), before)
            new = {n: t * 2 for n, t in TorchHost({"unet": truth}, "plain").read([_WEIGHT]).items()}
            host = ShardedHost(Shards({"unet": layer}, "shards"), Team(range(PROCESSES)))
            host.together("write", lambda: host.write(new))
            TorchHost({"unet": truth}, "plain").write(new)
            self.found["group seen"] = torch.equal(before, same) and torch.equal(sharded_layer(given), truth(given))

    def refused(self) -> None:
        """What one process cannot do, none does."""
        host, new = self.host(), self.truth.read(self.names)
        new[_WIDE] += 1
        new[_ROWS][4, 5] = torch.inf
        self.found["not finite"] = self.unchanged(lambda: host.together("write", lambda: host.write(new)))
        wrong = {_ROWS: torch.ones(5, 5)}
        self.found["shape"] = self.unchanged(lambda: host.together("write", lambda: host.write(wrong)))
        missing = [ParamName("unet.nothing")]
        self.found["name"] = self.unchanged(lambda: host.together("read", lambda: host.read(missing)))
        self.found["bug"] = self.unchanged(lambda: self.buggy(host))
        copies: Any = self.model.get_parameter("copies")
        if self.rank == PROCESSES - 1:
            copies.to_local().detach().add_(1)
        self.found["apart"] = self.unchanged(lambda: host.together("digests", lambda: host.digests([_COPIES])))
        if self.rank == PROCESSES - 1:
            copies.to_local().detach().copy_(self.truth.read([_COPIES])[_COPIES])
        rows = self.model.get_parameter("rows")
        half = DTensor.from_local(torch.ones(5, 6), init_device_mesh("cpu", (4,)), [Partial()])
        self.model.register_parameter("rows", nn.Parameter(half))
        self.found["partial"] = self.unchanged(lambda: host.together("read", lambda: host.read([_ROWS])))
        self.model.register_parameter("rows", rows)

    def buggy(self, host: ShardedHost) -> None:
        """The first process's function fails by itself."""
        try:
            host.together("divide", lambda: 1 // 0)
        except ZeroDivisionError:
            assert self.rank == 0

    def lost(self) -> None:
        """Somebody stops, is late, or dies in the middle of a write: the others are as they were."""
        new = {n: t + 1 for n, t in self.truth.read(self.names).items()}
        assert all(map(is_finite, new.values()))
        for name, kind, who, seconds in (
            ("stopped", Stopped, 0, None),
            ("late", None, 1, 1.0),
            ("dead", Mortal, 3, None),
        ):
            host = self.host(kind if kind and self.rank == who else Shards, seconds)
            if kind is None and self.rank == who:
                continue
            if kind is Mortal and self.rank == who:
                sys.stdout.write(json.dumps(self.found))
                sys.stdout.flush()
            self.found[name] = self.unchanged(partial(host.together, "write", partial(host.write, new)))
            self.found[f"after {name}"] = self.unchanged(partial(host.together, "kept", host.kept))


def _main(rank: int, store: str) -> None:
    limit = timedelta(seconds=60)
    distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=PROCESSES, timeout=limit
    )
    work = Run(rank)
    work.cycle()
    work.regrouped()
    work.refused()
    work.lost()
    sys.stdout.write(json.dumps(work.found))
    sys.stdout.flush()
    os._exit(0)  # the process group waits for nobody


if __name__ == "__main__":
    fork_ranks(PROCESSES, Path(sys.argv[1]), lambda rank: _main(rank, f"{sys.argv[1]}/store"))
