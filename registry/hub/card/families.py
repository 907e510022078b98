"""What a card has to know of a family of models: its tag on the Hub, and which programs load its patches from a file.

Read in the sources of diffusers 0.42 (its LoRA mixins, the tags of its training scripts) and of ComfyUI (its map of
LoRA keys): diffusers has LoRA loaders for the pipelines of all these families but PixArt and Cosmos, and that of Wan
2.2 loads one denoiser alone. ComfyUI knows the layers of a UNet only in kohya's spelling, those of a transformer by
their authors' names, and of some families by `transformer.<name>`, too, which is how a patch's own file names them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["FAMILIES", "UNKNOWN", "FamilyFacts", "facts_of"]


@dataclass(frozen=True, slots=True)
class FamilyFacts:
    """A row.

    Attributes:
        tag: on the Hub; "" for none.
        diffusers: whether stock diffusers loads a patch's folder by `load_lora_weights`.
        kohya: whether ComfyUI, A1111 and Forge need a file in kohya's spelling.
        comfyui: whether ComfyUI reads a patch's own file as it is.
        why: what keeps diffusers from it, where it does not load; which pipelines follows.
    """

    tag: str
    diffusers: bool = True
    kohya: bool = False
    comfyui: bool = False
    why: str = "diffusers has no LoRA loader for"


FAMILIES: Final[Mapping[str, FamilyFacts]] = {
    "SD 1.x": FamilyFacts("stable-diffusion", kohya=True),
    "SD 2.x": FamilyFacts("stable-diffusion", kohya=True),
    "SDXL": FamilyFacts("stable-diffusion-xl", kohya=True),
    "SD3": FamilyFacts("stable-diffusion-3", comfyui=True),
    "FLUX": FamilyFacts("flux", comfyui=True),
    "PixArt": FamilyFacts("pixart", diffusers=False, comfyui=True),
    "Wan 2.2": FamilyFacts("wan", diffusers=False, why="diffusers loads one denoiser alone of LoRA files into"),
    "Wan": FamilyFacts("wan", kohya=True),
    "LTX": FamilyFacts("ltx-video", kohya=True),
    "AuraFlow": FamilyFacts("auraflow", comfyui=True),
    "Chroma": FamilyFacts("chroma", comfyui=True),
    "Sana": FamilyFacts("sana"),
    "Qwen-Image": FamilyFacts("qwen-image", comfyui=True),
    "Z-Image": FamilyFacts("", comfyui=True),
    "FLUX.2": FamilyFacts("flux2", comfyui=True),
    "FLUX.2 klein": FamilyFacts("flux2", comfyui=True),
    "CogView4": FamilyFacts("cogview4"),
    "HunyuanVideo": FamilyFacts("", kohya=True),
    "Cosmos": FamilyFacts("", diffusers=False, kohya=True),
    "Cosmos 2.5": FamilyFacts(""),
    "Lumina 2": FamilyFacts("lumina-2", kohya=True),
    "Qwen-Image 2.1": FamilyFacts("qwen-image"),
    "Krea 2": FamilyFacts(""),
    "ERNIE-Image": FamilyFacts(""),
    "Kolors": FamilyFacts("kolors"),
    "HiDream": FamilyFacts(""),
}
"""By the name of `rasura.patches.models.families`."""
UNKNOWN: Final = FamilyFacts("", diffusers=False, why="diffusers cannot be promised to load LoRA files into")
"""Of a base whose family is not known: only what rasura itself does is promised."""


def facts_of(family: str) -> FamilyFacts:
    """The row of a family; `UNKNOWN` for any other name."""
    return FAMILIES.get(family, UNKNOWN)
