"""Passwords of locked keys: from a file, from the environment, or typed where nobody sees them; never an argument."""

import os
import sys
from pathlib import Path

import click

__all__ = ["PASSWORD_FILE", "ask_new_password", "ask_password"]

_KEPT = "password_file"
_TYPED = "passwords"


def _keep(context: click.Context, _: click.Parameter, value: Path | None) -> Path | None:
    context.ensure_object(dict)[_KEPT] = value
    return value


PASSWORD_FILE = click.option(
    "--password-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    envvar="RASURA_KEY_PASSWORD_FILE",
    expose_value=False,
    callback=_keep,
    help="Password of a key that has one [default: RASURA_KEY_PASSWORD, or asked].",
)


def ask_password(name: str) -> bytes | None:
    """The password of a key: out of the file, the environment, or asked for once; None where nobody can be asked.

    Raises:
        NotFoundError, FormatError, InputError: the file is not there, or none that can be used.
    """
    given = _given()
    return given if given is not None else _asked(name) if _can_ask() else None


def ask_new_password(name: str) -> bytes:
    """As `ask_password`, of a new key: asked for twice.

    Raises:
        UsageError: nobody can be asked, and none was given.
        NotFoundError, FormatError, InputError: the file is not there, or none that can be used.
    """
    given = _given()
    if given is not None:
        return given
    if not _can_ask():
        raise click.UsageError("expected a password in RASURA_KEY_PASSWORD or --password-file FILE, got none")
    from rasura.registry.trust.keys.passwords import check_password

    typed: str = click.prompt(f"password for key {name}", hide_input=True, confirmation_prompt=True, err=True)
    return check_password(typed.encode())


def _given() -> bytes | None:
    from rasura.registry.trust.keys.passwords import VARIABLE, check_password, read_password_file

    path = click.get_current_context().ensure_object(dict).get(_KEPT)
    if path is not None:
        return read_password_file(path)
    value = os.environ.get(VARIABLE)
    return None if value is None else check_password(os.fsencode(value))


def _can_ask() -> bool:
    return sys.stdin.isatty() and not click.get_current_context().params.get("as_json")


def _asked(name: str) -> bytes:
    """Typed once in a command, however often it signs."""
    typed: dict[str, str] = click.get_current_context().ensure_object(dict).setdefault(_TYPED, {})
    if name not in typed:
        typed[name] = click.prompt(f"password of key {name}", hide_input=True, err=True)
    return typed[name].encode()
