"""Who signed what a motion puts on a model, as its entries name them, and whether each was trusted at that moment.

*begun* and *done* carry the details `signers` (key ids, sorted, with commas) and `policy` (digest of the limits that
the set was held to). `revoked` names keys, revoked since, of patches that were on the model already and stay as they
were: such a motion puts nothing of theirs there. Trust is a matter of the log, too: an entry about a key gives it, and
`key.revoke` takes it.
"""

from collections.abc import Container, Iterable
from typing import Final

from rasura.patches.errors import AuditError
from rasura.patches.types import KeyId
from rasura.registry.log.entries.entry_parts import Deed, RowChange

__all__ = ["POLICY", "REVOKED", "SIGNERS", "Trust", "name_signers"]

SIGNERS: Final = "signers"
POLICY: Final = "policy"
REVOKED: Final = "revoked"
_MOST: Final = 60  # of 65 characters each, below the 4096 of a detail
_TAKES: Final = "key.revoke"


def name_signers(keys: Iterable[KeyId]) -> str:
    """The detail of an entry: each key once; of more than sixty the first, which no team has."""
    return ",".join(sorted(set(keys))[:_MOST])


class Trust:
    """Which keys the entries so far say are trusted."""

    def __init__(self) -> None:
        self._trusted: set[str] = set()
        self._once: set[str] = set()

    def __contains__(self, key: object) -> bool:
        return key in self._trusted

    def follow(self, entry: Deed, changes: Iterable[RowChange]) -> None:
        """Go on by one entry.

        Raises:
            AuditError: it puts patches on a model that a key signed which was not trusted then, or keeps patches there
                of a key that never was.
        """
        if keys := {change.id for change in changes if change.kind == "key"}:
            self._trusted = self._trusted - keys if entry.action == _TAKES else self._trusted | keys
            self._once |= self._trusted
        if entry.outcome == "begun":
            _check(entry, SIGNERS, self._trusted, "signed what it applies, and was not trusted then")
            _check(entry, REVOKED, self._once, "signed what it keeps, and was never trusted")


def _check(entry: Deed, detail: str, allowed: Container[str], said: str) -> None:
    named = entry.details.get(detail)
    if not isinstance(named, str) or not named:
        return
    if odd := sorted(key for key in named.split(",") if key not in allowed):
        raise AuditError(
            f"audit log, entry {entry.index}: key {odd[0][:12]} {said}",
            hint="keep this copy as evidence, then restore the registry from a backup",
            check="trust",
            index=entry.index,
        )
