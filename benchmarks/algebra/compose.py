"""Apply and revert on the shape of Stable Diffusion 1.4: what exactness costs, and what doing without it costs.

`python benchmarks/algebra/compose.py [--repeats 5] [--device cpu]` prints a Markdown table.

32 float16 matrices [o, 768] (cross-attention keys and values: o = 320 five times, 640 five times, 1280 six times, twice
over), N patches of rank 4 with |ΔW| about a twentieth of |W|. One cycle applies the N patches one after another and
then takes them out one after another, first in, first out; a second way applies and reverts them as one set.

rasura      composes every state from the kept base and the set (`rasura.patches.algebra.compose`)
peft        merges and unmerges adapters in place, as diffusers' fuse_lora and unfuse_lora do
copy        keeps the originals and copies 32 matrices over them and back: the floor for anything that writes
"""

import argparse
import os
import platform
import statistics
import subprocess
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from rasura.patches.algebra.compose import Term, compose
from rasura.patches.algebra.increment import Increment

OUTPUTS: Final = (320,) * 10 + (640,) * 10 + (1280,) * 12
WIDTH: Final = 768
RANK: Final = 4
COUNTS: Final = (1, 4, 16)

Weights = list[torch.Tensor]
Patch = list[Increment]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        way: who did it.
        count: patches.
        seconds: median of one whole cycle.
        restored: share of the weights that have their original bits after it.
        same: share that has the same bits whatever the order of the patches, while all are applied.
    """

    way: str
    count: int
    seconds: float
    restored: float
    same: float


def base_weights(device: str) -> Weights:
    """32 matrices like those of a trained model: standard deviation 0.03, float16."""
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(o, WIDTH, generator=generator) * 0.03).half().to(device) for o in OUTPUTS]


def patch(seed: int, device: str) -> Patch:
    """One patch: a detector shared by all matrices, responses that make |ΔW| a twentieth of |W|."""
    generator = torch.Generator().manual_seed(1000 + seed)
    A = torch.randn(RANK, WIDTH, generator=generator)
    scale = 0.05 * 0.03 * (WIDTH / RANK) ** 0.5
    made = []
    for o in OUTPUTS:
        increment = Increment.quantised(
            A / A.norm(dim=1, keepdim=True), torch.randn(o, RANK, generator=generator) * scale
        )
        made.append(Increment(increment.A.to(device), increment.B.to(device)))
    return made


def write(weights: Weights, base: Weights, patches: Sequence[Patch]) -> None:
    """Give the weights the value of a set of patches, in place."""
    for index, (weight, original) in enumerate(zip(weights, base, strict=True)):
        weight.copy_(compose(original, [Term(p[index]) for p in patches]) if patches else original)


def rasura_one_by_one(weights: Weights, base: Weights, patches: Sequence[Patch]) -> None:
    """Every state on the way is written."""
    for end in range(1, len(patches) + 1):
        write(weights, base, patches[:end])
    for start in range(1, len(patches) + 1):
        write(weights, base, patches[start:])


def rasura_as_a_set(weights: Weights, base: Weights, patches: Sequence[Patch]) -> None:
    """Two states are written: with all patches, and with none."""
    write(weights, base, patches)
    write(weights, base, [])


def plain_copy(weights: Weights, base: Weights, patched: Weights) -> None:
    """What writing alone costs."""
    for source in (patched, base):
        for weight, value in zip(weights, source, strict=True):
            weight.copy_(value)


def peft_layers(base: Weights, patches: Sequence[Patch]) -> list[Any]:
    """The matrices as linear layers that PEFT has injected one adapter a patch into."""
    from peft import LoraConfig, inject_adapter_in_model

    layers = [torch.nn.Linear(WIDTH, w.shape[0], bias=False, dtype=w.dtype, device=w.device) for w in base]
    model = torch.nn.ModuleDict({f"m{i}": layer for i, layer in enumerate(layers)}).requires_grad_(requires_grad=False)
    for layer, weight in zip(layers, base, strict=True):
        layer.weight.data.copy_(weight)
    config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=list(model))
    found: Any = model
    for number, factors in enumerate(patches):
        found = inject_adapter_in_model(config, found, f"p{number}")
        for key, increment in zip(model, factors, strict=True):
            found[key].lora_A[f"p{number}"].weight.data = increment.A.clone()
            found[key].lora_B[f"p{number}"].weight.data = increment.B.clone()
    return list(found.values())


def merge(layers: list[Any], order: Sequence[int]) -> None:
    """Add adapters to the weights, one after another."""
    for number in order:
        for layer in layers:
            layer.merge(adapter_names=[f"p{number}"])


def unmerge(layers: list[Any], order: Sequence[int]) -> None:
    """Subtract them one after another in the order of `order`; PEFT takes the last of its list first."""
    for layer in layers:
        layer.merged_adapters = [f"p{number}" for number in reversed(order)]
        layer.unmerge()


def equal_share(left: Weights, right: Weights) -> float:
    """Share of entries with equal bits."""
    same = sum(int((a.view(torch.int16) == b.view(torch.int16)).sum()) for a, b in zip(left, right, strict=True))
    return same / sum(a.numel() for a in left)


def timed(work: Callable[[], object], repeats: int) -> float:
    """Median seconds, after one run that does not count."""
    work()
    seconds = []
    for _ in range(repeats):
        begun = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds)


def ours(base: Weights, patches: Sequence[Patch], repeats: int) -> list[Row]:
    """Both ways of rasura."""
    rows = []
    for way, cycle in (("rasura, one by one", rasura_one_by_one), ("rasura, as one set", rasura_as_a_set)):
        weights = [w.clone() for w in base]
        write(weights, base, patches)
        forward = [w.clone() for w in weights]
        write(weights, base, list(reversed(patches)))
        same = equal_share(weights, forward)
        seconds = timed(lambda cycle=cycle, weights=weights: cycle(weights, base, patches), repeats)  # type: ignore[misc]
        rows.append(Row(way, len(patches), seconds, equal_share(weights, base), same))
    return rows


def theirs(base: Weights, patches: Sequence[Patch], repeats: int) -> Row:
    """PEFT. The share restored is that of the first cycle; each further one changes more."""
    order = range(len(patches))
    layers, backwards = peft_layers(base, patches), peft_layers(base, patches)
    merge(layers, order)
    merge(backwards, list(reversed(order)))
    same = equal_share(_weights(layers), _weights(backwards))
    unmerge(layers, order)
    restored = equal_share(_weights(layers), base)

    def cycle() -> None:
        merge(layers, order)
        unmerge(layers, order)

    return Row("peft merge/unmerge", len(patches), timed(cycle, repeats), restored, same)


def _weights(layers: list[Any]) -> Weights:
    return [layer.get_base_layer().weight.data for layer in layers]


def floor(base: Weights, patches: Sequence[Patch], repeats: int) -> Row:
    """Copying there and back."""
    weights, patched = [w.clone() for w in base], [w.clone() for w in base]
    write(patched, base, patches)
    seconds = timed(lambda: plain_copy(weights, base, patched), repeats)
    return Row("plain copy", len(patches), seconds, equal_share(weights, base), 1.0)


def describe(device: str) -> str:
    """Machine, libraries, commit and load."""
    import peft

    commit = _git("rev-parse", "--short", "HEAD") + (
        " and changes" if _git("status", "--porcelain", "../patches", ".") else ""
    )
    chip = torch.cuda.get_device_name() if device == "cuda" else _processor()
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"{chip}, {os.cpu_count()} cores, {torch.get_num_threads()} thread(s) for torch, load {load}; "
        f"Python {platform.python_version()}, torch {torch.__version__}, peft {peft.__version__}; commit {commit}"
    )


def _git(*arguments: str) -> str:
    folder = Path(__file__).parent
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=False, cwd=folder).stdout.strip()


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    chosen = parser.parse_args()
    warnings.filterwarnings("ignore", module="peft")  # it warns at every second adapter
    base = base_weights(chosen.device)
    print(describe(chosen.device), end="\n\n")
    print("| patches | way | one cycle | against copy | weights restored | same in any order |")
    print("|---:|---|---:|---:|---:|---:|")
    for count in COUNTS:
        patches = [patch(seed, chosen.device) for seed in range(count)]
        copied = floor(base, patches, chosen.repeats)
        for row in (*ours(base, patches, chosen.repeats), theirs(base, patches, chosen.repeats), copied):
            ratio = row.seconds / copied.seconds
            print(
                f"| {row.count} | {row.way} | {row.seconds * 1000:.0f} ms | {ratio:.1f}× | "
                f"{row.restored:.2%} | {row.same:.2%} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
