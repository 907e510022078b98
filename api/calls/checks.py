"""The calls that ask whether patches keep their promises, and set how much they must."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from rasura.api.arguments import PolicyRef, read_policy
from rasura.api.calls._calls import Calls
from rasura.api.hints import in_python, python_hint

if TYPE_CHECKING:
    from rasura.patches.checks.policy import Policy
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
        from rasura.registry.trust.check import judge_stack
        from rasura.registry.trust.limits import merge_policies

        staying, gone = self._goal(patches).patches, self._goal(leaving).patches
        limits = merge_policies(self.store, read_policy(policy))
        return _said(judge_stack(self.store, staying, limits, leaving=gone, progress=self._progress))

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
        from rasura.registry.stacks.policy_file import put_in_force

        wanted = read_policy(policy)
        assert wanted is not None
        return put_in_force(self.store, wanted, self._who(reason), dry_run=dry_run)


def _said(judged: Judged) -> Judged:
    """The same, with reasons that name the next call."""
    from rasura.patches.checks.verdict import Accepted

    if isinstance(judged.verdict, Accepted):
        return judged
    reasons = tuple(replace(reason, hint=python_hint(reason.hint)) for reason in judged.verdict.reasons)
    return replace(judged, verdict=replace(judged.verdict, reasons=reasons))
