"""How a pipeline writes a prompt anew before it reads it: by the pipeline's own method, so that nothing is guessed.

PixArt's pipelines clean captions by default where `bs4` and `ftfy` are installed: addresses, marks such as `& ™ ( ) #`
and much more are taken out. Elsewhere they make letters small. Which of the two is part of how a base reads text.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from rasura.patches.models.library_output import load_diffusers, quiet

__all__ = ["clean_caption", "cleans_captions"]


def clean_caption(prompt: str) -> str:
    """A prompt as PixArt's pipelines read it by default."""
    with quiet():
        found: list[str] = _pixart()._text_preprocessing(prompt, clean_caption=True)  # noqa: SLF001  # its own method
    return found[0]


@cache
def cleans_captions() -> bool:
    """Whether these pipelines do more here than making letters small."""
    utils = load_diffusers().utils
    return bool(utils.is_bs4_available() and utils.is_ftfy_available())


@cache
def _pixart() -> Any:
    """The pipeline without its parts: the method looks at none of them."""
    with quiet():
        kind = load_diffusers().PixArtAlphaPipeline
    return object.__new__(kind)
