"""One pipeline that is the base at one moment and the patched model at the next: tensors are copied in place.

The patched weights are composed in the base's own dtype, as a host would hold them, and drawn with in float32. A folder
that has patches applied is evaluated as its base: what was written there is undone in memory first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch

from rasura.evaluation.images.painter import Painter, Sampling
from rasura.patches._io import canonical_json
from rasura.patches._io.sha256 import digest_of
from rasura.patches.algebra.compose import Layer, compose, layers_of
from rasura.patches.algebra.strength import Strength
from rasura.patches.errors import BaseMismatchError, InputError, UnsupportedHostError
from rasura.patches.format.patch import Patch
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.hosts.interface import COMPONENTS, name_parameter
from rasura.patches.models.base_identity import BaseIdentity, check_touched
from rasura.patches.types import SHORT, Digest, ParamName, PatchId

_FIXED = (
    "vae",
    "scheduler",
    "model_index.json",
    "unet/config.json",
    "text_encoder/config.json",
    "tokenizer",
    "text_encoder_2/config.json",
    "tokenizer_2",
    "transformer/config.json",
    "text_encoder_3/config.json",
    "tokenizer_3",
)
"""What decides pictures and is no patchable parameter."""


@dataclass(frozen=True, slots=True, eq=False)
class EvaluatedPatch:
    """A patch and the strength at which it is looked at."""

    patch: Patch
    strength: Strength


class PatchedModel:
    """A pipeline that shows a base, with and without a stack of patches."""

    def __init__(
        self,
        painter: Painter,
        host: CheckpointHost,
        stack: Sequence[EvaluatedPatch],
        fingerprints: tuple[Digest, Digest],
    ) -> None:
        """Use `load`."""
        self.painter = painter
        self.stack = tuple(stack)
        self.fingerprints = fingerprints
        self._layers: tuple[Layer, ...] = layers_of((m.patch.tensors.increments, m.strength) for m in stack)
        self._originals = host.originals([layer.name for layer in self._layers])
        self._live = _live(painter.pipeline)
        if missing := [layer.name for layer in self._layers if layer.name not in self._live]:
            raise UnsupportedHostError(f"{host.location}: the loaded pipeline has no parameter {missing[0]}")
        self._copy(host.originals(sorted(host.kept())))
        self._shown = False

    @classmethod
    def load(
        cls,
        host: CheckpointHost,
        identity: BaseIdentity,
        stack: Sequence[EvaluatedPatch],
        sampling: Sampling,
        device: str = "cpu",
    ) -> Self:
        """Load the pipeline of a host and make the weights of the stack ready.

        Raises:
            InputError: no patch.
            BaseMismatchError: a patch was computed on other weights.
            UnsupportedHostError: no pipeline that can draw.
        """
        check_drawable(host, identity, stack)
        fixed = _fixed_digest(host.folder)
        applied = {m.patch.patch_id: m.strength.sixteenths for m in stack}
        prints = (identify_model(identity.digest, fixed, {}), identify_model(identity.digest, fixed, applied))
        return cls(Painter.load(host.folder, sampling, device), host, stack, prints)

    def show(self, *, patched: bool) -> Digest:
        """Make the pipeline the base or the patched model; the fingerprint of what it is then."""
        if patched != self._shown:
            self._copy(
                {
                    layer.name: compose(self._originals[layer.name], layer.terms if patched else ())
                    for layer in self._layers
                }
            )
            self._shown = patched
        return self.fingerprints[patched]

    def _copy(self, tensors: Mapping[ParamName, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, tensor in tensors.items():
                self._live[name].copy_(tensor)


def check_drawable(host: CheckpointHost, identity: BaseIdentity, stack: Sequence[EvaluatedPatch]) -> None:
    """Refuse an empty stack, and patches of other weights or of another reading of prompts.

    Raises:
        InputError: no patch.
        BaseMismatchError: naming what differs.
    """
    if not stack:
        raise InputError("no patch to evaluate: expected at least one", hint="rasura patch list")
    known = host.parameters()
    for member in stack:
        spec = member.patch.manifest.base
        touched = [parameter.name for parameter in spec.parameters]
        check_touched(spec.parameters, host.originals([n for n in touched if n in known]), host.location)
        if (spec.text_encoder, spec.tokenizer) != (identity.text_encoder, identity.tokenizer):
            raise BaseMismatchError(
                f"{host.location}: its text encoder or tokenizer is not that of patch {member.patch.patch_id[:SHORT]}: "
                f"expected {spec.text_encoder[:SHORT]}, got {identity.text_encoder[:SHORT]}",
                hint="rasura base list",
            )


def identify_model(base: Digest, fixed: Digest, applied: Mapping[PatchId, int]) -> Digest:
    """What a model is that draws: the base, everything else in its folder that counts, and the set of patches.

    The weights are a pure function of base and set, so the two name them.
    """
    patches = {str(patch_id): strength for patch_id, strength in applied.items()}
    document: dict[str, canonical_json.JsonValue] = {"base": base, "fixed": fixed, "patches": patches}
    return digest_of(canonical_json.dumps(document))


def _fixed_digest(folder: Path) -> Digest:
    """SHA-256 over the digests of all files that `_FIXED` names, by relative path."""
    files: dict[str, canonical_json.JsonValue] = {}
    for name in _FIXED:
        top = folder / name
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            if path.is_file():
                with path.open("rb") as file:
                    files[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return digest_of(canonical_json.dumps(files))


def _live(pipeline: object) -> dict[ParamName, torch.Tensor]:
    """Every parameter of the loaded pipeline's patchable components, by its one name."""
    return {
        name_parameter(component, key): parameter
        for component in COMPONENTS
        if (module := getattr(pipeline, component, None)) is not None
        for key, parameter in module.named_parameters()
    }
