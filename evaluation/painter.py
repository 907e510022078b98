"""Pictures from a diffusers folder, reproducible one by one: a picture depends on its prompt and seed alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from rasura.patches.clip import load_clip
from rasura.patches.quiet import quiet

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Shot:
    """One picture to draw."""

    prompt: str
    seed: int


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to draw: DPM-Solver++ steps, guidance scale, pictures a batch.

    Ten steps of the second-order solver draw what twenty of DDIM do, in half the time.
    """

    steps: int = 10
    guidance: float = 3.0
    batch: int = 8


class Painter:
    """A pipeline in float32 on the CPU or a GPU; what patches touch can be read anew from a folder."""

    def __init__(self, pipeline: Any, sampling: Sampling) -> None:  # diffusers ships no types
        self.pipeline = pipeline
        self._sampling = sampling

    @classmethod
    def load(cls, folder: Path, sampling: Sampling | None = None) -> Self:
        """Load a diffusers folder without the network."""
        import torch
        import transformers.utils.logging  # noqa: F401  # before diffusers, so that its import can be kept quiet

        with quiet():
            from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
        with quiet():
            pipeline = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True, safety_checker=None)
            pipeline.to(torch.float32)
            pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
        pipeline.set_progress_bar_config(disable=True)
        return cls(pipeline, sampling or Sampling())

    def reload(self, folder: Path) -> None:
        """Read the weights of the UNet and of the text encoder anew from a folder."""
        import torch
        from diffusers import UNet2DConditionModel

        with quiet():
            unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", local_files_only=True)
            self.pipeline.unet = unet.to(torch.float32)
            self.pipeline.text_encoder = load_clip(folder)[1]

    def draw(self, shots: Sequence[Shot], stage: str, progress: Progress) -> list[Image]:
        """Draw every shot, each from the noise of its own seed."""
        import torch

        pictures: list[Image] = []
        for start in range(0, len(shots), self._sampling.batch):
            part = shots[start : start + self._sampling.batch]
            progress(stage, start, len(shots))
            with torch.inference_mode():
                drawn = self.pipeline(
                    prompt=[shot.prompt for shot in part],
                    latents=torch.cat([self._noise(shot.seed) for shot in part]),
                    num_inference_steps=self._sampling.steps,
                    guidance_scale=self._sampling.guidance,
                )
            pictures.extend(drawn.images)
        progress(stage, len(shots), len(shots))
        return pictures

    def _noise(self, seed: int) -> torch.Tensor:
        import torch

        config = self.pipeline.unet.config
        shape = (1, config.in_channels, config.sample_size, config.sample_size)
        return torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed))
