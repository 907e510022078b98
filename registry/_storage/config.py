"""Defaults that people write down beside their registry: `.rasura/config.toml`.

    [defaults]
    key = "alice"                 # to sign with
    actor_key = "alice"           # to sign what the log says of who acts: a key's name, or a file
    retain = "../retain.csv"      # what to keep
    templates = "../prompts.txt"  # prompts with one {}, one a line
    judge = "../judge"            # who looks at pictures
    policy = "../strict.toml"     # limits beside those in force

Paths are relative to the file. What a command line says goes before it. Strict: what is not known is refused, because a
default that silently does not apply is worse than none.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final, Self

from rasura.patches._io.json_fields import show
from rasura.patches.errors import InputError, NotFoundError
from rasura.registry._storage.database.lookup import suggest
from rasura.registry._storage.files.durable_files import read_own_file

__all__ = ["CONFIG", "Config"]

CONFIG: Final = "config.toml"
_MAX_BYTES: Final = 65_536
_TABLE: Final = "defaults"


@dataclass(frozen=True, slots=True)
class Config:
    """The defaults; None where there is none. Paths are absolute."""

    key: str | None = None
    actor_key: str | None = None
    retain: str | None = None
    templates: str | None = None
    judge: str | None = None
    policy: str | None = None

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The file in a registry's folder; without one, no defaults.

        Raises:
            InputError: no TOML, an unknown table or name, a value that is no text.
            RegistryError: it cannot be read.
        """
        path = folder / CONFIG
        try:
            data = read_own_file(path, limit=_MAX_BYTES, what=CONFIG)
        except NotFoundError:
            return cls()
        try:
            document = tomllib.loads(data.decode("utf-8"))
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise InputError(f"{path}: expected TOML, got something else: {error}") from None
        except (ValueError, RecursionError):  # a number of thousands of digits, tables in tables in tables
            raise InputError(f"{path}: expected numbers of a sensible length, and no nesting") from None
        _check_known(path, document, (_TABLE,), "table")
        table = document.get(_TABLE, {})
        if not isinstance(table, Mapping):
            raise InputError(f"{path}: {_TABLE}: expected a table, got {show(table)}")
        known = tuple(field.name for field in fields(cls))
        _check_known(path, table, known, "name")
        return cls(**{name: _value(path, name, value) for name, value in table.items()})


def _check_known(path: Path, found: Mapping[str, object], known: tuple[str, ...], what: str) -> None:
    for name in found:
        if name not in known:
            raise InputError(
                f"{path}: expected the {what} {' or '.join(known)}, got {show(name)}{suggest(name, known)}"
            )


def _value(path: Path, name: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise InputError(f"{path}: {name}: expected a text, got {show(value)}")
    beside = path.parent / value
    plain = name == "key" or (name == "actor_key" and "/" not in value and not value.endswith(".pem"))
    return value if plain or (name == "judge" and not beside.exists()) else str(beside.resolve())
