"""The work folder of a training: how much of everything, and the parts that the stages make in it."""

# mypy: disable-error-code="no-untyped-call"
# (many of torch's own methods carry no types)

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from transformers import CLIPTokenizer

from .concepts import THINGS
from .course import Course
from .render import Pictures
from .words import Words, choose_words, read_annotations

# The small reference model's autoencoder was trained on drawings of the same sets by the same script.
REFERENCE_VAE: Final = Path(__file__).parents[2] / "reference_model" / "pipeline" / "vae"


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything: objects drawn, pairs, captions, steps and batches of each stage, questions asked."""

    things: int = len(THINGS)
    pairs: int = 2400
    captions_of_cell: int = 14
    captions_of_scene: int = 3
    vocabulary: int = 5000
    vae_steps: int = 1000
    text_steps: int = 3000
    unet_steps: int = 12_000
    judge_steps: int = 2500
    vae_batch: int = 16
    text_batch: int = 128
    unet_batch: int = 64
    judge_batch: int = 96
    questions: int = 100_000
    seconds_between_checkpoints: float = 600.0


TINY: Final = Size(
    things=3, pairs=4, captions_of_cell=2, captions_of_scene=1, vocabulary=700, vae_steps=2, text_steps=3, unet_steps=3,
    judge_steps=3, vae_batch=2, text_batch=6, unet_batch=4, judge_batch=6, questions=2, seconds_between_checkpoints=0.0,
)  # fmt: skip


@dataclass(frozen=True)
class World:
    """The work folder with the parts that the stages make in it."""

    packages: Path
    work: Path
    size: Size
    device: torch.device
    vae_from: Path | None = REFERENCE_VAE
    precision: torch.dtype = torch.bfloat16
    unet_from: Path | None = None

    @cached_property
    def words(self) -> dict[str, Words]:
        """Every object's words."""
        return choose_words(read_annotations(self.packages))

    @cached_property
    def pictures(self) -> Pictures:
        """What the generator learns from."""
        return Pictures.load(self.work / "pictures.npz")

    @cached_property
    def latents(self) -> Tensor:
        """Encoded pictures, fp16."""
        latents: Tensor = torch.load(self.work / "latents.pt", weights_only=True)
        return latents

    @property
    def tokenizer(self) -> CLIPTokenizer:
        """The trained tokenizer."""
        tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(self.work / "tokenizer")
        return tokenizer

    def course(self, steps: int, rate: float, **more: Any) -> Course:
        """A course with this world's precision and time between checkpoints."""
        seconds = self.size.seconds_between_checkpoints
        return Course(steps, rate, seconds_between_checkpoints=seconds, precision=self.precision, **more)
