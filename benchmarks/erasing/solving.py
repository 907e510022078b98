"""What solving costs, given embeddings: the published form of SPEED, ours a layer and shared, and 1, 10, 100 concepts.

    python benchmarks/erasing/solving.py [--retained 1000] [--concepts 1 10 100] [--methods SPEED null-space]

The 32 cross-attention keys and values of Stable Diffusion 1.5, 768 wide, random; vectors like CLIP's token embeddings,
drawn as well: one common mean, norm about 28, cosines about 0.8.

published   SPEED's formulas with d × d matrices in float32, layer by layer, as its authors' code computes them: two
            decompositions a layer (of the weights, of the refined moment), every noisy copy a vector, two inverses.
            Written for this table from the formulas; what it makes is compared with ours, without noise, where the two
            are the same.
ours        `rasura.patches.erasers.closed_form` on the same numbers, down to increments on the grid.

Both parts count everything from embeddings on; null-space the basis of what is protected, too. Times are of the
processor, one thread, all in one run. Prints Markdown tables.
"""

from __future__ import annotations

import argparse
import math
import platform
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import torch

from rasura.patches.algebra.one_thread import use_one_thread
from rasura.patches.algebra.protected_subspace import Moment, build_protected_basis
from rasura.patches.algebra.rank_rule import RankRule
from rasura.patches.erasers.closed_form.null_space import NullSpace
from rasura.patches.erasers.closed_form.speed import Speed
from rasura.patches.erasers.closed_form.speed_invariants import compute_invariant_columns
from rasura.patches.erasers.columns import Columns
from rasura.patches.erasers.interface import Problem, Reference
from rasura.patches.erasers.request import EraseRequest
from rasura.patches.models.denoiser import Denoiser
from rasura.patches.models.text_encoders.text_encoder import TextEncoder
from rasura.patches.prompts.concept_prompts import Target
from rasura.patches.types import ParamName

