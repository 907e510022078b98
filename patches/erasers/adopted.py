"""An erasure that somebody else made, as a patch: nothing is solved, a given ΔW is split and written down.

    ΔW_l = ΔW_l P + ΔW_l (I − P)        P: the projector onto what is free of the null prompt and the retain set

The first part maps everything protected to zero: taken alone (`take=separable`) it is as separable as any patch made
here, and promises the same. The second part cannot be promised; its size and rank are told. With `take=whole` ΔW is
taken as it is, layers that read the picture included: measured, and nothing promised. Either way the factors carry
`energy` of each layer's ‖ΔW‖², in at most `rank_limit` rows, and what that loses is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Final

import torch

from rasura.patches.algebra.increment import Increment
from rasura.patches.algebra.protected_subspace import ProtectedBasis, make_empty_basis
from rasura.patches.algebra.split import LowRank, count_rank, reduce_together, split_change
from rasura.patches.erasers.columns import Columns
from rasura.patches.erasers.free_share import free_norm
from rasura.patches.erasers.interface import Defaults, Erasure, Problem
from rasura.patches.erasers.options import DATA, check_options, option
from rasura.patches.errors import ErasureRefusedError, InputError, UnsupportedHostError
from rasura.patches.format.protected_spec import IMAGE
from rasura.patches.hosts.interface import ParameterInfo
from rasura.patches.models.base_identity import LAYERS, find_cross_attention
from rasura.patches.plain_numbers import say_beside
from rasura.patches.types import ParamName

__all__ = ["MAKERS", "NAME", "SEPARABLE", "WHOLE", "Adopted", "Given", "name_layers"]

NAME: Final = "adopted"
SEPARABLE: Final = "separable"
WHOLE: Final = "whole"
MAKERS: Final = ("esd", "uce", "rece", "mace", "speed", "ca", "spm", "lora", "other")
"""Who may have made it, as the adopter says: for people, nothing is computed from it."""
NOTHING: Final = 1e-3
"""Share of the given effect on the targets below which nothing worth registering is left."""
SOME_LAYERS: Final = "some"
SCALE_LIMIT: Final = 64.0


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """What was read of somebody else's erasure.

    Attributes:
        text: ΔW [d_out, d] float64 of the layers that read text embeddings.
        picture: factors of those that read the picture, where they are taken.
        left_out: squared norm of all changes that are not taken, of layers that read no text.
        layers: how many parameters these are.
    """

    text: Mapping[ParamName, torch.Tensor] = field(default_factory=dict)
    picture: Mapping[ParamName, LowRank] = field(default_factory=dict)
    left_out: float = 0.0
    layers: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Adopted:
    """The choices of whoever adopts, and what is adopted."""

    name: ClassVar[str] = NAME
    defaults: ClassVar[Defaults] = Defaults("tail", SOME_LAYERS, "relative:1e-3", needs_retain=False)

    made_by: str = option("other", "the method that made it, as the adopter says", choices=MAKERS)
    form: str = option("weights", "whole weights, or an adapter's factors", choices=("weights", "adapter"))
    delta: str = option("", "SHA-256 over the changes: names, and digests of ΔW in float64")
    take: str = option(
        SEPARABLE, "the separable part of layers that read text, or all of ΔW", choices=(SEPARABLE, WHOLE)
    )
    scale: float = option(1.0, "ΔW is multiplied by this", low=-SCALE_LIMIT, high=SCALE_LIMIT)
    energy: float = option(0.9999, "share of each layer's ‖ΔW‖² that the rank must carry", low=0.01, high=1)
    rank_limit: int = option(64, "most detectors of the patch", low=1, high=1024)
    given: Given = field(default_factory=Given, metadata={DATA: True})

    def __post_init__(self) -> None:
        check_options(self)

    def parameters(self, infos: Mapping[ParamName, ParameterInfo], layers: str, width: int) -> list[ParamName]:
        """The parameters that were changed and are taken; `layers` only names them."""
        del layers
        names = sorted({*self.given.text, *self.given.picture})
        odd = next((n for n in self.given.text if infos[n].shape[-1] != width), None)
        if odd is not None:
            raise UnsupportedHostError(
                f"{odd}: expected to read embeddings of width {width}, got {infos[odd].shape[-1]}", parameter=odd
            )
        return names

    def solve(self, problem: Problem) -> tuple[Erasure, ...]:
        """Split what was given; one concept, because one ΔW does not say which part of it erases which.

        Raises:
            InputError: several concepts.
            ErasureRefusedError: nothing of what acts on the concept is left.
        """
        if len(problem.columns) != 1:
            raise InputError(
                f"one change of weights becomes one patch: expected one concept, got {len(problem.columns)}",
                hint="rasura adopt FILE --base MODEL --concept TEXT",
            )
        if odd := sorted(self.given.text.keys() - problem.weights.keys()):
            raise UnsupportedHostError(
                f"{odd[0]} reads other states of the prompt than {min(problem.weights)}: expected a change of layers "
                "that read the same, as one encoder gives them",
                hint="rasura erase --base MODEL --concept TEXT",
                parameter=odd[0],
            )
        (columns,) = problem.columns
        problem.progress("splitting", 0, 1)
        width = int(columns.targets.shape[0])
        basis = problem.basis() if self.take == SEPARABLE else make_empty_basis(width)
        parts = {name: split_change(D, basis) for name, D in self.given.text.items()}  # ΔW P, [d_out, d] each
        _refuse_empty(self.given.text, parts, columns, basis, picture=bool(self.given.picture))
        factors = reduce_together(parts, self.energy, self.rank_limit) if parts else {}
        facts = self._tell(problem, columns, parts, factors)
        problem.progress("splitting", 1, 1)
        return (
            Erasure(
                _increments({**factors, **self.given.picture}),
                free_norm(columns.targets, basis) ** 2,
                basis.guards,
                basis=basis,
                reads=dict.fromkeys(self.given.picture, IMAGE),
                facts=facts,
            ),
        )

    def _tell(
        self,
        problem: Problem,
        columns: Columns,
        parts: Mapping[ParamName, torch.Tensor],
        factors: Mapping[ParamName, LowRank],
    ) -> dict[str, str]:
        """What was given, what of it was taken, and what was lost, as the manifest's numbers."""
        given = self.given.text
        rests = {name: D - parts[name] for name, D in given.items()}  # ΔW (I − P), [d_out, d]
        # P is orthogonal: ‖ΔW‖² = ‖ΔW P‖² + ‖ΔW (I − P)‖², so that shares of energy add up to 1.
        total, rest = _squares(given), _squares(rests)
        picture = sum(float((own.B @ own.A).square().sum()) + own.lost for own in self.given.picture.values())
        everything = total + picture + self.given.left_out
        taken = total - rest + picture
        short = sum(own.lost for own in (*factors.values(), *self.given.picture.values()))
        seen = _effect(parts, columns.targets)  # ‖ΔW P C1‖², what could be kept of the erasure
        kept = {name: own.B @ own.A for name, own in factors.items()}  # as it is stored, [d_out, d]
        missed = _effect({name: parts[name] - kept[name] for name in parts}, columns.targets)
        numbers = {
            "taken": _share(taken, everything),
            "rest": _share(rest, everything),
            "left_out": _share(self.given.left_out, everything),
            "lost": _share(short, taken),
            "lost_targets": _share(missed, seen),
            **({} if not given else self._as_given(problem, columns)),
            **({} if not given else _tell_scale(problem, columns, kept, self.scale)),
        }
        counts = {
            "rest_rank": max((count_rank(R) for R in rests.values()), default=0) if rest > 0 else 0,
            "left_out_layers": self.given.layers,
        }
        return {n: f"{x:.3e}" for n, x in numbers.items()} | {n: str(c) for n, c in counts.items()}

    def _as_given(self, problem: Problem, columns: Columns) -> dict[str, float]:
        """The ratios of `rasura.patches.solving.measure` for the text layers' ΔW before anything was split off."""
        W = {name: problem.weights[name].to(torch.float64) for name in self.given.text}
        wanted = columns.anchors - columns.targets  # C* − C1, [d, n]
        left = sum(
            float((D @ columns.targets - W[name] @ wanted).square().sum()) for name, D in self.given.text.items()
        )
        reference = problem.reference
        moments = {
            "effect": columns.targets @ columns.targets.T,  # Gram matrices X Xᵀ, [d, d]
            "leak_null": reference.invariants.T @ reference.invariants,
            "leak_retained": reference.retained.mean,
            "leak_held_out": reference.held_out.mean,
        }
        return {
            "given_residual": _share(left, _effect(W, wanted)),
            **{f"given_{n}": _share(_moved(self.given.text, M), _moved(W, M)) for n, M in moments.items()},
        }


