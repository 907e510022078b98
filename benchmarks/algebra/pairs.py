"""All pairs of many patches on the shape of Stable Diffusion 1.4: what a check of a whole registry costs.

`python benchmarks/algebra/pairs.py [--patches 10000] [--device cpu]` prints Markdown tables.

A patch touches the 16 key and 16 value projections [o, 768] of cross-attention (o = 320 five times, 640 five times,
1280 six times, twice over) with rank 1, its factors random and on the grid. Nothing is read from disk.

kernels    a patch's increments become its footprint (`rasura.patches.checks.kernels.footprint`): once a patch,
           whatever comes later
all pairs  ‖Δ_p T_q‖ / ‖Δ_q T_q‖ for all p ≠ q, in blocks, the pairs over 0.05 counted
           (`rasura.patches.checks.kernels.interference`)
one        a new patch against all, both ways, the others' matrices at hand
dense      the same numbers from ΔW = B·A itself: built once for each p, then multiplied with the targets of all q
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import torch

from rasura.patches.algebra.increment import Increment
from rasura.patches.checks.kernels.footprint import Footprint, compute_kernel
from rasura.patches.checks.kernels.interference import Interference
from rasura.patches.format.manifest_parts import TEXT
from rasura.patches.types import PatchId

sys.path.insert(0, str(Path(__file__).parents[1] / "results"))

from origin import processor

OUTPUTS: Final = ((320,) * 5 + (640,) * 5 + (1280,) * 6) * 2
WIDTH: Final = 768
LIMIT: Final = 0.05
DENSE: Final = 100
"""Patches of the comparison with dense increments."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Case:
    """What patches look like.

    Attributes:
        title: for the table.
        columns: m, target columns of a patch.
        shared: whether all 32 parameters have one detector.
        part: share of `--patches` that this case is run with.
        dense: whether dense increments are tried, too.
    """

    title: str
    columns: int
    shared: bool
    part: float = 1.0
    dense: bool = True


CASES: Final = (
    Case("one detector, 1 target column", 1, shared=True),
    Case("one detector, 8 target columns", 8, shared=True),
    Case("a detector a parameter, 1 target column", 1, shared=False, part=0.2),
    Case("one detector, 144 target columns", 144, shared=True, part=0.1, dense=False),
)


@dataclass(frozen=True, slots=True)
class Cost:
    """What something took.

    Attributes:
        seconds: processor time on the CPU, which neighbours on a shared machine change little; wall time on a GPU.
        bytes: most memory at any time, beyond what was held before.
    """

    seconds: float
    bytes: int


def increments(seed: int, *, shared: bool, split: bool) -> list[Increment]:
    """One patch on the grid; `split` gives the parameters one by one, else those of a detector below each other."""
    generator = torch.Generator().manual_seed(seed)
    count = 1 if shared else len(OUTPUTS)
    A = torch.randn(count, WIDTH, generator=generator, dtype=torch.float64)
    B = torch.randn(sum(OUTPUTS), 1, generator=generator, dtype=torch.float64) * 0.05
    ends = list(accumulate(OUTPUTS, initial=0))
    parts = [slice(a, b) for a, b in pairwise(ends)] if split or not shared else [slice(0, None)]
    return [Increment.quantised(A[[i % count]], B[part]) for i, part in enumerate(parts)]


def footprint(seed: int, made: Sequence[Increment], columns: int) -> Footprint:
    """The footprint of a patch whose targets lie around what it detects."""
    generator = torch.Generator().manual_seed(seed + (1 << 40))
    aim = made[0].A.to(torch.float64).T
    targets = aim + torch.randn(WIDTH, columns, generator=generator, dtype=torch.float64) * 0.05
    return Footprint(PatchId(f"{seed:064x}"), {TEXT: compute_kernel(made)}, {TEXT: targets.numpy()})


def measured(device: str, work: Callable[[], T]) -> tuple[T, Cost]:
    """Run and weigh: peak resident memory on the CPU, peak allocation on a GPU, less what was there before."""
    reset, peak, now = _gauge(device)
    reset()
    clock = time.perf_counter if device == "cuda" else time.process_time
    before, begun = now(), clock()
    result = work()
    if device == "cuda":
        torch.cuda.synchronize()
    return result, Cost(clock() - begun, max(0, peak() - before))


def _gauge(device: str) -> tuple[Callable[[], object], Callable[[], int], Callable[[], int]]:
    if device == "cuda":
        return torch.cuda.reset_peak_memory_stats, torch.cuda.max_memory_allocated, torch.cuda.memory_allocated
    clear = Path("/proc/self/clear_refs")
    return lambda: clear.write_text("5"), lambda: _resident("VmHWM"), lambda: _resident("VmRSS")


