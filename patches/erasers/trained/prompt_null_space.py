"""How much of the text embedding is left to erase with when whole prompts must stay, and which part of it.

A patch whose detector rows A are orthogonal to every token embedding of a prompt leaves the UNet's output for that
prompt as it is, at every step and for every latent (SepME, arXiv 2402.05947, eqs 15 to 24). Each prompt of 77 tokens
takes 76 dimensions: all share the row of start-of-text, because CLIP's attention is causal.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

import torch

from rasura.patches.algebra.increment import Increment
from rasura.patches.algebra.protected_subspace import EXACT, ProtectedBasis, build_guarded_basis, build_protected_basis
from rasura.patches.erasers.columns import Columns
from rasura.patches.erasers.free_share import FREE_FLOOR, say_free, share_of
from rasura.patches.erasers.interface import Problem
from rasura.patches.errors import ErasureRefusedError
from rasura.patches.models.text_encoders.text_encoder import TextEncoder
from rasura.patches.prompts.concept_prompts import prompts_of
from rasura.patches.prompts.retain_set import naming
from rasura.patches.types import ParamName

PADS: Final = 4
"""Padding positions behind end-of-text that count as informative."""
_GUARD: Final = 0.9999  # as in `rasura.patches.solving.solve`


def capacity(width: int, length: int, prompts: int) -> int:
    """Dimensions left beside so many whole prompts that share their first token only, at least 0.

    `capacity(768, 77, K)` is 767 − 76·K: 691, 615, 539, …, 7 at K = 10, and nothing at K = 11.
    """
    return max(0, width - 1 - (length - 1) * prompts)


@dataclass(frozen=True, slots=True)
class Protection:
    """What a patch protects besides the problem's own basis.

    Attributes:
        tolerance: directions of other concepts' prompts with less than this share of the largest one's energy are let
            go; 0 lets none go.
        rows: "all" tokens of those prompts, or the "informative" ones: words, end of text and a few pads.
        watermark: prompts held as exactly as the null prompt.
    """

    tolerance: float
    rows: str = "all"
    watermark: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Room:
    """What one concept's patch may not touch, and what is left.

    Attributes:
        basis: null prompt, watermarks, retained prompts, registered patches and the other concepts' prompts; the
            last two are guards, which are other patches' targets.
        prompts: [m, d] float64, m ≤ d: rows whose Gram matrix is that of all tokens of the others' prompts.
        count: how many such prompts there are.
    """

    basis: ProtectedBasis
    prompts: torch.Tensor
    count: int

    @property
    def left(self) -> int:
        """Dimensions that are free."""
        return self.basis.width - self.basis.rank

    def facts(
        self, increments: Mapping[ParamName, Increment], weights: Mapping[ParamName, torch.Tensor]
    ) -> dict[str, str]:
        """Numbers for the manifest: room, and leak on every token of the others' prompts."""
        found = {"dimensions_used": str(self.basis.rank), "dimensions_left": str(self.left)}
        if self.count:
            found |= {
                "guarded_prompts": str(self.count),
                "leak_prompts": f"{_leak(increments, weights, self.prompts):.3e}",
            }
        return found


def room_of(problem: Problem, index: int, protection: Protection) -> Room:
    """What the patch of one concept of the request must not touch.

    Raises:
        ErasureRefusedError: nothing is left.
    """
    # what every concept must leave alone
    basis, name = _shared(problem, protection.watermark), problem.request.targets[index].concept
    others = list(others_of(problem, index))
    every = _gathered(problem.encoder, others, "all")  # [≤ d, d]; leak is measured on all, whatever is held
    rows = every if protection.rows == "all" else _gathered(problem.encoder, others, protection.rows)
    found = extend_basis(basis, rows, protection.tolerance)
    if found.rank >= found.width:
        exact = (found.width - 2) // (problem.encoder.length - 1)
        raise ErasureRefusedError(
            f"concept {name!r}: what is protected takes all {found.width} dimensions ({basis.rank} before the "
            f"{len(others)} prompts of other concepts): nothing is left to erase with; this text encoder has room "
            f"for {exact} whole prompts, the null prompt among them; protect_rows=informative takes less",
            hint=f"--set tolerance={min(1.0, max(protection.tolerance, 1e-7) * 10):g}",
            concept=name,
        )
    return Room(found, every, len(others))


def others_of(problem: Problem, index: int) -> Iterator[tuple[str, str]]:
    """Prompts of the request's other concepts and of guarded patches, each with the phrase in it, as far as known.

    Prompts that name the concept itself are left out.
    """
    request = problem.request
    own = request.targets[index]
    named = naming([own.concept])
    pairs = [
        (p, t.concept) for t in request.targets if t is not own for p in prompts_of(t.concept, request.templates_of(t))
    ]
    pairs += [(prompt, "") for prompts in request.guarded_prompts.values() for prompt in prompts]
    yield from (pair for pair in dict.fromkeys(pairs) if not named(pair[0]))


