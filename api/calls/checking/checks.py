"""The calls that ask whether patches keep their promises, and set how much they must."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from rasura.api.arguments import PolicyRef, read_policy_argument
from rasura.api.calls._calls import Calls
from rasura.api.hints import in_python, python_hint
from rasura.patches.checks.verdict import Accepted
from rasura.patches.errors import InputError
from rasura.registry.stacks.policy_file import put_in_force
from rasura.registry.trust.check import judge_registered, load_stack
from rasura.registry.trust.limits import merge_policies

if TYPE_CHECKING:
    from rasura.patches.checks.policy import Policy
    from rasura.registry.erase.certify import Certified
    from rasura.registry.live.arguments import GoalRef
    from rasura.registry.trust.check import Judged

__all__ = ["CheckCalls"]


class CheckCalls(Calls):
    """Checks and their policy."""

    # Checks

    @in_python
    def check(
        self,
        patches: GoalRef | Iterable[str],
        *,
        leaving: GoalRef | Iterable[str] = (),
        policy: PolicyRef | None = None,
    ) -> Judged:
        """Check that patches keep their promises and do not disturb each other (`rasura patch check`).

        Args:
            patches: the set that stays.
            leaving: what is taken out of a larger set to get to this one; what that breaks refuses.
            policy: limits that must hold beside those in force.

        Raises:
            VerificationError: a signature, digest or number is not good, or a key does not count here.
            NotFoundError: a patch or its files are not here.
        """
        staying, gone = self._goal(patches).patches, self._goal(leaving).patches
        limits = merge_policies(self.store, read_policy_argument(policy))
        return _said(judge_registered(self.store, staying, limits, leaving=gone, progress=self._progress))

    @in_python
    def certify(
        self, patches: GoalRef | Iterable[str], *, also: str | Iterable[str] = (), ball: float | None = None
    ) -> Certified:
        """How much of each concept's response can come back at most (`rasura patch check --certify`).

        It answers `rasura patch show --certify`, too. What that covers and what it does not: docs/certificates.md.

        Args:
            patches: the set that would be applied; each concept is certified under all of it.
            also: another word for the concept, or several, in the prompts of the patch; of one patch only.
            ball: radius around mixtures of the columns within which the share is bounded, too.

        Raises:
            VerificationError, NotFoundError: as `check`.
            ConceptError: a word that no prompt of the patch can hold.
            InputError: words for several concepts, or a radius that is none.
        """
        from rasura.registry.erase.certify import Covered, certify_patches

        covered = Covered((also,) if isinstance(also, str) else tuple(also), ball)
        stack = load_stack(self.store, self._goal(patches).patches, self._progress).stack
        if covered.also and len(stack) > 1:
            raise InputError(f"other words for one concept: expected one patch, got {len(stack)}")
        return certify_patches(self.store, stack, covered, self._progress)

    @in_python
    def policy(self) -> Policy:
        """The policy in force (`rasura policy show`)."""
        return self.store.policy()

    @in_python
    def set_policy(self, policy: PolicyRef, *, dry_run: bool = False, reason: str = "") -> bool:
        """Put a policy in force: everything that is applied from now on is held to it (`rasura policy set`).

        Returns:
            False where it was in force already.
        """
        wanted = read_policy_argument(policy)
        assert wanted is not None
        return put_in_force(self.store, wanted, self._who(reason), dry_run=dry_run)


def _said(judged: Judged) -> Judged:
    """The same, with reasons that name the next call."""
    if isinstance(judged.verdict, Accepted):
        return judged
    reasons = tuple(replace(reason, hint=python_hint(reason.hint)) for reason in judged.verdict.reasons)
    return replace(judged, verdict=replace(judged.verdict, reasons=reasons))
