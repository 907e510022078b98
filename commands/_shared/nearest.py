"""Where a command was typed, and the registry that it means where it names none."""

import os
from pathlib import Path
from typing import Final

__all__ = ["find_nearest", "working_folder"]

_UID_DIGITS: Final = 10


def find_nearest() -> Path:
    """The nearest registry upwards that belongs to whoever typed the command, under sudo to who called it.

    Raises:
        NoRegistryError: there is none, or it is somebody else's.
    """
    from rasura.registry._storage.location import find_location

    said = os.environ.get("SUDO_UID", "")
    number = said.isascii() and said.isdigit() and len(said) <= _UID_DIGITS
    return find_location(working_folder(), caller=int(said) if number and os.geteuid() == 0 else None)


def working_folder() -> Path:
    """Where the command was typed.

    Raises:
        NoRegistryError: that folder is gone.
    """
    from rasura.patches.errors import NoRegistryError

    try:
        return Path.cwd()
    except OSError as error:
        raise NoRegistryError(f"expected a working folder, got {error.strerror}", hint="cd ELSEWHERE") from None
