"""Patches as one LoRA file in kohya's spelling, which ComfyUI, A1111, Forge and diffusers all read.

    lora_unet_<module>.lora_down.weight    A [rank, d_in]        lora_te_<module>   the text encoder
    lora_unet_<module>.lora_up.weight      s·B [d_out, rank]     lora_te1_, lora_te2_   of a model that has two
    lora_unet_<module>.alpha               the rank, so that the scale is 1

A module is a parameter's name without component and `.weight`, dots written as underscores. Several patches make one
file: their detectors lie on top of each other, their responses side by side, so that B·A is the sum of theirs, exactly.
All modules get one rank and one alpha, the smaller ones by zero rows: diffusers 0.42 takes differing alphas wrongly,
without a word.

The format has no place for a signature, and whoever loads the file adds it in an arithmetic of its own. It serves; it
proves nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch

from rasura.patches._io import canonical_json
from rasura.patches._io.json_fields import JsonValue
from rasura.patches._io.safetensors_file import encode
from rasura.patches.algebra.compose import Layer, Term, layers_of
from rasura.patches.errors import BaseMismatchError, BoundExceededError, InputError, UnsupportedHostError
from rasura.patches.format.member import Member
from rasura.patches.types import SHORT, ParamName

__all__ = ["FORMAT", "UNSIGNED", "KohyaFile", "encode_kohya", "name_module_key"]

FORMAT: Final = "rasura-kohya/1"
UNSIGNED: Final = "no: this format cannot carry a signature; only the patch folder proves who made it"
_WEIGHT: Final = ".weight"
_ENCODERS: Final = ("text_encoder", "text_encoder_2")
_ONE: Final = {"unet": "lora_unet", "text_encoder": "lora_te"}
_TWO: Final = {"unet": "lora_unet", "text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}


@dataclass(frozen=True, slots=True)
class KohyaFile:
    """A written file and what is in it."""

    data: bytes
    modules: int
    rank: int


def encode_kohya(members: Sequence[Member], *, two_encoders: bool = False) -> KohyaFile:
    """One file of all these patches at their strengths; equal sets give equal bytes.

    Args:
        members: patches of one base, each once.
        two_encoders: whether the model has a second text encoder, as Stable Diffusion XL does: the names differ.

    Raises:
        InputError: no patches.
        BaseMismatchError: patches of several bases.
        UnsupportedHostError: a parameter that has no name in this format.
        BoundExceededError: a strength that float32 cannot hold exactly in the response.
    """
    ordered = sorted(members, key=lambda member: member.patch_id)
    _check_bases(ordered)
    layers = layers_of((member.patch.tensors.increments, member.strength) for member in ordered)
    rank = max(sum(term.increment.rank for term in layer.terms) for layer in layers)
    tensors: dict[str, torch.Tensor] = {}
    for layer in layers:
        key = name_module_key(layer.name, two_encoders=two_encoders)
        tensors |= {f"{key}.{part}": tensor for part, tensor in _module(layer, rank).items()}
    return KohyaFile(encode(tensors, _metadata(ordered, rank)), len(layers), rank)


def name_module_key(name: ParamName, *, two_encoders: bool = False) -> str:
    """What a parameter's module is called: `lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k`.

    Raises:
        UnsupportedHostError: a transformer, or an attention processor's own weights.
    """
    component, _, module = name.removesuffix(_WEIGHT).partition(".")
    prefix = (_TWO if two_encoders or component == _ENCODERS[1] else _ONE).get(component)
    if prefix is None or ".processor." in module:
        raise UnsupportedHostError(
            f"{name} has no name in kohya's spelling: expected a layer of a UNet or of a CLIP text encoder",
            hint="rasura patch export ID -o DIR --format peft",
            parameter=name,
        )
    return f"{prefix}_{module.replace('.', '_')}"


def _check_bases(members: Sequence[Member]) -> None:
    if not members:
        raise InputError("nothing to export: expected at least one patch", hint="rasura patch list")
    bases = sorted({member.patch.manifest.base.sha256 for member in members})
    if len(bases) > 1:
        raise BaseMismatchError(
            f"one file serves one base: expected patches of one, got {', '.join(base[:SHORT] for base in bases)}",
            hint="rasura patch list",
        )


def _module(layer: Layer, rank: int) -> dict[str, torch.Tensor]:
    down = torch.cat([term.increment.A for term in layer.terms])
    up = torch.cat([_response(layer.name, term) for term in layer.terms], dim=1)
    room = rank - down.shape[0]
    down, up = torch.nn.functional.pad(down, (0, 0, 0, room)), torch.nn.functional.pad(up, (0, room))
    return {"lora_down.weight": down, "lora_up.weight": up, "alpha": torch.tensor(float(rank))}


def _response(name: ParamName, term: Term) -> torch.Tensor:
    """s·B as float32."""
    exact = term.increment.B.to(torch.float64) * term.strength.value
    rounded = exact.to(torch.float32)
    if not torch.equal(rounded.to(torch.float64), exact):
        raise BoundExceededError(
            f"{name}: strength {term.strength} times the response does not fit float32: expected no digit lost",
            hint="--strength 1",
            parameter=name,
        )
    return rounded


def _metadata(members: Sequence[Member], rank: int) -> Mapping[str, str]:
    licences = sorted({member.patch.manifest.licence for member in members} - {""})
    patches: list[JsonValue] = [_described(member) for member in members]
    return {
        "format": "pt",
        "rasura.format": FORMAT,
        "rasura.patches": canonical_json.dumps(patches).decode(),
        "rasura.base_sha256": members[0].patch.manifest.base.sha256,
        "rasura.licence": "; ".join(licences),
        "rasura.signed": UNSIGNED,
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(rank),
        "ss_network_alpha": str(rank),
    }


def _described(member: Member) -> dict[str, JsonValue]:
    concept = member.patch.manifest.concept
    return {
        "id": member.patch_id,
        "concept": concept.text,
        "anchor": concept.anchor,
        "strength": str(member.strength),
    }