def extend_basis(basis: ProtectedBasis, rows: torch.Tensor, tolerance: float) -> ProtectedBasis:
    """The basis, and as guards what of these rows lies outside it.

    Args:
        basis: orthonormal rows [k, d].
        rows: [m, d] float64.
        tolerance: directions with less than this share of the largest one's energy are let go; at 0, only those that
            float64 cannot tell from nothing.
    """
    free = basis.project(rows.T)  # [d, m]
    if rows.shape[0] == 0 or torch.linalg.vector_norm(free) <= EXACT * torch.linalg.vector_norm(rows):
        return basis
    left, values, _ = torch.linalg.svd(free, full_matrices=False)
    # what rounding alone can make of the rows
    floor = max(rows.shape) * torch.finfo(torch.float64).eps * torch.linalg.matrix_norm(rows, 2)
    kept = (values > floor) & (values.square() >= tolerance * values[0].square())
    guards = _orthonormal(basis.project(left[:, kept]))  # once more out of the basis
    energy = torch.cat([basis.energy, torch.zeros(guards.shape[0], dtype=torch.float64)])  # guards weigh nothing
    return replace(
        basis, rows=torch.cat([basis.rows, guards]), energy=energy, guards=basis.guards + int(guards.shape[0])
    )


def compute_complement(basis: ProtectedBasis) -> torch.Tensor:
    """S [d − k, d] float64: orthonormal rows that span all that the basis leaves free."""
    whole = torch.linalg.qr(basis.rows.T, mode="complete")[0]  # [d, d]
    return _orthonormal(basis.project(whole[:, basis.rank :]))  # behind the first k columns lies the complement


def detectors(columns: Columns, basis: ProtectedBasis, rank: int) -> tuple[torch.Tensor, float]:
    """A: orthonormal rows [r, d] float64, the strongest directions of the free part of a concept's tokens.

    ΔW acts on the concept through these directions only, so ΔW·AᵀA does what any ΔW within the free space does, as far
    as `rank` reaches. Also the share of the tokens' energy that is free.

    Raises:
        ErasureRefusedError: almost nothing of the concept is free.
    """
    free = basis.project(columns.targets)
    share = share_of(free, columns.targets)
    if share < FREE_FLOOR:
        raise ErasureRefusedError(
            f"concept {columns.name!r} lies inside what is protected: {say_free(share)}",
            hint=f"rasura erase --base MODEL --concept {shlex.quote(columns.name)} --rank-rule {basis.rule.coarser}",
            concept=columns.name,
            free=f"{share:.3e}",
        )
    left, values, _ = torch.linalg.svd(free, full_matrices=False)
    kept = min(rank, int((values > EXACT * values[0]).sum()))  # directions that are more than noise
    return _orthonormal(basis.project(left[:, :kept])), share**2


def stack_parts(parts: Iterable[torch.Tensor], width: int) -> torch.Tensor:
    """Rows [m, d], m ≤ d, with the Gram matrix of all rows of the parts; memory is d × d however many there are."""
    found = torch.zeros(0, width, dtype=torch.float64)
    for part in parts:
        found = torch.cat([found, part])
        if found.shape[0] > width:
            found = torch.linalg.qr(found)[1]  # R has the Gram matrix of the rows: RᵀR = XᵀX
    return found


def _shared(problem: Problem, watermark: tuple[str, ...]) -> ProtectedBasis:
    if not watermark:
        return problem.basis()
    reference, request = problem.reference, problem.request
    exact = stack_parts([reference.invariants, *problem.encoder.encode_all(watermark)], problem.encoder.width)
    basis = build_protected_basis(exact, reference.retained, request.rule)
    return build_guarded_basis(basis, request.guarded.values(), _GUARD)


def _gathered(encoder: TextEncoder, pairs: list[tuple[str, str]], rows: str) -> torch.Tensor:
    def parts() -> Iterator[torch.Tensor]:
        for part, hidden in encoder.encode_with(pairs):
            for i, (prompt, phrase) in enumerate(part):
                yield hidden[i] if rows == "all" else hidden[i, list(_informative(encoder, prompt, phrase))]

    return stack_parts(parts(), encoder.width)


def _informative(encoder: TextEncoder, prompt: str, phrase: str) -> range:
    """From the concept's first token (where it is not known, the first word) to a few pads behind end-of-text."""
    start = encoder.subject(prompt, phrase)[0] if phrase else 1
    return range(start, min(len(encoder.ids(prompt)) + PADS, encoder.length))


def _leak(
    increments: Mapping[ParamName, Increment], weights: Mapping[ParamName, torch.Tensor], rows: torch.Tensor
) -> float:
    """Root of Σ_l ‖Δ_l X‖² / Σ_l ‖W_l X‖² over rows X [m, d]."""
    changed = present = 0.0
    for name, increment in increments.items():
        seen = increment.A.to(torch.float64) @ rows.T  # [r, m]; ΔW is never built
        changed += float((increment.B.to(torch.float64) @ seen).square().sum())
        present += float((weights[name].to(torch.float64) @ rows.T).square().sum())
    return (changed / present) ** 0.5 if present > 0 else 0.0


def _orthonormal(columns: torch.Tensor) -> torch.Tensor:
    """Columns [d, k] as orthonormal rows [k, d]."""
    q: torch.Tensor = torch.linalg.qr(columns)[0]
    return q.T.contiguous()
