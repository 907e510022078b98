"""Applying and reverting on live models: what it costs, what it leaves behind, what a step costs afterwards.

`python benchmarks/hosts/hosts.py [--models "SD 1.5" SDXL] [--counts 1 4 16 256] [--tables cycles …]` prints Markdown.

The models are stand-ins: every cross-attention key and value projection of the real UNet under its real name and in its
real shape, in a diffusers model, and nothing else. Patches are of rank 4, each a twentieth of the weights' norm.
"""

import argparse
import os
import platform
import random
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from host_cold import cold_start
from host_layers import TOKENS, Patch, equal_share, load, model, patch, shapes, weights
from host_memory import memory
from host_served import served
from host_ways import copying, diffusers_fuse, layers, motion, peak, rasura_bare, rasura_live, timed

from rasura.patches.hosts.live.torch_host import TorchHost

ORDERS = 100
_TABLES = ("cycles", "orders", "steps", "memory", "served", "cold")


def cycles(kind: str, dtype: torch.dtype, counts: Sequence[int], repeats: int) -> None:
    """Table 1: apply all and revert all. A set that comes back is neither composed nor hashed again.

    In seconds of the processor, which neighbours change less than those of the clock.
    """
    print(f"\n{kind}, {str(dtype).removeprefix('torch.')}: apply a set, revert it\n")
    print("| patches | way | one cycle | against copy | as fast as fusing | weights restored | loading before it |")
    print("|---:|---|---:|---:|---:|---:|---:|")
    for count in counts:
        patches, few = [patch(kind, seed) for seed in range(count)], repeats if count < 64 else 1
        copied = copying(kind, dtype, repeats)
        ours = rasura_live(kind, dtype, patches, few)
        theirs = diffusers_fuse(kind, dtype, patches, few)
        for row in (*ours, rasura_bare(kind, dtype, patches, few), *theirs, copied):
            print(
                f"| {count} | {row.way} | {row.seconds * 1000:.0f} ms | {row.seconds / copied.seconds:.1f}× | "
                f"{theirs[0].seconds / row.seconds:.2f}× | {row.restored:.2%} | "
                f"{f'{row.loading:.1f} s' if row.loading else ''} |",
                flush=True,
            )


def orders(kind: str, dtype: torch.dtype) -> None:
    """Table 2: a hundred random sets of eight patches, one after another, then none."""
    patches = [patch(kind, seed) for seed in range(8)]
    chosen = random.Random(0)
    sets = [chosen.sample(range(8), chosen.randint(1, 8)) for _ in range(ORDERS)]
    ours, theirs = model(kind, dtype), model(kind, dtype)
    base = [w.clone() for w in weights(ours)]
    host = TorchHost({"unet": ours}, "live")
    for members in sets:
        motion(host, layers([patches[i] for i in members]))
    motion(host, ())
    names = load(theirs, patches)
    for members in sets:
        theirs.fuse_lora(adapter_names=[names[i] for i in members])
        theirs.unfuse_lora()
    print(f"\n{kind}, {str(dtype).removeprefix('torch.')}: {ORDERS} random sets of eight patches, then none\n")
    print("| way | weights restored bit for bit | largest difference |")
    print("|---|---:|---:|")
    for way, found in (("rasura, live", weights(ours)), ("diffusers fuse_lora/unfuse_lora", weights(theirs))):
        worst = max(float((a.float() - b.float()).abs().max()) for a, b in zip(found, base, strict=True))
        print(f"| {way} | {equal_share(found, base):.2%} | {worst:.2g} |", flush=True)


