"""A model that was saved again in another dtype after it was patched: found, refused, and what helps."""

import shlex
from collections.abc import Mapping
from typing import Final

from rasura.patches.errors import UnsupportedHostError
from rasura.patches.hosts.check_value import check_same
from rasura.patches.hosts.interface import ParameterInfo
from rasura.patches.types import ParamName

__all__ = ["check_uncast", "find_cast", "say_way_back"]

_WIDENED: Final = frozenset({("F16", "F32"), ("BF16", "F32"), ("F16", "F64"), ("BF16", "F64"), ("F32", "F64")})
"""Types in which every number of another stays what it is."""


def find_cast(
    originals: Mapping[ParamName, ParameterInfo], infos: Mapping[ParamName, ParameterInfo]
) -> tuple[str, str] | None:
    """The dtype of the first kept original that the parameter no longer has, and the one it has now."""
    pairs = ((original.dtype, infos[name].dtype) for name, original in originals.items() if name in infos)
    return next(((was, now) for was, now in pairs if was != now), None)


def say_way_back(location: str, was: str, now: str) -> str:
    """What helps a model that was saved again in another type than the one in which it was patched.

    A wider type holds every number as it was. Any other rounded them, and originals are kept only of what patches
    touch, so that no way leads back from there. What is put there is no model without patches before the registry
    was told so: that is what the revert is for.
    """
    how = f", or save it in {was} again"
    if (was, now) not in _WIDENED:
        how = f", because {now} rounded what no patch touches, too, and of that no original is kept"
    return f"put a fresh copy there{how}; then: rasura patch revert --all --force --model {shlex.quote(location)}"


def check_uncast(location: str, now: ParameterInfo, original: ParameterInfo) -> None:
    """Refuse a parameter whose file was written again in another type since its original was kept.

    Raises:
        UnsupportedHostError: another dtype, for which the hint says what helps, or another shape.
    """
    if now.shape == original.shape and now.dtype != original.dtype:
        raise UnsupportedHostError(
            f"{location}: {now.name}: expected {original.dtype}, as when it was patched, got {now.dtype}: the "
            "model was saved again in another type since, which rounds or widens every number",
            hint=say_way_back(location, original.dtype, now.dtype),
            parameter=now.name,
        )
    check_same(now, original)
