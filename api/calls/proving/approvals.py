"""The calls about who may approve what, and about what they approved."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rasura.api.calls._calls import Calls
from rasura.api.hints import in_python
from rasura.registry.stacks.plan_file import read_plan
from rasura.registry.trust.approvals.approve import approve_patches, approve_plan
from rasura.registry.trust.roles.in_force import find_trust_policy, put_trust_in_force, sign_trust_policy

if TYPE_CHECKING:
    from rasura.registry.live.arguments import Ids
    from rasura.registry.stacks.plan_file import Plan
    from rasura.registry.trust.approvals.approve import Approved
    from rasura.registry.trust.roles.signed_trust import SignedTrust
    from rasura.registry.trust.roles.trust_policy import TrustPolicy

__all__ = ["ApprovalCalls"]


class ApprovalCalls(Calls):
    """The trust policy of a registry, and approvals."""

    @in_python
    def approve_patches(
        self, patches: Ids, *, key: str | None = None, dry_run: bool = False, reason: str = ""
    ) -> tuple[Approved, ...]:
        """Approve patches, as the trust policy asks for (`rasura patch approve`).

        Args:
            patches: which.
            key: name of the key that approves; None: the only one.
            dry_run: only say what would be new.
            reason: why.

        Raises:
            NotFoundError: there is no trust policy, no such patch or key.
            InputError: the key has not the role approve, or not for these patches.
        """
        draft = self._draft("patch.approve", reason)
        return approve_patches(self.store, self._resolve(patches), key, draft, dry_run=dry_run)

    @in_python
    def approve_plan(
        self, plan: Plan | str | Path, *, key: str | None = None, dry_run: bool = False, reason: str = ""
    ) -> Approved:
        """Approve what a plan puts in, together and on its model only (`rasura plan approve`).

        Args:
            plan: the plan, or its file.
            key: name of the key that approves; None: the only one.
            dry_run: only say whether it would be new.
            reason: why.

        Raises:
            NotFoundError, InputError: as for `approve_patches`.
        """
        made = read_plan(Path(plan)) if isinstance(plan, str | Path) else plan
        way, draft = made.diff, self._draft("plan.approve", reason)
        return approve_plan(self.store, made.digest, (*way.added, *way.changed), key, draft, dry_run=dry_run)

    @in_python
    def trust_policy(self) -> TrustPolicy | None:
        """The trust policy in force, every version up to it checked (`rasura trust show`)."""
        return find_trust_policy(self.store)

    @in_python
    def sign_trust_policy(self, file: str | Path, *, key: str | None = None) -> SignedTrust:
        """Sign a trust policy; its `to_bytes()` is the file to put in force (`rasura trust sign`).

        Args:
            file: TOML, which becomes the next version, or one that others have signed.
            key: name of the key to sign with; None: the only one.

        Raises:
            NotFoundError, InputError, FormatError: no such file or key, or no policy.
        """
        return sign_trust_policy(self.store, Path(file), key)

    @in_python
    def set_trust_policy(self, file: str | Path, *, dry_run: bool = False, reason: str = "") -> TrustPolicy:
        """Put a signed trust policy in force, if it follows the one that is (`rasura trust set`).

        Raises:
            SignatureError: another version, another log, or too few signatures.
            NotFoundError, FormatError, InputError: no such file, no signed policy, or one that has expired.
        """
        draft = self._draft("trust.set", reason)
        return put_trust_in_force(self.store, Path(file), draft, dry_run=dry_run).policy
