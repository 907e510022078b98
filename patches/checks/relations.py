"""The numbers of a check, each with its limit; see `check` for what they mean.

Everything that depends on a promise alone (which patches count as ending it, what the stack leaks on it) is computed
once for all patches that share the promise: the patches of one request do, and so do those of one retain list.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from rasura.patches._io.arrays import Array
from rasura.patches.algebra.increment import SUM_LIMIT
from rasura.patches.algebra.light.layers import bound_sum, layers_of
from rasura.patches.checks.kernels.capacity import Capacity
from rasura.patches.checks.kernels.few_pairs import compute_shares
from rasura.patches.checks.kernels.footprint import Footprint, Space, norm, share, spaces_of
from rasura.patches.checks.kernels.stack_energy import Total
from rasura.patches.checks.kernels.weigh import Originals, digest_promise, weigh
from rasura.patches.checks.policy import Policy
from rasura.patches.checks.verdict import CheckName, Relation
from rasura.patches.format.member import Member
from rasura.patches.types import ParamName, PatchId

if TYPE_CHECKING:
    from rasura.patches.checks.kernels.pair_table import PairTable

LISTED: Final = 64
"""Patches of which all pairs are listed; of more, those over the limit and the worst on each patch."""
MOST: Final = 1000
"""Pairs over the limit that are listed at most."""

Inputs: TypeAlias = "Callable[[Space, ParamName], Array | None]"
"""From a space and a parameter to columns [d, m] float64; None where nothing is known of its inputs."""


@dataclass(frozen=True, slots=True, eq=False)
class Promise:
    """What a patch promised to leave alone.

    Attributes:
        key: equal for equal promises.
        inputs: prompts that stand for all it protects: Σ‖Δ x‖² is the mean leak.
        base: root of the same mean for the base's own weights.
        uniform: whether all parameters of a space have the same inputs.
    """

    key: object
    inputs: Inputs
    base: float
    uniform: bool = True


def promise_of(member: Member, base: float) -> Promise:
    """What the patch's protected rows say; `base` is what they weigh, see `weigh`."""
    patch = member.patch
    arrays, protected = patch.arrays, patch.manifest.protected
    spaces = frozenset(spaces_of(patch))

    def inputs(space: Space, name: ParamName) -> Array | None:
        if space not in spaces:
            return None
        span = arrays.span_of(name)
        return (span.rows * np.sqrt(span.energy)[:, None]).T

    key = (digest_promise(arrays), protected.basis.invariants, base, spaces)
    return Promise(key, inputs, base, uniform=not arrays.spans)


