"""Two processes that serve a sharded model: `python sharding.py OUT FOLDER ID…`; each prints into OUT what it found.

Run by a test on the folder of a workshop; the processes find each other through a file in OUT. Each prints one JSON
object. The second process's working folder has no registry: the first one alone opens it.
"""

import json
import os
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import torch
from diffusers import UNet2DConditionModel
from support.sharded.ranks import fork_ranks
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, MixedPrecisionPolicy, fully_shard

import rasura
from rasura.patches._io.tensor_bytes import digest_tensor
from rasura.patches.errors import RasuraError
from rasura.patches.hosts.live.torch_host import TorchHost
from rasura.patches.hosts.sharded.process_team import Team
from rasura.patches.hosts.sharded.shard import Shards, list_mesh_ranks
from rasura.patches.hosts.sharded.sharded_host import ShardedHost
from rasura.patches.types import ParamName
from rasura.registry.live.sharded_model import ShardedModel

PROCESSES: Final = 2
_KEY: Final = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"
_NAME: Final = ParamName(f"unet.{_KEY}")


def noise(unet: Any) -> torch.Tensor:
    """What a UNet predicts for one latent and one embedding."""
    latent = torch.linspace(-1, 1, 4 * 16 * 16).reshape(1, 4, 16, 16)
    embedding = torch.linspace(-3, 3, 77 * unet.config.cross_attention_dim).reshape(1, 77, -1)
    with torch.no_grad():
        found: torch.Tensor = unet(latent, 10, encoder_hidden_states=embedding)[0]
    return found


def said(act: Callable[[], object]) -> str:
    """How a call ended."""
    try:
        act()
    except RasuraError as error:
        return f"{type(error).__name__}: {error.message} {error.hint}".strip()
    return "done"


class Mortal(Shards):
    """A process that is killed while it writes."""

    def put(self, _: object) -> None:
        os._exit(0)


