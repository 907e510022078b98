"""The rounds of an erasure by span: solve, look for what is let through, solve again with that, while it helps."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from rasura.patches.algebra.protected_subspace import EXACT
from rasura.patches.erasers.closed_form.span.bounded import Map, Room, solve_bounded
from rasura.patches.erasers.closed_form.span.search import Probe, find_embeddings, measure_left
from rasura.patches.erasers.columns import Columns
from rasura.patches.errors import ErasureRefusedError

__all__ = ["Limits", "Run", "compute_left", "run_rounds"]


@dataclass(frozen=True, slots=True)
class Limits:
    """How far the rounds go; the fields are options of the method.

    Attributes:
        collateral: the largest.
        left: what may be left of the concept's response.
        rounds: searches at most.
        found: prompts that each adds at most.
        embeddings: whether each adds embeddings.
        gamma: how near to the concept those stay.
        ridge: λ as a share of the mean squared free target norm.
    """

    collateral: float
    left: float
    rounds: int = 4
    found: int = 16
    embeddings: bool = True
    gamma: float = 1.0
    ridge: float = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """What the rounds came to.

    Attributes:
        columns: the concept's own.
        found: the map of the last of them, whole.
        targets: the concept's own columns and those of the prompts that were added, [d, n].
        change: what is to be added to each.
        trail: for every round, what was left of all its columns before it and after.
        probes: how many prompts were added.
        response: the root mean square of ‖W D‖ over the concept's own columns.
    """

    columns: Columns
    found: Map
    targets: torch.Tensor
    change: torch.Tensor
    trail: tuple[tuple[float, float], ...]
    probes: int
    response: float


def run_rounds(room: Room, columns: Columns, contexts: Sequence[Probe], limits: Limits) -> Run:
    """Solve, look for what is let through, solve again with that, while it helps.

    Args:
        room: of the concept.
        columns: its own.
        contexts: the prompts that may be added.
        limits: how far.

    Raises:
        ErasureRefusedError: the layers make the same of the concept and of its anchor.
    """
    own, wanted = columns.targets, columns.anchors - columns.targets
    response = _measure_response(room, columns)
    C, D = own, wanted
    hidden = (own[:, :0], wanted[:, :0])  # embeddings: no prompt need have them
    trail: list[tuple[float, float]] = []
    waiting, probes = list(contexts), 0
    best = solve_bounded(room, C, D, ridge=limits.ridge, bound=limits.collateral)
    for _ in range(limits.rounds):
        left = {id(probe): measure_left(room, best, probe, response) for probe in waiting}
        waiting.sort(key=lambda probe: -left[id(probe)])  # stable: equals keep the vocabulary's order
        picked = [probe for probe in waiting[: limits.found] if left[id(probe)] > limits.left]
        if limits.found and contexts and not picked:
            break  # nothing that was looked at leaves more than is allowed
        if limits.embeddings:
            back, away = find_embeddings(room, best, own, wanted, limits.gamma)
            hidden = (torch.cat([hidden[0], back], 1), torch.cat([hidden[1], away], 1))
        more = torch.cat([C, *(probe.targets for probe in picked)], 1)
        change = torch.cat([D, *(probe.change for probe in picked)], 1)
        whole, asked = torch.cat([more, hidden[0]], 1), torch.cat([change, hidden[1]], 1)
        tried = solve_bounded(room, whole, asked, ridge=limits.ridge, bound=limits.collateral)
        before, after = compute_left(room, best, whole, asked), compute_left(room, tried, whole, asked)
        if after >= before:
            break  # within the bound nothing more can be had
        best, C, D, waiting, probes = tried, more, change, waiting[len(picked) :], probes + len(picked)
        trail.append((before, after))
    return Run(columns, best, C, D, tuple(trail), probes, response)


def compute_left(room: Room, found: Map, targets: torch.Tensor, change: torch.Tensor) -> float:
    """‖W(D − M C)‖ / ‖W D‖."""
    left = room.root @ (change - found.Q @ (found.A @ targets))
    return float(torch.linalg.vector_norm(left) / torch.linalg.vector_norm(room.root @ change))


def _measure_response(room: Room, columns: Columns) -> float:
    """Root mean square of ‖W D‖ over a concept's columns.

    Raises:
        ErasureRefusedError: it is nothing.
    """
    wanted, present = columns.anchors - columns.targets, room.root @ columns.targets
    asked = float(torch.linalg.vector_norm(room.root @ wanted))
    if asked <= EXACT * float(torch.linalg.vector_norm(present)):
        raise ErasureRefusedError(
            f"the layers make the same of {columns.name!r} and of its anchor: expected an anchor that draws something "
            "else",
            hint=f"rasura erase --base MODEL --concept {shlex.quote(columns.name)} --anchor TEXT --retain FILE",
            concept=columns.name,
        )
    return float(asked / columns.pairs**0.5)
