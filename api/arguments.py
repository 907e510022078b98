"""What may be written in several ways in a call, and how it is read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from rasura.patches.lists.role import TEMPLATES
from rasura.patches.prompts.retain_set import load_held_out, load_texts
from rasura.registry.trust.keys.passwords import read_password_file

if TYPE_CHECKING:
    from rasura.patches.checks.policy import Policy
    from rasura.patches.format.signatures.signing_key import SigningKey
    from rasura.patches.lists.role import Role
    from rasura.patches.prompts.retain_set import HeldOut
    from rasura.registry.registry import Registry

__all__ = ["Lines", "PolicyRef", "act_by_key", "find_password", "read_held_out", "read_lines", "read_policy_argument"]

PolicyRef: TypeAlias = "Policy | str | Path"
"""A policy, or the path of its TOML file."""
Lines: TypeAlias = str | Path | Iterable[str]
"""A text, several texts, or a `Path`: a list as people have them (docs/lists.md)."""


def act_by_key(store: Registry, key: str | Path, password_file: str | Path | None) -> SigningKey:
    """Have a registry's entries signed by who acts; gives their key.

    Args:
        store: the registry.
        key: the name of a key whose private half is there, or a file that holds one.
        password_file: holds its password, where it has one.

    Raises:
        NotFoundError, InputError, FormatError: there is no such key, or its password is missing or wrong.
        UntrustedKeyError, RevokedKeyError: its signature counts for nothing there.
    """
    from rasura.registry.trust.keys.key_files import act_by

    store.ask_password = lambda _: find_password(password_file)
    return act_by(store, str(key))


def find_password(path: str | Path | None) -> bytes | None:
    """The password in a file; None without one.

    Raises:
        NotFoundError, FormatError, InputError: the file is not there, or none that can be used.
    """
    return None if path is None else read_password_file(Path(path))


def read_lines(lines: Lines, role: Role | None = None) -> tuple[str, ...]:
    """The texts.

    Args:
        lines: texts or a file.
        role: what a file of them is for; None: templates.

    Raises:
        NotFoundError: the file is missing.
        ListError: it is empty or unreadable, or can be read in more than one way.
    """
    if isinstance(lines, Path):
        return load_texts(lines, role or TEMPLATES)
    return (lines,) if isinstance(lines, str) else tuple(lines)


def read_held_out(lines: Lines, *, truncate: bool = False) -> HeldOut:
    """Texts on which leak is only measured; of a file, the list as it was read.

    Raises:
        ListError: as `read_lines`.
    """
    return load_held_out(lines, truncate=truncate) if isinstance(lines, Path) else read_lines(lines)


def read_policy_argument(given: PolicyRef | None) -> Policy | None:
    """The policy, read where a path was given; None stays None.

    Raises:
        NotFoundError: no such file.
        InputError, FormatError: no policy in it, or no regular file.
    """
    from rasura.registry.stacks.policy_file import read_policy

    return read_policy(Path(given)) if isinstance(given, str | Path) else given
