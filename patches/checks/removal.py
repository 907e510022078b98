"""Is it safe to take patches out of a stack? Checked like putting them in.

For each patch p that leaves and each q that stays, these are shown, with the numbers of `check`:

    lost   pair(p, q)   what q's erasure loses with p: part of it was p's doing
    left   pair(q, p)   what q goes on disturbing of the concept that comes back

namely where the number is over the policy's limit for a pair, or where only one of the two was made to leave the other
alone. They do not refuse: what must come back must come back. What stays is refused where it lacks a patch that it
requires, or where taking p out breaks a relation that held before; what was broken already is no reason to keep p in.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from rasura.patches.checks.check import compute_all
from rasura.patches.checks.explain import reason, structure
from rasura.patches.checks.kernels.weigh import Originals
from rasura.patches.checks.policy import DEFAULT_POLICY, Policy
from rasura.patches.checks.relations import Relations
from rasura.patches.checks.verdict import Accepted, CheckName, Refused, Relation
from rasura.patches.format.member import Member
from rasura.patches.types import PatchId


def check_revert(
    present: Sequence[Member],
    leaving: Iterable[PatchId],
    policy: Policy = DEFAULT_POLICY,
    originals: Originals | None = None,
) -> Accepted | Refused:
    """Judge taking patches out of a stack.

    Args:
        present: the stack as it is.
        leaving: what is taken out; ids that are not there are no matter.
        policy: the limits.
        originals: the base's weights of all that `present` touches; None: see `weigh`.
    """
    gone = set(leaving)
    staying = [member for member in present if member.patch_id not in gone]
    if not staying:
        return Accepted(())
    known = set(structure(present))  # what is wrong with the stack as it is keeps nobody in
    if missing := tuple(wrong for wrong in structure(staying) if wrong not in known):
        return Refused((), missing)
    numbers = Relations(staying, policy, originals=originals)
    relations = tuple(compute_all(numbers))
    shown = (*relations, *_crossing(present, gone, policy))
    broken = [relation for relation in relations if not relation.holds]
    # The stack as it is costs as much as the one that stays: only where something may have been broken before.
    known_broken = _broken(present, policy, originals) if broken else set()
    fresh = [relation for relation in broken if _key(relation) not in known_broken]
    if fresh:
        return Refused(shown, tuple(reason(r, numbers) for r in fresh), numbers.room)
    return Accepted(shown, numbers.room)


def _crossing(present: Sequence[Member], gone: set[PatchId], policy: Policy) -> Iterator[Relation]:
    """Pairs of which one leaves and the other stays."""
    numbers = Relations(present, policy)
    sided = {frozenset((relation.patch, relation.other)) for relation in numbers.one_sided()}
    for pair in numbers.pairs():
        if (pair.patch in gone) == (pair.other in gone):  # both leave, or both stay
            continue
        if not pair.holds or frozenset((pair.patch, pair.other)) in sided:
            kind = CheckName.LOST if pair.patch in gone else CheckName.LEFT
            yield Relation(kind, pair.patch, pair.other, pair.value, math.inf)  # a limit that no number reaches


def _broken(present: Sequence[Member], policy: Policy, originals: Originals | None) -> set[tuple[str, str, str]]:
    numbers = Relations(present, policy, originals=originals)
    return {_key(relation) for relation in compute_all(numbers) if not relation.holds}


def _key(relation: Relation) -> tuple[str, str, str]:
    """A relation by what it is about; a whole stack's are named after its last patch."""
    whole = relation.check in {CheckName.CAPACITY, CheckName.BOUND}
    of_patch = relation.check in {CheckName.OWN, CheckName.PAIR}
    return relation.check, relation.patch if of_patch else "", "" if whole else relation.other
