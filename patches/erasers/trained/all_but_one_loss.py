"""All but One's targets and losses: what a concept's guidance term shall become, and what shall not move.

With ψ_θ(c) = ε_θ(z_t, c) − ε_θ(z_t, ∅), which is −σ_t·∇log p_θ(c|z_t), and T from the frozen model θ0:

    none          T = 0
    alternative   T = ψ_θ0(c')
    explicit      T = ψ_θ0(c) + δ,  δ = Σ g·β ⊙ Δ,  Δ = ε_θ0(z_t, c'') − ε_θ0(z_t, ∅)
    p2p           T = ε_θ0(z_t, c' | attention maps of c) − ε_θ0(z_t, ∅)

β keeps where |Δ| reaches its κ-quantile over the positions of its channel (as SEGA does, arXiv 2301.12247). The base of
the explicit target is ψ_θ0(c), so that κ = 0 with g = −1 for c and +1 for c' gives the alternative target.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import torch

from rasura.patches.erasers.trained.training_samples import BATCH, Scenes
from rasura.patches.models.denoiser import Denoiser
from rasura.patches.models.prompt_to_prompt import injecting, recording

TARGETS: Final = ("none", "alternative", "explicit", "p2p")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which target.

    Attributes:
        kind: one of `TARGETS`.
        kappa: κ of the explicit target.
        push: g of the concept in it.
        pull: g of the anchor in it.
        share: first share of the way in which p2p takes the maps.
    """

    kind: str = "alternative"
    kappa: float = 0.9
    push: float = -1.0
    pull: float = 1.0
    share: float = 0.8


@dataclass(frozen=True, slots=True, eq=False)
class Views:
    """Latents on their way, and what the frozen model says of them; n of each, on the denoiser's device.

    Attributes:
        z: latents z_t [n, c, h, w].
        t: training steps [n].
        states: text states of each one's prompt [n, length, d].
        nothing: ε_θ0(z_t, ∅).
        guidance: ψ_θ0(c).
        target: T.
    """

    z: torch.Tensor
    t: torch.Tensor
    states: torch.Tensor
    nothing: torch.Tensor
    guidance: torch.Tensor
    target: torch.Tensor

    def some(self, chosen: torch.Tensor) -> Views:
        """Some of them, by index."""
        return Views(*(getattr(self, name)[chosen] for name in self.__slots__))


def make_explicit(signals: Iterable[tuple[float, torch.Tensor]], kappa: float) -> torch.Tensor:
    """δ = Σ g·β ⊙ Δ over pairs of g and Δ [n, c, h, w]; β is 1 where |Δ| is at least its κ-quantile, 0 elsewhere."""

    def kept(delta: torch.Tensor) -> torch.Tensor:
        sizes = delta.abs().flatten(2)  # [n, c, h·w]
        edge = torch.quantile(sizes, kappa, dim=2)[..., None, None]  # of each channel by itself, [n, c, 1, 1]
        return torch.where(delta.abs() >= edge, delta, torch.zeros_like(delta))

    return torch.stack([g * kept(delta) for g, delta in signals]).sum(0)


def compute_erase_loss(
    target: torch.Tensor, guidance: torch.Tensor, gammas: tuple[float, float] = (1.0, 1.0)
) -> torch.Tensor:
    """Mean ‖γ1·T − γ2·ψ_θ(c)‖²."""
    first, second = gammas
    return (first * target - second * guidance).square().mean()


def compute_drift_loss(frozen: torch.Tensor, changed: torch.Tensor) -> torch.Tensor:
    """Mean ‖ε_θ0(z_t, ∅) − ε_θ(z_t, ∅)‖²."""
    return (frozen - changed).square().mean()


def view_latents(
    denoiser: Denoiser,
    scene: Scenes,
    latents: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    matching: torch.Tensor,
    wanted: Wanted,
) -> Views:
    """What the frozen model says of latents, and the target that follows.

    Args:
        denoiser: the frozen model.
        scene: prompts with the concept and with the anchor.
        latents: z_t, t, and which prompt, see `training_samples.partway`.
        matching: R [prompts, length, length] of each prompt's pair; see `prompt_to_prompt.matched`.
        wanted: which target.
    """
    parts = [
        _viewed(denoiser, scene, [x[start : start + BATCH] for x in latents], matching, wanted)
        for start in range(0, latents[0].shape[0], BATCH)
    ]
    return Views(*(torch.cat([getattr(part, name) for part in parts]) for name in Views.__slots__))


def _viewed(
    denoiser: Denoiser, scene: Scenes, latents: list[torch.Tensor], matching: torch.Tensor, wanted: Wanted
) -> Views:
    z, t, which = latents
    states, anchors = scene.of(which)
    null = scene.null.expand_as(states)
    with torch.no_grad():
        told = denoiser.predict(torch.cat([z, z, z]), torch.cat([t, t, t]), torch.cat([states, anchors, null]))
        # One pass for the three: the same latents and steps. [n, c, h, w] each
        with_concept, with_anchor, nothing = told.chunk(3)
        guidance, other = with_concept - nothing, with_anchor - nothing
        match wanted.kind:
            case "none":
                target = torch.zeros_like(guidance)
            case "alternative":
                target = other
            case "explicit":
                target = guidance + make_explicit([(wanted.push, guidance), (wanted.pull, other)], wanted.kappa)
            case _:
                # Steps count down while a picture is drawn: the first share of the way are the large t. [n] bool
                early = t >= round((1 - wanted.share) * denoiser.steps)
                target = layout_kept(denoiser, (z, t), (states, anchors), matching[which], early) - nothing
    return Views(z, t, states, nothing, guidance, target)


def layout_kept(
    denoiser: Denoiser,
    latents: tuple[torch.Tensor, torch.Tensor],
    states: tuple[torch.Tensor, torch.Tensor],
    matching: torch.Tensor,
    where: torch.Tensor,
) -> torch.Tensor:
    """ε(z_t, c' | attention maps of c), [n, c, h, w].

    Args:
        denoiser: the frozen model.
        latents: z_t and t.
        states: of c and of c'.
        matching: R [n, length, length].
        where: [n] bool, which latents take the maps.
    """
    # Prompt-to-Prompt (arXiv 2208.01626): the layout comes from the attention maps of c, the content from c'.
    with recording(denoiser.unet) as maps:
        denoiser.predict(*latents, states[0])
    with injecting(denoiser.unet, maps, matching, where):
        return denoiser.predict(*latents, states[1])
