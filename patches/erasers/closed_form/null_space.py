"""Closed-form null-space erasure of cross-attention projections, one separable patch a concept.

For every concept i with target embeddings C1, anchors C* and D = C* − C1, and the projector P onto what is protected
neither by the basis nor by the other concepts' targets:

    M = D (λI + C1ᵀ P C1)⁻¹ C1ᵀ P            the smallest map with M C1 ≈ D that ignores everything protected
    ΔW_l = W_l M                             for every projection l that reads text

(SPEED, arXiv 2503.07392, eq. 3 in its n × n form.) M is cut to the few directions that matter for the projections'
outputs: with G = Σ_l W_lᵀ W_l and G^½ M C1 = U S Vᵀ, keep r of them, so that

    A = U_rᵀ G^½ M   [r, d]        one detector for all layers, its rows inside the range of P
    B_l = W_l G^-½ U_r   [o_l, r]

Concepts of one request protect each other: V_j, an orthonormal basis of what is free of concept j's targets, is taken
out of every other P_i. With one column a concept this is the joint solution a_i · c_j = δ_ij; with many it is its block
form. Any subset of the patches can be applied, and each does the same whether the others are there or not.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import torch

from rasura.patches.algebra.protected_subspace import NOISE, ProtectedBasis, count_for, find_leading
from rasura.patches.erasers.closed_form.least_squares import gram, quantise_all
from rasura.patches.erasers.columns import Columns
from rasura.patches.erasers.free_share import FREE_FLOOR, say_free, share_of
from rasura.patches.erasers.interface import Defaults, Erasure, Problem
from rasura.patches.erasers.options import check_options, option
from rasura.patches.errors import ErasureRefusedError
from rasura.patches.hosts.interface import ParameterInfo
from rasura.patches.models.base_identity import find_cross_attention
from rasura.patches.types import ParamName

_INDEPENDENT: Final = 1e-4
"""Share of the largest singular value of all guards above which the smallest leaves their inverse its digits."""


@dataclass(frozen=True, slots=True)
class NullSpace:
    """The method with its choices."""

    name: ClassVar[str] = "null-space"
    defaults: ClassVar[Defaults] = Defaults(tokens="tail", layers="v", rule="relative:1e-3", names=True)

    ridge: float = option(
        1e-2, "softness λ as a share of the mean squared free target norm; 0 fits exactly", low=0, high=1 - 1e-9
    )
    energy: float = option(0.9, "share of the targets' effect that the rank must carry", low=1e-9, high=1)
    rank_limit: int = option(32, "most detectors of one patch", low=1, high=1024)
    guard: float = option(0.9999, "share of each other concept's free energy that stays untouched", low=1e-9, high=1)

    def __post_init__(self) -> None:
        check_options(self)

    def parameters(self, infos: Mapping[ParamName, ParameterInfo], layers: str, width: int) -> list[ParamName]:
        """What reads text: `layers` is k, v or kv (cross-attention), or text (all of it, in any family)."""
        return find_cross_attention(infos, layers, width)

    def solve(self, problem: Problem) -> tuple[Erasure, ...]:
        """All concepts together; see `erase`."""
        problem.progress("solving", 0, 1)
        found = erase(problem.weights, problem.columns, problem.basis(), self)
        problem.progress("solving", 1, 1)
        return found


def erase(
    weights: Mapping[ParamName, torch.Tensor],
    concepts: Sequence[Columns],
    basis: ProtectedBasis,
    options: NullSpace,
) -> tuple[Erasure, ...]:
    """Solve all concepts together; one separable result each, in the same order.

    Args:
        weights: pristine projections W_l [o_l, d], any float dtype.
        concepts: their token embeddings.
        basis: what must not be touched.
        options: choices of the method.

    Raises:
        ErasureRefusedError: a target lies inside the protected span, or inside the other targets' span.
        BoundExceededError: a response too large for the grid.
    """
    full = {name: weight.to(torch.float64) for name, weight in weights.items()}  # [o_l, d]
    roots = compute_roots(compute_gram_of(full))
    widths = [columns.targets.shape[1] for columns in concepts]
    joined = basis.project(torch.cat([columns.targets for columns in concepts], dim=1))
    free: Sequence[torch.Tensor] = torch.split(joined, widths, 1)  # [d, n] each
    for columns, part in zip(concepts, free, strict=True):
        check_free(columns, part, "the protected set", basis)
    guards = [find_leading(part, options.guard) for part in free]  # [g, d] each: what the others must leave alone
    projectors = make_projectors(basis, guards)
    free = project_all(projectors, [columns.targets for columns in concepts])
    where = "the span of the other concepts of this request"
    shares = [check_free(columns, part, where, basis) for columns, part in zip(concepts, free, strict=True)]
    solved = [_factors(columns, part, roots, options) for columns, part in zip(concepts, free, strict=True)]
    detectors = project_all(projectors, [A.T for A, _ in solved])  # once more: the solve costs a few digits
    factors = [dict.fromkeys(full, (A.T, Q)) for A, (_, Q) in zip(detectors, solved, strict=True)]
    made = quantise_all(full, factors)
    return tuple(
        Erasure(own, share, project.taken) for own, share, project in zip(made, shares, projectors, strict=True)
    )


def compute_gram_of(weights: Mapping[ParamName, torch.Tensor]) -> torch.Tensor:
    """G = Σ_l W_lᵀ W_l, [d, d] float64: ‖W X‖² summed over layers is tr(Xᵀ G X)."""
    return gram(weights)


@dataclass(frozen=True, slots=True, eq=False)
class Projector:
    """P = I − UᵀU − VᵀV + WᵀW, with V orthonormal and orthogonal to U, and W inside the span of V.

    Attributes:
        basis: U [k, d].
        guard: V [g, d], what of the concepts lies outside it.
        own: W [w, d] orthonormal, what of that no other concept takes; None: V is of the others alone.
    """

    basis: ProtectedBasis
    guard: torch.Tensor
    own: torch.Tensor | None = None

    @property
    def taken(self) -> int:
        """Dimensions that the other concepts take."""
        return int(self.guard.shape[0]) - (0 if self.own is None else int(self.own.shape[0]))

    def __call__(self, columns: torch.Tensor) -> torch.Tensor:
        """P X of columns [d, n]."""
        (found,) = project_all([self], [columns])
        return found


def project_all(projectors: Sequence[Projector], columns: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """P_i X_i of columns [d, n_i] of every concept; what several take out alike is taken from all at once."""
    first = projectors[0]
    if any(other.guard is not first.guard for other in projectors):
        return [project(part) for project, part in zip(projectors, columns, strict=True)]
    widths = [part.shape[1] for part in columns]
    once = first.basis.project(torch.cat(list(columns), dim=1))
    left = once - first.guard.T @ (first.guard @ once)  # V is orthogonal to U, so the order does not matter
    left = left - first.guard.T @ (first.guard @ left)  # again: once leaves a rounding error in the span
    return [
        outside if project.own is None else outside + project.own.T @ (project.own @ part)
        for project, outside, part in zip(
            projectors, torch.split(left, widths, 1), torch.split(once, widths, 1), strict=True
        )
    ]


def make_projector(basis: ProtectedBasis, guards: Sequence[torch.Tensor], own: int) -> Projector:
    """P of one concept: what neither the basis holds nor any of the other concepts.

    Args:
        basis: what is protected.
        guards: orthonormal rows [g, d] of every concept of the request.
        own: which of them is the concept's.
    """
    others = [guard for i, guard in enumerate(guards) if i != own]
    # [Σ g, d]; of a single concept [0, d]
    stacked = torch.cat([*others, torch.zeros(0, basis.width, dtype=torch.float64)])
    if stacked.shape[0]:
        _, values, rows = torch.linalg.svd(stacked, full_matrices=False)
        stacked = rows[values > 1e-9 * values[0]]  # concepts overlap: V must have full rank
    return Projector(basis, stacked)


def make_projectors(basis: ProtectedBasis, guards: Sequence[torch.Tensor]) -> list[Projector]:
    """P of every concept, as `make_projector` makes it, from one factorisation of all guards.

    With V = L Σ R the guards one below the other, rows of (VVᵀ)⁻¹V = L Σ⁻¹ R that belong to a concept are orthogonal to
    everybody else's guards and span what of V's span only it has. Where guards nearly depend on each other that inverse
    says little, and each concept's others are factorised by themselves.
    """
    stacked = torch.cat(list(guards))  # [Σ g, d]
    if len(guards) > 1 and stacked.shape[0] <= basis.width:
        left, values, rows = torch.linalg.svd(stacked, full_matrices=False)
        if float(values[-1]) > _INDEPENDENT * float(values[0]):
            dual = torch.split((left / values) @ rows, [len(guard) for guard in guards])
            return [Projector(basis, rows, torch.linalg.qr(own.T)[0].T) for own in dual]
    return [make_projector(basis, guards, i) for i in range(len(guards))]


def check_free(columns: Columns, free: torch.Tensor, where: str, basis: ProtectedBasis) -> float:
    """The share of a concept's energy that is free.

    Args:
        columns: the concept's.
        free: of its targets, [d, n].
        where: outside what, for a message.
        basis: whose rank rule may be made coarser.

    Raises:
        ErasureRefusedError: next to nothing is.
    """
    share = share_of(free, columns.targets)
    if share < FREE_FLOOR:
        raise ErasureRefusedError(
            f"concept {columns.name!r} lies inside {where}: {say_free(share)}",
            hint=f"rasura erase --base MODEL --concept {shlex.quote(columns.name)} --retain FILE "
            f"--rank-rule {basis.rule.coarser}",
            concept=columns.name,
            free=f"{share:.3e}",
        )
    return share**2  # the erasure tells of energy, the floor is a norm


def _factors(
    columns: Columns, free: torch.Tensor, roots: tuple[torch.Tensor, torch.Tensor], options: NullSpace
) -> tuple[torch.Tensor, torch.Tensor]:
    """A [r, d] and Q [d, r] with M ≈ Q A and B_l = W_l Q."""
    D = columns.anchors - columns.targets  # [d, n]
    inner = columns.targets.T @ free  # C1ᵀ P C1, [n, n]
    scale = torch.diagonal(inner).mean()  # mean ‖P c‖²: λ is a share of it, whatever the model
    left, values, _ = torch.linalg.svd(inner)  # inner is symmetric and positive, so left is right
    # [n]: 1/(σ + λ), and 0 where σ is noise
    damp = torch.where(values > 1e-10 * values[0], 1 / (values + options.ridge * scale), torch.zeros_like(values))
    root, inverse = roots  # in this metric lengths are those of the outputs
    moved, seen = root @ ((D @ left) * damp), left.T @ free.T  # G^½ M = moved @ seen, [d, n] and [n, d]
    U, strength, _ = torch.linalg.svd(moved @ (seen @ columns.targets), full_matrices=False)
    rank = min(count_for(strength, options.energy), options.rank_limit)
    return (U[:, :rank].T @ moved) @ seen, inverse @ U[:, :rank]  # [r, d], [d, r]


def compute_roots(gram: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """G^½ and its pseudo-inverse, [d, d] float64: in the metric of the first, lengths are those of the outputs."""
    values, vectors = torch.linalg.eigh(gram)
    present = values > NOISE * values[-1]  # of noise, the inverse root would make a share of 1e-8
    values = torch.where(present, values, torch.zeros_like(values)).sqrt()
    inverse = torch.where(present, 1 / values, torch.zeros_like(values))
    return (vectors * values) @ vectors.T, (vectors * inverse) @ vectors.T
