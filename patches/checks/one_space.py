"""Whether patches of a set look for concepts in one and the same place.

A detector is made for what its layers read: the text states as they come, or what some layers in front make of them. A
set of both cannot be compared, and a patch of a layer in front moves what the others look for.
"""

from collections.abc import Sequence

from rasura.patches.checks.kernels.footprint import spaces_of
from rasura.patches.errors import BaseMismatchError
from rasura.patches.format.member import Member
from rasura.patches.types import SHORT, ParamName, PatchId

__all__ = ["check_one_space"]


def check_one_space(stack: Sequence[Member]) -> None:
    """Refuse a set whose patches read the text at different places, or say of one layer that it reads other states.

    Raises:
        BaseMismatchError: naming two of them, or what one touches that text goes through to another.
    """
    _check_alike(stack)
    if not any(member.patch.manifest.base.through for member in stack):  # all read the states as they come
        return
    first = stack[0]
    front = {parameter.name for parameter in first.patch.manifest.base.through}
    for member in stack:
        base = member.patch.manifest.base
        ids = f"{first.patch_id[:SHORT]} and {member.patch_id[:SHORT]}"
        if touched := sorted(front & {parameter.name for parameter in base.parameters}):
            raise BaseMismatchError(
                f"patches {ids} do not go together: text goes through {touched[0]}, which one of them changes, to what "
                "the other changes",
                hint="erase both with the same --layers",
                parameter=touched[0],
            )
        # Equal names suffice: the host's weights of these are compared with each patch's when it is applied.
        if {parameter.name for parameter in base.through} != front:
            raise BaseMismatchError(
                f"patches {ids} do not go together: they read the text at different places, one "
                f"{_say(min((p.name for p in base.through), default=''))}, the other {_say(min(front, default=''))}",
                hint="erase both with the same --layers",
            )


def _check_alike(stack: Sequence[Member]) -> None:
    """What patches say of one layer's states decides what is compared with what: all must say the same."""
    read: dict[ParamName, tuple[str, PatchId]] = {}
    for member in stack:
        for space, names in spaces_of(member.patch).items():
            for name in names:
                said, first = read.setdefault(name, (space, member.patch_id))
                if said != space:
                    raise BaseMismatchError(
                        f"patches {first[:SHORT]} and {member.patch_id[:SHORT]} do not go together: {name} reads "
                        f"{said} by one of them, {space} by the other",
                        hint="erase both with the same --layers",
                        parameter=name,
                    )


def _say(name: str) -> str:
    return f"behind {name.rpartition('.')[0]}" if name else "as it comes"
