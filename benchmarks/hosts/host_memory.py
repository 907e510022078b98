"""What a live host holds, and at most takes, by where the originals are kept and how much is remembered."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import torch
from host_layers import model, patch
from host_ways import layers, motion, peak
from safetensors.torch import save_file

from rasura.patches.hosts.live.torch_host import TorchHost

_CHOICES: Final = (("cpu", 0), ("cpu", 2), ("a folder", 0), ("a folder", 2))


def memory(kind: str) -> None:
    """A patch applied, reverted, and applied again; each line in a process of its own: no memory is used twice."""
    print(f"\n{kind}, float16, one patch: memory beside the model's own\n")
    print(
        "| `keep_on` | `remember` | held while applied | held after reverting | most, first apply | most, apply again |"
    )
    print("|---|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as place:
        base = _saved(kind, Path(place))
        for where, remember in _CHOICES:
            found = _measured(kind, str(base) if where == "a folder" else where, remember)
            cells = " | ".join(f"{found[n] / 1e6:.0f} MB" for n in ("applied", "reverted", "first", "again"))
            print(f"| {where} | {remember} | {cells} |", flush=True)


def _saved(kind: str, folder: Path) -> Path:
    """The model as the folder of a base."""
    live = model(kind, torch.float16)
    (folder / "unet").mkdir()
    (folder / "model_index.json").write_text("{}")
    (folder / "unet/config.json").write_text("{}")
    tensors = {name: p.detach().contiguous() for name, p in live.named_parameters()}
    save_file(tensors, folder / "unet/diffusion_pytorch_model.safetensors")
    return folder


def _measured(kind: str, where: str, remember: int) -> dict[str, int]:
    command = [sys.executable, __file__, kind, where, str(remember)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


def _child(kind: str, where: str, remember: int) -> dict[str, int]:
    live, wanted = model(kind, torch.float16), layers([patch(kind, 0)])
    keep: Any = Path(where) if Path(where).is_dir() else where
    host = TorchHost({"unet": live}, "live", keep_on=keep, remember=remember)
    first = peak(lambda: motion(host, wanted))
    applied = _held(host)
    motion(host, ())
    reverted = _held(host)
    return {"first": first, "applied": applied, "reverted": reverted, "again": peak(lambda: motion(host, wanted))}


def _held(host: TorchHost) -> int:
    """Bytes of originals in memory and of remembered values, each once."""
    kept = [t for each in host.modules for t in each.__dict__.get("_rasura_originals", {}).values()]
    tensors = {t.data_ptr(): t.numel() * t.element_size() for t in [*kept, *host.memory] if isinstance(t, torch.Tensor)}
    return sum(tensors.values())


if __name__ == "__main__":
    print(json.dumps(_child(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
