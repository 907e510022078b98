"""Whether a folder holds a pipeline that pictures can be drawn with, as far as it shows before a weight is read."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from rasura.patches._io.files import read_config
from rasura.patches.errors import RasuraError, UnsupportedHostError

__all__ = ["FLOWING", "SDXL", "check_pipeline"]

SDXL: Final = "StableDiffusionXLPipeline"
FLOWING: Final = (
    "StableDiffusion3Pipeline",
    "FluxPipeline",
    "PixArtAlphaPipeline",
    "PixArtSigmaPipeline",
    "ChromaPipeline",
    "CogView4Pipeline",
    "Lumina2Pipeline",
    "KolorsPipeline",
)
"""Pipelines that draw one picture from one prompt at a size and by a schedule of their own."""
_PLAIN_UNET: Final = "UNet2DConditionModel"
_PARTS: Final = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
_SDXL_PARTS: Final = (*_PARTS, "text_encoder_2", "tokenizer_2")
_SETTINGS: Final = {
    "tokenizer": "tokenizer_config.json",
    "tokenizer_2": "tokenizer_config.json",
    "tokenizer_3": "tokenizer_config.json",
    "scheduler": "scheduler_config.json",
}
_WEIGHTS: Final = (".safetensors", ".bin")


def check_pipeline(folder: Path) -> None:
    """Refuse a folder that a painter could not load: another kind of pipeline, or one of which a part is missing.

    Raises:
        UnsupportedHostError: naming what is missing, all of it.
    """
    try:
        index = read_config(folder / "model_index.json")
    except (RasuraError, OSError, ValueError) as error:
        raise UnsupportedHostError(
            f"{folder}: expected a diffusers folder with a model_index.json to draw with, got {error}",
            hint="rasura evaluate --base DIR",
        ) from None
    if not isinstance(index, dict):
        raise UnsupportedHostError(f"{folder}: expected an object in model_index.json, got {type(index).__name__}")
    kind = index.get("_class_name")
    if kind not in FLOWING and ("transformer" in index or _find_class(index, "unet") not in (_PLAIN_UNET, "")):
        raise UnsupportedHostError(
            f"{folder}: expected a pipeline with a {_PLAIN_UNET}, or one of {', '.join(FLOWING)}, got {kind}: nothing "
            "is drawn with it here",
            hint="rasura patch check ID",
        )
    parts = _SDXL_PARTS if kind == SDXL else _list_flowing(index) if kind in FLOWING else _PARTS
    if missing := [said for part in parts if (said := _find_missing(folder, index, part))]:
        raise UnsupportedHostError(
            f"{folder}: no picture can be drawn: expected {', '.join(parts)}; {'; '.join(missing)}",
            hint="rasura base list",
        )


def _list_flowing(index: dict[str, object]) -> tuple[str, ...]:
    """The parts of such a pipeline: every encoder that its index names, and their tokenizers."""
    read = sorted(name for name in index if name.startswith(("text_encoder", "tokenizer")))
    return ("unet" if "unet" in index else "transformer", "vae", "scheduler", *read)


def _find_class(index: dict[str, object], part: str) -> str:
    """The class of a part by the index; "" where it names none."""
    said = index.get(part)
    return str(said[-1]) if isinstance(said, list) and said and said[-1] is not None else ""


def _find_missing(folder: Path, index: dict[str, object], part: str) -> str:
    """What of a part is not there; "" where all of it is."""
    if index.get(part) in (None, [None, None]):
        return f"model_index.json names no {part}"
    place = folder / part
    settings = _SETTINGS.get(part, "config.json")
    if not (place / settings).is_file():
        return f"{part}/{settings} is missing"
    if part not in _SETTINGS and not any(path.suffix in _WEIGHTS for path in place.iterdir()):
        return f"{part} holds no weights"
    return ""
