"""All pairs of thousands of patches as they are in practice, with hundreds of target columns each: bounds from above.

A patch's targets are mostly what all prompts have in common, which its null prompt holds and no kernel sees, and of
what is left a few directions carry nearly all. So they are split, once a patch, with the invariants N of its basis:

    T = NᵀN T + F,   F V = [C R]        V orthogonal, C the j strongest columns

and for every kernel K, whoever made it,

    ‖K T‖ ≤ √(‖K C‖² + ‖K‖² σ²) + ‖K Nᵀ‖ ‖N T‖        σ the largest singular value of R, norms of Frobenius

That can only be too large, never too small, whether or not K keeps to N. j is the smallest for which the patch's own
kernel would see at most `TOLERANCE` of its effect in R. ‖K C‖ is summed in float32, and what that can be too small by
(the standard model of rounding, for any order of the sum) is added.

    sketches = [make_sketch(Footprint.of(patch), ground_of(patch)) for patch in patches]
    for rows, shares in BoundedPairs(sketches).blocks(): …      # upper bounds of `Interference`'s shares
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import torch

from rasura.patches.checks.kernels.footprint import Footprint, Space
from rasura.patches.checks.kernels.pair_table import PairTable, divide
from rasura.patches.format.manifest_parts import TEXT
from rasura.patches.format.patch import Patch
from rasura.patches.types import PatchId

__all__ = ["TOLERANCE", "BoundedPairs", "Part", "Sketch", "ground_of", "make_sketch"]

TOLERANCE: Final = 0.01
"""Share of a patch's own effect that may lie in what is left out; it counts as a sum of squares."""
_SINGLE: Final = 2.0**-24
"""Half the distance of 1 to the next float32."""
_DOUBLE: Final = 1 + 2.0**-30
"""More than all roundings in float64 together."""
_TINY: Final = 1e-30
"""More than what squares that are too small for a float32 add up to."""


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """What a sketch holds of one space.

    Attributes:
        kernel: K [k, d] float64.
        columns: C [j, d] float32, as rows.
        remainder: σ.
        ground: N [g, d] float64.
        common: ‖N T‖.
    """

    kernel: torch.Tensor
    columns: torch.Tensor
    remainder: float
    ground: torch.Tensor
    common: float


@dataclass(frozen=True, slots=True, eq=False)
class Sketch:
    """A patch's footprint in a few columns; `effect` is ‖Δ T‖ on its own targets, exact."""

    patch_id: PatchId
    parts: Mapping[Space, Part]
    effect: float


def ground_of(patch: Patch) -> torch.Tensor:
    """The rows of a patch's basis that hold the null prompt, [g, d] float64: what no text-reading kernel should see."""
    return patch.tensors.protected[: patch.manifest.protected.basis.invariants]


def make_sketch(footprint: Footprint, ground: torch.Tensor, tolerance: float = TOLERANCE) -> Sketch:
    """Compress a footprint's targets.

    Args:
        footprint: of a patch.
        ground: N [g, d] float64 for parameters that read text embeddings; g may be 0, and any rows are sound.
        tolerance: see `TOLERANCE`.
    """
    effect = footprint.effect()
    parts = {}
    for space, own in footprint.kernels.items():
        targets, kernel = torch.from_numpy(footprint.targets[space]), torch.from_numpy(own)
        rows = ground if space == TEXT and ground.shape[1] == targets.shape[0] else targets.T[:0]
        seen = float(torch.linalg.vector_norm(kernel))
        parts[space] = _compress(kernel, targets, rows, tolerance * effect / seen if seen > 0 else 0.0)
    return Sketch(footprint.patch_id, parts, effect)


def _compress(kernel: torch.Tensor, targets: torch.Tensor, ground: torch.Tensor, most: float) -> Part:
    """The columns without which nothing longer than `most` is left."""
    common = ground @ targets  # N T, [g, m]
    free = targets - ground.T @ common  # F; T = Nᵀ(N T) + F, whether or not N is orthonormal
    values, vectors = torch.linalg.eigh(free.T @ free)  # ascending; [m], [m, m]
    # what the eigenvalues of a Gram matrix may be off by
    values = values.clamp(min=0) + float(values[-1].clamp(min=0)) * values.numel() * 2.0**-48
    left = int((values.sqrt() <= most).sum())
    columns = (free @ vectors[:, left:]).T.to(torch.float32).contiguous()  # [j, d]
    remainder = float(values[left - 1].sqrt()) if left else 0.0
    return Part(kernel, columns, remainder, ground, float(torch.linalg.vector_norm(common)))


