"""What an increment does, in numbers that need no image: on its targets, on what it protects, on what nobody named.

All are ratios of output energies summed over the touched projections, computed with small Gram matrices: with
H = Σ_l B_lᵀ B_l, ‖Δ X‖² = tr((A X)ᵀ H (A X)); with G = Σ_l W_lᵀ W_l, ‖W X‖² = tr(Xᵀ G X).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rasura.patches.erasers.nullspace import Columns
from rasura.patches.increment import Increment
from rasura.patches.names import ParamName
from rasura.patches.subspace import Moment, ProtectedBasis

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """Prompts that are not targets.

    Attributes:
        invariants: the null prompt's tokens [77, d] float64, start of text first.
        retained: moment of the retained prompts' tokens.
        held_out: moment of the held-out prompts' tokens.
    """

    invariants: torch.Tensor
    retained: Moment
    held_out: Moment


@dataclass(frozen=True, slots=True)
class Measured:
    """Ratios of one increment, as quantised.

    Attributes:
        residual: ‖(W+Δ)C1 − WC*‖ / ‖W(C1−C*)‖; 0 is a perfect erasure, 1 none.
        effect: ‖ΔC1‖ / ‖WC1‖.
        null: ‖ΔN‖ / ‖WN‖ over the null prompt's tokens.
        retained: the same over the retained prompts' tokens.
        held_out: the same over the held-out prompts' tokens.
        base_targets: ‖WC1‖, root of the sum over all columns.
        base_protected: root of Σ energy·‖Wu‖² over the protected rows u.
        rank: detectors of the patch.
        protected: dimensions protected.
        width: d.
    """

    residual: float
    effect: float
    null: float
    retained: float
    held_out: float
    base_targets: float
    base_protected: float
    rank: int
    protected: int
    width: int

    def decimals(self, *, free: float, guarded: int) -> dict[str, str]:
        """The manifest's `measured` object: four digits each."""
        numbers = {
            "residual": self.residual,
            "effect": self.effect,
            "leak_null": self.null,
            "leak_retained": self.retained,
            "leak_held_out": self.held_out,
            "base_targets": self.base_targets,
            "base_protected": self.base_protected,
            "free": free,
        }
        counts = {"rank": self.rank, "protected": self.protected, "guarded": guarded, "width": self.width}
        return {name: f"{number:.3e}" for name, number in numbers.items()} | {n: str(c) for n, c in counts.items()}


def measure(
    weights: Mapping[ParamName, torch.Tensor],
    increments: Mapping[ParamName, Increment],
    columns: Columns,
    basis: ProtectedBasis,
    reference: Reference,
    *,
    gram: torch.Tensor,
) -> Measured:
    """Measure one concept's increments against the pristine projections.

    Args:
        weights: W_l [o_l, d].
        increments: ΔW_l, all with one shared detector.
        columns: the concept's token embeddings.
        basis: what was protected.
        reference: prompts that are not targets.
        gram: `gram_of(weights)`, which all concepts of a request share.
    """
    import torch

    A, H = shared_detector(increments)
    null = reference.invariants.T @ reference.invariants
    rows = basis.rows * basis.energy.sqrt()[:, None]
    return Measured(
        residual=_residual(weights, increments, columns),
        effect=_ratio(A, H, gram, columns.targets @ columns.targets.T),
        null=_ratio(A, H, gram, null),
        retained=_ratio(A, H, gram, reference.retained.mean),
        held_out=_ratio(A, H, gram, reference.held_out.mean),
        base_targets=float(torch.einsum("dn,de,en->", columns.targets, gram, columns.targets).sqrt()),
        base_protected=float(torch.einsum("kd,de,ke->", rows, gram, rows).clamp(min=0).sqrt()),
        rank=int(A.shape[0]),
        protected=basis.rank,
        width=basis.width,
    )


def shared_detector(increments: Mapping[ParamName, Increment]) -> tuple[torch.Tensor, torch.Tensor]:
    """A [r, d] and H = Σ_l B_lᵀ B_l [r, r], float64, of increments that share one detector."""
    import torch

    first = next(iter(increments.values()))
    responses = [increment.B.to(torch.float64) for increment in increments.values()]
    return first.A.to(torch.float64), torch.stack([B.T @ B for B in responses]).sum(0)


def _ratio(A: torch.Tensor, H: torch.Tensor, gram: torch.Tensor, moment: torch.Tensor) -> float:
    """Root of tr(A M Aᵀ H) / tr(G M) for a moment M; 0 where there are no prompts."""
    import torch

    changed = float(torch.trace(A @ moment @ A.T @ H).clamp(min=0))
    present = float((gram * moment).sum())
    return (changed / present) ** 0.5 if present > 0 else 0.0


def _residual(
    weights: Mapping[ParamName, torch.Tensor], increments: Mapping[ParamName, Increment], columns: Columns
) -> float:
    import torch

    left = asked = 0.0
    for name, increment in increments.items():
        W = weights[name].to(torch.float64)
        wanted = W @ (columns.anchors - columns.targets)
        done = increment.B.to(torch.float64) @ (increment.A.to(torch.float64) @ columns.targets)
        left += float((done - wanted).square().sum())
        asked += float(wanted.square().sum())
    return (left / asked) ** 0.5 if asked > 0 else 0.0