def name_layers(infos: Mapping[ParamName, ParameterInfo], names: Mapping[ParamName, object]) -> str:
    """The choice of layers that gives exactly these parameters, or `some`."""
    for choice in LAYERS:
        try:
            layers = find_cross_attention(infos, choice)
        except UnsupportedHostError:  # where text enters otherwise than by cross-attention
            continue
        if set(names) == set(layers):
            return choice
    return SOME_LAYERS


def _refuse_empty(
    given: Mapping[ParamName, torch.Tensor],
    parts: Mapping[ParamName, torch.Tensor],
    columns: Columns,
    basis: ProtectedBasis,
    *,
    picture: bool,
) -> None:
    whole, own = _effect(given, columns.targets), _effect(parts, columns.targets)
    if picture or (whole > 0 and own > NOTHING**2 * whole):
        return
    if whole == 0:
        raise ErasureRefusedError(
            f"the change does nothing to {columns.name!r}: expected an erasure of it", hint="--concept TEXT"
        )
    free, least = say_beside((own / whole) ** 0.5, NOTHING)
    raise ErasureRefusedError(
        f"what the change does to {columns.name!r} lies inside what is protected: {free} of it is separable, expected "
        f"at least {least}; with a coarser rank rule less is protected, with --take whole nothing is",
        hint=f"rasura adopt FILE --base MODEL --concept TEXT --retain FILE --rank-rule {basis.rule.coarser}",
        separable=f"{(own / whole) ** 0.5:.3e}",
    )


