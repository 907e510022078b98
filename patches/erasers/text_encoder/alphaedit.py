"""Feed-forward layers as memories: what of their keys is kept, and the smallest rewrite that leaves that alone.

For keys K [d_ff, n], wanted changes of their values R [d, n], the projector P onto what is free, and keys K_p of
earlier edits that are to be disturbed little (AlphaEdit, arXiv 2410.02355):

    ΔW = R KᵀP (K_p K_pᵀP + K KᵀP + λI)⁻¹

With the singular value decomposition [P K, P K_p] = U S Vᵀ this is (R (PK)ᵀU) (S² + λ)⁻¹ Uᵀ: no d_ff × d_ff inverse,
and the rows of Uᵀ lie in the range of P. Its rank is min(n, dim P) where there is no K_p.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch

from rasura.patches.algebra.protected_subspace import (
    Moment,
    ProtectedBasis,
    build_guarded_basis,
    build_protected_basis,
    count_for,
    make_empty_basis,
)
from rasura.patches.algebra.rank_rule import RankRule
from rasura.patches.erasers.interface import Problem, Reference
from rasura.patches.models.text_encoders.hidden_states import find_fc2_layers, states_of, stream_states
from rasura.patches.types import ParamName

GONE: Final = 1e-10
"""Share of the largest squared singular value below which a free direction is noise."""
PAPER_CUT: Final = 90_000
"""Directions with less than 1/90000 of the mean eigenvalue count as free (Om Prakash et al., code)."""
PAPER_LEAST: Final = 100 / 3072
"""Share of all directions that is free at least: their code takes 100 of CLIP ViT-L's 3072."""


@dataclass(frozen=True, slots=True, eq=False)
class Space:
    """The keys of one layer.

    Attributes:
        layer: number of the block.
        name: the weight.
        weight: W [d, d_ff] float64.
        reference: keys of the null prompt, the retained and the held-out prompts.
        basis: what is projected out of every detector.
        promise: what the detectors are promised not to see; `basis`, but for a layer that borrows another one's.
        earlier: keys [d_ff, p] of earlier edits that are only disturbed little.
    """

    layer: int
    name: ParamName
    weight: torch.Tensor
    reference: Reference
    basis: ProtectedBasis
    promise: ProtectedBasis
    earlier: torch.Tensor


@dataclass(frozen=True, slots=True)
class Keeping:
    """How the keys of a layer that must stay are chosen.

    Attributes:
        rule: where the retained spectrum is cut; None: as the paper's code does.
        share: how much of each guarded patch's free energy is held; None: they are disturbed little instead.
        shared: whether all layers use the last one's projector, as the paper's code does by a slip.
    """

    rule: RankRule | None
    share: float | None
    shared: bool


def spaces(problem: Problem, keeping: Keeping) -> dict[int, Space]:
    """What is known and promised about the keys of every touched layer, in rising order.

    Raises:
        ErasureRefusedError: what must stay takes the whole space.
    """
    names = find_fc2_layers(problem.weights)
    references = _references(problem, names)
    guarded = _guarded(problem, names)
    bases = {}
    for done, (layer, own) in enumerate(references.items()):
        problem.progress("finding what is free", done, len(references))
        held = guarded[layer] if keeping.share is not None else []
        plain = build_protected_basis(own.invariants, own.retained, keeping.rule or paper_rule(own))
        bases[layer] = build_guarded_basis(plain, held, keeping.share or 1.0)
    last = bases[max(bases)]
    return {
        layer: Space(
            layer,
            name,
            problem.weights[name].double(),
            references[layer],
            last if keeping.shared else bases[layer],
            make_empty_basis(last.width) if keeping.shared and layer != max(bases) else bases[layer],
            _columns(guarded[layer] if keeping.share is None else [], last.width),
        )
        for layer, name in names.items()
    }


def paper_rule(reference: Reference) -> RankRule:
    """Keep what has at least 1/90000 of the mean eigenvalue, but leave a thirtieth of all directions free.

    The null prompt is held exactly besides, so it is counted first.
    """
    moment = reference.retained.mean
    width = moment.shape[0]
    exact = build_protected_basis(reference.invariants, Moment(width), RankRule("count", 1))
    values = torch.linalg.eigvalsh(exact.project(exact.project(moment).T))  # of P M P
    large = int((values >= torch.trace(moment) / width / PAPER_CUT).sum())
    room = width - exact.rank - max(1, round(PAPER_LEAST * width))  # most that may be held
    return RankRule("count", max(1, min(large, room)))