ROOT: Final = Path(__file__).parents[2]
WIDTH: Final = 768
OUTS: Final = (320,) * 10 + (640,) * 10 + (1280,) * 12
THRESHOLD: Final = 0.1
AUG: Final = 10
CHUNK: Final = 128
TOKENS: Final = 3
"""Columns of a concept of the null-space table: `--tokens tail` has several a prompt."""


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """Weights and embeddings.

    Attributes:
        weights: W_l [o_l, d] float32.
        retained: rows [m, d] float64.
        null: the null prompt's tokens [77, d] float64.
    """

    weights: dict[ParamName, torch.Tensor]
    retained: torch.Tensor
    null: torch.Tensor

    @classmethod
    def draw(cls, retained: int) -> World:
        """The same numbers each time."""
        names = [ParamName(f"unet.down_blocks.{i}.attn2.to_{'kv'[i % 2]}.weight") for i in range(len(OUTS))]
        weights = {
            name: (_normal(i, out, WIDTH) / math.sqrt(WIDTH)).float()
            for i, (name, out) in enumerate(zip(names, OUTS, strict=True))
        }
        return cls(weights, draw_embeddings(1000, retained), draw_embeddings(1001, 77))

    def pose(self, count: int, tokens: int = 1) -> Problem:
        """So many concepts of so many tokens each, to be erased together."""
        names = [f"concept {number}" for number in range(count)]
        columns = tuple(
            Columns(name, draw_embeddings(2000 + i, tokens).T, draw_embeddings(3000, tokens).T)
            for i, name in enumerate(names)
        )
        moment = Moment(WIDTH)
        moment.add(self.retained)
        reference = Reference(self.null, moment, Moment(WIDTH))
        rule = RankRule("absolute", THRESHOLD)
        targets = tuple(Target(name, "anything") for name in names)
        return Problem(
            weights=self.weights,
            encoder=TextEncoder.load(ROOT / "examples" / "reference_model" / "pipeline"),
            request=EraseRequest(targets, None, tokens="last", rule=rule),
            columns=columns,
            reference=reference,
            # a quarter of the space for what is retained: a hundred concepts have to fit beside it
            basis=lambda: build_protected_basis(self.null, moment, RankRule("count", WIDTH // 4)),
            retained=lambda _: iter(torch.split(self.retained, 64)),
            moment=_read_nothing,
            denoiser=_draw_nothing,
            progress=lambda *_: None,
        )


def draw_embeddings(seed: int, count: int) -> torch.Tensor:
    """Rows [count, d] float64."""
    common = 0.9 * _normal(424242, 1, WIDTH)
    rows: torch.Tensor = common + 0.45 * _normal(seed, count, WIDTH)
    return rows


def solve_as_published(problem: Problem, retained: torch.Tensor, aug: int) -> Iterator[torch.Tensor]:
    """ΔW [o, d] float32 of every layer, by the d × d formulas: filter, noisy copies, null space, constraint."""
    count = len(problem.columns)
    C1 = torch.cat([own.targets for own in problem.columns], dim=1).float()
    anchors = torch.cat([own.anchors for own in problem.columns], dim=1).float()
    T, Q = C1 @ C1.T / count, anchors @ C1.T / count  # [d, d]: means over the concepts
    C2 = compute_invariant_columns(problem.reference.invariants, 3, 0).float()  # [d, 4]
    identity = torch.eye(WIDTH)
    for weight in problem.weights.values():
        eraser = weight @ (Q - T) @ torch.linalg.inv(identity + T)  # [o, d]
        rows = refine_as_published(weight, eraser, retained.float(), aug)
        U, values, _ = torch.linalg.svd(rows.T @ rows / len(rows))
        free = U[:, values < THRESHOLD]
        P = free @ free.T  # [d, d]
        M = torch.linalg.inv(T @ P + identity)
        kept = M @ C2 @ torch.linalg.inv(C2.T @ P @ M @ C2) @ C2.T @ P
        yield weight @ (Q - T) @ P @ (identity - kept) @ M


def _solve_all_as_published(problem: Problem, retained: torch.Tensor) -> int:
    """How many layers; none is kept."""
    return sum(1 for _ in solve_as_published(problem, retained, AUG))


def refine_as_published(weight: torch.Tensor, eraser: torch.Tensor, retained: torch.Tensor, aug: int) -> torch.Tensor:
    """Retained vectors that the eraser moves more than the mean, and noisy copies of them, [*, d]."""
    shift = torch.linalg.vector_norm(retained @ eraser.T, dim=1)
    kept = retained[shift > shift.mean()]
    if not aug:
        return kept
    least = torch.linalg.svd(weight, full_matrices=False)[2][-1]
    along = torch.outer(least, least)
    more = [kept]
    for piece in torch.split(kept, CHUNK):
        copies = (piece[:, None] + torch.randn(len(piece), aug, WIDTH) @ along).reshape(-1, WIDTH)
        size = torch.linalg.vector_norm(copies @ eraser.T, dim=1)
        more.append(copies[size > size.mean()])
    return torch.cat(more)


def compare(problem: Problem, retained: torch.Tensor) -> float:
    """How far the published form and ours are apart where no noise is drawn: ‖difference‖ / ‖ours‖ over all layers."""
    (ours,) = Speed(mode="code", aug=0, tied="no").solve(problem)
    apart = whole = 0.0
    for name, published in zip(problem.weights, solve_as_published(problem, retained, 0), strict=True):
        made = ours.increments[name].dense()
        apart += float((made - published).square().sum())
        whole += float(made.square().sum())
    return math.sqrt(apart / whole)


def time_work(work: Callable[[], object]) -> float:
    """Processor seconds."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def print_speed(world: World, counts: list[int]) -> None:
    """The table of SPEED."""
    print("\n## SPEED\n\n| concepts | published | ours, a layer each | ours, shared |\n|---|---|---|---|", flush=True)
    for count in counts:
        problem = world.pose(count)
        published = time_work(partial(_solve_all_as_published, problem, world.retained))
        cells = [f"{count}", f"{published:.2f} s"]
        for eraser in (Speed(mode="code"), Speed(mode="code", shared=True)):
            seconds = time_work(partial(eraser.solve, problem))
            cells.append(f"{seconds:.2f} s, {published / seconds:.1f}×")
        print("| " + " | ".join(cells) + " |", flush=True)
    print(f"\nWithout noise the two are {compare(world.pose(1), world.retained):.0e} of the increment apart.")


def print_null_space(world: World, counts: list[int]) -> None:
    """The table of the null space."""
    print(f"\n## null-space, concepts of {TOKENS} columns\n")
    print("| concepts | values alone, the default | a concept | keys and values | a concept |\n|---|---|---|---|---|")
    for count in counts:
        problem = world.pose(count, TOKENS)
        values = {name: weight for name, weight in problem.weights.items() if "to_v" in name}
        each = [time_work(partial(NullSpace().solve, posed)) for posed in (replace(problem, weights=values), problem)]
        cells = [cell for spent in each for cell in (f"{spent:.2f} s", f"{1000 * spent / count:.0f} ms")]
        print(f"| {count} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--retained", type=int, default=1000)
    parser.add_argument("--concepts", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--methods", nargs="+", default=["SPEED", "null-space"])
    asked = parser.parse_args()
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    print("# Solving, given embeddings\n")
    print(f"{platform.machine()}, torch {torch.__version__}, commit {commit.stdout.strip()}; one thread, CPU time.")
    print(f"{len(OUTS)} matrices, {WIDTH} wide, {asked.retained} retained vectors, {AUG} noisy copies.")
    with use_one_thread():
        world = World.draw(asked.retained)
        if "SPEED" in asked.methods:
            print_speed(world, asked.concepts)
        if "null-space" in asked.methods:
            print_null_space(world, asked.concepts)


def _normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _read_nothing(prompts: Callable[[], Iterable[str]], stage: str, total: int) -> Moment:
    raise AssertionError(f"expected embeddings alone, got {stage} of {total} prompts {prompts}")


def _draw_nothing() -> Denoiser:
    raise AssertionError("no closed-form eraser looks at pictures")


if __name__ == "__main__":
    main()
