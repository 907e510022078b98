"""Registered patches as a file for programs that know nothing of patches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from rasura.patches.algebra.strength import Strength
from rasura.patches.checks.check import require
from rasura.patches.format.kohya_lora import KohyaFile, encode_kohya
from rasura.patches.format.member import Member
from rasura.patches.types import SHORT, PatchId
from rasura.registry.registry import Registry
from rasura.registry.trust.check import judge_registered
from rasura.registry.trust.limits import merge_policies

__all__ = ["export_kohya", "list_files", "list_folders"]

_ENCODER: Final = "text_encoder."
_SECOND: Final = "text_encoder_2."
_WORD: Final = 40  # characters of a concept in a file's name: four bytes each fit every file system


def export_kohya(registry: Registry, wanted: Mapping[PatchId, Strength]) -> KohyaFile:
    """A set of patches as one file in kohya's spelling.

    What leaves here can be verified by nobody any more, so it is verified and checked now, as for applying it.

    Raises:
        NotFoundError, VerificationError: a patch is not here, or is not good.
        CheckRefusedError: the composer refuses the set.
        InputError, BaseMismatchError, UnsupportedHostError, BoundExceededError: see
        `rasura.patches.format.kohya_lora.encode_kohya`.
    """
    found = judge_registered(registry, wanted, merge_policies(registry, None))
    require(found.verdict)
    return encode_kohya(found.stack, two_encoders=_two_encoders(registry, found.stack))


def list_folders(registry: Registry, ids: Sequence[PatchId]) -> dict[str, bytes]:
    """Every patch as a signed folder of its own: bytes by `NAME/FILE`.

    Raises:
        NotFoundError, DigestMismatchError: a patch is not here, or was changed.
    """
    found: dict[str, bytes] = {}
    for patch_id in dict.fromkeys(ids):
        name = name_patch(registry, patch_id)
        found |= {f"{name}/{file}": data for file, data in registry.patch_files(patch_id).items()}
    return found


def list_files(registry: Registry, wanted: Mapping[PatchId, Strength]) -> dict[str, bytes]:
    """Every patch as a file of its own in kohya's spelling, checked alone: bytes by `NAME.safetensors`.

    Raises:
        RasuraError: see `export_kohya`.
    """
    return {
        f"{name_patch(registry, patch_id)}.safetensors": export_kohya(registry, {patch_id: strength}).data
        for patch_id, strength in wanted.items()
    }


def name_patch(registry: Registry, patch_id: PatchId) -> str:
    """What a patch's file or folder is called: its concept as a file's name may have it, and its id."""
    concept = registry.patch(patch_id).concepts[0]
    word = "-".join("".join(c if c.isalnum() else " " for c in concept).split())[:_WORD]
    return f"{word}-{patch_id[:SHORT]}" if word else patch_id[:SHORT]


def _two_encoders(registry: Registry, stack: Sequence[Member]) -> bool:
    """Whether the base has a second text encoder; asked only where the answer shows in a name."""
    if not any(name.startswith(_ENCODER) for member in stack for name in member.patch.tensors.increments):
        return False
    base = registry.base(stack[0].patch.manifest.base.sha256)
    return any(parameter.name.startswith(_SECOND) for parameter in base.parameters)
