"""What callers of a live model may write for a strength, a goal, patches, or the place of the originals."""

from __future__ import annotations

import getpass
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from rasura.patches.algebra.strength import Strength
from rasura.patches.errors import InputError
from rasura.patches.types import PatchId
from rasura.registry.apply.goal import Goal
from rasura.registry.registry import Registry
from rasura.registry.stacks.edit import members_of
from rasura.registry.stacks.stack_ref import goal_of

if TYPE_CHECKING:
    from rasura.patches.hosts.live.originals import KeepOn
__all__ = [
    "Factor",
    "GoalRef",
    "Ids",
    "goal_from",
    "keep_on_from",
    "list_ids",
    "list_ids_of_one_strength",
    "read_login",
]

Ids: TypeAlias = str | Iterable[str]
"""One identifier or abbreviation, or several."""
Factor: TypeAlias = Strength | str | float
"""A multiple of 1/16 from -4 to 4."""
GoalRef: TypeAlias = str | Mapping[str, Factor] | Mapping[PatchId, Factor] | Iterable[str]
"""Name of a stack, path of a lock file, or patches with their strengths: a `Stack`, a mapping, `["ID", "ID=0.5"]`."""

_PLACES: Final[Mapping[str, KeepOn]] = {"cpu": "cpu", "pinned": "pinned", "device": "device"}


def list_ids(ids: Ids) -> list[str]:
    """The identifiers.

    Raises:
        InputError: there are none.
    """
    found = [ids] if isinstance(ids, str) else list(ids)  # a text is iterable, too, letter by letter
    if not found:
        raise InputError("no patch was named: expected at least one", hint="rasura patch list")
    return found


def list_ids_of_one_strength(ids: Ids) -> list[str]:
    """The identifiers, where all patches get the same strength.

    Raises:
        InputError: there are none, or each comes with a strength of its own, which would be lost.
    """
    if isinstance(ids, Mapping):
        raise InputError(
            "expected identifiers, all at one strength, got patches with a strength each",
            hint="rasura patch switch STACK --model MODEL",
        )
    return list_ids(ids)


def goal_from(registry: Registry, goal: GoalRef) -> Goal:
    """The wanted set.

    Raises:
        NotFoundError, StrengthError, …: a name or a number that means nothing.
    """
    if isinstance(goal, str):
        return goal_of(registry, goal)
    if not isinstance(goal, Mapping):
        return Goal("patches", None, members_of(registry, goal))
    factors = {i: Strength.of(strength) for i, strength in goal.items()}
    return Goal("patches", None, {registry.resolve_patch(i): strength for i, strength in factors.items()})


def keep_on_from(place: KeepOn | str) -> KeepOn:
    """Where originals shall be kept; a text that is none of the three places is the path of a folder.

    Raises:
        InputError: there is no such folder.
    """
    if isinstance(place, str) and (known := _PLACES.get(place)) is not None:  # a folder called `cpu` is `Path('cpu')`
        return known
    folder = Path(place)
    if not folder.is_dir():
        raise InputError(
            f"keep_on: expected {', '.join(_PLACES)} or the base's folder, got {str(place)!r}, which is no folder",
            hint="keep_on='cpu'",
        )
    return folder


def read_login() -> str:
    """Who runs this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without an entry in the password file, as in many containers
        return "unknown"
