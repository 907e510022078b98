"""Files that a process which died left behind: half-written temporary files, half-made copies and registries.

Only what is certain by its name is looked at, and only what nobody has written to for an hour is called dead; half a
private key, which shall not lie about, after a minute, if the lock is gone that its writer holds to the end. Copies of
models are looked for by `rasura.registry.doctor`: they are locked as long as their makers live.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from rasura.patches._io.incoming import INCOMING, is_abandoned
from rasura.registry._storage.files.durable_files import translated
from rasura.registry._storage.location import FOLDER, Location

__all__ = ["QUIET", "find_leftovers", "remove_leftover"]

QUIET: Final = timedelta(hours=1)

_SOON: Final = timedelta(minutes=1)
"""The same for files in the folder of keys that nobody holds the lock of."""

_INCOMING: Final = f"{INCOMING}*"  # rasura.registry._storage.files.durable_files.temporary
_COPY: Final = re.compile(r"\..+\.[0-9a-f]{8}\.partial")  # as copies were once called
_FOUNDING: Final = re.compile(re.escape(FOLDER) + r"-new-[a-z0-9_]{8}")  # rasura.registry._resources.create


def find_leftovers(place: Location, models: Iterable[Path], now: datetime) -> list[Path]:
    """Temporary files in the registry's folder, half-made registries beside it, half-made copies beside models."""
    found = {*_beneath(place.folder, _INCOMING), *_beside(place.folder.parent, _FOUNDING)}
    for folder in {model.parent for model in models} | {place.folder.parent}:
        found.update(_beside(folder, _COPY))
    dead = {path for path in found if _touched(path) < (now - QUIET).timestamp()}
    with translated(f"read {place.keys}"):
        keys = [path for path in place.keys.glob(_INCOMING) if _touched(path) < (now - _SOON).timestamp()]
    return sorted(dead | {path for path in keys if is_abandoned(path)})


def remove_leftover(path: Path) -> None:
    """Remove it, whatever it is; never what a link points to.

    Raises:
        RegistryError: it cannot be removed.
    """
    with translated(f"remove {path}"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _beneath(folder: Path, pattern: str) -> Iterator[Path]:
    with translated(f"read {folder}"):
        yield from folder.rglob(pattern)


def _beside(folder: Path, names: re.Pattern[str]) -> Iterator[Path]:
    if not folder.is_dir():
        return
    with translated(f"read {folder}"):
        yield from (path for path in folder.iterdir() if names.fullmatch(path.name))


def _touched(path: Path) -> float:
    """When anything of it was last written to, in seconds since 1970; a file that has just gone counts as new."""
    parts = [path, *(path.rglob("*") if path.is_dir() and not path.is_symlink() else ())]
    try:
        return max([part.lstat().st_mtime for part in parts], default=0.0)
    except FileNotFoundError:
        return float("inf")
