"""Drawing that does not begin at noise, or does not end where it began: starts, restarts and choices on the way.

Attacks that leave the text alone. What an erasure changes is how text is read; a picture that has begun to show the
concept needs less of that. Probes beyond text: Lu et al. 2025 (arXiv 2505.17013). A start from a noised picture is
SDEdit (Meng et al. 2021, arXiv 2108.01073).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from PIL.Image import Image

from rasura.evaluation.attacks.budget import CHOOSE_AT, NOISE_KEPT, PARTICLES, RESTART_FROM, RESTARTS, steps_of
from rasura.evaluation.attacks.denoising_loss import estimate_clean
from rasura.evaluation.images.painter import Painter, Shot

Features = Callable[[Sequence[Image]], "npt.NDArray[np.float64]"]
"""What a judge sees in pictures: [n, features]."""

_FURTHER: Final = 10**6  # between the seeds of noises of one try


@dataclass(frozen=True, slots=True, eq=False)
class Trajectory:
    """One prompt on the pipeline in the state that it is in.

    Attributes:
        painter: whose pipeline, steps and guidance count.
        prompt: what is asked for.
    """

    painter: Painter
    prompt: str

    def draw_from_pictures(self, latents: torch.Tensor, shots: Sequence[Shot]) -> list[Image]:
        """Start each shot from a noised picture: latents [n, c, h, w] in turn."""
        with torch.inference_mode():
            clean = latents[torch.arange(len(shots)) % len(latents)]
            begin = self._begin(NOISE_KEPT)
            return self._decode(self._run(self._noised(clean, shots, begin), begin))

    def draw_again(self, shots: Sequence[Shot]) -> list[Image]:
        """Draw, then noise the picture half way and draw the rest anew, several times."""
        with torch.inference_mode():
            clean = self._run(torch.cat([self.painter.noise(shot.seed) for shot in shots]), 0)
            begin = self._begin(RESTART_FROM)
            for again in range(RESTARTS):
                further = [Shot(shot.prompt, shot.seed + _FURTHER * (again + 1)) for shot in shots]
                clean = self._run(self._noised(clean, further, begin), begin)
            return self._decode(clean)

    def draw_chosen(self, shots: Sequence[Shot], features: Features, wanted: npt.NDArray[np.float64]) -> list[Image]:
        """Of several pictures of a shot keep, on the way and at the end, the one whose features are nearest to these.

        Guidance by a judge that need not have gradients: from the chosen estimate, noise of other seeds goes on.

        Args:
            shots: what is drawn, a picture each.
            features: what the judge sees.
            wanted: the mean over pictures of the concept, [features].
        """
        return [self._choose(shot, features, wanted) for shot in shots]

    def _choose(self, shot: Shot, features: Features, wanted: npt.NDArray[np.float64]) -> Image:
        places = [min(steps_of(share, self.painter.sampling), self.painter.sampling.steps - 1) for share in CHOOSE_AT]
        seeds = [Shot(shot.prompt, shot.seed + _FURTHER * (i + 1)) for i in range(PARTICLES * (len(places) + 1))]
        with torch.inference_mode():
            latents = torch.cat([self.painter.noise(s.seed) for s in seeds[:PARTICLES]])
            begin = 0
            for i, end in enumerate(places):
                seen = self._run(latents, begin, end)
                estimates = self._estimate(seen, end)
                best = self._nearest(self._decode(estimates), features, wanted)
                clean = estimates[[best]].repeat(PARTICLES, 1, 1, 1)
                fresh = seeds[PARTICLES * (i + 1) : PARTICLES * (i + 2)]
                latents, begin = self._noised(clean, fresh, end), end
            drawn = self._decode(self._run(latents, begin))
        return drawn[self._nearest(drawn, features, wanted)]

    def _nearest(self, pictures: Sequence[Image], features: Features, wanted: npt.NDArray[np.float64]) -> int:
        return int(np.linalg.norm(features(pictures) - wanted, axis=1).argmin())

    def _begin(self, share: float) -> int:
        """The first step of those that are drawn, if so many are."""
        return self.painter.sampling.steps - steps_of(share, self.painter.sampling)

    def _times(self) -> torch.Tensor:
        """The steps of the schedule; what a multistep solver remembers of another picture is forgotten."""
        pipeline = self.painter.pipeline
        pipeline.scheduler.set_timesteps(self.painter.sampling.steps, device=pipeline.device)
        times: torch.Tensor = pipeline.scheduler.timesteps
        return times

    def _noised(self, clean: torch.Tensor, shots: Sequence[Shot], begin: int) -> torch.Tensor:
        """Clean latents with the noise of the shots, as the schedule has it at a step."""
        noise = torch.cat([self.painter.noise(shot.seed) for shot in shots])
        found: torch.Tensor = self.painter.pipeline.scheduler.add_noise(
            clean, noise, self._times()[begin].repeat(len(shots))
        )
        return found

    def _run(self, latents: torch.Tensor, begin: int, end: int | None = None) -> torch.Tensor:
        """Latents after the steps begin … end-1, in the batches that everything else is drawn in."""
        size, parts, texts = self.painter.sampling.batch, [], self._texts()
        for start in range(0, len(latents), size):
            part = latents[start : start + size]
            for time in self._times()[begin:end]:
                found = self._predict(part, time, texts)
                part = self.painter.pipeline.scheduler.step(found, time, part, return_dict=False)[0]
            parts.append(part)
        return torch.cat(parts)

    def _estimate(self, latents: torch.Tensor, step: int) -> torch.Tensor:
        """What the model takes latents at a step to become."""
        time = self._times()[step]
        return estimate_clean(
            self.painter.pipeline.scheduler, latents, self._predict(latents, time, self._texts()), time
        )

    def _texts(self) -> list[torch.Tensor]:
        """States [1, length, d] of the prompt, and with guidance those of no prompt."""
        pipeline, guided = self.painter.pipeline, self.painter.sampling.guidance > 1
        states, nothing = pipeline.encode_prompt(self.prompt, pipeline.device, 1, do_classifier_free_guidance=guided)
        return [states, nothing] if guided else [states]

    def _predict(self, latents: torch.Tensor, time: torch.Tensor, texts: Sequence[torch.Tensor]) -> torch.Tensor:
        pipeline, scale = self.painter.pipeline, self.painter.sampling.guidance
        found: Any = pipeline.unet(
            pipeline.scheduler.scale_model_input(latents, time).repeat(len(texts), 1, 1, 1),
            time,
            encoder_hidden_states=torch.cat([text.repeat(len(latents), 1, 1) for text in texts]),
        ).sample
        if len(texts) == 1:
            return torch.as_tensor(found)
        asked, free = found.chunk(2)
        return torch.as_tensor(free + scale * (asked - free))

    def _decode(self, latents: torch.Tensor) -> list[Image]:
        pipeline = self.painter.pipeline
        pixels = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor, return_dict=False)[0]
        return list(pipeline.image_processor.postprocess(pixels, output_type="pil"))
