"""What an erasure must not touch: second moments of token embeddings, and the orthonormal basis that spans them.

The basis has two parts. *Invariants* (start of text and the whole null prompt, which every guided sampling step reads)
are held exactly, to the last numerically present direction. *Retained* prompts are held in the directions that carry
their energy; a rank rule says where to stop, because the span of enough real prompts is the whole space.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final, Self

import torch

from rasura.patches.algebra.rank_rule import RankRule
from rasura.patches.errors import ErasureRefusedError

EXACT: Final = 1e-7
"""Relative singular value below which a direction of the invariants is float32 noise."""
LOOSE: Final = 0.99
"""Share of other patches' energy that is enough where room is scarce: a tenth of their norm may be disturbed."""
NOISE: Final = 1e-13
"""Share of a moment's trace below which an eigenvalue is float64 noise."""


class Moment:
    """The running second moment Σ c·cᵀ of token embeddings; memory is d × d however many prompts there are."""

    def __init__(self, width: int) -> None:
        self._sum = torch.zeros(width, width, dtype=torch.float64)
        self._count = 0

    @property
    def count(self) -> int:
        """How many tokens were added."""
        return self._count

    def add(self, tokens: torch.Tensor) -> None:
        """Add token embeddings [..., d] float64."""
        flat = tokens.reshape(-1, tokens.shape[-1])  # [n, d]
        self._sum += flat.T @ flat  # [d, d]
        self._count += flat.shape[0]

    def add_all(self, other: Moment) -> None:
        """Add everything that another moment holds."""
        self._sum += other.total
        self._count += other.count

    @classmethod
    def of(cls, total: torch.Tensor, count: int) -> Self:
        """The moment that has this `total` and this `count`."""
        made = cls(0)
        made._sum, made._count = total, count
        return made

    @property
    def total(self) -> torch.Tensor:
        """Σ c·cᵀ, [d, d] float64."""
        return self._sum

    @property
    def mean(self) -> torch.Tensor:
        """Mean of c·cᵀ, [d, d] float64; zero when nothing was added."""
        return self._sum / max(self._count, 1)


@dataclass(frozen=True, slots=True, eq=False)
class ProtectedBasis:
    """An orthonormal basis of what must not be touched.

    Attributes:
        rows: [k, d] float64 orthonormal; first the `invariants`, which span start-of-text and the null prompt, then
            the retained directions, last the `guards`.
        energy: [k] float64, mean squared component of protected prompts along each row: of the retained ones, or
            without any, of the null prompt; 0 for the guards, which are other patches' targets and nobody's prompts to
            keep.
        invariants: how many rows are exact.
        rule: the rank rule that chose the others.
        spectrum: [d] float64, descending eigenvalues of the retained moment outside the invariants.
        guards: rows that hold what of registered patches' targets lies outside all others.
    """

    rows: torch.Tensor
    energy: torch.Tensor
    invariants: int
    rule: RankRule
    spectrum: torch.Tensor
    guards: int = 0

    @property
    def rank(self) -> int:
        """Dimensions protected."""
        return int(self.rows.shape[0])

    @property
    def width(self) -> int:
        """Width d of a token embedding."""
        return int(self.rows.shape[1])

    @property
    def retained(self) -> int:
        """Dimensions that hold retained prompts, beyond the invariants."""
        return self.rank - self.invariants - self.guards

    def project(self, columns: torch.Tensor) -> torch.Tensor:
        """P·X = X − UᵀU·X for columns [d, n]: what of X is free to change. Twice, because once leaves 1e-16·κ."""
        once = columns - self.rows.T @ (self.rows @ columns)  # [d, n]
        return once - self.rows.T @ (self.rows @ once)


def build_protected_basis(invariants: torch.Tensor, retained: Moment, rule: RankRule) -> ProtectedBasis:
    """Orthonormalise invariants exactly, then the retained directions that the rule keeps.

    Args:
        invariants: token embeddings [m, d] float64 that must be untouched exactly.
        retained: moment of the retained prompts' tokens.
        rule: where to cut their spectrum.

    Raises:
        ErasureRefusedError: nothing of the space is left.
    """
    exact = _span(invariants)  # [k0, d]
    moment = retained.mean
    deflated = _deflated(moment, exact)  # the part of the moment that the invariants do not hold
    values, vectors = torch.linalg.eigh(deflated)
    values, vectors = values.flip(0), vectors.flip(1)  # eigh sorts upwards; the strongest come first here
    # What is left of a direction that the invariants hold already is noise: neither kept nor written down.
    values = torch.where(values > NOISE * torch.trace(moment), values, torch.zeros_like(values))
    kept = min(rule.keep(values), int((values > 0).sum()))
    rows = _orthonormal(torch.cat([exact, vectors[:, :kept].T]))  # [k0 + kept, d]
    # Without retained prompts the null prompt is all that is promised, and what a check must weigh.
    read = moment if retained.count else invariants.T @ invariants / max(1, invariants.shape[0])
    energy = ((rows @ read) * rows).sum(1).clamp(min=0)  # uᵀ M u of each row u, [k]
    return _with_room(ProtectedBasis(rows, energy, int(exact.shape[0]), rule, values))


