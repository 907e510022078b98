"""How well concepts can be told apart when they are solved together, and which of them cannot.

Let F_i [d, n_i] be what of concept i's targets lies outside everything protected, and V_i [k_i, d] orthonormal rows
that carry most of its energy. Solving together makes the detectors biorthogonal, a_i · c_j = δ_ij, which inverts the
Gram matrix of the stacked rows

    S = [V_1; V_2; …]        G = S Sᵀ        condition = λ_max(G) / λ_min(G)

Orthogonal concepts have condition 1. For two the eigenvalues are 1 ± cos θ_k over the principal angles θ_k between
their spans, so the condition is (1 + cos θ) / (1 − cos θ) for the smallest angle θ: how many times more one of them is
moved where the other must stay. What of concept i alone is left, outside the span of all others,

    left_i = ‖(I − S₋ᵢ⁺ S₋ᵢ) V_iᵀ‖² / k_i

is 1 / (G⁻¹)_ii for single rows, and the response grows with 1/√left_i.

Which concepts make G ill-conditioned is read off its spectrum. With E the eigenvectors of the eigenvalues below
λ_max / `WARN`, the projector Π = E Eᵀ is the same for every choice of E within equal eigenvalues, and its block Π_ij
does not vanish where i and j take part in one near-dependency. The groups are the connected components of that graph:
two pairs of synonyms are two groups, and three concepts in one plane are one, though no two of them are close.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch

from rasura.patches.algebra.one_thread import use_one_thread
from rasura.patches.algebra.protected_subspace import EXACT, find_leading
from rasura.patches.format.patch import Patch

__all__ = ["REFUSE", "SHARE", "WARN", "ConceptGroup", "Conditioning", "measure_conditioning", "measure_conditioning_of"]

SHARE: Final = 0.9
"""Of a concept's free energy, what its leading rows carry; small directions are shared by many and matter little."""
WARN: Final = 100.0
"""Condition over which a group is named: two directions less than 11.4° apart."""
REFUSE: Final = 1e4
"""Condition over which concepts are not solved together: less than 1.2° apart."""
_TAKES_PART: Final = 0.05


@dataclass(frozen=True, slots=True)
class ConceptGroup:
    """Concepts that can hardly be told apart.

    Attributes:
        concepts: their names, two or more.
        condition: λ_max / λ_min of their own Gram matrix; infinite where one lies in the span of the others.
    """

    concepts: tuple[str, ...]
    condition: float

    @property
    def suggestion(self) -> str:
        """What a person may do about it."""
        return (
            f"erase {', '.join(self.concepts)} as one concept (the others among its --templates), leave one out, "
            "or leave more dimensions free (a coarser --rank-rule)"
        )


@dataclass(frozen=True, slots=True)
class Conditioning:
    """How well a set of concepts is told apart.

    Attributes:
        condition: λ_max / λ_min of the Gram matrix of all leading rows, at least 1.
        left: share of each concept's leading rows outside the span of all others, 0 to 1.
        groups: what makes it ill-conditioned, the worst first; none below `WARN`.
    """

    condition: float
    left: Mapping[str, float]
    groups: tuple[ConceptGroup, ...]


@use_one_thread()
def measure_conditioning_of(patches: Sequence[Patch]) -> Conditioning:
    """The conditioning of patches' concepts, from their stored targets and what the first of them protects."""
    rows = patches[0].tensors.protected
    kept = rows[patches[0].tensors.energy > 0]
    targets = {patch.manifest.concept.text: patch.tensors.targets for patch in patches}
    return measure_conditioning({name: rows - (rows @ kept.T) @ kept for name, rows in targets.items()})


@use_one_thread()
def measure_conditioning(free: Mapping[str, torch.Tensor]) -> Conditioning:
    """How well concepts are told apart.

    Args:
        free: what of each concept's targets lies outside everything protected, rows [n, d] float64.
    """
    spans = {name: find_leading(rows.T, SHARE) for name, rows in free.items()}
    values, vectors = _spectrum(list(spans.values()))
    owners = [name for name, rows in spans.items() for _ in range(rows.shape[0])]
    low = values < values[-1] / WARN
    groups = [
        ConceptGroup(names, _condition([spans[name] for name in names]))
        for names in _components(vectors[:, low], owners)
    ]
    return Conditioning(
        _ratio(values),
        {name: _left(name, spans) for name in spans},
        tuple(sorted(groups, key=lambda group: -group.condition)),
    )


def _spectrum(spans: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Eigenvalues, ascending, and eigenvectors of the Gram matrix of the stacked rows."""
    stacked = torch.cat(list(spans))
    values, vectors = torch.linalg.eigh(stacked @ stacked.T)
    return values.clamp(min=0), vectors


def _condition(spans: Sequence[torch.Tensor]) -> float:
    return _ratio(_spectrum(spans)[0])


def _ratio(values: torch.Tensor) -> float:
    least, most = float(values[0]), float(values[-1])
    return most / least if least > EXACT**2 * most else float("inf")


def _left(name: str, spans: Mapping[str, torch.Tensor]) -> float:
    own, others = spans[name], [rows for other, rows in spans.items() if other != name]
    if not others:
        return 1.0
    _, values, rows = torch.linalg.svd(torch.cat(others), full_matrices=False)
    held = rows[values > EXACT * values[0]]
    return max(0.0, 1 - float((held @ own.T).square().sum()) / own.shape[0])


def _components(vectors: torch.Tensor, owners: Sequence[str]) -> list[tuple[str, ...]]:
    """Connected components of the concepts that take part in the eigenvectors [Σk, m]; components of one are none."""
    blocks = {name: vectors[[i for i, own in enumerate(owners) if own == name]] for name in dict.fromkeys(owners)}
    groups: list[tuple[str, ...]] = []
    for name, block in blocks.items():
        touched = {o for o in blocks if float(torch.linalg.matrix_norm(block @ blocks[o].T)) > _TAKES_PART}
        joined = [group for group in groups if touched.intersection(group)]
        merged = tuple(other for group in joined for other in group)
        groups = [group for group in groups if group not in joined] + [(*merged, name)]
    return [group for group in groups if len(group) > 1]