class Run:
    """What one process does; every scenario in both, in this order."""

    def __init__(self, rank: int, folder: Path, ids: list[str]) -> None:
        self.rank, self.folder, self.ids = rank, folder if rank == 0 else folder / "nowhere", ids
        self.model = folder / "the model"
        self.mesh = init_device_mesh("cpu", (PROCESSES,))
        self.found: dict[str, Any] = {}

    def loaded(self) -> Any:
        return UNet2DConditionModel.from_pretrained(self.model, subfolder="unet", torch_dtype=torch.float32)

    def unet(self, *, kept: bool = False, **options: Any) -> Any:
        """A UNet whose mid block is a group of its own; `kept`: what was gathered stays so after a forward."""
        unet = self.loaded()
        for part in (unet.mid_block, unet):
            fully_shard(part, mesh=self.mesh, reshard_after_forward=not kept, **options)
        return unet

    def naive(self) -> None:
        """Torch takes every one of these writes, and the next forward sees none."""
        unet = self.unet(kept=True)
        shard: Any = unet.get_parameter(_KEY)
        self.found["shard"] = list(shard.to_local().shape)
        before = noise(unet)
        with torch.no_grad():
            shard.to_local().mul_(3)
        self.found["shard lost"] = torch.equal(noise(unet), before)
        unet.mid_block.reshard()
        self.found["shard seen"] = not torch.equal(noise(unet), before)
        with torch.no_grad():
            shard.to_local().div_(3)
        unet.mid_block.reshard()
        unet.mid_block.unshard(async_op=True)
        with torch.no_grad():
            shard.to_local().mul_(3)
        unet.mid_block.reshard()
        self.found["gathering lost"] = torch.equal(noise(unet), before)
        gathered = unet.get_parameter(_KEY)
        self.found["looks plain"] = type(gathered) is torch.nn.Parameter
        self.found["alone"] = self.alone(unet)
        shard.to_local().detach().div_(3)
        gathered.data.zero_()
        unet.mid_block.reshard()
        self.found["copy lost"] = torch.equal(noise(unet), before)
        unet.mid_block.reshard()
        self.found["alone"] += self.alone(unet)

    def alone(self, unet: Any) -> list[str]:
        """One process by itself knows a part, or a copy."""
        host = TorchHost({"unet": unet}, "alone")
        acts: list[Callable[[], object]] = [
            lambda: host.read([_NAME]),
            lambda: host.digests([_NAME]),
            lambda: host.ensure_writable([_NAME]),
            lambda: host.write({_NAME: torch.ones(32, 128)}),
        ]
        return [said(act) for act in acts]

    def motions(self) -> None:
        """Apply, revert, switch, plan and status, whatever the last forward left."""
        unet = self.unet(kept=True)
        before = noise(unet)
        model = rasura.attach(unet, self.folder, label="shards", actor="alice")
        unet.mid_block.unshard(async_op=True)
        receipt = model.apply(self.ids[0], reason="takedown 118")
        patched = noise(unet)
        self.found["kept"] = [list(t.shape) for t in vars(unet)["_rasura_originals"].values()][:1]
        self.found["apply"] = [repr(receipt), receipt.after, digest_tensor(patched)]
        planned = model.plan({self.ids[1]: "1"}).plan
        switched = model.switch({self.ids[1]: "1"})
        self.found["plan"] = [planned.after.state == switched.after, switched.after, digest_tensor(noise(unet))]
        status = model.status(deep=True)
        self.found["status"] = [repr(status), len(status.drifted)]
        self.found["changed"] = not torch.equal(patched, before)
        self.found["different"] = said(lambda: model.apply(self.ids[2 * self.rank]))
        self.found["unknown"] = said(lambda: model.apply("beef" * 16))
        self.found["pristine"] = model.revert().pristine
        self.found["back"] = torch.equal(noise(unet), before)
        self.found["left"] = "_rasura_originals" in vars(unet)
        hook = unet.conv_out.register_forward_hook(lambda *_: self.found.update(inside=said(model.status)))
        noise(unet)
        hook.remove()
        self.serving(model, unet, before, patched)
        model.detach()

    def serving(self, model: Any, unet: Any, before: torch.Tensor, patched: torch.Tensor) -> None:
        """Forwards of one thread, which wait for the other process's, and motions of another."""
        seen: list[torch.Tensor] = []
        unet.set_reshard_after_forward(True)
        thread = threading.Thread(target=lambda: seen.extend(noise(unet) for _ in range(12)), daemon=True)
        thread.start()
        for _ in range(2):
            with model.applied(self.ids[0]):
                pass
        thread.join(60)
        self.found["served"] = [len(seen), all(torch.equal(s, before) or torch.equal(s, patched) for s in seen)]

    def mixed(self) -> None:
        """Shards are the truth, also where forwards compute in fewer digits; compiled code goes on."""
        unet = self.unet(kept=True, mp_policy=MixedPrecisionPolicy(param_dtype=torch.bfloat16))
        unet.mid_block.compile(backend="eager")
        before = noise(unet)
        with rasura.attach(unet, self.folder) as model:
            self.found["mixed"] = [model.apply(self.ids[0]).after, not torch.equal(noise(unet), before)]
            model.revert()
        self.found["mixed"].append(torch.equal(noise(unet), before))

    def failing(self, shards: Shards) -> None:
        """One process cannot write: none has written."""
        unet: Any = shards.modules[0]
        before = {n: p.to_local().clone() for n, p in unet.named_parameters()}
        host = ShardedHost(shards, Team(list_mesh_ranks([unet])))
        model = ShardedModel(host, self.folder, "alice")
        how = said(lambda: model.apply(self.ids[0]))
        same = all(torch.equal(p.to_local(), before[n]) for n, p in unet.named_parameters())
        self.found.setdefault("failing", []).append([how, same, "_rasura_originals" in vars(unet)])
        self.found["after"] = said(model.status)

    def flat(self) -> None:
        """FSDP1."""
        unet = self.loaded()
        unet.mid_block = FullyShardedDataParallel(unet.mid_block, device_id=torch.device("cpu"), use_orig_params=True)
        names = [n for n in TorchHost({"unet": unet}, "x").parameters() if n.endswith("to_k.weight") and "mid" in n]
        host = TorchHost({"unet": unet}, "x")
        self.found["flat"] = [said(lambda: host.read(names[:1])), said(lambda: host.ensure_writable(names[:1]))]
        self.found["flat"].append(said(lambda: rasura.attach(unet, self.folder)))


def _main(rank: int, store: str, folder: Path, ids: list[str]) -> None:
    limit = timedelta(seconds=60)
    distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=PROCESSES, timeout=limit
    )
    work = Run(rank, folder, ids)
    work.naive()
    work.motions()
    work.mixed()
    if rank == 0:
        work.flat()
    keep_on: Any = "cpu" if rank == 0 else folder / "the model"  # where no file has the bits of a shard
    work.failing(Shards.of(work.unet(), "shards", keep_on=keep_on))
    if rank == 1:
        sys.stdout.write(json.dumps(work.found))
        sys.stdout.flush()
    work.failing((Mortal if rank == 1 else Shards).of(work.unet(), "shards"))
    sys.stdout.write(json.dumps(work.found))
    sys.stdout.flush()
    os._exit(0)  # the process group waits for nobody


if __name__ == "__main__":
    out, shop, *chosen = sys.argv[1:]
    fork_ranks(PROCESSES, Path(out), lambda rank: _main(rank, f"{out}/store", Path(shop), chosen))