def steps(kind: str, dtype: torch.dtype, counts: Sequence[int], repeats: int) -> None:
    """Table 4: a forward of these layers with patches applied, against adapters that are not merged."""
    print(f"\n{kind}, {str(dtype).removeprefix('torch.')}: all these layers on 2 × {TOKENS} tokens, patches applied\n")
    print("| patches | way | one forward | against the base | graphs compiled anew | memory held | most memory |")
    print("|---:|---|---:|---:|---:|---:|---:|")
    text = torch.randn(2, TOKENS, next(shapes(kind))[2], generator=torch.Generator().manual_seed(1)).to(dtype)
    plain = model(kind, dtype)
    alone = _forward(plain, text, repeats)
    print(f"| 0 | base | {alone * 1000:.1f} ms | 1.00× | | | |")
    for count in counts:
        patches = [patch(kind, seed) for seed in range(count)]
        merged, lora = model(kind, dtype), model(kind, dtype)
        host, wanted = TorchHost({"unet": merged}, "live"), layers(patches)
        motion(host, ()) if host.kept() else None
        most = peak(lambda host=host, wanted=wanted: motion(host, wanted))  # type: ignore[misc]
        rows: list[tuple[str, Any, int, int, int]] = [
            ("rasura, live", merged, _recompiled(merged, text, host, patches), _bytes(host), most)
        ]
        most = peak(lambda lora=lora, patches=patches: lora.set_adapters(load(lora, patches)))  # type: ignore[misc]
        rows.append(("LoRA, not merged", lora, _reloaded(kind, dtype, text, patches), _adapters(lora), most))
        for way, module, graphs, held, grown in rows:
            seconds = _forward(module, text, repeats)
            print(
                f"| {count} | {way} | {seconds * 1000:.1f} ms | {seconds / alone:.2f}× | {graphs} | "
                f"{held / 1e6:.0f} MB | {grown / 1e6:.0f} MB |",
                flush=True,
            )


@torch.no_grad()
def _forward(module: Any, text: torch.Tensor, repeats: int) -> float:
    return timed(lambda: module(text), 3 * repeats)


@torch.no_grad()
def _graphs(compiled: Any, text: torch.Tensor) -> int:
    """Graphs that dynamo has made so far."""
    compiled(text)
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])


def _recompiled(module: Any, text: torch.Tensor, host: TorchHost, patches: Sequence[Patch]) -> int:
    """Graphs made because of a revert and another apply of ours."""
    torch._dynamo.reset()  # noqa: SLF001
    compiled = torch.compile(module, backend="eager")
    first = _graphs(compiled, text)
    motion(host, ())
    _graphs(compiled, text)
    motion(host, layers(patches))
    return _graphs(compiled, text) - first


def _reloaded(kind: str, dtype: torch.dtype, text: torch.Tensor, patches: Sequence[Patch]) -> int:
    """Graphs made because adapters came and went again."""
    torch._dynamo.reset()  # noqa: SLF001
    module = model(kind, dtype)
    compiled = torch.compile(module, backend="eager")
    first = _graphs(compiled, text)
    module.set_adapters(load(module, patches))
    _graphs(compiled, text)
    module.unload_lora()
    return _graphs(compiled, text) - first


def _bytes(host: TorchHost) -> int:
    return sum(t.numel() * t.element_size() for t in host.lent(host.kept()).values())


def _adapters(module: Any) -> int:
    return sum(p.numel() * p.element_size() for n, p in module.named_parameters() if "lora_" in n)


def describe() -> str:
    """Machine, libraries, commit and load."""
    import diffusers
    import peft

    sys.path.append(str(Path(__file__).parents[1] / "algebra"))
    from compose import describe as machine

    del peft
    return (
        f"{machine('cpu')}; diffusers {diffusers.__version__}; {platform.system()}; load now {os.getloadavg()[0]:.1f}"
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["SD 1.5"], choices=["SD 1.5", "SDXL"])
    parser.add_argument("--dtypes", nargs="+", default=["float16", "bfloat16"], choices=["float16", "bfloat16"])
    parser.add_argument("--counts", nargs="+", type=int, default=[1, 4, 16])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tables", nargs="+", default=list(_TABLES), choices=_TABLES)
    from diffusers.utils import logging

    chosen = parser.parse_args()
    warnings.filterwarnings("ignore")  # PEFT warns at every second adapter
    logging.set_verbosity_error()
    print(describe())
    for kind in chosen.models:
        for name in chosen.dtypes:
            dtype = getattr(torch, name)
            if "cycles" in chosen.tables:
                cycles(kind, dtype, chosen.counts, chosen.repeats)
            if "orders" in chosen.tables:
                orders(kind, dtype)
        if "steps" in chosen.tables:
            steps(kind, torch.bfloat16, [c for c in chosen.counts if c < 64], chosen.repeats)
        if "memory" in chosen.tables:
            memory(kind)
    if "served" in chosen.tables:
        served(chosen.repeats)
    if "cold" in chosen.tables:
        cold_start(chosen.repeats)


if __name__ == "__main__":
    main()
