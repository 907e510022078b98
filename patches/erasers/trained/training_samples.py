"""What a training looks at: a concept's prompts as text states, and latents that the frozen model drew for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch

from rasura.patches._io.json_fields import JsonValue
from rasura.patches.erasers.interface import Eraser, Problem
from rasura.patches.erasers.options import encode_options
from rasura.patches.erasers.trained.checkpoints import run_digest
from rasura.patches.erasers.trained.training_loop import derive_seed
from rasura.patches.models.denoiser import Denoiser, LayerFactors
from rasura.patches.prompts.concept_prompts import prompts_of
from rasura.patches.types import Digest, ParamName, Progress

BATCH: Final = 8
"""Latents drawn in one pass; fixed, because a float32 convolution's bits depend on it."""


@dataclass(frozen=True, slots=True, eq=False)
class Scenes:
    """A concept's prompts, as the UNet reads them.

    Attributes:
        concept: its name.
        prompts: the concept in each template.
        states: their text states [n, length, d] float32.
        neutral: of the same prompts with the anchor in the concept's place, [n, length, d] float32.
        null: of the null prompt, [1, length, d] float32.
    """

    concept: str
    prompts: tuple[str, ...]
    states: torch.Tensor
    neutral: torch.Tensor
    null: torch.Tensor

    def of(self, which: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """States of some prompts, and of what stands for nothing or for the anchor beside them."""
        return self.states[which], self.neutral[which]


def scenes(problem: Problem, index: int, denoiser: Denoiser, *, anchored: bool = True) -> Scenes:
    """The scenes of one concept of the request, on the denoiser's device.

    Args:
        problem: the problem.
        index: which concept.
        denoiser: where the states go.
        anchored: whether the neutral side is the prompt with the anchor in the concept's place; else the null prompt.
    """
    target = problem.request.targets[index]
    templates = problem.request.templates_of(target)
    prompts = prompts_of(target.concept, templates)
    null = problem.reference.invariants[None]  # [1, length, d]
    states = problem.encoder.encode_all(prompts)  # [n, length, d] float64
    neutral = problem.encoder.encode_all(prompts_of(target.anchor, templates)) if anchored else null.expand_as(states)
    c, n, o = (t.to(denoiser.device, torch.float32) for t in (states, neutral, null))
    return Scenes(target.concept, prompts, c, n, o)


def drawn(
    denoiser: Denoiser, scene: Scenes, count: int, *, steps: int, guidance: float, seed: int, progress: Progress
) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents z_0 [count, c, h, w] that the frozen model draws for the prompts in turn, and which prompt [count]."""
    which = torch.arange(count, device=denoiser.device) % len(scene.prompts)
    parts = []
    for start in range(0, count, BATCH):
        progress(f"drawing {scene.concept}", start, count)
        part = which[start : start + BATCH]  # [≤ BATCH]
        noise = denoiser.noise(derive_seed(seed, scene.concept, "picture", start), len(part))
        parts.append(denoiser.drawn(scene.states[part], scene.null, noise, steps=steps, guidance=guidance)[0])
    progress(f"drawing {scene.concept}", count, count)
    return torch.cat(parts), which


def partway(
    denoiser: Denoiser, scene: Scenes, count: int, *, steps: int, guidance: float, seed: int, progress: Progress
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Latents z_t [count, c, h, w] on the way to pictures of the prompts in turn, their steps t and which prompt.

    Every four of them stop after the same number of denoising steps; these numbers are spread evenly over 0 to
    `steps` − 1 and shuffled.
    """
    group = BATCH // 2
    groups = -(-count // group)
    generator = torch.Generator("cpu").manual_seed(derive_seed(seed, scene.concept, "untils"))
    untils = torch.arange(groups)[torch.randperm(groups, generator=generator)] * steps // groups  # [groups]
    which = torch.arange(count, device=denoiser.device) % len(scene.prompts)
    latents, times = [], []
    for i, until in enumerate(untils.tolist()):
        progress(f"drawing {scene.concept}", i * group, count)
        part = which[i * group : (i + 1) * group]
        noise = denoiser.noise(derive_seed(seed, scene.concept, "partway", i), len(part))
        # [≤ group, c, h, w], [≤ group]
        z, t = denoiser.drawn(scene.states[part], scene.null, noise, steps=steps, guidance=guidance, until=until)
        latents.append(z)
        times.append(t)
    progress(f"drawing {scene.concept}", count, count)
    return torch.cat(latents), torch.cat(times), which


def times(denoiser: Denoiser, count: int, seed: int) -> torch.Tensor:
    """Training steps [count] int64, uniform in 0 to T − 1; the same on every device."""
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randint(0, denoiser.steps, (count,), generator=generator).to(denoiser.device)


def trace_branches(
    detector: torch.Tensor, responses: Mapping[ParamName, torch.Tensor]
) -> dict[ParamName, LayerFactors]:
    """One detector [r, d] float32 with each layer's response [o_l, r] float32."""
    return {name: LayerFactors(detector, response) for name, response in responses.items()}


def responses(problem: Problem, rank: int, device: torch.device) -> dict[ParamName, torch.Tensor]:
    """Zeros [o_l, r] float32 that require a gradient, one a touched parameter: the increment is nothing at first."""
    return {
        name: torch.zeros(weight.shape[0], rank, dtype=torch.float32, device=device, requires_grad=True)
        for name, weight in sorted(problem.weights.items())
    }


def run_of(eraser: Eraser, denoiser: Denoiser, name: str, tensors: Mapping[str, torch.Tensor]) -> Digest:
    """Names a run by everything that decides it: choices, seed, concept, frozen model, device and library, inputs.

    Args:
        eraser: the method.
        denoiser: the frozen model; all of it is hashed.
        name: of the concept, or of several.
        tensors: the run's inputs.
    """
    settings: dict[str, JsonValue] = {
        "method": eraser.name,
        "options": dict(encode_options(eraser)),
        "seed": getattr(eraser, "seed", None),
        "name": name,
        "prediction": denoiser.prediction,
        "device": denoiser.device.type,
        "torch": torch.__version__,
    }
    # The UNet itself, not the base's name: a fine-tuned one of the same name is another run.
    frozen = {f"unet/{key}": value for key, value in denoiser.unet.state_dict().items()}
    return run_digest(settings, {**frozen, "alphas": denoiser.alphas, **tensors})
