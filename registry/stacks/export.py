"""Registered patches as a file for programs that know nothing of patches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from rasura.patches.algebra.strength import Strength
from rasura.patches.checks.check import require
from rasura.patches.format.member import Member
from rasura.patches.format.spellings.lora_file import KohyaFile, encode_lora
from rasura.patches.format.spellings.lora_names import LoraNames, LoraStyle, list_denoisers
from rasura.patches.hosts.interface import ParameterInfo
from rasura.patches.models.native_modules import find_lora_names
from rasura.patches.types import SHORT, PatchId
from rasura.registry.apply.hosts.host_state import list_touched
from rasura.registry.registry import Registry
from rasura.registry.trust.check import judge_registered
from rasura.registry.trust.limits import merge_policies

__all__ = ["export_lora", "list_files", "list_folders"]

_UNET: Final = "unet."
_WORD: Final = 40  # characters of a concept in a file's name: four bytes each fit every file system
_NOISES: Final = {"transformer": "high_noise", "transformer_2": "low_noise"}
"""What programs call the files of a pipeline's two denoisers (Wan 2.2), the first of which begins."""


def export_lora(
    registry: Registry, wanted: Mapping[PatchId, Strength], style: LoraStyle, denoiser: str | None = None
) -> KohyaFile:
    """A set of patches as one LoRA file in other programs' names.

    What leaves here can be verified by nobody any more, so it is verified and checked now, as for applying it.

    Args:
        registry: where the patches are.
        wanted: the set.
        style: how the file calls modules.
        denoiser: of a pipeline with two, which; None of any other.

    Raises:
        NotFoundError, VerificationError: a patch or its base is not here, or is not good.
        CheckRefusedError: the composer refuses the set.
        InputError, BaseMismatchError, UnsupportedHostError, BoundExceededError: see
        `rasura.patches.format.spellings.lora_file.encode_lora`.
    """
    found = judge_registered(registry, wanted, merge_policies(registry, None))
    require(found.verdict)
    return encode_lora(found.stack, replace(_names(registry, found.stack, style), denoiser=denoiser))


def _names(registry: Registry, stack: Sequence[Member], style: LoraStyle) -> LoraNames:
    """How the file calls modules; the base is asked only where its answer shows in a name."""
    touched = (name for member in stack for name in member.patch.tensors.increments)
    if all(name.startswith(_UNET) for name in touched):
        return LoraNames(style)
    base = registry.base(stack[0].patch.manifest.base.sha256)
    return find_lora_names({p.name: ParameterInfo(p.name, p.dtype, p.shape) for p in base.parameters}, style)


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


def list_files(
    registry: Registry, wanted: Mapping[PatchId, Strength], style: LoraStyle
) -> dict[PatchId, dict[str, bytes]]:
    """Every patch as a file of its own in other programs' names, checked alone; one of two denoisers as two.

    Returns:
        By patch its files: bytes by `NAME.safetensors`, or by `NAME/high_noise.safetensors` and
        `NAME/low_noise.safetensors`.

    Raises:
        RasuraError: see `export_lora`.
    """
    return {patch_id: _files_of(registry, patch_id, strength, style) for patch_id, strength in wanted.items()}


def _files_of(registry: Registry, patch_id: PatchId, strength: Strength, style: LoraStyle) -> dict[str, bytes]:
    name, one = name_patch(registry, patch_id), {patch_id: strength}
    denoisers = list_denoisers(list_touched(registry, [patch_id]))
    if len(denoisers) < len(_NOISES):
        return {f"{name}.safetensors": export_lora(registry, one, style).data}
    return {f"{name}/{_NOISES[each]}.safetensors": export_lora(registry, one, style, each).data for each in denoisers}


def name_patch(registry: Registry, patch_id: PatchId) -> str:
    """What a patch's file or folder is called: its concept as a file's name may have it, and its id."""
    concept = registry.patch(patch_id).concepts[0]
    word = "-".join("".join(c if c.isalnum() else " " for c in concept).split())[:_WORD]
    return f"{word}-{patch_id[:SHORT]}" if word else patch_id[:SHORT]