def rewrite(
    change: torch.Tensor, keys: torch.Tensor, basis: ProtectedBasis, lam: float, earlier: torch.Tensor | None = None
) -> torch.Tensor:
    """ΔW [d, d_ff] float64 of the formula above.

    Args:
        change: R [d, n] float64.
        keys: K [d_ff, n] float64.
        basis: what P takes out.
        lam: λ ≥ 0; with 0, directions of noise are left out.
        earlier: K_p [d_ff, p] float64.
    """
    free = basis.project(keys)  # [d_ff, n]
    both = free if earlier is None or not earlier.shape[1] else torch.cat([free, basis.project(earlier)], 1)
    U, squares = _left(both)  # [d_ff, k], [k]
    damp = torch.where(squares > GONE * squares[0], 1 / (squares + lam), torch.zeros_like(squares))
    return (((change @ free.T) @ U) * damp) @ U.T  # R KᵀP (…)⁻¹, [d, d_ff]


def ridge_of(keys: torch.Tensor, basis: ProtectedBasis, share: float) -> float:
    """λ as a share of the mean squared free norm of a key."""
    return share * float(basis.project(keys).square().sum(0).mean())


def cut(
    delta: torch.Tensor, keys: torch.Tensor, basis: ProtectedBasis, energy: float, limit: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """A [r, d_ff] and B [d, r] that carry this share of what ΔW does to the keys, A free of everything in the basis."""
    U, strength, _ = torch.linalg.svd(delta @ keys, full_matrices=False)  # what the edit does to the keys, [d, n]
    rank = min(count_for(strength, energy), limit)
    B = U[:, :rank].contiguous()  # orthonormal, so A = BᵀΔW
    return basis.project((B.T @ delta).T).T.contiguous(), B


def _left(columns: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Left singular vectors [d_ff, k] and squared singular values, descending."""
    # more keys than directions: the d_ff × d_ff Gram matrix is the cheap way
    if columns.shape[1] > columns.shape[0]:
        values, vectors = torch.linalg.eigh(columns @ columns.T)
        return vectors.flip(1), values.flip(0).clamp(min=0)
    left, values, _ = torch.linalg.svd(columns, full_matrices=False)
    return left, values.square()


def _references(problem: Problem, names: Mapping[int, ParamName]) -> dict[int, Reference]:
    layers, encoder = list(names), problem.encoder
    null = states_of(encoder.module, encoder.batch([""]), layers)
    request = problem.request
    retained = _moments(problem, request.retained_prompts(), "reading retained keys", request.retained_count)
    held_out = _moments(problem, request.held_out_prompts(), "reading held-out keys", len(request.held_out))
    # keys [1, length, d_ff]: the only prompt
    return {layer: Reference(null[layer].keys[0], retained[layer], held_out[layer]) for layer in layers}


def _moments(problem: Problem, prompts: Iterable[str], stage: str, total: int) -> dict[int, Moment]:
    names = find_fc2_layers(problem.weights)
    found = {layer: Moment(int(problem.weights[name].shape[1])) for layer, name in names.items()}
    done = 0
    for seen in stream_states(problem.encoder, prompts, list(names)):
        for layer, states in seen.items():
            found[layer].add(states.keys)
        done += next(iter(seen.values())).keys.shape[0]
        problem.progress(stage, min(done, total), total)
    return found


def _guarded(problem: Problem, names: Mapping[int, ParamName]) -> dict[int, list[torch.Tensor]]:
    """Keys [m, d_ff] of the prompts of registered patches that must be left alone, one tensor a patch."""
    found: dict[int, list[torch.Tensor]] = {layer: [] for layer in names}
    for prompts in problem.request.guarded_prompts.values():
        seen = states_of(problem.encoder.module, problem.encoder.batch(prompts), list(names))
        for layer, states in seen.items():
            found[layer].append(states.keys.flatten(0, 1))  # [n · length, d_ff]
    return found


def _columns(rows: Sequence[torch.Tensor], width: int) -> torch.Tensor:
    return torch.cat([torch.zeros(0, width, dtype=torch.float64), *rows]).T.contiguous()
