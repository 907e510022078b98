"""One of two processes that hold a model's shards: `python sharding.py RANK STORE`; prints what a host makes of them.

Run by a test; the processes find each other through the file STORE. Each prints one JSON object.
"""

import json
import sys
from collections.abc import Callable
from typing import Any, Final

import torch
from tiny_families import tiny_family
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from rasura.patches.errors import RasuraError
from rasura.patches.hosts.torch_host import TorchHost
from rasura.patches.names import ParamName

PROCESSES: Final = 2
_KEY: Final = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"
_NAME: Final = ParamName(f"unet.{_KEY}")


def _main(rank: int, store: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=PROCESSES)
    family = tiny_family("SD 2.x")
    unet: Any = family.components["unet"]
    fully_shard(unet, mesh=init_device_mesh("cpu", (PROCESSES,)))
    host = TorchHost(family.components, "shards")
    found: dict[str, object] = {"shard": list(unet.get_parameter(_KEY).to_local().shape)}
    found["sharded"] = _refusals(host)
    before = family.draw()
    gathered = unet.get_parameter(_KEY)
    found["looks plain"] = type(gathered) is torch.nn.Parameter
    found["gathered"] = _refusals(host)
    gathered.data.zero_()  # a naive write
    unet.reshard()
    found["lost"] = torch.equal(family.draw(), before)
    distributed.destroy_process_group()
    sys.stdout.write(json.dumps(found))


def _refusals(host: TorchHost) -> list[str]:
    acts: list[Callable[[], object]] = [
        lambda: host.read([_NAME]),
        lambda: host.digests([_NAME]),
        lambda: host.ensure_writable([_NAME]),
        lambda: host.write({_NAME: torch.ones(16, 32)}),
    ]
    return [_refusal(act) for act in acts]


def _refusal(act: Callable[[], object]) -> str:
    try:
        act()
    except RasuraError as error:
        return f"{type(error).__name__}: {error}"
    return "done"


if __name__ == "__main__":
    _main(int(sys.argv[1]), sys.argv[2])
