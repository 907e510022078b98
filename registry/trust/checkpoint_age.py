"""How long ago somebody outside was given a checkpoint of the log.

What happened after the last checkpoint that is kept elsewhere, a holder of the log's key can rewrite unseen. A policy
may bound that time: `checkpoint_age`. What counts is the newest entry `log.checkpoint`, which `rasura audit checkpoint
-o` writes when it has written the file; any other entry makes the log longer and says nothing about who holds its end.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from rasura.patches.checks.policy import show_age
from rasura.patches.errors import CheckRefusedError

if TYPE_CHECKING:
    from rasura.patches.checks.policy import Policy
    from rasura.registry.registry import Registry

__all__ = ["GIVEN", "require_checkpoint"]

GIVEN: Final = "log.checkpoint"
_HINT: Final = "rasura audit checkpoint -o FILE"


def require_checkpoint(registry: Registry, policy: Policy) -> None:
    """Refuse to go on where the policy bounds the age of the last checkpoint that was given out, and it is older.

    One that lies as far in the future counts as old: a clock was set back.

    Raises:
        CheckRefusedError: with the command that gives one out.
        AuditError: the entries are not what was signed.
    """
    if policy.checkpoint_age is None:
        return
    allowed = f"the policy in force asks for one within {show_age(policy.checkpoint_age)}"
    newest = registry.newest_entry(GIVEN)
    if newest is None:
        raise CheckRefusedError(f"no checkpoint of the log was ever given out: {allowed}", hint=_HINT)
    age = registry.now() - newest.time
    if abs(age) > timedelta(hours=policy.checkpoint_age):
        said = f"entry {newest.index} gave the last checkpoint of the log out at {newest.time:%Y-%m-%d %H:%M} UTC"
        raise CheckRefusedError(f"{said}: {allowed}", hint=_HINT, entry=newest.index)
