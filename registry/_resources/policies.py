"""The policy in force: the limits that every check of this registry holds patches to."""

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy.orm import Session

from rasura.patches.checks.policy import DEFAULT_POLICY, MAX_POLICY_BYTES, Policy
from rasura.patches.errors import NotFoundError
from rasura.patches.types import Digest
from rasura.registry._resources.resource import Opened
from rasura.registry._storage.choices import REGISTRY, PolicyRecord
from rasura.registry._storage.digests import sha256
from rasura.registry._storage.records import Draft
from rasura.registry.log.entry import Change
from rasura.registry.rows import policies

__all__ = ["Policies", "policy_digest"]


def policy_digest(policy: Policy) -> Digest:
    """SHA-256 of the TOML that says this policy: equal limits have equal digests, however a file spelled them."""
    return sha256(policy.to_toml().encode())


class Policies(Opened):
    """What a registry does with its policy."""

    def policy(self) -> Policy:
        """The policy in force; the default where nobody has set one.

        Raises:
            NotFoundError, DigestMismatchError: its TOML is missing or was changed; nothing is checked by guesses.
        """
        record = self.policy_record()
        if record is None:
            return DEFAULT_POLICY
        try:
            return Policy.parse(self.blobs.read(record.digest, limit=MAX_POLICY_BYTES))
        except NotFoundError as error:
            raise NotFoundError(f"policy in force: {error.message}", hint="rasura policy set FILE") from None

    def policy_record(self) -> PolicyRecord | None:
        """Which policy is in force and since when; None where nobody has set one."""
        with self.reading() as session:
            return policies.find(session)

    def set_policy(self, policy: Policy, entry: Draft) -> bool:
        """Puts a policy in force; False where it is. The entry tells the digests before and after."""
        toml = policy.to_toml().encode()
        record = PolicyRecord(REGISTRY, policy_digest(policy), self._journal.now())
        before = self.policy_record()
        told = {"before": before.digest if before else policy_digest(DEFAULT_POLICY), "after": record.digest}

        def work(session: Session) -> Sequence[Change | None]:
            change = policies.save(session, record)
            self.blobs.put(toml, record.digest)  # before the commit, which promises that it is there; or back again
            return [change]

        return self._journal.change(replace(entry, details={**entry.details, **told}), work) is not None