class Relations:
    """All numbers of one stack."""

    def __init__(
        self,
        stack: Sequence[Member],
        policy: Policy,
        *,
        prints: Sequence[Footprint] | None = None,
        promises: Sequence[Promise] | None = None,
        originals: Originals | None = None,
    ) -> None:
        """Prepare a stack.

        Args:
            stack: the patches with their strengths; not empty.
            policy: the limits.
            prints: the patches' footprints with other targets than the stored ones; their effects stay.
            promises: other promises than the stored ones.
            originals: the base's weights; None: what they would give is estimated, see `weigh`.
        """
        self.stack = tuple(stack)
        self.policy = policy
        self.stored = [Footprint.of(member.patch) for member in stack]
        self.prints = list(prints or self.stored)
        self.weighed = None if promises else weigh([member.patch for member in stack], originals)
        self.promises = list(promises or ()) or [
            promise_of(member, found.promise) for member, found in zip(stack, self.weighed or (), strict=True)
        ]

    @cached_property
    def strengths(self) -> Array:
        """[N] float64."""
        return np.array([member.strength.value for member in self.stack])

    @cached_property
    def total(self) -> Total:
        """The increments together."""
        return Total.of([member.patch for member in self.stack])

    @cached_property
    def _effects(self) -> list[float]:
        """‖Δ_q T_q‖ of each, as it was made."""
        return [stored.effect() for stored in self.stored]

    def _tabulate(self) -> PairTable:
        """All pairs of many patches, as bounds from above where their targets are the stored ones."""
        # Tables of thousands need torch; few patches need none.
        from rasura.patches.checks.kernels.bounded_pairs import BoundedPairs, ground_of, make_sketch
        from rasura.patches.checks.kernels.interference import Interference

        if self.prints == self.stored:
            made = zip(self.stored, self.stack, strict=True)
            sketches = [make_sketch(footprint, ground_of(member.patch)) for footprint, member in made]
            return BoundedPairs(sketches, self.strengths.tolist())
        return Interference(self.prints, self.strengths.tolist(), effects=self._effects)

    @cached_property
    def _listed(self) -> list[list[float]]:
        found: list[list[float]] = compute_shares(self.prints, self.strengths.tolist(), self._effects).tolist()
        return found

    @cached_property
    def places(self) -> dict[PatchId, int]:
        """Where each patch stands in the stack."""
        return {member.patch_id: place for place, member in enumerate(self.stack)}

    def bound(self) -> Iterator[Relation]:
        """Σ|s||B||A|."""
        layers = layers_of((member.patch.arrays.increments, member.strength) for member in self.stack)
        worst = max(bound_sum(layer.terms) for layer in layers)  # one row of one layer decides
        below = SUM_LIMIT * (1 - 2.0**-20)  # the sum must stay strictly below the limit
        yield self._whole(CheckName.BOUND, worst, below)

    def own(self) -> Iterator[Relation]:
        """What each patch leaks on its own promise."""
        for place, (member, promise) in enumerate(zip(self.stack, self.promises, strict=True)):
            if promise.uniform:
                leak = self._leak(place, promise)
            else:
                alone = Total.of([member.patch])
                leak = alone.energy(np.ones(1), promise.inputs)
            value = share(leak * abs(member.strength.value), promise.base)  # linear in the strength
            # a stronger dose may leak more, in proportion
            limit = self.policy.own * max(1.0, abs(member.strength.value))
            yield Relation(CheckName.OWN, member.patch_id, member.patch_id, value, limit)

    def pairs(self) -> Iterator[Relation]:
        """What each patch disturbs of each other one's effect."""
        if len(self.stack) <= LISTED:
            places = range(len(self.stack))
            # In the order of those disturbed.
            yield from (self._pair(p, q, self.share(p, q)) for q in places for p in places if self.comparable(p, q))
            return
        table = self._tabulate()
        worst, who = table.worst()
        listed = {(p, q): value for p, q, value in table.above(self.policy.pair, MOST)}
        over = len(listed)
        # at least the worst p of every q
        listed |= {(p, q): value for q, (p, value) in enumerate(zip(who.tolist(), worst.tolist(), strict=True))}
        if over < MOST:  # every pair that may be over is among them: these few are computed as they are
            listed = {(p, q): self.share(p, q) for p, q in listed}
        yield from (self._pair(p, q, value) for (p, q), value in sorted(listed.items()) if self.comparable(p, q))

    def one_sided(self) -> Iterator[Relation]:
        """Pairs of which one protects the other and is not protected by it."""
        # (p, q) where p was made so that it leaves q's targets alone
        guarding: set[tuple[int, int]] = set()
        by_name: dict[str, list[int]] = {}
        for place, member in enumerate(self.stack):
            manifest = member.patch.manifest
            # What protects a patch protects also the one that took its place: it has the same targets.
            for name in {manifest.concept.text, member.patch_id, *manifest.supersedes}:
                by_name.setdefault(name, []).append(place)
        for p, member in enumerate(self.stack):
            protected = member.patch.manifest.protected
            found = {q for name in (*protected.concepts, *protected.patches) for q in by_name.get(name, ())}
            guarding |= {(p, q) for q in found - {p}}
        for p, q in sorted(guarding):
            if (q, p) not in guarding and self.comparable(p, q):
                value = self.share(q, p)
                yield Relation(CheckName.ONE_SIDED, self.stack[q].patch_id, self.stack[p].patch_id, value, math.inf)

    def whole(self) -> Iterator[Relation]:
        """What all leak on each promise, and which patches end it."""
        found: dict[object, tuple[float, list[tuple[int, float]]]] = {}
        for place, promise in enumerate(self.promises):
            if promise.key not in found:
                ended = self._ending(place)
                # patches of one request share a promise: measured once
                weights = self.strengths.copy()
                weights[[p for p, _ in ended]] = 0.0  # whoever ends the promise does not break it
                found[promise.key] = self.total.energy(weights, promise.inputs), ended
            leak, ended = found[promise.key]
            me = self.stack[place].patch_id
            for p, kept in ended:
                yield Relation(CheckName.KEPT, self.stack[p].patch_id, me, kept, 1.0)
            yield Relation(CheckName.STACK, self.stack[-1].patch_id, me, share(leak, promise.base), self.policy.stack)

    def residuals(self) -> Iterator[Relation]:
        """At most what the stack leaves of each target: r + d·(1 + r), from the patch's own residual r.

        Without the base's weights r is what the manifest claims: shown, and held to no limit.

        d is what the rest of the stack, and another strength than 1, move of the patch's own effect; what erasing
        asks for is at least 1/(1 + r) of that.
        """
        for place, member in enumerate(self.stack):
            claimed = member.patch.manifest.measured.get("residual")
            weighed = self.weighed[place].residual if self.weighed else None
            own = float(claimed) if weighed is None and claimed is not None else weighed
            if own is not None and self.stored[place].kernels:
                weights = self.strengths.copy()
                weights[place] -= 1.0  # its own effect at strength 1 is what was asked for
                targets: Mapping[Space, Array] = self.prints[place].targets
                # ‖Σ_p s_p Δ_p T_q − Δ_q T_q‖
                rest = self.total.energy(weights, lambda space, _, targets=targets: targets.get(space))  # type: ignore[misc]
                moved = share(rest, self._effects[place])
                limit = math.inf if weighed is None else self.policy.residual
                value = own + moved * (1 + own)
                yield Relation(CheckName.RESIDUAL, self.stack[-1].patch_id, member.patch_id, value, limit)

    def capacity(self) -> Iterator[Relation]:
        """Dimensions taken, as a share of all."""
        if self.room is not None:
            yield self._whole(CheckName.CAPACITY, self.room.share, self.policy.capacity)

    @cached_property
    def room(self) -> Capacity | None:
        """What the dimensions go to."""
        return Capacity.of([member.patch for member in self.stack])

    def share(self, p: int, q: int) -> float:
        """pair(p, q) by places in the stack."""
        if len(self.stack) <= LISTED:
            return self._listed[p][q]
        moved = self.prints[p].on(self.prints[q]) * abs(self.stack[p].strength.value)
        return share(moved, self._effects[q])

    def comparable(self, p: int, q: int) -> bool:
        """Whether two patches read something in common."""
        return p != q and bool(self.prints[p].kernels.keys() & self.prints[q].kernels.keys())

    def contributions(self, place: int) -> list[float]:
        """What each patch alone leaks on the promise of the one at `place`, as shares; 0 for those that end it."""
        promise, ended = self.promises[place], {p for p, _ in self._ending(place)}
        leaks = [0.0 if p in ended else self._leak(p, promise) for p in range(len(self.stack))]
        return [share(leak * s, promise.base) for leak, s in zip(leaks, np.abs(self.strengths).tolist(), strict=True)]

    def _leak(self, place: int, promise: Promise) -> float:
        """‖Δ_p X‖ in the spaces that it reads, at strength 1, on what all parameters of a space have in common."""
        kernels = self.stored[place].kernels
        inputs = {space: promise.inputs(space, ParamName(space)) for space in kernels}
        return norm(kernels[space] @ columns for space, columns in inputs.items() if columns is not None)

    def _ending(self, place: int) -> list[tuple[int, float]]:
        """The patches that erase what this one had promised to keep, and how much of each it had."""
        # ‖U_q F_p‖ / ‖F_p‖ for every p, over the rows in which q keeps prompts (guards are no prompts), at most 1
        arrays, basis = self.stack[place].patch.arrays, self.stack[place].patch.manifest.protected.basis
        rows, null = arrays.protected[arrays.energy > 0], arrays.protected[: basis.invariants]
        shares = []
        for free in self._free:
            if free.shape[0] != null.shape[1]:
                shares.append(0.0)
                continue
            left = free - null.T @ (null @ free)  # without what every prompt has in common
            size = float(np.linalg.norm(left))
            shares.append(min(1.0, float(np.linalg.norm(rows @ left)) / size) if size > 0 else 0.0)
        return [(p, value) for p, value in enumerate(shares) if value >= self.policy.kept and p != place]

    @cached_property
    def _free(self) -> list[Array]:
        """F: each patch's targets without what it protects itself, [d, m]."""
        found = []
        for member in self.stack:
            own, targets = member.patch.arrays.protected, member.patch.arrays.targets.T
            found.append(targets - own.T @ (own @ targets))  # [d, m]
        return found

    def _pair(self, p: int, q: int, value: float) -> Relation:
        return Relation(CheckName.PAIR, self.stack[p].patch_id, self.stack[q].patch_id, value, self.policy.pair)

    def _whole(self, check: CheckName, value: float, limit: float) -> Relation:
        last = self.stack[-1].patch_id
        return Relation(check, last, last, value, limit)
