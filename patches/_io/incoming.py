"""Files on their way: written under a name of their own, locked while their writer lives, renamed at the end."""

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

__all__ = ["INCOMING", "is_abandoned", "lock_incoming"]

INCOMING: Final = ".incoming-"
"""How the names of such files begin."""


def lock_incoming(descriptor: int) -> None:
    """Lock a file that was just made until it is closed, by whatever end; some file systems know no locks."""
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_abandoned(path: Path) -> bool:
    """Whether nobody holds the lock of such a file; of one that cannot be asked, no."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
