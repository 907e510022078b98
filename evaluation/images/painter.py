"""Pictures from a diffusers folder, reproducible one by one: a picture depends on its prompt and seed alone."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch

from rasura.evaluation.images.drawable import FLOWING, SDXL, check_pipeline
from rasura.patches._io.files import check_regular_files, read_config
from rasura.patches.errors import UnsupportedHostError
from rasura.patches.models.families import CLIP
from rasura.patches.models.library_output import load_diffusers, quiet
from rasura.patches.models.text_encoders.load_encoder import load_tower
from rasura.patches.types import Progress

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class Shot:
    """One picture to draw."""

    prompt: str
    seed: int


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to draw: DPM-Solver++ steps, guidance scale, pictures a batch.

    Ten steps of the second-order solver draw what twenty of DDIM do, in half the time. The batch counts, too: a GEMM
    of another shape rounds otherwise, and now and then a pixel moves by one level.
    """

    steps: int = 10
    guidance: float = 3.0
    batch: int = 8


class Painter:
    """A pipeline in float32 on the CPU or a GPU; what patches touch can be read anew from a folder."""

    def __init__(self, pipeline: Any, sampling: Sampling) -> None:  # diffusers ships no types
        self.pipeline = pipeline
        self.sampling = sampling

    @classmethod
    def load(cls, folder: Path, sampling: Sampling | None = None, device: str = "cpu") -> Self:
        """Load a diffusers folder without the network.

        Raises:
            UnsupportedHostError: no pipeline of these that diffusers can load.
        """
        with quiet():
            solver = load_diffusers().DPMSolverMultistepScheduler
            try:
                pipeline = _pipeline(folder)
            except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
                raise UnsupportedHostError(f"{folder}: its pipeline cannot be loaded: {error}") from error
            pipeline.to(device, torch.float32)
            if type(pipeline).__name__ not in FLOWING:  # which keep the schedule that they were trained for
                pipeline.scheduler = solver.from_config(pipeline.scheduler.config)
        pipeline.set_progress_bar_config(disable=True)
        return cls(pipeline, sampling or Sampling())

    def reload(self, folder: Path) -> None:
        """Read the weights of the UNet and of the text encoders anew from a folder."""
        with quiet():
            unet = load_diffusers().UNet2DConditionModel.from_pretrained(
                folder, subfolder="unet", local_files_only=True
            )
            self.pipeline.unet = unet.to(self.pipeline.device, torch.float32)
            for name in ("text_encoder", "text_encoder_2"):
                if getattr(self.pipeline, name, None) is not None:
                    module = load_tower(folder, replace(CLIP, component=name)).module
                    setattr(self.pipeline, name, module.to(self.pipeline.device))

    def draw(self, shots: Sequence[Shot], stage: str, progress: Progress) -> list[Image]:
        """Draw every shot, each from the noise of its own seed."""
        pictures: list[Image] = []
        size = self.sampling.batch
        for start in range(0, len(shots), size):
            progress(stage, start, len(shots))
            pictures.extend(self.draw_batch(shots[start : start + size]))
        progress(stage, len(shots), len(shots))
        return pictures

    def draw_batch(self, shots: Sequence[Shot]) -> list[Image]:
        """Draw these shots together."""
        return self.draw_embedded(shots, prompt=[shot.prompt for shot in shots])

    def draw_embedded(self, shots: Sequence[Shot], **text: Any) -> list[Image]:
        """Draw these shots together from `prompt=` or `prompt_embeds=`, as the pipeline takes them."""
        with torch.inference_mode(), quiet():
            drawn = self.pipeline(
                **self._beginning(shots),
                num_inference_steps=self.sampling.steps,
                guidance_scale=self.sampling.guidance,
                **text,
            )
        return list(drawn.images)

    def _beginning(self, shots: Sequence[Shot]) -> dict[str, Any]:
        """Where each picture begins: latents, or of those which lay them out in their own way, their seeds."""
        if type(self.pipeline).__name__ not in FLOWING:
            return {"latents": torch.cat([self.noise(shot.seed) for shot in shots])}
        given: dict[str, Any] = {"generator": [torch.Generator("cpu").manual_seed(shot.seed) for shot in shots]}
        if "use_resolution_binning" in inspect.signature(type(self.pipeline).__call__).parameters:
            given["use_resolution_binning"] = False  # the model's own size is drawn, which is in no table of sizes
        return given

    def noise(self, seed: int) -> torch.Tensor:
        """The latents [1, c, h, w] that a seed stands for: the same on every device."""
        config = self.pipeline.unet.config
        shape = (1, config.in_channels, config.sample_size, config.sample_size)
        return torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed)).to(self.pipeline.device)


def _pipeline(folder: Path) -> Any:
    """The pipeline of a folder, without what changes a finished picture: a checker or a watermark."""
    diffusers = load_diffusers()
    for place in [folder, *(path for path in sorted(folder.iterdir()) if path.is_dir())]:
        check_regular_files(place)
    check_pipeline(folder)
    kind = read_config(folder / "model_index.json").get("_class_name")
    if kind in FLOWING:
        return getattr(diffusers, kind).from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    if kind == SDXL:
        return diffusers.StableDiffusionXLPipeline.from_pretrained(folder, local_files_only=True, add_watermarker=False)
    return diffusers.StableDiffusionPipeline.from_pretrained(folder, local_files_only=True, safety_checker=None)