def build_guarded_basis(basis: ProtectedBasis, targets: Iterable[torch.Tensor], share: float) -> ProtectedBasis:
    """The basis, and what of other patches' targets lies outside it.

    Args:
        basis: without guards.
        targets: rows [m, d] of each patch.
        share: how much of each patch's energy outside the basis to hold.

    Raises:
        ErasureRefusedError: nothing of the space is left.
    """
    _with_room(basis)
    parts, loose = [basis.rows[:0]], [basis.rows[:0]]
    for rows in targets:
        free = basis.project(rows.T)  # [d, m]
        # the basis has it already; what is left is noise without direction
        held = torch.linalg.vector_norm(free) <= EXACT * torch.linalg.vector_norm(rows)
        parts.append(basis.rows[:0] if held else find_leading(free, share))
        loose.append(
            basis.rows[:0] if held else find_leading(free, min(share, LOOSE))
        )  # for the advice in the refusal only
    span = _span(torch.cat(parts))  # targets of several patches overlap: [g, d], g at most the sum
    if basis.rank + span.shape[0] >= basis.width:
        needed = [int(part.shape[0]) for part in parts[1:]]
        raise _no_room(basis, int(span.shape[0]), needed, int(_span(torch.cat(loose)).shape[0]))
    guards = _orthonormal(basis.project(span.T).T)  # once more out of the basis: the SVD costs a few digits
    rows = torch.cat([basis.rows, guards])
    energy = torch.cat([basis.energy, torch.zeros(guards.shape[0], dtype=torch.float64)])
    return replace(basis, rows=rows, energy=energy, guards=basis.guards + int(guards.shape[0]))


def make_empty_basis(width: int) -> ProtectedBasis:
    """A basis without rows: nothing is promised. For increments whose inputs no text can tell, and for soft methods."""
    empty = torch.zeros(0, dtype=torch.float64)
    return ProtectedBasis(torch.zeros(0, width, dtype=torch.float64), empty, 0, RankRule("count", 1), empty)


def _with_room(basis: ProtectedBasis) -> ProtectedBasis:
    if basis.rank < basis.width:
        return basis
    raise ErasureRefusedError(
        f"the protected set takes all {basis.width} dimensions ({basis.invariants} for the null prompt, "
        f"{basis.retained} for the retain set, {basis.guards} for other patches): nothing is left to erase with",
        hint=f"rasura erase --base MODEL --concept TEXT --retain FILE --rank-rule {basis.rule.coarser}",
    )


def _no_room(basis: ProtectedBasis, together: int, parts: list[int], loose: int) -> ErasureRefusedError:
    """Other patches' targets that do not fit beside what is protected already, and what may be done about it."""
    left, coarser = basis.width - basis.rank, basis.rule.coarser
    ways = [f"leave out one of these patches (the largest takes {max(parts)})", "erase them with fewer templates"]
    kept = coarser.keep(basis.spectrum)
    if basis.spectrum.numel() and kept < basis.retained:
        ways.append(f"a coarser rank rule ({coarser} leaves {left + basis.retained - kept})")
    if loose < together:
        ways.append(f"erase all together and hold less of each (rasura erase --set guard={LOOSE:g} needs {loose})")
    return ErasureRefusedError(
        f"the protected set takes all {basis.width} dimensions: {basis.invariants} for the null prompt, "
        f"{basis.retained} for the retain set; of the {left} left, the targets of {len(parts)} other patches need "
        f"{together} ({', '.join(map(str, parts))}), expected at most {left - 1}. What may help: {'; '.join(ways)}",
        hint=f"rasura erase --base MODEL --concept TEXT --retain FILE --rank-rule {coarser}",
        width=basis.width,
        invariants=basis.invariants,
        retained=basis.retained,
        left=left,
        needed=together,
        loose=loose,
        guards=parts,
    )


def find_leading(columns: torch.Tensor, share: float) -> torch.Tensor:
    """Orthonormal rows [k, d] that carry this share of the columns' energy."""
    left, values, _ = torch.linalg.svd(columns, full_matrices=False)  # left [d, min(d, n)]
    rows: torch.Tensor = left[:, : count_for(values, share)].T.contiguous()
    return rows


def count_for(values: torch.Tensor, share: float) -> int:
    """The smallest k with Σ_{i≤k} σ² ≥ share·Σ σ², at least 1, for descending singular values σ."""
    reached = values.square().cumsum(0)
    return min(int((reached < share * reached[-1]).sum()) + 1, int(values.numel()))


def _span(tokens: torch.Tensor) -> torch.Tensor:
    if tokens.shape[0] == 0:
        return torch.zeros(0, tokens.shape[1], dtype=torch.float64)
    _, values, rows = torch.linalg.svd(tokens, full_matrices=False)
    kept: torch.Tensor = rows[: int((values > EXACT * values[0]).sum())]
    return kept


def _deflated(moment: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    left = moment - rows.T @ (rows @ moment)  # (I − UᵀU) M
    both = left - (left @ rows.T) @ rows  # (I − UᵀU) M (I − UᵀU)
    return (both + both.T) / 2  # eigh reads one triangle: make both say the same


def _orthonormal(rows: torch.Tensor) -> torch.Tensor:
    if rows.shape[0] == 0:
        return rows
    q: torch.Tensor = torch.linalg.qr(rows.T)[0]  # QR keeps the order: invariants stay first
    return q.T.contiguous()


def join_rows(parts: Iterable[torch.Tensor]) -> torch.Tensor:
    """An orthonormal basis [k, d] of the span of several sets of rows, exact to `EXACT`."""
    return _span(torch.cat(list(parts)))
