"""What a card says of registered patches: taken from their manifests and from their bases, never from a default."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from rasura.patches.errors import InputError, UnsupportedHostError
from rasura.patches.format.manifest import Manifest
from rasura.patches.format.manifest_parts import BaseSpec
from rasura.patches.format.member import Member
from rasura.patches.format.patch import Patch
from rasura.patches.format.spellings.lora_file import encode_lora
from rasura.patches.format.spellings.lora_names import LoraNames
from rasura.patches.hosts.interface import ParameterInfo
from rasura.patches.models import families
from rasura.patches.models.family import Family
from rasura.patches.models.native_modules import find_lora_names
from rasura.patches.types import SHORT, Digest, ParamName, PatchId
from rasura.registry._storage.records.base_records import BaseRecord
from rasura.registry.hub.card.facts import BaseFacts, PatchFacts
from rasura.registry.registry import Registry

__all__ = ["Describer", "encode_beside"]

_NAMED: Final = 40  # characters of a concept in a file's name


@dataclass(frozen=True, slots=True)
class Describer:
    """A registry's words for its patches.

    Attributes:
        registry: where they are.
        base_model: the base's id on the Hub, or None.
        bases: those that the registry knows.
        later: for every patch that one here supersedes, such a one.
        retired: for every patch here, whether it is retired.
    """

    registry: Registry
    base_model: str | None
    bases: Mapping[Digest, BaseRecord]
    later: Mapping[PatchId, PatchId]
    retired: Mapping[PatchId, bool]
    _seen: set[Digest] = field(default_factory=set)

    @classmethod
    def of(cls, registry: Registry, base_model: str | None) -> Describer:
        """Read what all patches here supersede."""
        later: dict[PatchId, PatchId] = {}
        retired = dict.fromkeys(registry.retired_patches(), True)
        for record in registry.patches():
            later |= dict.fromkeys(registry.list_superseded(record), record.patch_id)
            retired.setdefault(record.patch_id, False)
        bases = {base.digest: registry.base(base.digest) for base in registry.bases()}
        return cls(registry, base_model, bases, later, retired)

    def patch(self, manifest: Manifest) -> PatchFacts:
        """The line of one patch.

        Raises:
            InputError: the base model that was named is that of another patch's base.
        """
        base, patch_id = self._base(manifest.base), manifest.patch_id
        kohya = base.loads.kohya and base.digest in self.bases
        return PatchFacts(
            patch_id,
            (manifest.concept.text,),
            manifest.eraser.name,
            base,
            anchor=manifest.concept.anchor,
            licence=manifest.licence,
            supersedes=manifest.supersedes,
            successor=self.later.get(patch_id),
            comfyui=f"comfyui/{_slug(manifest.concept.text)}-{patch_id[:SHORT]}.safetensors" if kohya else "",
            retired=self.retired.get(patch_id, False),
        )

    def lora_names(self, base: BaseFacts) -> LoraNames:
        """How files for ComfyUI call the modules of a base that is known here."""
        return find_lora_names(_infos(self.bases[base.digest]), "kohya")

    def _base(self, spec: BaseSpec) -> BaseFacts:
        self._seen.add(spec.sha256)
        if self.base_model and len(self._seen) > 1:
            raise InputError(
                f"expected patches of one base, which --base-model {self.base_model} names, got patches of several",
                hint="rasura push … --base-model ORG/NAME   (the patches of one base at a time)",
            )
        record = self.bases.get(spec.sha256)
        name = record.name if record else spec.sha256[:SHORT]
        return BaseFacts(spec.sha256, name, _family(spec, record), self.base_model or "")


def _family(spec: BaseSpec, record: BaseRecord | None) -> str:
    """The family by all parameters of the base, or, of a base that is not here, by the touched ones if they tell."""
    if record is not None:
        found = families.find_family(_infos(record))
        return found.name if found else ""
    fitting = [
        family.name
        for family in families.FAMILIES
        if any(family.reads(p.name) == "text" and p.shape[-1] == _width(family) for p in spec.parameters)
    ]
    return fitting[0] if len(fitting) == 1 else ""


def _infos(record: BaseRecord) -> dict[ParamName, ParameterInfo]:
    return {p.name: ParameterInfo(p.name, p.dtype, p.shape) for p in record.parameters}


def _width(family: Family) -> int:
    """Numbers a token that the layers of a published model of the family read."""
    return max(sum(encoder.width for encoder in part) for part in family.sequence)


def _slug(text: str) -> str:
    """A concept as a part of a file's name: what a person reads in a list of LoRA files."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:_NAMED].strip("-") or "patch"


def encode_beside(patch: Patch, names: LoraNames) -> bytes | None:
    """A patch's file in kohya's spelling at strength 1; None where that has no name for a layer of it."""
    try:
        return encode_lora([Member(patch)], names).data
    except UnsupportedHostError:
        return None
