"""What became of a motion that somebody interrupted, for the sentence that says so."""

from __future__ import annotations

from pathlib import Path

from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.registry.apply.hosts.host_state import APPLY, REVERT, SWITCH, find_reached, find_unfinished_motion
from rasura.registry.registry import Registry

__all__ = ["describe_interruption"]


def describe_interruption(registry: Registry, model: Path, size: int) -> str:
    """Whether a motion of this model happened that began when the log had `size` entries.

    Opening the model undoes half a write, so that it is on one side.

    Raises:
        RasuraError: the model cannot be looked at.
    """
    host = CheckpointHost.open(model)
    entry = find_unfinished_motion(registry, host)
    if entry is None:
        # Nothing is open: the motion ended before the interrupt reached it, or had not begun.
        newest = registry.entries(limit=1)[0]
        done = newest.index >= size and newest.action in {APPLY, REVERT, SWITCH} and newest.outcome == "done"
        return f"the motion is done, entry {newest.index}" if done else f"{model} is as it was"
    if find_reached(registry, host, entry) is not None:
        return f"{model} was written: the next motion puts an end to entry {entry.index}, or: rasura doctor"
    return f"{model} is as it was: the next motion puts an end to entry {entry.index}, or: rasura doctor"
