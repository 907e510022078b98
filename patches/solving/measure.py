"""What an increment does, in numbers that need no image: on its targets, on what it protects, on what nobody named.

All are ratios of output energies summed over the touched parameters, computed with small Gram matrices: for a moment M
of inputs, ‖Δ_l X‖² = tr(A_l M A_lᵀ · B_lᵀB_l) and ‖W_l X‖² = tr(W_lᵀW_l · M). Parameters that read picture features
have no inputs that text could tell, and are left out; the method that made them measures them itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import torch

from rasura.patches.algebra.increment import Increment
from rasura.patches.algebra.one_thread import use_one_thread
from rasura.patches.algebra.protected_subspace import ProtectedBasis
from rasura.patches.erasers.columns import Columns
from rasura.patches.erasers.interface import Erasure, Reference
from rasura.patches.format.protected_spec import IMAGE
from rasura.patches.types import ParamName

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


_MOMENTS: Final[Mapping[str, tuple[Callable[[_Inputs], object], Callable[[_Inputs], torch.Tensor]]]] = {
    "effect": (lambda own: own.columns, lambda own: own.columns.targets @ own.columns.targets.T),
    "null": (lambda own: own.reference, lambda own: own.reference.invariants.T @ own.reference.invariants),
    "retained": (lambda own: own.reference, lambda own: own.reference.retained.mean),
    "held_out": (lambda own: own.reference, lambda own: own.reference.held_out.mean),
    "protected": (lambda own: own.basis, lambda own: (own.basis.rows.T * own.basis.energy) @ own.basis.rows),
}
"""What each moment of inputs is made of, and how."""
_UNCHANGED: Final = "protected"
"""Of this one only what the weights make is asked."""
_ROOM: Final = 2**30
"""Bytes of moments that concepts measured together may keep for themselves."""


class _Moments:
    """Moments of inputs, [d, d] float64, made when first asked for and let go after the last layer that reads them.

    Layers and concepts share most of them; one each would be gigabytes in large models.
    """

    def __init__(self, inputs: Iterable[_Inputs]) -> None:
        self._awaited = Counter((kind, id(source(own))) for own in inputs for kind, (source, _) in _MOMENTS.items())
        self._made: dict[tuple[str, int], torch.Tensor] = {}

    def take(self, kind: str, own: _Inputs) -> torch.Tensor:
        """The moment of this kind; each parameter of each concept asks once."""
        source, make = _MOMENTS[kind]
        key = kind, id(source(own))
        made = self._made.pop(key, None)
        moment = make(own) if made is None else made
        self._awaited[key] -= 1
        if self._awaited[key]:
            self._made[key] = moment
        return moment


@dataclass(frozen=True, slots=True, eq=False)
class _Tally:
    """One concept's increments, and output energies found so far.

    Attributes:
        erasure: what is measured.
        basis: what text-reading parameters protect, where they have no basis of their own.
        inputs: what each measured parameter reads.
        present: tr(W_lᵀW_l M_l) by kind of moment and parameter.
        changed: ‖Δ_l X‖² likewise.
        missed: ‖(W_l+Δ_l)C1 − W_l C*‖² and ‖W_l(C1−C*)‖².
    """

    erasure: Erasure
    basis: ProtectedBasis
    inputs: Mapping[ParamName, _Inputs]
    present: dict[tuple[str, ParamName], float] = field(default_factory=dict)
    changed: dict[tuple[str, ParamName], float] = field(default_factory=dict)
    missed: dict[ParamName, tuple[float, float]] = field(default_factory=dict)

    def add(self, name: ParamName, W: torch.Tensor, gram: torch.Tensor, moments: _Moments) -> None:
        """Measure one parameter.

        Args:
            name: of the parameter; nothing is added where it has no inputs.
            W: its weight [out, d] float64.
            gram: WᵀW, [d, d] float64.
            moments: shared with other layers and concepts.
        """
        own = self.inputs.get(name)
        if own is None:
            return
        increment = self.erasure.increments[name]
        for kind in _MOMENTS:
            moment = moments.take(kind, own)
            self.present[kind, name] = float((gram * moment).sum())
            if kind != _UNCHANGED:
                self.changed[kind, name] = _moved(increment, moment)
        wanted = W @ (own.columns.anchors - own.columns.targets)
        left = (_applied(increment, own.columns.targets) - wanted).square().sum()
        self.missed[name] = float(left), float(wanted.square().sum())

    def measured(self) -> Measured:
        """All ratios, summed in the order of the increments: the bits of a patch follow from it."""
        inputs = self.inputs.values()
        widest = max((i.basis for i in inputs), key=lambda b: b.rank / b.width, default=self.basis)
        retained = any(i.reference.retained.count for i in inputs)
        held_out = any(i.reference.held_out.count for i in inputs)
        return Measured(
            residual=self._residual(),
            effect=self._ratio("effect"),
            null=self._ratio("null"),
            retained=self._ratio("retained") if retained else None,
            held_out=self._ratio("held_out") if held_out else None,
            base_targets=self._present("effect") ** 0.5,
            base_protected=self._present("protected") ** 0.5,
            rank=max(increment.rank for increment in self.erasure.increments.values()),
            protected=widest.rank,
            width=widest.width,
        )

    def _present(self, kind: str) -> float:
        """Σ_l tr(W_lᵀW_l M_l)."""
        return max(0.0, sum(self.present[kind, name] for name in self.inputs))

    def _ratio(self, kind: str) -> float:
        """Root of Σ_l ‖Δ_l X‖² / Σ_l ‖W_l X‖²; 0 where there are no prompts."""
        present = self._present(kind)
        changed = max(0.0, sum(self.changed[kind, name] for name in self.inputs))
        return (changed / present) ** 0.5 if present > 0 else 0.0

    def _residual(self) -> float:
        left = asked = 0.0
        for name in self.inputs:
            left += self.missed[name][0]
            asked += self.missed[name][1]
        return (left / asked) ** 0.5 if asked > 0 else 0.0


class Measurer:
    """Measures the concepts of one request, which share weights and prompts, one layer at a time.

    A layer's Gram matrix is computed once for all concepts and let go with the layer: those of all layers of a large
    model would be more than the model.
    """

    def __init__(self, weights: Mapping[ParamName, torch.Tensor], reference: Reference) -> None:
        self._weights = weights
        self._reference = reference

    def measure(self, erasure: Erasure, columns: Columns, basis: ProtectedBasis) -> Measured:
        """Measure one concept's increments against the pristine weights.

        Args:
            erasure: ΔW_l and what each parameter reads and promises.
            columns: the concept's token embeddings.
            basis: what text-reading parameters protect, where they have no basis of their own.
        """
        return self.measure_all([(erasure, columns, basis)])[0]

    @use_one_thread()
    def measure_all(self, concepts: Sequence[tuple[Erasure, Columns, ProtectedBasis]]) -> list[Measured]:
        """Measure several concepts, each given as to `measure`: the same numbers, with less to compute."""
        tallies = [
            _Tally(erasure, basis, self._read(*concept)) for concept in concepts for erasure, _, basis in [concept]
        ]
        width = max((own.basis.width for tally in tallies for own in tally.inputs.values()), default=1)
        together = max(
            1, _ROOM // (2 * 8 * width**2)
        )  # of each concept its columns' moment, and its basis' if it has one
        for start in range(0, len(tallies), together):
            self._measure_together(tallies[start : start + together])
        return [tally.measured() for tally in tallies]

    def _read(self, erasure: Erasure, columns: Columns, basis: ProtectedBasis) -> dict[ParamName, _Inputs]:
        """What each parameter reads that reads text."""
        found = {}
        for name in erasure.increments:
            if erasure.reads.get(name) != IMAGE:
                space = ParamName(erasure.spaces.get(name, name))
                found[name] = _Inputs(
                    erasure.columns.get(space, columns),
                    erasure.bases.get(name, erasure.bases.get(space, basis)),
                    erasure.references.get(space, self._reference),
                )
        return found

    def _measure_together(self, tallies: Sequence[_Tally]) -> None:
        moments = _Moments(own for tally in tallies for own in tally.inputs.values())
        for name in dict.fromkeys(name for tally in tallies for name in tally.inputs):
            W = self._weights[name].to(torch.float64)
            gram = W.T @ W
            for tally in tallies:
                tally.add(name, W, gram, moments)
            del W, gram  # before the next layer's are made


def _moved(increment: Increment, moment: torch.Tensor) -> float:
    """tr(A M Aᵀ BᵀB)."""
    A, B = increment.A.to(torch.float64), increment.B.to(torch.float64)
    return float((A @ moment @ A.T * (B.T @ B).T).sum())


def _applied(increment: Increment, columns: torch.Tensor) -> torch.Tensor:
    return increment.B.to(torch.float64) @ (increment.A.to(torch.float64) @ columns)
