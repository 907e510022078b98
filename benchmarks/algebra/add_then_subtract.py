"""Why rasura never subtracts: `python benchmarks/algebra/add_then_subtract.py`, a second and a few megabytes.

Ten patches of rank 4 on one matrix of Stable Diffusion's size. In every dtype: add all, subtract all, and count the
weights that are not what they were; add them in the other order, and count the weights on which the two orders
disagree. The increments are computed in float32 and rounded to the weights' dtype, as PEFT does. Beside it, the same
with `rasura.patches.algebra.compose`.
"""

from typing import Final

import torch

from rasura.patches.algebra.compose import Term, compose
from rasura.patches.algebra.increment import Increment

OUT, IN, RANK, PATCHES, SPREAD = 320, 768, 4, 10, 0.03
DTYPES: Final = (torch.float16, torch.bfloat16, torch.float32)


def increments() -> list[Increment]:
    """Ten increments, each about a twentieth of the weights' norm."""
    generator = torch.Generator().manual_seed(1)
    scale = 0.05 * SPREAD * (IN / RANK) ** 0.5
    return [
        Increment.quantised(
            torch.nn.functional.normalize(torch.randn(RANK, IN, generator=generator)),
            torch.randn(OUT, RANK, generator=generator) * scale,
        )
        for _ in range(PATCHES)
    ]


def added(start: torch.Tensor, patches: list[Increment], sign: int = 1) -> torch.Tensor:
    """The usual way: in place, one after another, in the weights' own dtype."""
    weights = start.clone()
    for patch in patches:
        weights += sign * (patch.B @ patch.A).to(weights.dtype)
    return weights


def changed(left: torch.Tensor, right: torch.Tensor) -> str:
    """Share of the entries that differ."""
    return f"{float((left != right).to(torch.float32).mean()):.1%}"


def main() -> None:
    """Print one line a dtype and way."""
    patches, backwards = increments(), increments()[::-1]
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(OUT, IN, generator=generator) * SPREAD
    print(f"{'weights':<10}{'way':<20}{'changed by add and take out':>30}{'changed by the order':>24}")
    for dtype in DTYPES:
        start = base.to(dtype)
        name = str(dtype).removeprefix("torch.")
        there = added(start, patches)
        back, other = added(there, patches, -1), added(start, backwards)
        print(f"{name:<10}{'add and subtract':<20}{changed(back, start):>30}{changed(there, other):>24}")
        there, other = (compose(start, [Term(p) for p in order]) for order in (patches, backwards))
        back = compose(start, [])
        print(f"{name:<10}{'rasura':<20}{changed(back, start):>30}{changed(there, other):>24}")


if __name__ == "__main__":
    main()
