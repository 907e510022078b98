"""Tiny folders of the families whose encoders' own states are read: SD 1.x to PixArt, by the names of their table."""

import functools
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import torch
from support.models.tiny import TinySpec, tiny_model, tiny_pipeline, workspace
from support.models.tiny_t5 import tiny_t5
from support.models.tiny_xl import tiny_xl

__all__ = ["NAMES", "older_of"]


def older_of(folder: Path, name: str) -> Path:
    """A private copy of a family's folder, at `folder` (made; must not exist). Returns `folder`."""
    return _MADE[name](folder)


@functools.lru_cache(maxsize=1)
def _built_second() -> Path:
    """SD 2.x: the UNet of SD 1.x, with linear layers around its attention."""
    import diffusers

    pipeline, folder = tiny_pipeline(TinySpec(size="medium")), workspace() / "SD-2"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        settings = {**pipeline.unet.config, "use_linear_projection": True}
        pipeline.register_modules(unet=diffusers.UNet2DConditionModel.from_config(settings))
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def _second(folder: Path) -> Path:
    shutil.copytree(_built_second(), folder)
    return folder


_MADE: Final[Mapping[str, Callable[[Path], Path]]] = {
    "SD 1.x": lambda folder: tiny_model(folder, TinySpec(size="medium")),
    "SD 2.x": _second,
    "SDXL": tiny_xl,
    "SD3": lambda folder: tiny_t5(folder, "SD3"),
    "FLUX": lambda folder: tiny_t5(folder, "FLUX"),
    "PixArt": lambda folder: tiny_t5(folder, "PixArt"),
}
NAMES: Final = tuple(_MADE)
