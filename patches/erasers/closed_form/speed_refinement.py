"""Which retained vectors are worth protecting: SPEED's prior filter and directed augmentation, streamed.

s(c) is how far an erasure without regard for anything retained moves c (`speed_prior_shift`). *Influence-based Prior
Filtering* keeps the vectors with s(c) > α · mean s, strictly.

*Directed Prior Augmentation* adds to every kept vector noise along the least right-singular direction v of W, which
changes W c the least: c' = c + t·v with t ~ N(0, 1), `aug` times; those with s(c') > α · mean s are kept in turn, the
mean taken over all of them or over the pieces of 128 kept vectors in which the authors' code works.

The result is the second moment of both (SPEED, arXiv 2503.07392, section 3.2 and 3.4). Vectors come in batches, pass
after pass, and are never all in memory: there may be millions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch

from rasura.patches.algebra.protected_subspace import Moment
from rasura.patches.erasers.closed_form.speed_prior_shift import Choices, Shift

CHUNK: Final = 128
"""Kept vectors that are augmented at a time."""
CACHE: Final = 1 << 28
"""Bytes of retained vectors that are remembered between passes; more than that is encoded anew."""
_STRICT: Final = 1 + 1e-12  # a set of equal shifts has none above its mean, whatever rounding says
_MIX: Final = 0x9E3779B97F4A7C15  # spreads layers over the seeds: 2⁶⁴ / golden ratio


class ReplayableBatches:
    """Batches that can be gone through again: remembered while they are few, made anew when they are many."""

    def __init__(self, source: Callable[[], Iterator[torch.Tensor]], limit: int = CACHE) -> None:
        self._source = source
        self._limit = limit
        self._kept: list[torch.Tensor] | None = None

    def __call__(self) -> Iterator[torch.Tensor]:
        """All batches [b, d], in order."""
        if self._kept is not None:
            yield from self._kept
            return
        kept: list[torch.Tensor] = []
        size = 0
        for batch in self._source():
            size += batch.numel() * batch.element_size()
            if size <= self._limit:
                kept.append(batch)
            else:
                kept.clear()
            yield batch
        if size <= self._limit:
            self._kept = kept


@dataclass(frozen=True, slots=True, eq=False)
class Refined:
    """What one group protects.

    Attributes:
        moment: of the kept vectors and their noisy copies.
        seen: retained vectors in all.
        kept: how many passed the filter.
        added: how many noisy copies passed.
    """

    moment: Moment
    seen: int
    kept: int
    added: int


def refine(
    batches: Callable[[], Iterator[torch.Tensor]], groups: Sequence[Shift], choices: Choices
) -> tuple[Refined, ...]:
    """Filter and augment the retained vectors, for all groups in the same passes.

    Args:
        batches: gives all retained vectors [b, d] float64, in the same order each time.
        groups: prior shift of each group.
        choices: what to do.
    """
    # all groups share the passes: encoding prompts is what costs
    filters = [_Filter(shift, choices, i) for i, shift in enumerate(groups)]
    if choices.ipf:
        for batch in batches():
            for own in filters:
                own.look(batch)
    # the mean over all copies has to be known before the first is kept
    if choices.aug and not choices.chunked:
        _augment(batches, filters, _Filter.look_at_copies)
    _augment(batches, filters, _Filter.keep_copies)
    return tuple(own.result() for own in filters)


def make_noise_source(seed: int, group: int) -> torch.Generator:
    """Where the noise of a group comes from: t [b, aug] of its first piece of kept vectors, its second, and so on."""
    return torch.Generator().manual_seed((seed + (group + 1) * _MIX) % (1 << 63))


def _augment(
    batches: Callable[[], Iterator[torch.Tensor]],
    filters: Sequence[_Filter],
    visit: Callable[[_Filter, torch.Tensor], None],
) -> None:
    """One pass: each filter visits its kept vectors in pieces of `CHUNK`."""
    for own in filters:
        own.rewind()
    for batch in batches():
        for own in filters:
            for piece in own.pieces(batch):
                visit(own, piece)
    for own in filters:
        for piece in own.rest():
            visit(own, piece)


class _Mean:
    """A running mean."""

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    def add(self, values: torch.Tensor) -> None:
        self.total += float(values.sum())
        self.count += values.numel()

    @property
    def value(self) -> float:
        return self.total / max(self.count, 1)


class _Filter:
    """The state of one group through the passes."""

    def __init__(self, shift: Shift, choices: Choices, index: int) -> None:
        self._shift, self._choices, self._index = shift, choices, index
        self._mean, self._copies = _Mean(), _Mean()
        self._moment = Moment(int(shift.read.shape[1]))
        self._kept = self._added = self._seen = 0
        self.rewind()

    def rewind(self) -> None:
        """Begin a pass: the same noise again, and no vectors waiting."""
        self._noise = make_noise_source(self._choices.seed, self._index)
        self._waiting: torch.Tensor | None = None
        self._seen = 0

    def look(self, batch: torch.Tensor) -> None:
        self._mean.add(self._shift.of(batch))

    def pieces(self, batch: torch.Tensor) -> Iterator[torch.Tensor]:
        """The batch's kept vectors, joined with those that wait, in whole pieces."""
        self._seen += batch.shape[0]
        kept = batch[self._above(self._shift.of(batch), self._mean.value)] if self._choices.ipf else batch
        waiting = kept if self._waiting is None else torch.cat([self._waiting, kept])
        whole = waiting.shape[0] // CHUNK * CHUNK  # only whole pieces: batches of another size draw the same noise
        self._waiting = waiting[whole:].clone()  # a view would keep the whole batch alive
        for start in range(0, whole, CHUNK):
            yield waiting[start : start + CHUNK]

    def rest(self) -> Iterator[torch.Tensor]:
        """What still waits when the pass ends."""
        if self._waiting is not None and self._waiting.shape[0]:
            yield self._waiting

    def look_at_copies(self, piece: torch.Tensor) -> None:
        self._copies.add(self._shift.noisy(piece, self._draw(piece)))

    def keep_copies(self, piece: torch.Tensor) -> None:
        self._kept += piece.shape[0]
        if not self._choices.aug:
            self._moment.add(piece)
            return
        noise = self._draw(piece)
        sizes = self._shift.noisy(piece, noise)  # [b, aug]
        mean = float(sizes.mean()) if self._choices.chunked else self._copies.value
        passed = self._above(sizes, mean)  # [b, aug]
        self._moment.add_all(_sum_copies(piece, torch.where(passed, noise, 0.0), passed.sum(1), self._shift.least))
        self._added += int(passed.sum())

    def result(self) -> Refined:
        return Refined(self._moment, self._seen, self._kept, self._added)

    def _above(self, sizes: torch.Tensor, mean: float) -> torch.Tensor:
        return sizes > self._choices.alpha * mean * _STRICT

    def _draw(self, piece: torch.Tensor) -> torch.Tensor:
        shape = (piece.shape[0], self._choices.aug)
        return torch.randn(shape, generator=self._noise, dtype=torch.float64)


def _sum_copies(piece: torch.Tensor, noise: torch.Tensor, copies: torch.Tensor, along: torch.Tensor) -> Moment:
    """The moment of vectors c and of their copies c + t·v, without making any copy: all lie in the span of c and v.

        Σ (c + t·v)(c + t·v)ᵀ = Σ n·ccᵀ + (Σ t)·(cvᵀ + vcᵀ) + Σ t²·vvᵀ

    Args:
        piece: c [b, d].
        noise: t [b, aug], 0 where a copy did not pass.
        copies: how many did, [b].
        along: v [d].
    """
    total = noise.sum(1)  # Σ t of each c, [b]
    left = torch.cat([piece, along[None]])  # [b + 1, d]
    across = piece * (1 + copies)[:, None] + total[:, None] * along
    right = torch.cat([across, (total @ piece + noise.square().sum() * along)[None]])
    return Moment.of(left.T @ right, piece.shape[0] + int(copies.sum()))