class BoundedPairs(PairTable):
    """Upper bounds of all pairs of a fixed sequence of patches."""

    def __init__(self, sketches: Sequence[Sketch], strengths: Sequence[float] | None = None) -> None:
        """Stack the sketches; strengths are factors of the disturbing patches, default 1."""
        self._sketches = tuple(sketches)
        super().__init__(strengths, [sketch.effect for sketch in self._sketches], "cpu")

    @property
    def patch_ids(self) -> tuple[PatchId, ...]:
        """Whose row and column is which."""
        return tuple(sketch.patch_id for sketch in self._sketches)

    @cached_property
    def _spaces(self) -> list[_Stack]:
        names = sorted({space for sketch in self._sketches for space in sketch.parts})
        return [_Stack.of([sketch.parts.get(name) for sketch in self._sketches]) for name in names]

    def _shares(self, rows: range) -> torch.Tensor:
        total = torch.zeros(len(rows), len(self._sketches), dtype=torch.float64)
        for stack in self._spaces:
            total += stack.bounds(rows).square_()
        moved = total.sqrt_().mul_(self._strengths[rows.start : rows.stop, None] * _DOUBLE)
        return divide(moved, self.effects)

    def _ranges(self, block_bytes: int) -> Iterator[range]:
        step = max(1, block_bytes // (8 * max(1, len(self._sketches))))  # 8 bytes a float64
        for start in range(0, len(self._sketches), step):
            yield range(start, min(start + step, len(self._sketches)))


@dataclass(frozen=True, slots=True, eq=False)
class _Stack:
    """One space of all patches.

    Attributes:
        kernels: [Σk, d], rows of the patches one after the other.
        starts: [N + 1] int64: the kernel of p is kernels[starts[p] : starts[p + 1]].
        layers: C's first rows of all patches that have one, their second rows, …, [n_i, d] each; patches in `order`.
        order: [N] int64, patches by their number of columns, the most first.
        size: ‖K_p‖, [N] float64.
        leak: ‖K_p N_gᵀ‖, [N, grounds] float64.
        ground: [N] int64, which ground a patch's targets were split by.
        common: ‖N T_q‖, [N] float64.
        remainder: σ_q, [N] float64.
        rounding: what ‖K_p C_q‖ in float32 may be too small by, over ‖K_p‖: [N] float64.
        growth: by what factor its square may be.
    """

    kernels: torch.Tensor
    starts: torch.Tensor
    layers: tuple[torch.Tensor, ...]
    order: torch.Tensor
    size: torch.Tensor
    leak: torch.Tensor
    ground: torch.Tensor
    common: torch.Tensor
    remainder: torch.Tensor
    rounding: torch.Tensor
    growth: float

    @classmethod
    def of(cls, parts: Sequence[Part | None]) -> _Stack:
        """Stack the parts; None where a patch reads nothing there."""
        some = next(part for part in parts if part is not None)
        width, nothing = some.kernel.shape[1], some.kernel[:0]
        kernels = [nothing if part is None else part.kernel for part in parts]
        columns = [nothing if part is None else part.columns for part in parts]
        counts = torch.tensor([len(rows) for rows in columns])
        order = torch.argsort(counts, descending=True, stable=True)
        ranked = [columns[i] for i in order.tolist()]
        # settings may have products of float32 rounded to less than a float32
        dtype = torch.float32 if torch.get_float32_matmul_precision() == "highest" else torch.float64
        deepest = int(counts.max())
        layers = (torch.stack([rows[i] for rows in ranked if len(rows) > i]) for i in range(deepest))
        grounds, ground = _number_grounds(parts)
        stacked = torch.cat(kernels)
        sizes = torch.tensor([len(rows) for rows in kernels])
        starts = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)])
        leak = [_norms(stacked @ rows.T, starts) for rows in grounds]
        held = torch.tensor([float(rows.to(torch.float64).norm()) for rows in columns], dtype=torch.float64)
        common = torch.tensor([0.0 if part is None else part.common for part in parts], dtype=torch.float64)
        most = max(1, int(sizes.max()) * deepest)
        return cls(
            stacked.to(dtype),
            starts,
            tuple(layer.to(dtype) for layer in layers),
            order,
            _norms(stacked, starts),
            torch.stack(leak, 1) if leak else torch.zeros(len(parts), 1, dtype=torch.float64),
            ground,
            common,
            torch.tensor([0.0 if part is None else part.remainder for part in parts], dtype=torch.float64),
            # γ_d, and both factors rounded to float32; and what splitting T rounded
            held * (width + 4) * _SINGLE + common * 2.0**-40,
            1 + (most + 4) * _SINGLE,
        )

    def bounds(self, rows: range) -> torch.Tensor:
        """An upper bound of ‖K_p T_q‖ for some p and all q, [rows, N] float64."""
        found = self._energies(rows).to(torch.float64).mul_(self.growth).add_(_TINY)
        size, leak = self.size[rows.start : rows.stop], self.leak[rows.start : rows.stop]
        found.addr_(size.square(), self.remainder.square()).sqrt_()
        found.addr_(size, self.rounding)
        return found.addcmul_(leak[:, self.ground], self.common[None, :])

    def _energies(self, rows: range) -> torch.Tensor:
        """‖K_p C_q‖², [rows, N], as float32 sums it."""
        starts = self.starts[rows.start : rows.stop + 1]
        counts = starts.diff()
        total = torch.zeros(len(rows), len(self.order), dtype=self.kernels.dtype)
        for i in range(int(counts.max()) if len(rows) else 0):
            having = torch.nonzero(counts > i)[:, 0]
            K = self.kernels[starts[having] + i]  # the rows i of these kernels
            for layer in self.layers:
                product = K @ layer.T  # [having, n]
                if len(having) == len(rows):
                    total[:, : len(layer)].addcmul_(product, product)
                else:
                    total[:, : len(layer)].index_add_(0, having, product.square_())
        found = torch.empty_like(total)
        found[:, self.order] = total
        return found


def _number_grounds(parts: Sequence[Part | None]) -> tuple[list[torch.Tensor], torch.Tensor]:
    """The distinct grounds, and which each patch has."""
    known: dict[bytes, int] = {}
    found: list[torch.Tensor] = []
    numbers = []
    for part in parts:
        if part is None or not len(part.ground):
            numbers.append(0)  # ‖N T‖ is 0: any will do
            continue
        key = part.ground.contiguous().numpy().tobytes()
        if key not in known:
            known[key] = len(found)
            found.append(part.ground)
        numbers.append(known[key])
    return found, torch.tensor(numbers)


def _norms(rows: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
    """The Frobenius norm of each patch's rows, [N] float64."""
    owner = torch.repeat_interleave(torch.arange(len(starts) - 1), starts.diff())  # [Σk]
    sums = torch.zeros(len(starts) - 1, dtype=torch.float64)
    return sums.index_add_(0, owner, rows.square().sum(1)).sqrt()
