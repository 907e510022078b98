"""Registered patches as a file for programs that know nothing of patches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from rasura.patches.checks.check import require
from rasura.registry.trust.check import judge_stack, merge_policies

if TYPE_CHECKING:
    from rasura.patches.algebra.increment import Strength
    from rasura.patches.format.kohya_lora import KohyaFile
    from rasura.patches.format.member import Member
    from rasura.patches.types import PatchId
    from rasura.registry.registry import Registry

__all__ = ["export_kohya"]

_ENCODER: Final = "text_encoder."
_SECOND: Final = "text_encoder_2."


def export_kohya(registry: Registry, wanted: Mapping[PatchId, Strength]) -> KohyaFile:
    """A set of patches as one file in kohya's spelling.

    What leaves here can be verified by nobody any more, so it is verified and checked now, as for applying it.

    Raises:
        NotFoundError, VerificationError: a patch is not here, or is not good.
        CheckRefusedError: the composer refuses the set.
        InputError, BaseMismatchError, UnsupportedHostError, BoundExceededError: see
        `rasura.patches.format.kohya_lora.encode_kohya`.
    """
    from rasura.patches.format.kohya_lora import encode_kohya

    found = judge_stack(registry, wanted, merge_policies(registry, None))
    require(found.verdict)
    return encode_kohya(found.stack, two_encoders=_two_encoders(registry, found.stack))


def _two_encoders(registry: Registry, stack: Sequence[Member]) -> bool:
    """Whether the base has a second text encoder; asked only where the answer shows in a name."""
    if not any(name.startswith(_ENCODER) for member in stack for name in member.patch.tensors.increments):
        return False
    base = registry.base(stack[0].patch.manifest.base.sha256)
    return any(parameter.name.startswith(_SECOND) for parameter in base.parameters)
