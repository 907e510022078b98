"""Which family's denoiser is spelled how, by the names of `rasura.patches.models.families`.

Checked against diffusers' own converters of single files, for every parameter, and of LoRA files, where it has them
(`tests/interop/test_spellings.py`); PixArt's were read in the converter of its authors, since diffusers has none.
ComfyUI takes the native names of every model that it has, behind `diffusion_model.`, or with underscores behind
`lora_unet_`.
"""

from collections.abc import Collection, Mapping
from typing import Final

from rasura.patches.format.spellings.bfl import CHROMA, FLUX, FLUX2
from rasura.patches.format.spellings.image import (
    AURAFLOW,
    HIDREAM,
    KREA2,
    LUMINA2,
    PIXART,
    QWEN_IMAGE,
    SANA,
    SD3,
    Z_IMAGE,
)
from rasura.patches.format.spellings.spelling import Spelling
from rasura.patches.format.spellings.video import COSMOS, COSMOS_25, HUNYUAN_VIDEO, LTX, WAN

__all__ = ["SPELLINGS", "find_spelling", "find_spelling_of"]

SPELLINGS: Final[Mapping[str, Spelling]] = {
    "FLUX": FLUX,
    "FLUX.2": FLUX2,
    "FLUX.2 klein": FLUX2,
    "Chroma": CHROMA,
    "SD3": SD3,
    "AuraFlow": AURAFLOW,
    "Qwen-Image": QWEN_IMAGE,
    "Z-Image": Z_IMAGE,
    "Lumina 2": LUMINA2,
    "Sana": SANA,
    "PixArt": PIXART,
    "Wan": WAN,
    "Wan 2.2": WAN,
    "LTX": LTX,
    "HunyuanVideo": HUNYUAN_VIDEO,
    "Krea 2": KREA2,
    "HiDream": HIDREAM,
    "Cosmos": COSMOS,
    "Cosmos 2.5": COSMOS_25,
}
"""CogView4 has none that ComfyUI or diffusers would read."""


def find_spelling(names: Collection[str]) -> tuple[Spelling, str] | None:
    """How a single file with these names is spelled, and what stands before each name; None of any other file."""
    known = frozenset(names)
    for spelling in SPELLINGS.values():
        if (prefix := spelling.find_prefix(known)) is not None:
            return spelling, prefix
    return None


def find_spelling_of(family: str, names: Collection[str]) -> Spelling | None:
    """How the denoiser of a family is spelled natively, whose parameters have these names; None for no known way.

    Args:
        family: its name.
        names: ours, with their component.
    """
    found = SPELLINGS.get(family)
    if found is None or any(f"transformer.{name}" in names for name in found.without):
        return None
    return found
