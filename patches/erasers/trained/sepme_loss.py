"""SepME's loss: how much of a concept is left in the prediction (arXiv 2402.05947, eqs 27 to 37).

r_θ = ε_θ(x_t, c) − ε(x_t, ∅)                          what the concept adds
L_cor = mean(r_θ ⊙ r_θ0)                               mean(r²) before training, 0 where nothing of r is left
‖Δ‖ = (1/M)·Σ_l Σ |ΔW_l|                               over M layers
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch

from rasura.patches.erasers.trained.training_loop import Objective, derive_seed
from rasura.patches.erasers.trained.training_samples import Scenes, times
from rasura.patches.models.denoiser import Denoiser, LayerFactors
from rasura.patches.types import ParamName

ETA_LIMIT: Final = 10.0
"""Most weight of one concept in a simultaneous run: η grows without bound where training should end."""
SAMPLED: Final = 32
"""Pictures on which it is measured how much of a concept there is before training."""


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """One concept in training.

    Attributes:
        scene: its prompts.
        detector: A [r, d] float32, fixed.
        responses: B_l [o_l, r] float32, trained.
        pictures: latents z_0 [n, c, h, w] that the frozen model drew.
        which: prompt of each picture [n].
    """

    scene: Scenes
    detector: torch.Tensor
    responses: Mapping[ParamName, torch.Tensor]
    pictures: torch.Tensor
    which: torch.Tensor


def compute_correlation(changed: torch.Tensor, frozen: torch.Tensor) -> torch.Tensor:
    """L_cor = mean(r_θ ⊙ r_θ0): an inner product that nothing normalises."""
    return (changed * frozen).mean()


def weights(losses: Sequence[float]) -> list[float]:
    """η_i = max_k |L_k| / |L_i|, at most `ETA_LIMIT`; numbers, so that no gradient flows through them."""
    largest = max(abs(loss) for loss in losses)  # what is left most weighs least
    return [min(ETA_LIMIT, largest / abs(loss)) if loss else ETA_LIMIT for loss in losses]


def join_columns(lessons: Sequence[Lesson]) -> dict[ParamName, LayerFactors]:
    """The sum of the lessons' increments: factors beside each other."""
    A = torch.cat([lesson.detector for lesson in lessons])  # [Σ r, d]
    names = lessons[0].responses
    return {name: LayerFactors(A, torch.cat([lesson.responses[name] for lesson in lessons], dim=1)) for name in names}


def compute_mean_norm(factors: Iterable[LayerFactors]) -> torch.Tensor:
    """(1/M)·Σ_l Σ |B_l·A|."""
    # The sum of the products, not of the factors: several concepts may cancel in a weight.
    return torch.stack([(own.B @ own.A).abs().sum() for own in factors]).mean()


@dataclass(frozen=True, slots=True, eq=False)
class _View:
    """Pictures at random steps with fresh noise, and what the frozen model says of them."""

    z: torch.Tensor
    t: torch.Tensor
    states: torch.Tensor
    nothing: torch.Tensor
    frozen: torch.Tensor  # r_θ0


def _view(denoiser: Denoiser, lesson: Lesson, batch: int, seed: int) -> _View:
    count = lesson.pictures.shape[0]
    # neighbours from a random one on, around the end: every picture is as likely
    chosen = (torch.arange(batch, device=denoiser.device) + derive_seed(seed, "picture") % count) % count
    t = times(denoiser, batch, derive_seed(seed, "time"))
    z = denoiser.noised(lesson.pictures[chosen], denoiser.noise(derive_seed(seed, "noise"), batch), t)
    states, neutral = lesson.scene.of(lesson.which[chosen])
    with torch.no_grad():
        # with and without the concept in one pass
        both = denoiser.predict(torch.cat([z, z]), torch.cat([t, t]), torch.cat([states, neutral]))
    told, nothing = both.chunk(2)  # [b, c, h, w] each
    return _View(z, t, states, nothing, told - nothing)


def left(
    denoiser: Denoiser, lesson: Lesson, factors: Mapping[ParamName, LayerFactors], *, batch: int, seed: int
) -> torch.Tensor:
    """L_cor of one concept under some increments, scalar.

    Args:
        denoiser: the frozen model.
        lesson: the concept.
        factors: what runs beside the frozen layers.
        batch: how many pictures.
        seed: decides which, at which steps, with which noise.
    """
    view = _view(denoiser, lesson, batch, seed)
    with denoiser.branch(factors):
        told = denoiser.predict(view.z, view.t, view.states)
    return compute_correlation(told - view.nothing, view.frozen)


def before(denoiser: Denoiser, lessons: Sequence[Lesson], seed: int) -> float:
    """Σ η_i·mean(r²), what is watched, of the frozen model, on `SAMPLED` pictures a concept."""
    sizes = [
        float(_view(denoiser, one, SAMPLED, derive_seed(seed, one.scene.concept)).frozen.square().mean())
        for one in lessons
    ]
    return sum(eta * size for eta, size in zip(weights(sizes), sizes, strict=True))


def objective(denoiser: Denoiser, lessons: Sequence[Lesson], *, batch: int, lam: float, seed: int) -> Objective:
    """The loss of one update; watched is Σ η_i·L_cor,i (of one concept, its L_cor).

    Args:
        denoiser: the frozen model.
        lessons: the concepts that are trained together.
        batch: pictures a concept.
        lam: weight of the norm.
        seed: of this update.
    """
    factors = join_columns(lessons)
    losses = [left(denoiser, one, factors, batch=batch, seed=derive_seed(seed, one.scene.concept)) for one in lessons]
    # with one concept there is nothing to balance
    etas = weights([float(loss.detach()) for loss in losses]) if len(losses) > 1 else [1.0]
    total = torch.stack([eta * loss for eta, loss in zip(etas, losses, strict=True)]).sum()
    watched = float(total.detach())
    return Objective(total + lam * compute_mean_norm(factors.values()) if lam else total, watched)
