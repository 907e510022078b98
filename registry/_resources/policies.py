"""The policy in force: the limits that every check of this registry holds patches to."""

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import select
from sqlalchemy.orm import Session

from rasura.patches.checks.policy import DEFAULT_POLICY, MAX_POLICY_BYTES, Policy
from rasura.patches.errors import DigestMismatchError, InputError, NotFoundError
from rasura.patches.types import Digest
from rasura.registry._resources.resource import Opened
from rasura.registry._storage.database.tables import PolicyRow
from rasura.registry._storage.records.choices import REGISTRY, PolicyRecord, digest_policy
from rasura.registry._storage.records.records import Draft
from rasura.registry.log.actors import ASKED, REQUIRED, must_be_signed, refuse_unsigned
from rasura.registry.log.entries.entry import RowChange
from rasura.registry.log.entries.entry_changes import encode_change
from rasura.registry.log.told.checks import check_kind, check_told
from rasura.registry.log.writer import LogWriter

__all__ = ["Policies", "every"]


class Policies(Opened):
    """What a registry does with its policy."""

    def __init__(self, journal: LogWriter) -> None:
        super().__init__(journal)
        journal.asks_signature = self._asks_signature

    def policy(self) -> Policy:
        """The policy in force; the default where nobody has set one.

        Raises:
            NotFoundError, DigestMismatchError: its TOML is missing or was changed; nothing is checked by guesses.
        """
        record = self.policy_record()
        if record is None:
            return DEFAULT_POLICY
        try:
            return self._read(record)
        except NotFoundError as error:
            raise NotFoundError(f"policy in force: {error.message}", hint="rasura policy set FILE") from None

    def _read(self, record: PolicyRecord) -> Policy:
        return Policy.parse(self.blobs.read(record.digest, limit=MAX_POLICY_BYTES))

    def check_reason(self, reason: str) -> None:
        """Refuse an empty reason where the policy in force asks for one.

        Raises:
            InputError: it does, and there is none.
        """
        try:
            required = self.policy().reason
        except (NotFoundError, DigestMismatchError):  # whatever checks patches says so; setting it anew mends it
            return
        if required and not reason.strip():
            raise InputError(
                "the policy in force asks for a reason: expected why this is done, or a ticket", hint="--reason TEXT"
            )

    def check_signed(self, action: str) -> None:
        """Refuse to begin something that the log could not tell of, for want of a signature of who acts.

        Args:
            action: what would be done.

        Raises:
            InputError: the policy in force asks for it, and nobody's key signs.
        """
        if self._journal.actor is not None or not must_be_signed(action):
            return
        with self.reading() as session:
            asked = self._asks_signature(session)
        if asked:
            refuse_unsigned()

    def _asks_signature(self, session: Session) -> bool:
        record = find(session)
        try:
            return record is not None and self._read(record).actor_signature
        except (NotFoundError, DigestMismatchError):  # as for a reason
            return False

    def policy_record(self) -> PolicyRecord | None:
        """Which policy is in force and since when; None where nobody has set one."""
        with self.reading() as session:
            return find(session)

    def set_policy(self, policy: Policy, entry: Draft) -> bool:
        """Puts a policy in force; False where it is. The entry tells the digests before and after."""
        toml = policy.to_toml().encode()
        record = PolicyRecord(REGISTRY, digest_policy(policy), self._journal.now())
        before = self.policy_record()
        told = {ASKED: REQUIRED} if policy.actor_signature else {}
        told |= {"before": before.digest if before else digest_policy(DEFAULT_POLICY), "after": record.digest}

        def work(session: Session) -> Sequence[RowChange | None]:
            change = save(session, record)
            self.blobs.put(toml, record.digest)  # before the commit, which promises that it is there; or back again
            return [change]

        return self._journal.change(replace(entry, details={**entry.details, **told}), work) is not None


def save(session: Session, record: PolicyRecord) -> RowChange | None:
    """Puts a policy in force; the one that is in force already changes nothing."""
    before = find(session)
    if before is not None and before.digest == record.digest:
        return None
    row = session.get(PolicyRow, record.scope) or PolicyRow(scope=record.scope)
    row.digest, row.set_at = record.digest, record.set_at
    session.add(row)
    return encode_change(record, before)


def find(session: Session) -> PolicyRecord | None:
    """The policy in force, None where nobody has set one."""
    return next((record for record in every(session) if record.scope == REGISTRY), None)


def every(session: Session) -> tuple[PolicyRecord, ...]:
    """All that is there, which is one policy at most."""
    rows = session.scalars(select(PolicyRow).order_by(PolicyRow.scope))
    found = tuple(PolicyRecord(row.scope, Digest(row.digest), row.set_at) for row in rows)
    for record in found:
        check_told(session, record)
    check_kind(session, "policy", found)  # without its row, the default would be in force
    return found
