"""Models on disk that are no longer where the registry saw them last: their identity moves with their folder."""

from __future__ import annotations

import os
import shlex
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Final

from rasura.patches.errors import RasuraError
from rasura.patches.hosts.disk.state_folder import StateFolder
from rasura.registry._storage.records.records import HostRecord

__all__ = ["find_moved", "is_gone", "say_gone"]

_LOOKED_AT: Final = 1000  # entries of the folder that it lay in


def is_gone(record: HostRecord) -> bool:
    """Whether nothing lies where a model on disk was."""
    place = Path(record.location)
    return place.is_absolute() and not place.exists()


def find_moved(record: HostRecord) -> Path | None:
    """Where a model that is gone lies now, if that is in the same folder; further away nobody looks."""
    mine = record.host_id.replace("-", "")  # the log spells it as a UUID
    with suppress(OSError), os.scandir(Path(record.location).parent) as entries:
        for entry in islice(entries, _LOOKED_AT):
            with suppress(RasuraError, OSError):
                if StateFolder(Path(entry.path)).identity() == mine:
                    return Path(entry.path)
    return None


def say_gone(record: HostRecord) -> str:
    """What became of a model that is gone, and the command that makes the registry know."""
    found = find_moved(record)
    if found is not None:
        return f"it was moved to {found}: rasura doctor --model {shlex.quote(str(found))}"
    return "nothing lies there any more; if it was moved: rasura doctor --model WHERE"