def _tell_scale(
    problem: Problem, columns: Columns, kept: Mapping[ParamName, torch.Tensor], scale: float
) -> dict[str, float]:
    """The scale with which what is taken of the text layers would erase the most, and the residual there.

    ‖s·ΔC1 − W(C* − C1)‖ is smallest at s = ⟨ΔC1, W(C* − C1)⟩ / ‖ΔC1‖². What a projection takes away in size, a scale
    gives back; what it takes away in direction stays lost.
    """
    # [d_out, n] each
    wanted = {n: problem.weights[n].to(torch.float64) @ (columns.anchors - columns.targets) for n in kept}
    done = {n: D @ columns.targets for n, D in kept.items()}
    along = sum(float((done[n] * wanted[n]).sum()) for n in kept)
    size = _squares(done)
    best = scale * along / size if size > 0 else scale
    best = float(format(max(-SCALE_LIMIT, min(best, SCALE_LIMIT)), ".3g"))  # what a person can type again
    left = _squares({n: (best / scale) * done[n] - wanted[n] for n in kept})  # `kept` holds the given scale already
    return {"best_scale": best, "best_residual": _share(left, _squares(wanted))}


def _increments(factors: Mapping[ParamName, LowRank]) -> dict[ParamName, Increment]:
    rank = max(own.A.shape[0] for own in factors.values())  # a LoRA file is read with one rank for all
    return {
        name: Increment.quantised(_padded(own.A, rank), _padded(own.B.T, rank).T)
        for name, own in sorted(factors.items())
    }


def _padded(rows: torch.Tensor, count: int) -> torch.Tensor:
    return torch.cat([rows, rows.new_zeros(count - rows.shape[0], rows.shape[1])])


def _squares(matrices: Mapping[ParamName, torch.Tensor]) -> float:
    return sum(float(matrix.square().sum()) for matrix in matrices.values())


def _effect(matrices: Mapping[ParamName, torch.Tensor], columns: torch.Tensor) -> float:
    """Σ_l ‖M_l X‖²."""
    return sum(float((matrix @ columns).square().sum()) for matrix in matrices.values())


def _moved(matrices: Mapping[ParamName, torch.Tensor], moment: torch.Tensor) -> float:
    """Σ_l tr(M_l X Xᵀ M_lᵀ)."""
    return max(0.0, sum(float(((matrix @ moment) * matrix).sum()) for matrix in matrices.values()))


def _share(part: float, whole: float) -> float:
    return (max(part, 0.0) / whole) ** 0.5 if whole > 0 else 0.0  # of norms, where both are squares
