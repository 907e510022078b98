"""A folder traced, and whether its family's row in the table says what the trace found."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from rasura.patches._io.files import read_config
from rasura.patches.errors import UnsupportedHostError
from rasura.patches.format.trace_spec import FIXED, TracedSpec, TraceSpec
from rasura.patches.hosts.disk.layouts.diffusers_layout import find_component_layout
from rasura.patches.hosts.interface import ParameterInfo, name_parameter
from rasura.patches.models.families import find_family
from rasura.patches.models.family import Family
from rasura.patches.models.probe.probe import probe_folder
from rasura.patches.models.probe.random_twin import list_shapes
from rasura.patches.models.probe.trace import Trace, digest_config
from rasura.patches.models.text_spaces import find_text_spaces
from rasura.patches.types import ParamName

__all__ = ["check_agreement", "explain_separable", "find_disagreements", "probe_model"]

_SECOND: Final = "transformer_2"
_ENTRANCES: Final = frozenset({"text", "normed", "projected"})
_IMAGES: Final = "UNet2DConditionModel"
_OVER_IMAGES: Final = "UNetMotionModel"  # AnimateDiff's: the same, with layers over frames between
_CLASSES: Final[Mapping[str, tuple[str, ...]]] = {
    "SD 1.x": (_IMAGES, _OVER_IMAGES),
    "SD 2.x": (_IMAGES, _OVER_IMAGES, "UNet3DConditionModel"),
    "SDXL": (_IMAGES, _OVER_IMAGES),
    "SD3": ("SD3Transformer2DModel",),
    "FLUX": ("FluxTransformer2DModel",),
    "PixArt": ("PixArtTransformer2DModel", "Transformer2DModel"),  # what it was called before
    "Wan": ("WanTransformer3DModel",),
    "Wan 2.2": ("WanTransformer3DModel",),
    "LTX": ("LTXVideoTransformer3DModel",),
    "AuraFlow": ("AuraFlowTransformer2DModel",),
    "Chroma": ("ChromaTransformer2DModel",),
    "Sana": ("SanaTransformer2DModel",),
    "Qwen-Image": ("QwenImageTransformer2DModel",),
    "Z-Image": ("ZImageTransformer2DModel",),
    "FLUX.2": ("Flux2Transformer2DModel",),
    "FLUX.2 klein": ("Flux2Transformer2DModel",),
    "CogView4": ("CogView4Transformer2DModel",),
    "HunyuanVideo": ("HunyuanVideoTransformer3DModel",),
    "Cosmos": ("CosmosTransformer3DModel",),
    "Cosmos 2.5": ("CosmosTransformer3DModel",),
    "Lumina 2": ("Lumina2Transformer2DModel",),
    "Qwen-Image 2.1": ("QwenImage21Transformer2DModel",),
    "Krea 2": ("Krea2Transformer2DModel",),
    "HiDream": ("HiDreamImageTransformer2DModel",),
    "ERNIE-Image": ("ErnieImageTransformer2DModel",),
    "Kolors": (_IMAGES,),
}
"""The classes of each family: others call their layers alike, and their pipelines read prompts otherwise."""
_NOT_TEXT_ALONE: Final = frozenset({"stream", "picture"})


def find_disagreements(trace: Trace, family: Family, infos: Mapping[ParamName, ParameterInfo]) -> list[str]:
    """Every layer of which row and trace say different things, as sentences; none where they agree."""
    found = []
    for name in sorted(infos):
        if not name.startswith(f"{trace.component}.") or not name.endswith(".weight"):
            continue
        said, layer = family.reads(name), trace.layer(name)
        seen = layer.reads if layer else None
        if said is None and (seen not in _ENTRANCES or len(infos[name].shape) != 2):  # noqa: PLR2004  # a matrix
            continue
        if said != seen and not {said, seen} <= _NOT_TEXT_ALONE:
            found.append(f"{name}: {said or 'nothing'} by the table, {seen or 'nothing'} by the trace")
    return found


def check_agreement(trace: Trace, family: Family, infos: Mapping[ParamName, ParameterInfo]) -> None:
    """Refuse a model whose layers read otherwise than those of the family that it looks like.

    Raises:
        UnsupportedHostError: naming the first layer.
    """
    if odd := find_disagreements(trace, family, infos):
        raise UnsupportedHostError(
            f"a model of class {trace.kind} with the layers of the {family.name} family reads text otherwise: {odd[0]}"
            + (f"; and {len(odd) - 1} more" if len(odd) > 1 else ""),
            hint="rasura probe MODEL",
            family=family.name,
            disagreements=tuple(odd),
        )


def explain_separable(folder: Path, infos: Mapping[ParamName, ParameterInfo]) -> TraceSpec | None:
    """Why layers of this model read text alone, as a manifest says it; None of families that the table answers for.

    Those are the ones whose layers read the text encoders' own states, of which the class must be the family's; where a
    pipeline reads the prompt itself, what a denoiser does with it is looked at, too.

    Args:
        folder: the model's, for its configuration.
        infos: its parameters.

    Raises:
        UnsupportedHostError: a class that only calls its layers alike, or the denoiser cannot be run, or reads text
            otherwise than its family.
    """
    family = find_family(infos)
    if family is None:
        return None
    if (kind := _read_class(folder / family.components[0])) and kind not in _CLASSES[family.name]:
        raise UnsupportedHostError(
            f"{folder}: expected a {' or '.join(_CLASSES[family.name])}, as the layers of the {family.name} family "
            f"say, got a {kind}, whose pipeline may read prompts otherwise",
            hint="rasura probe MODEL",
            family=family.name,
        )
    if all(encoder.kind != "pipeline" for encoder in family.encoders):
        return None
    trace = probe_folder(folder)
    check_agreement(trace, family, infos)
    _check_entries(folder, trace, family, infos)
    layers = [
        TracedSpec(layer.pattern, layer.reads, layer.input, layer.through)
        for layer in trace.entrances
        if layer.reads in FIXED
    ]
    if any(name.startswith(f"{_SECOND}.") for name in infos):
        layers += _second(folder, trace, layers)
    return TraceSpec(trace.kind, trace.config, trace.digest, tuple(sorted(layers, key=lambda layer: layer.pattern)))


def _check_entries(folder: Path, trace: Trace, family: Family, infos: Mapping[ParamName, ParameterInfo]) -> None:
    """Refuse maps that read another layer of their encoder than the configuration was understood to say.

    Raises:
        UnsupportedHostError: naming the first.
    """
    if (layered := family.layered) is None:
        return
    config = read_config(folder / trace.component / "config.json")
    for space in find_text_spaces(family, family.entrances(infos), config if isinstance(config, dict) else {}):
        for name in space.names:
            layer = trace.layer(name)
            seen = "nothing" if layer is None else layer.input
            said = "" if space.layer is None else f"{layered.argument}[{space.layer}]"
            if (said and seen != said) or (not said and seen.startswith(layered.argument)):
                raise UnsupportedHostError(
                    f"{folder}: {name}: expected it to read {said or 'what the sequence gives'}, as {layered.key} "
                    f"says, got {seen}",
                    hint="rasura probe MODEL",
                    family=family.name,
                )


def _second(folder: Path, first: Trace, layers: list[TracedSpec]) -> list[TracedSpec]:
    """The same of a pipeline's second denoiser, which must be built as the first is."""
    config = read_config(folder / _SECOND / "config.json")
    kind = str(config.get("_class_name")) if isinstance(config, dict) else "none"
    if kind != first.kind or digest_config(config) != first.config:
        raise UnsupportedHostError(
            f"{folder}: expected {_SECOND} to be built as {first.component}, a {first.kind}, got a {kind} of another "
            "configuration",
            hint="rasura probe MODEL",
        )
    return [
        TracedSpec(_moved(layer.pattern), layer.reads, layer.input, tuple(map(_moved, layer.through)))
        for layer in layers
    ]


