"""The algebra that closed-form erasers share: ΔW_l = (W_l D) A, never larger than n × n or one d × d moment.

With P the projector onto what is free, C1 the targets and D = C* − C1, every one of them differs in the detector A
alone. The ridge solution inside the range of P,

    A = (λI + C1ᵀ P C1)⁻¹ C1ᵀ P    [n, d]

is that of SPEED (arXiv 2503.07392, eq. 3) written with n × n matrices. Concepts that are solved together own the rows
of A that their columns made; what is left of concept j under all others is  −λ(λI + C1ᵀPC1)⁻¹.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

import torch

from rasura.patches.algebra.increment import Increment
from rasura.patches.algebra.protected_subspace import EXACT, ProtectedBasis, count_for
from rasura.patches.erasers.columns import Columns, compress_columns
from rasura.patches.erasers.free_share import FREE_FLOOR, say_free, share_of
from rasura.patches.erasers.interface import Problem
from rasura.patches.errors import ErasureRefusedError, UnsupportedHostError
from rasura.patches.models.text_encoders.plain_text import normal
from rasura.patches.prompts.concept_prompts import Target, find_token_positions, prompts_of
from rasura.patches.types import ParamName

Project = Callable[[torch.Tensor], torch.Tensor]

NOTHING: Final = ("start", "end")
"""From where an empty anchor is read: its start of text, as published code does, or its first end of text."""
STARTS: Final = ("last", "end")
"""Choices of tokens that begin with the last one of the subject: with these an empty anchor has a last token, too."""
PRESENT: Final = 1e-10
"""Share of the largest eigenvalue below which one is noise, where no ridge hides it."""
EXACTLY: Final = 1e-9
"""Share of the largest singular value of a map below which one is rounding."""
_BLOCK: Final = 192
"""Columns of a Gram matrix that are multiplied at a time."""
STRONG: Final = 1e-6
"""Share of the strongest effect below which a direction is not worth a detector."""


def apply_anchor(problem: Problem) -> tuple[Columns, ...]:
    """The problem's columns, with an empty anchor read from its start of text on.

    Published code takes the token before the end of the prompt for its last one, which of an empty prompt is the start
    of text. With tokens `last` that is what the concept becomes; with `end` the last subject token becomes it, and each
    position after that the one after the start, so everything stands one place before where the ends of text meet.

    Raises:
        UnsupportedHostError: an empty anchor, and encoders one after the other, each of which has a start of its own.
    """
    empty = [not normal(target.anchor) for target in problem.request.targets]
    if problem.request.tokens not in STARTS or not any(empty):
        return problem.columns
    if len(problem.encoder.places("", "")) > 1:
        raise UnsupportedHostError(
            "expected a model whose prompts have one start of text, got one that reads several encoders in a row",
            hint="--set nothing=end",
        )
    return tuple(
        _begin_at_start(problem, target, columns) if without else columns
        for target, columns, without in zip(problem.request.targets, problem.columns, empty, strict=True)
    )


def _begin_at_start(problem: Problem, target: Target, columns: Columns) -> Columns:
    null = problem.reference.invariants  # [length, d]: the empty prompt
    if problem.request.tokens == "last":
        return replace(columns, anchors=null[0][:, None].expand_as(columns.anchors).clone())  # [d, n]
    templates = problem.request.templates_of(target)
    prompts = [(prompt, name) for name in target.spoken for prompt in prompts_of(name, templates)]
    hidden = problem.encoder.encode_all([prompt for prompt, _ in prompts])  # [prompts, length, d]
    targets, anchors = [], []
    for i, (prompt, name) in enumerate(prompts):
        positions = find_token_positions(problem.encoder, prompt, name, "end")
        targets.append(hidden[i, positions])  # [n, d]
        anchors.append(null[: len(positions)])
    found = Columns(target.concept, torch.cat(targets).T.contiguous(), torch.cat(anchors).T.contiguous())
    return compress_columns(found, EXACT) if found.pairs > 2 * null.shape[1] else found


def join_columns(concepts: Sequence[Columns]) -> tuple[torch.Tensor, torch.Tensor]:
    """C1 and D = C* − C1 of all concepts side by side, [d, N] each."""
    targets = torch.cat([columns.targets for columns in concepts], dim=1)  # [d, N]
    return targets, torch.cat([columns.anchors for columns in concepts], dim=1) - targets


def parts(concepts: Sequence[Columns]) -> Iterator[slice]:
    """Which of the joined columns are whose."""
    start = 0
    for columns in concepts:
        width = int(columns.targets.shape[1])
        yield slice(start, start + width)
        start += width


def detector(targets: torch.Tensor, project: Project, ridge: float) -> torch.Tensor:
    """A = (λI + C1ᵀPC1)⁻¹ C1ᵀP, [n, d]; for λ = 0 its limit.

    Args:
        targets: C1 [d, n].
        project: P, on columns.
        ridge: λ.
    """
    free = project(targets)  # [d, n]
    few = targets.shape[1] <= targets.shape[0]  # the smaller of the two Gram matrices, n × n or d × d
    values, vectors = torch.linalg.eigh(_symmetric(free.T @ free if few else free @ free.T))
    values = values.clamp(min=0)  # rounding leaves some below zero
    damp = 1 / (values + ridge)
    if ridge == 0:
        damp = torch.where(values > PRESENT * values[-1], damp, torch.zeros_like(values))  # the pseudo-inverse
    found = (vectors * damp) @ (vectors.T @ free.T) if few else ((free.T @ vectors) * damp) @ vectors.T
    return project(found.T).T  # once more: the solve costs a few digits


def solve_soft_detector(
    targets: torch.Tensor, kept: torch.Tensor, *, erase: float, preserve: float, ridge: float
) -> torch.Tensor:
    """UCE's A = α C1ᵀ (α C1C1ᵀ + β C0C0ᵀ + λI)⁻¹, [n, d]: retained vectors are data, not a constraint.

    Args:
        targets: C1 [d, n].
        kept: Σ c0 c0ᵀ [d, d].
        erase: α.
        preserve: β.
        ridge: λ, above 0.
    """
    whole = erase * (targets @ targets.T) + preserve * kept  # [d, d]
    whole.diagonal().add_(ridge)  # positive definite from here on, as Cholesky needs it
    found: torch.Tensor = erase * torch.cholesky_solve(targets, torch.linalg.cholesky(_symmetric(whole))).T
    return found


def reduce_rank(A: torch.Tensor, Q: torch.Tensor, tolerance: float) -> tuple[torch.Tensor, torch.Tensor]:
    """A' [r, d] with orthonormal rows and Q' [d, r], with Q'A' = QA but for singular values below the tolerance.

    Args:
        A: [n, d].
        Q: [d, n].
        tolerance: share of the largest singular value.
    """
    if A.shape[0] == 1:
        return A, Q
    rows, triangle = torch.linalg.qr(A.T)  # A = triangleᵀ rowsᵀ
    # QA = (Q triangleᵀ) rowsᵀ: [d, n] in place of [d, d]
    left, values, right = torch.linalg.svd(Q @ triangle.T, full_matrices=False)
    rank = max(1, int((values > tolerance * values[0]).sum()))
    return right[:rank] @ rows.T, left[:, :rank] * values[:rank]  # [r, d], [d, r]


def protect_nothing(columns: torch.Tensor) -> torch.Tensor:
    """P where nothing is protected."""
    return columns


def gram(weights: Mapping[ParamName, torch.Tensor]) -> torch.Tensor:
    """Σ_l W_lᵀW_l, [d, d] float64."""
    width = next(iter(weights.values())).shape[1]
    total = torch.zeros(width, width, dtype=torch.float64)
    for weight in weights.values():
        full = weight.to(torch.float64)
        for start in range(0, width, _BLOCK):  # the upper triangle's blocks: the lower one says the same
            total[start : start + _BLOCK, start:] += full[:, start : start + _BLOCK].T @ full[:, start:]
    upper = torch.triu(total)
    return upper + torch.triu(total, 1).T


def cut(
    A: torch.Tensor,
    Q: torch.Tensor,
    on: torch.Tensor,
    outputs: Callable[[], torch.Tensor],
    *,
    energy: float,
    limit: int,
    tolerance: float = EXACTLY,
) -> tuple[torch.Tensor, torch.Tensor]:
    """A' [r, d] and Q' [d, r] with Q'A' ≈ QA: the leading directions of what W Q A does to some columns.

    With W Q A X = U S Vᵀ, found from its n × n Gram matrix, A' = U_rᵀ W Q A and W Q' = U_r. Rows of A' are mixtures of
    rows of A, so they see nothing that A does not see. Whatever fits the limit at full energy is only `reduced`, so
    that detectors which nearly cancel each other do not use up the grid.

    Args:
        A: detectors [n, d].
        Q: [d, n]; the response of a layer is W_l Q.
        on: the columns X [d, m] that the effect is judged by.
        outputs: gives Σ_l W_lᵀW_l [d, d] of the layers that share A; not asked where all of the map is carried.
        energy: share of the effect's energy to carry.
        limit: most detectors.
        tolerance: as of `reduced`.
    """
    A, Q = reduce_rank(A, Q, tolerance)
    if energy >= 1 and A.shape[0] <= limit:
        return A, Q
    seen, inner = A @ on, Q.T @ outputs() @ Q  # [n, m], [n, n]
    values, vectors = torch.linalg.eigh(_symmetric(seen.T @ inner @ seen))
    strength = values.flip(0).clamp(min=0).sqrt()  # singular values of W Q A X, descending
    if float(strength[0]) == 0:
        return A[:1] * 0, Q[:, :1] * 0  # no effect at all: a factor pair needs a rank of 1 at least
    rank = min(count_for(strength, energy), limit, int((strength > STRONG * strength[0]).sum()))
    left = (seen @ vectors.flip(1)[:, :rank]) / strength[:rank]  # U_r = W Q · left
    return left.T @ inner @ A, Q @ left  # [r, d], [d, r]


def increments(
    weights: Mapping[ParamName, torch.Tensor], factors: Mapping[ParamName, tuple[torch.Tensor, torch.Tensor]]
) -> dict[ParamName, Increment]:
    """ΔW_l = (W_l Q_l) A_l on the grid, all of one rank.

    Args:
        weights: W_l, float64.
        factors: A_l [r_l, d] and Q_l [d, r_l].

    Raises:
        BoundExceededError: a response too large for the grid.
    """
    (found,) = quantise_all(weights, [factors])
    return found


def quantise_all(
    weights: Mapping[ParamName, torch.Tensor],
    concepts: Sequence[Mapping[ParamName, tuple[torch.Tensor, torch.Tensor]]],
) -> list[dict[ParamName, Increment]]:
    """`increments` of several concepts: a layer is multiplied and rounded once for all.

    Args:
        weights: W_l, float64.
        concepts: A_l [r_l, d] and Q_l [d, r_l] of each; all of the same layers.

    Raises:
        BoundExceededError: a response too large for the grid.
    """
    # a LoRA file is read with one rank for all layers
    ranks = [max(A.shape[0] for A, _ in factors.values()) for factors in concepts]
    found: list[dict[ParamName, Increment]] = [{} for _ in concepts]
    for name in concepts[0]:
        each = [(*factors[name], rank) for factors, rank in zip(concepts, ranks, strict=True)]
        A = torch.cat([_padded(A, rank) for A, _, rank in each])  # [Σ r, d]
        Q = torch.cat([_padded(Q.T, rank) for _, Q, rank in each]).T  # [d, Σ r]
        for own, part in zip(found, Increment.quantised(A, weights[name] @ Q).split(ranks), strict=True):
            own[name] = part
    return found


def compute_free_shares(concepts: Sequence[Columns], basis: ProtectedBasis) -> list[float]:
    """The share of each concept's energy that lies outside the basis.

    Raises:
        ErasureRefusedError: of one, next to nothing does.
    """
    targets = torch.cat([columns.targets for columns in concepts], dim=1)  # [d, N]
    free = basis.project(targets)
    return [
        _check_share(columns, basis, share_of(free[:, own], columns.targets))
        for columns, own in zip(concepts, parts(concepts), strict=True)
    ]


def _check_share(columns: Columns, basis: ProtectedBasis, share: float) -> float:
    if share >= FREE_FLOOR:
        return share**2
    raise ErasureRefusedError(
        f"concept {columns.name!r} lies inside the protected set: {say_free(share)}",
        hint=f"rasura erase --base MODEL --concept {shlex.quote(columns.name)} --retain FILE "
        f"--rank-rule {basis.rule.coarser}",
        concept=columns.name,
        free=f"{share:.3e}",
    )


def _padded(rows: torch.Tensor, count: int) -> torch.Tensor:
    return torch.cat([rows, rows.new_zeros(count - rows.shape[0], rows.shape[1])])


def _symmetric(matrix: torch.Tensor) -> torch.Tensor:
    return (matrix + matrix.T) / 2
