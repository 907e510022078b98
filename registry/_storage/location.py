"""Where a registry is: a `.rasura` folder, or a PostgreSQL URL and the folder beside it.

    .rasura/
    ├── registry.db            SQLite, unless a URL names a PostgreSQL database
    ├── blobs/ab/cdef…         files of patches, by SHA-256
    ├── cache/ab/cdef…         what can be computed again, by what decides it; RASURA_CACHE names another folder
    ├── cases/…                0700: who asked and what they wrote, until it is deleted (`_storage/files/vault.py`)
    ├── config.toml            defaults of the command line, if somebody wrote some
    └── keys/                  0700: log.pem (signs the audit log), last_signed, and private keys of patch signers

With `postgresql://user@server/database?blobs=/srv/rasura` the rows are in PostgreSQL and blobs and keys in that folder
(or in `home`, where the caller passes one). All machines that write need the same folder, because they sign one log.
"""

import os
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from rasura.patches._io.json_fields import show
from rasura.patches._io.settings import get_settings
from rasura.patches.errors import InputError, NoRegistryError

__all__ = ["FOLDER", "Location", "find_location"]

FOLDER: Final = ".rasura"
DATABASE: Final = "registry.db"

_URL: Final = "postgresql://…/database?blobs=/srv/rasura"
_SCHEMES: Final = ("postgresql", "postgres", "postgresql+psycopg")


@dataclass(frozen=True, slots=True)
class Location:
    """A registry's folder, and the URL of its database where that is no file in it."""

    folder: Path
    url: str | None = None
    database: Path = field(init=False, repr=False, compare=False)
    """The SQLite file."""
    blobs: Path = field(init=False, repr=False, compare=False)
    """The folder of the blob store."""
    keys: Path = field(init=False, repr=False, compare=False)
    """The folder of private keys."""

    def __post_init__(self) -> None:
        for name, inside in (("database", DATABASE), ("blobs", "blobs"), ("keys", "keys")):
            object.__setattr__(self, name, self.folder / inside)

    @property
    def cache(self) -> Path:
        """The folder of what can be computed again: this registry's, or the one that the process was given."""
        chosen = get_settings().cache
        return Path(chosen).absolute() if chosen else self.folder / "cache"

    @property
    def cases(self) -> Path:
        """The folder of personal data, which can be deleted."""
        return self.folder / "cases"

    @classmethod
    def of(cls, location: "str | Path | Location", home: Path | None = None) -> "Location":
        """The location that a person wrote: a folder, the `.rasura` folder inside it, or a PostgreSQL URL.

        Raises:
            InputError: a URL of another database, or one that says nowhere where blobs and keys are.
        """
        if isinstance(location, Location):
            return location
        if isinstance(location, str) and "://" in location:
            return _of_url(location, home)
        path = _checked(location).absolute()
        return cls(path if path.name == FOLDER else path / FOLDER)

    def __str__(self) -> str:
        if self.url is None:
            return str(self.folder)
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"  # never the password


def find_location(start: Path, *, caller: int | None = None) -> Path:
    """The nearest `.rasura` folder with a database, from `start` upwards.

    It must belong to whoever asks; any other has to be named. In a folder that others write to, somebody else's
    registry would say what is trusted.

    Args:
        start: where to look first.
        caller: the user who became root to ask, whose registries count too.

    Raises:
        NoRegistryError: there is none up to the root, or the nearest one is somebody else's.
    """
    start = start.absolute()
    for folder in (start, *start.parents):
        if (folder / FOLDER / DATABASE).is_file():
            _check_owner(folder / FOLDER, caller)
            return folder / FOLDER
    raise NoRegistryError(f"expected a {FOLDER} folder in {start} or above, got none", hint="rasura init")


def _check_owner(folder: Path, caller: int | None) -> None:
    mine = {os.geteuid(), caller}
    strange = {os.stat(path).st_uid for path in (folder, folder / DATABASE)} - mine  # noqa: PTH116  # follows links
    if strange:
        raise NoRegistryError(
            f"the nearest registry, {folder}, belongs to somebody else (user {max(strange)}): expected your own, or "
            "one that is named",
            hint=f"rasura status --registry {shlex.quote(str(folder))}",
        )


def _checked(path: str | Path) -> Path:
    """A path that the system can be asked for.

    Raises:
        InputError: a NUL in it, or half a character.
    """
    try:
        if b"\0" not in os.fsencode(path):
            return Path(path)
    except UnicodeEncodeError:
        pass
    raise InputError(f"registry: expected the path of a folder, got {show(str(path))}")


def _of_url(url: str, home: Path | None) -> Location:
    try:
        parts = urlsplit(url)
        _ = parts.port  # which is parsed when it is asked for
        url.encode()
    except ValueError as error:  # never the URL itself: a password may be in it
        why = "half a character" if isinstance(error, UnicodeError) else "one that does not parse"
        raise InputError(f"registry: expected a folder or a postgresql:// URL, got {why}", hint=_URL) from None
    if parts.scheme not in _SCHEMES:
        raise InputError(f"registry: expected a folder or a postgresql:// URL, got {show(parts.scheme + '://')}")
    query = parse_qsl(parts.query, keep_blank_values=True)
    blobs = next((value for name, value in query if name == "blobs"), None)
    if blobs is None and home is None:
        raise InputError(
            f"registry: expected ?blobs=FOLDER in the URL of {parts.hostname or 'the database'}, got none",
            hint=_URL,
        )
    rest = urlencode([(name, value) for name, value in query if name != "blobs"])
    driver = urlunsplit(("postgresql+psycopg", parts.netloc, parts.path, rest, ""))
    return Location(_checked(blobs).absolute() if blobs else Path(home or ".").absolute(), driver)
