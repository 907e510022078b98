"""How it is said what is wrong with a log."""

from typing import Final, NoReturn

from rasura.patches.errors import AuditError

__all__ = ["HINT", "find_fault"]

HINT: Final = "keep this copy as evidence, then restore the registry from a backup"


def find_fault(check: str, index: int, message: str) -> NoReturn:
    """Say which check an entry does not pass.

    Raises:
        AuditError: always.
    """
    raise AuditError(f"audit log, entry {index}: {message}", hint=HINT, check=check, index=index)
