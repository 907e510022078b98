"""All pairs of patches as they are in practice: hundreds of target columns each, bounded from above.

`python benchmarks/algebra/real_pairs.py [--patches 10000] [--dense 600]` prints Markdown tables.

One patch of Stable Diffusion 1.5's size is erased (`sd15_registry`: rank 1, 16 value projections, 77 rows that hold the
null prompt, and a retain list). The others are copies of it, turned: what of its targets and of its kernel lies outside
the null prompt's rows goes through a random signed permutation in a random orthonormal basis, so that each has the
spectrum, the effect and the number of columns of the first one, and another concept.

sketch     a patch's targets become the columns that matter: once a patch, whatever comes later
all pairs  upper bounds of ‖Δ_p T_q‖ / ‖Δ_q T_q‖, those over 0.05 counted
           (`rasura.patches.checks.kernels.bounded_pairs`)
dense      the same pairs of the first few patches with all their columns, and how far the bounds are above it

Times are of the processor, one thread; memory is the most that the whole process ever held.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import torch

from rasura.patches.checks.kernels.bounded_pairs import BoundedPairs, Sketch, ground_of, make_sketch
from rasura.patches.checks.kernels.footprint import Footprint
from rasura.patches.checks.kernels.interference import Interference
from rasura.patches.format.manifest_parts import TEXT
from rasura.patches.types import PatchId
from rasura.registry.registry import Registry
from rasura.registry.trust.verified_patch import load_verified

sys.path.insert(0, str(Path(__file__).parents[1] / "hosts"))

from sd15_registry import make_model, make_registry

LIMIT: Final = 0.05

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Copies:
    """One patch, and as many that are like it as anybody wants.

    Attributes:
        footprint: of the patch that was erased.
        ground: N [g, d], the null prompt's invariants.
        basis: E [d - g, d], orthonormal, orthogonal to N.
        kernel: K Eᵀ [k, d - g], and what is left of K [k, d].
        targets: E T [d - g, m], and what is left of T [d, m].
    """

    footprint: Footprint
    ground: torch.Tensor
    basis: torch.Tensor
    kernel: tuple[torch.Tensor, torch.Tensor]
    targets: tuple[torch.Tensor, torch.Tensor]

    @classmethod
    def of(cls, footprint: Footprint, ground: torch.Tensor) -> Copies:
        """Draw the basis."""
        width, held = ground.shape[1], len(ground)
        drawn = torch.randn(width, width - held, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        both = torch.linalg.qr(torch.cat([ground.T, drawn], dim=1))[0]
        E, K, T = (
            both[:, held:].T.contiguous(),
            *map(torch.from_numpy, (footprint.kernels[TEXT], footprint.targets[TEXT])),
        )
        own, free = K @ E.T, E @ T
        return cls(footprint, ground, E, (own, K - own @ E), (free, T - E.T @ free))

    def make(self, seed: int) -> Footprint:
        """The copy of this number; 0 is the patch itself."""
        if seed == 0:
            return self.footprint
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self.basis), generator=generator)
        signs = torch.randint(0, 2, (len(self.basis), 1), generator=generator, dtype=torch.float64) * 2 - 1
        kernel = self.kernel[1] + (self.kernel[0][:, order] * signs.T) @ self.basis
        targets = self.targets[1] + self.basis.T @ (self.targets[0][order] * signs)
        return Footprint(PatchId(f"{seed:064x}"), {TEXT: kernel.numpy()}, {TEXT: targets.numpy()})


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """A result, and its processor seconds."""
    begun = time.process_time()
    found = work()
    return found, time.process_time() - begun


def make_copies() -> Copies:
    """Erase the one patch."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make_model(folder / "model")
        (made,) = make_registry(folder, folder / "model")
        with Registry.open(folder) as registry:
            patch = load_verified(registry, made)
    return Copies.of(Footprint.of(patch), ground_of(patch))


def sketch_all(copies: Copies, count: int) -> tuple[list[Sketch], float]:
    """Sketches of so many copies, and the seconds that sketching took, without making the copies."""
    found, spent = [], 0.0
    for seed in range(count):
        footprint = copies.make(seed)
        sketch, seconds = timed(lambda footprint=footprint: make_sketch(footprint, copies.ground))  # type: ignore[misc]
        found.append(sketch)
        spent += seconds
    return found, spent


def scale_lines(copies: Copies, count: int) -> Iterator[str]:
    """The first table."""
    sketches, spent = sketch_all(copies, count)
    columns = [len(sketch.parts[TEXT].columns) for sketch in sketches]
    held = copies.footprint.targets[TEXT].shape[1]
    yield f"| {count:,} | sketches, {held} columns become {min(columns)} to {max(columns)} | {spent:.1f} s | |"
    table, stacked = timed(lambda: BoundedPairs(sketches))
    over, pairs = timed(lambda: sum(int((shares > LIMIT).sum()) for _, shares in table.blocks()))
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    what = f"all {count * (count - 1):,} pairs, {over:,} bounds over {LIMIT:g}"
    yield f"| {count:,} | {what} | {stacked + pairs:.1f} s | {most:.2f} GiB |"


def dense_line(copies: Copies, count: int) -> str:
    """The second table's line: both ways in one run."""
    prints = [copies.make(seed) for seed in range(count)]
    sketches = [make_sketch(footprint, copies.ground) for footprint in prints]
    bounds, ours = timed(lambda: BoundedPairs(sketches).matrix())
    exact, dense = timed(lambda: Interference(prints).matrix())
    if bool((bounds < exact).any()):
        sys.exit("a bound is below what it bounds")
    refused = int(((bounds > LIMIT) & (exact <= LIMIT)).sum())
    return (
        f"| {count:,} | {dense:.2f} s | {ours:.2f} s | {dense / ours:.0f}× | {float((bounds - exact).max()):.4f} | "
        f"{int((exact > LIMIT).sum()):,} | {refused:,} |"
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", type=int, default=10_000)
    parser.add_argument("--dense", type=int, default=600)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {torch.__version__}\n"
    )
    copies = make_copies()
    print("| patches | dense | bounds | ratio | most that a bound is above | over 0.05 | over by the bound alone |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    print(dense_line(copies, chosen.dense), flush=True)
    print("\n| patches | what | CPU | memory |\n|---:|---|---:|---:|")
    for line in scale_lines(copies, chosen.patches):
        print(line, flush=True)


if __name__ == "__main__":
    main()
