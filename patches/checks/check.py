"""Does a stack keep its promises? Linear algebra on stored detectors, bases and targets; no image.

For a patch p with increments Δ_p, targets T_p and protected rows U_p with energies E_p:

    own(p)      ‖Δ_p U_p √E_p‖ / ‖W U_p √E_p‖      what p leaks on what it promised not to touch
    pair(p, q)  ‖Δ_p T_q‖ / ‖Δ_q T_q‖              how much of q's work p disturbs; where both read text embeddings, or
                                                   both the same states inside the encoder
    stack(q)    ‖Σ_p Δ_p U_q √E_q‖ / ‖W U_q √E_q‖  what all of them together leak on q's protected set
    kept(p, q)  ‖U_q F_p‖ / ‖F_p‖                  how much of what p erases q had promised to keep; F_p is T_p without
                                                   what p itself protects and without the null prompt. Where that is
                                                   nearly all, p was made to end that promise, so `stack(q)` leaves p
                                                   out, and the relation is shown
    residual(q) r_q + (1 + r_q)·‖Σ_p Δ_p T_q − Δ_q T_q‖ / ‖Δ_q T_q‖, Δ_q at strength 1
                                                   at most what the stack leaves of q's concept; r_q is what q leaves
    one-sided   pair(q, p) where p protects q's targets and q does not protect p's: taken out of the stack, p's concept
                                                   comes back as q alone leaves it, not as the base has it; shown
    capacity    dimensions of the text embedding that the stack takes, as a share of all (`kernels.capacity`)
    bound       Σ_p |s_p||B_p||A_p|                 below 2⁸, or the sum would depend on its order

Norms are Frobenius norms summed over the touched parameters, each with targets and protected rows as it reads them.
Parameters that read picture features are left out: what a patch does there is measured, not proved
(`find_measured_only`). The base's own norms are computed from its weights where these are at hand, and else estimated
from the patches' tensors (`kernels.weigh`); what manifests claim of them decides nothing. A patch of the text encoder
moves the embeddings that all others read; what that does is in `encoder_effects`.
Not here: bytes, signatures and trust (the caller verified them), and the host's weights (the caller compares them).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rasura.patches.checks.explain import moves, reason, structure
from rasura.patches.checks.kernels.footprint import find_measured_only, proves
from rasura.patches.checks.kernels.weigh import Originals
from rasura.patches.checks.policy import DEFAULT_POLICY, Policy
from rasura.patches.checks.relations import Relations
from rasura.patches.checks.verdict import (
    SHORT,
    Accepted,
    CheckName,
    NeedsRebase,
    Reason,
    Refused,
    Relation,
    Verdict,
    require,
)
from rasura.patches.format.member import Member

__all__ = [
    "DEFAULT_POLICY",
    "SHORT",
    "Accepted",
    "Member",
    "NeedsRebase",
    "Policy",
    "Reason",
    "Refused",
    "Relation",
    "Verdict",
    "check",
    "compute_all",
    "find_measured_only",
    "judge_stack",
    "require",
]


def check(stack: Sequence[Member], policy: Policy = DEFAULT_POLICY, originals: Originals | None = None) -> Verdict:
    """Judge a stack. An empty stack is accepted: it is the base.

    Args:
        stack: verified patches and their strengths.
        policy: the limits.
        originals: the base's weights of all touched parameters; None: stored data alone, see `weigh`.
    """
    if not stack:
        return Accepted(())
    if wrong := tuple(structure(stack, separable=policy.separable)):  # no stack at all: numbers would mean nothing
        return Refused((), wrong)
    return judge_stack(Relations(stack, policy, originals=originals))


def judge_stack(numbers: Relations) -> Verdict:
    """The verdict over all numbers of a stack that is one."""
    relations = tuple(compute_all(numbers))
    broken = [relation for relation in relations if not relation.holds]
    if not broken:
        return Accepted(relations, numbers.room)
    said = tuple(reason(relation, numbers) for relation in broken)
    # Solved anew beside the other, a patch leaves it alone. That resolves pairs, of patches that can promise such a
    # thing.
    separable = {member.patch_id: proves(member.patch) for member in numbers.stack}
    if all(relation.check is CheckName.PAIR and separable[relation.patch] for relation in broken):
        return NeedsRebase(relations, said, moves(broken), numbers.room)
    return Refused(relations, said, numbers.room)


def compute_all(numbers: Relations) -> Iterator[Relation]:
    """Every relation of a stack, in the order in which they are shown."""
    yield from numbers.bound()
    yield from numbers.own()
    yield from numbers.pairs()
    yield from numbers.one_sided()
    yield from numbers.whole()
    yield from numbers.residuals()
    yield from numbers.capacity()
