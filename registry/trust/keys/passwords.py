"""Passwords of private keys: where they come from, and nothing that shows them.

A password is never an argument of a command, which every process of the machine could read, and never in a message. The
registry asks whoever opened it (`Registry.ask_password`), and only for a key that is locked.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Final

from rasura.patches._io.files import open_regular
from rasura.patches.errors import InputError
from rasura.patches.format.signatures.signing_key import MAX_PASSWORD_BYTES

__all__ = ["VARIABLE", "check_password", "read_password_file"]

VARIABLE: Final = "RASURA_KEY_PASSWORD"
"""The variable that holds a password."""
_OTHERS: Final = 0o077  # what group and others may do


def read_password_file(path: Path) -> bytes:
    """The password in a file that only its owner can read: all of it but one line break at the end.

    Raises:
        NotFoundError, FormatError: nothing is there, or no regular file.
        InputError: others may read or write it, or it holds no password.
    """
    with open_regular(path) as (file, status):
        if status.st_mode & _OTHERS:
            raise InputError(
                f"{path}: expected a password file that only its owner can read (mode 0600), got "
                f"{status.st_mode & 0o777:04o}",
                hint=f"chmod 600 {shlex.quote(str(path))}",
            )
        data = file.read(MAX_PASSWORD_BYTES + 3)
    return check_password(data.removesuffix(b"\n").removesuffix(b"\r"))


def check_password(password: bytes) -> bytes:
    """The password, if it can be one.

    Raises:
        InputError: of no bytes, or of more than OpenSSL takes.
    """
    if not 1 <= len(password) <= MAX_PASSWORD_BYTES:
        raise InputError(f"expected a password of 1 to {MAX_PASSWORD_BYTES} bytes, got {len(password)}")
    return password
