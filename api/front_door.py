"""The way in from Python: make, open and upgrade a registry."""

from __future__ import annotations

from pathlib import Path

from rasura.api.arguments import act_by_key, find_password
from rasura.api.hints import in_python
from rasura.api.progress import Progress, ignore_progress
from rasura.api.registry import Registry
from rasura.registry.live.arguments import read_login
from rasura.registry.registry import Registry as Store
from rasura.registry.registry import find_location

__all__ = ["init", "open", "upgrade"]


@in_python
def init(
    location: str | Path = ".", *, actor: str | None = None, reason: str = "", progress: Progress = ignore_progress
) -> Registry:
    """Make a registry and open it.

    Args:
        location: the folder that gets `.rasura`, or a PostgreSQL URL.
        actor: who acts, for the log; None: the user's login name.
        reason: why, for the first entry of the log.
        progress: told what is going on in every call of the handle.

    Raises:
        ExistsError: there is one already.
        RegistryError: it cannot be written; nothing is left behind.
    """
    who = actor or read_login()
    return Registry(Store.create(location, actor=who, reason=reason), who, progress)


@in_python
def open(  # noqa: A001  # rasura.open reads like sqlite3.connect; nothing here opens files
    location: str | Path | None = None,
    *,
    actor: str | None = None,
    actor_key: str | Path | None = None,
    password_file: str | Path | None = None,
    progress: Progress = ignore_progress,
) -> Registry:
    """Open a registry.

    Args:
        location: its folder or PostgreSQL URL; None: the nearest `.rasura` upwards from the working folder.
        actor: who acts, for the log; None: the user's login name.
        actor_key: their key, which signs the entries of the log: a name, or a file; None: who acts is a claim.
        password_file: holds the password of the key to sign with, where it has one.
        progress: told what is going on in every call of the handle.

    Raises:
        NoRegistryError: there is none.
        SchemaError: another version, or tables and triggers that are not ours.
        UntrustedKeyError, RevokedKeyError: `actor_key` counts for nothing there.
    """
    store = Store.open(location or find_location(Path.cwd()))
    store.ask_password = lambda _: find_password(password_file)
    if actor_key is not None:
        try:
            act_by_key(store, actor_key, password_file)
        except BaseException:
            store.close()
            raise
    return Registry(store, actor or read_login(), progress)


@in_python
def upgrade(location: str | Path | None = None, *, actor: str | None = None, reason: str = "") -> str | None:
    """Bring a registry that an older program made to this one's schema.

    Returns:
        The version it was at; None where there was nothing to do.

    Raises:
        NoRegistryError: there is none.
        SchemaError: a version that this program does not know.
    """
    return Store.upgrade(location or find_location(Path.cwd()), actor=actor or read_login(), reason=reason)