def _resident(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def all_pairs(prints: Sequence[Footprint], device: str) -> int:
    """How many pairs are over the limit."""
    table = Interference(prints, device=device)
    return sum(int((shares > LIMIT).sum()) for _, shares in table.blocks())


def dense_pairs(made: Sequence[Sequence[Increment]], prints: Sequence[Footprint], device: str) -> torch.Tensor:
    """The same table [N, N] from ΔW itself."""
    columns = [p.targets[TEXT].shape[1] for p in prints]
    targets = torch.from_numpy(np.concatenate([p.targets[TEXT] for p in prints], 1)).to(device)
    owner = torch.repeat_interleave(torch.arange(len(prints)), torch.tensor(columns)).to(device)
    table = torch.zeros(len(prints), len(prints), dtype=torch.float64, device=device)
    for p, patch in enumerate(made):
        for increment in patch:
            delta = increment.B.to(device, torch.float64) @ increment.A.to(device, torch.float64)
            table[p].index_add_(0, owner, (delta @ targets).square().sum(0))
    table = table.sqrt()
    return (table / table.diagonal()).fill_diagonal_(0.0).cpu()


def scale_rows(case: Case, count: int, device: str) -> Iterator[str]:
    """Lines of the first table."""
    prints, made = measured("cpu", lambda: [_print(case, seed) for seed in range(count)])
    over, pairs = measured(device, lambda: all_pairs(prints, device))
    table = Interference(prints, device=device)
    newcomer = _print(case, count)
    table.against(newcomer)
    _, one = measured(device, lambda: table.against(newcomer))
    yield _line(case, count, "kernels (and random factors)", made)
    yield _line(case, count, f"all {count * (count - 1):,} pairs, {over:,} over {LIMIT:g}", pairs)
    yield _line(case, count, "one more against all, both ways", one)


def _print(case: Case, seed: int) -> Footprint:
    return footprint(seed, increments(seed, shared=case.shared, split=False), case.columns)


def _line(case: Case, count: int, what: str, cost: Cost) -> str:
    seconds = f"{cost.seconds * 1000:.1f} ms" if cost.seconds < 1 else f"{cost.seconds:.1f} s"
    return f"| {case.title} | {count:,} | {what} | {seconds} | {cost.bytes / 2**20:,.0f} MiB |"


def dense_line(case: Case, device: str) -> str:
    """A line of the second table: both ways in one run, and how far apart their numbers are."""
    patches = [increments(seed, shared=case.shared, split=True) for seed in range(DENSE)]
    ours, kernels = measured(
        device,
        lambda: Interference(
            [footprint(seed, made, case.columns) for seed, made in enumerate(patches)], device=device
        ).matrix(),
    )
    prints = [footprint(seed, made, case.columns) for seed, made in enumerate(patches)]
    _, again = measured(device, lambda: Interference(prints, device=device).matrix())
    theirs, dense = measured(device, lambda: dense_pairs(patches, prints, device))
    apart = float(((ours - theirs).abs() / theirs.clamp(min=1e-300)).fill_diagonal_(0).max())
    return (
        f"| {case.title} | {dense.seconds:.2f} s | {kernels.seconds:.3f} s | {dense.seconds / kernels.seconds:.0f}× | "
        f"{again.seconds * 1000:.1f} ms | {dense.seconds / again.seconds:,.0f}× | {apart:.0e} |"
    )


def describe(device: str) -> str:
    """Machine, libraries, commit and load."""
    chip = torch.cuda.get_device_name() if device == "cuda" else processor()
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    changed = " and changes" if _git("status", "--porcelain", "../patches", "pairs.py") else ""
    return (
        f"{chip}, {os.cpu_count()} cores, {torch.get_num_threads()} thread(s) for torch, load {load}; "
        f"Python {platform.python_version()}, torch {torch.__version__}; commit {_git('rev-parse', '--short', 'HEAD')}"
        f"{changed}"
    )


def _git(*arguments: str) -> str:
    folder = Path(__file__).parent
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=False, cwd=folder).stdout.strip()


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", type=int, default=10_000)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    chosen = parser.parse_args()
    print(describe(chosen.device), end="\n\n")
    print("| patches of rank 1 on 32 parameters | n | what | time | memory |\n|---|---:|---|---:|---:|")
    for case in CASES:
        for line in scale_rows(case, max(2, int(chosen.patches * case.part)), chosen.device):
            print(line, flush=True)
    print(f"\n{DENSE} patches, all pairs:\n")
    print("| | dense ΔW | kernels and pairs | ratio | pairs alone | ratio | largest relative difference |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for case in (case for case in CASES if case.dense):
        print(dense_line(case, chosen.device), flush=True)


if __name__ == "__main__":
    main()
