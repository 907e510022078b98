"""What an increment does, in numbers that need no image: on its targets, on what it protects, on what nobody named.

All are ratios of output energies summed over the touched parameters, computed with small Gram matrices: for a moment M
of inputs, ‖Δ_l X‖² = tr(A_l M A_lᵀ · B_lᵀB_l) and ‖W_l X‖² = tr(W_lᵀW_l · M). Parameters that read picture features
have no inputs that text could tell, and are left out; the method that made them measures them itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch

from rasura.patches.algebra.increment import Increment
from rasura.patches.algebra.one_thread import use_one_thread
from rasura.patches.algebra.protected_subspace import ProtectedBasis
from rasura.patches.erasers.columns import Columns
from rasura.patches.erasers.interface import Erasure, Reference
from rasura.patches.format.protected_spec import IMAGE
from rasura.patches.types import ParamName

T = TypeVar("T")

__all__ = ["Measured", "Measurer", "Reference"]


@dataclass(frozen=True, slots=True)
class Measured:
    """Ratios of one increment, as quantised.

    Attributes:
        residual: ‖(W+Δ)C1 − WC*‖ / ‖W(C1−C*)‖; 0 is a perfect erasure, 1 none.
        effect: ‖ΔC1‖ / ‖WC1‖.
        null: ‖ΔN‖ / ‖WN‖ over the null prompt's tokens.
        retained: the same over the retained prompts' tokens; None where there are none, because nothing was measured.
        held_out: the same over the held-out prompts' tokens; None likewise.
        base_targets: ‖WC1‖, root of the sum over all columns.
        base_protected: root of Σ energy·‖Wu‖² over the protected rows u.
        rank: detectors of the patch.
        protected: dimensions protected, where parameters differ the most.
        width: d of those.
    """

    residual: float
    effect: float
    null: float
    retained: float | None
    held_out: float | None
    base_targets: float
    base_protected: float
    rank: int
    protected: int
    width: int

    def decimals(self, *, free: float, guarded: int) -> dict[str, str]:
        """The manifest's `measured` object: four digits each.

        What was not measured is not in it: ratios where nothing that was touched reads text, leaks over no prompts.
        """
        counts = {"rank": self.rank, "protected": self.protected, "guarded": guarded, "width": self.width}
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
        known = numbers if self.base_targets > 0 else {"free": free}
        measured = {name: number for name, number in known.items() if number is not None}
        return {name: f"{number:.3e}" for name, number in measured.items()} | {n: str(c) for n, c in counts.items()}


@dataclass(frozen=True, slots=True, eq=False)
class _Inputs:
    """What one parameter reads: its concept's columns, what it protects, and everybody else's prompts."""

    columns: Columns
    basis: ProtectedBasis
    reference: Reference


def _make_once(
    inputs: Mapping[ParamName, _Inputs], source: Callable[[_Inputs], T], make: Callable[[T], torch.Tensor]
) -> dict[ParamName, torch.Tensor]:
    """A [d, d] matrix a parameter, one for all that share its source: one each would be gigabytes in large models."""
    sources = {id(found): found for own in inputs.values() for found in [source(own)]}
    made = {key: make(found) for key, found in sources.items()}
    return {name: made[id(source(own))] for name, own in inputs.items()}


class Measurer:
    """Measures the concepts of one request, which share weights and prompts: Gram matrices are computed once."""

    def __init__(self, weights: Mapping[ParamName, torch.Tensor], reference: Reference) -> None:
        self._weights = weights
        self._reference = reference
        self._grams: dict[ParamName, torch.Tensor] = {}

    @use_one_thread()
    def measure(self, erasure: Erasure, columns: Columns, basis: ProtectedBasis) -> Measured:
        """Measure one concept's increments against the pristine weights.

        Args:
            erasure: ΔW_l and what each parameter reads and promises.
            columns: the concept's token embeddings.
            basis: what text-reading parameters protect, where they have no basis of their own.
        """
        inputs = {
            name: _Inputs(
                erasure.columns.get(name, columns),
                erasure.bases.get(name, basis),
                erasure.references.get(name, self._reference),
            )
            for name in erasure.increments
            if erasure.reads.get(name) != IMAGE
        }
        widest = max((i.basis for i in inputs.values()), key=lambda b: b.rank / b.width, default=basis)
        moments = {
            "effect": _make_once(inputs, lambda i: i.columns, lambda own: own.targets @ own.targets.T),
            "null": _make_once(inputs, lambda i: i.reference, lambda own: own.invariants.T @ own.invariants),
            "retained": _make_once(inputs, lambda i: i.reference, lambda own: own.retained.mean),
            "held_out": _make_once(inputs, lambda i: i.reference, lambda own: own.held_out.mean),
        }
        retained = any(i.reference.retained.count for i in inputs.values())
        held_out = any(i.reference.held_out.count for i in inputs.values())
        protected = _make_once(inputs, lambda i: i.basis, lambda own: (own.rows.T * own.energy) @ own.rows)
        return Measured(
            residual=self._residual(erasure.increments, inputs),
            effect=self._ratio(erasure.increments, moments["effect"]),
            null=self._ratio(erasure.increments, moments["null"]),
            retained=self._ratio(erasure.increments, moments["retained"]) if retained else None,
            held_out=self._ratio(erasure.increments, moments["held_out"]) if held_out else None,
            base_targets=self._present(moments["effect"]) ** 0.5,
            base_protected=self._present(protected) ** 0.5,
            rank=max(increment.rank for increment in erasure.increments.values()),
            protected=widest.rank,
            width=widest.width,
        )

    def _gram(self, name: ParamName) -> torch.Tensor:
        """WᵀW, [d, d] float64."""
        if name not in self._grams:
            weight = self._weights[name].to(torch.float64)
            self._grams[name] = weight.T @ weight
        return self._grams[name]

    def _present(self, moments: Mapping[ParamName, torch.Tensor]) -> float:
        """Σ_l tr(W_lᵀW_l M_l)."""
        return max(0.0, sum(float((self._gram(name) * moment).sum()) for name, moment in moments.items()))

    def _ratio(self, increments: Mapping[ParamName, Increment], moments: Mapping[ParamName, torch.Tensor]) -> float:
        """Root of Σ_l ‖Δ_l X‖² / Σ_l ‖W_l X‖²; 0 where there are no prompts."""
        present = self._present(moments)
        changed = max(0.0, sum(_moved(increments[name], moment) for name, moment in moments.items()))
        return (changed / present) ** 0.5 if present > 0 else 0.0

    def _residual(self, increments: Mapping[ParamName, Increment], inputs: Mapping[ParamName, _Inputs]) -> float:
        left = asked = 0.0
        for name, own in inputs.items():
            W = self._weights[name].to(torch.float64)
            wanted = W @ (own.columns.anchors - own.columns.targets)
            left += float((_applied(increments[name], own.columns.targets) - wanted).square().sum())
            asked += float(wanted.square().sum())
        return (left / asked) ** 0.5 if asked > 0 else 0.0


def _moved(increment: Increment, moment: torch.Tensor) -> float:
    """tr(A M Aᵀ BᵀB)."""
    A, B = increment.A.to(torch.float64), increment.B.to(torch.float64)
    return float((A @ moment @ A.T * (B.T @ B).T).sum())


def _applied(increment: Increment, columns: torch.Tensor) -> torch.Tensor:
    return increment.B.to(torch.float64) @ (increment.A.to(torch.float64) @ columns)
