"""Patches as one LoRA file for programs that know nothing of patches.

    kohya     <key>.lora_down.weight    A [rank, d_in]      ComfyUI, A1111, Forge, diffusers of most families
              <key>.lora_up.weight      s·B [d_out, rank]
              <key>.alpha               the rank, so that the scale is 1
    native    <key>.lora_A.weight, <key>.lora_B.weight      of a transformer: ComfyUI, trainers, diffusers of some

What a key is says `rasura.patches.format.spellings.lora_names`. Several patches make one file: their detectors lie on
top of each other, their responses side by side, so that B·A is the sum of theirs, exactly. All modules get one rank and
one alpha, the smaller ones by zero rows: diffusers 0.42 takes differing alphas wrongly, without a word.

These formats have no place for a signature, and whoever loads the file adds it in an arithmetic of its own. It serves;
it proves nothing.
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
from rasura.patches.errors import BaseMismatchError, BoundExceededError, InputError
from rasura.patches.format.member import Member
from rasura.patches.format.spellings.lora_names import LoraNames, LoraStyle, ModuleKey
from rasura.patches.types import SHORT, ParamName

__all__ = ["UNSIGNED", "KohyaFile", "encode_lora"]

UNSIGNED: Final = "no: this format cannot carry a signature; only the patch folder proves who made it"
_FORMATS: Final[Mapping[LoraStyle, str]] = {"kohya": "rasura-kohya/1", "native": "rasura-native/1"}
_FACTORS: Final[Mapping[LoraStyle, tuple[str, str]]] = {
    "kohya": ("lora_down.weight", "lora_up.weight"),
    "native": ("lora_A.weight", "lora_B.weight"),
}


@dataclass(frozen=True, slots=True)
class KohyaFile:
    """A written file and what is in it."""

    data: bytes
    modules: int
    rank: int


def encode_lora(members: Sequence[Member], names: LoraNames) -> KohyaFile:
    """One file of all these patches at their strengths; equal sets give equal bytes.

    Args:
        members: patches of one base, each once.
        names: how the file calls their modules.

    Raises:
        InputError: no patches, or nothing of what such a file is of.
        BaseMismatchError: patches of several bases.
        UnsupportedHostError: a parameter that has no name in this format.
        BoundExceededError: a strength that float32 cannot hold exactly in the response.
    """
    ordered = sorted(members, key=lambda member: member.patch_id)
    _check_bases(ordered)
    modules: dict[str, list[_Rows]] = {}
    for layer in layers_of((member.patch.tensors.increments, member.strength) for member in ordered):
        if names.covers(layer.name):
            place = names.place(layer.name)
            modules.setdefault(place.key, []).append(_Rows(place, layer))
    if not modules:
        raise InputError(
            f"nothing to export: expected patches of {names.denoiser}, got none", hint="rasura patch show ID"
        )
    rank = max(sum(rows.rank for rows in module) for module in modules.values())
    tensors: dict[str, torch.Tensor] = {}
    for key, module in modules.items():
        tensors |= {f"{key}.{part}": tensor for part, tensor in _module(module, rank, names.style).items()}
    return KohyaFile(encode(tensors, _metadata(ordered, rank, names.style)), len(modules), rank)


@dataclass(frozen=True, slots=True)
class _Rows:
    """What a module's rows, or a part of them, get."""

    place: ModuleKey
    layer: Layer

    @property
    def rank(self) -> int:
        return sum(term.increment.rank for term in self.layer.terms)

    def factors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """A [rank, d_in] and s·B [d_out, rank], among the rows of the others that are zero."""
        down = torch.cat([term.increment.A for term in self.layer.terms])
        up = torch.cat([_response(self.layer.name, term) for term in self.layer.terms], dim=1)
        before = self.place.part * up.shape[0]
        after = (self.place.parts - self.place.part - 1) * up.shape[0]
        return down, torch.nn.functional.pad(up, (0, 0, before, after))


def _check_bases(members: Sequence[Member]) -> None:
    if not members:
        raise InputError("nothing to export: expected at least one patch", hint="rasura patch list")
    bases = sorted({member.patch.manifest.base.sha256 for member in members})
    if len(bases) > 1:
        raise BaseMismatchError(
            f"one file serves one base: expected patches of one, got {', '.join(base[:SHORT] for base in bases)}",
            hint="rasura patch list",
        )


def _module(module: Sequence[_Rows], rank: int, style: LoraStyle) -> dict[str, torch.Tensor]:
    factors = [rows.factors() for rows in module]
    down, up = torch.cat([each[0] for each in factors]), torch.cat([each[1] for each in factors], dim=1)
    room = rank - down.shape[0]
    pair = (torch.nn.functional.pad(down, (0, 0, 0, room)), torch.nn.functional.pad(up, (0, room)))
    alpha = {"alpha": torch.tensor(float(rank))} if style == "kohya" else {}  # without one, the scale is 1
    return {**dict(zip(_FACTORS[style], pair, strict=True)), **alpha}


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


def _metadata(members: Sequence[Member], rank: int, style: LoraStyle) -> Mapping[str, str]:
    licences = sorted({member.patch.manifest.licence for member in members} - {""})
    patches: list[JsonValue] = [_described(member) for member in members]
    trainer = {"ss_network_module": "networks.lora", "ss_network_dim": str(rank), "ss_network_alpha": str(rank)}
    return {
        "format": "pt",
        "rasura.format": _FORMATS[style],
        "rasura.patches": canonical_json.dumps(patches).decode(),
        "rasura.base_sha256": members[0].patch.manifest.base.sha256,
        "rasura.licence": "; ".join(licences),
        "rasura.signed": UNSIGNED,
        **(trainer if style == "kohya" else {}),
    }


def _described(member: Member) -> dict[str, JsonValue]:
    concept = member.patch.manifest.concept
    return {
        "id": member.patch_id,
        "concept": concept.text,
        "anchor": concept.anchor,
        "strength": str(member.strength),
    }