def _moved(name: str) -> str:
    return f"{_SECOND}.{name.partition('.')[2]}"


def probe_model(folder: Path) -> tuple[Trace, str]:
    """Trace a diffusers folder and compare it with the table; the weights may be missing.

    Returns:
        The trace, and the family's name; "" where the table has none. Without weights that can be read, the class and
        its configuration tell the family: their names and shapes are those of the parameters that it would have.

    Raises:
        NotFoundError, UnsupportedHostError: see `probe_folder`; or the table says otherwise.
        FormatError: weights that cannot be read.
    """
    trace = probe_folder(folder)
    infos: dict[ParamName, ParameterInfo] = {}
    for component in (trace.component, _SECOND):
        infos |= _describe(folder, component)
    family = find_family(infos)
    if family is None or trace.kind not in _CLASSES[family.name]:
        return trace, ""
    check_agreement(trace, family, infos)
    return trace, family.name


def _read_class(place: Path) -> str:
    """The class of a denoiser by its configuration; "" where nothing says it."""
    path = place / "config.json"
    try:
        config = read_config(path) if path.is_file() else None
    except ValueError:  # whoever loads the denoiser says so
        config = None
    return str(config.get("_class_name") or "") if isinstance(config, dict) else ""


def _describe(folder: Path, component: str) -> dict[ParamName, ParameterInfo]:
    """A denoiser's parameters by the names that a host gives them: of its weights, else of its configuration."""
    place = folder / component
    if any(place.glob("*.safetensors*")):
        return {name: found.info for name, found in find_component_layout(place, component).places.items()}
    if not (place / "config.json").is_file():
        return {}
    config = read_config(place / "config.json")
    shapes = list_shapes(str(config["_class_name"]), config)
    names = {name_parameter(component, key): shape for key, shape in shapes.items()}
    return {name: ParameterInfo(name, "F32", shape) for name, shape in names.items()}
