"""The UNet: v-prediction on cached latents and cached caption embeddings.

Most of its weights lie at 8x8 and 4x4, where they cost little: 138 objects must be remembered on a CPU's budget.
"""

# mypy: disable-error-code="no-untyped-call"
# (many of torch's own methods carry no types)

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from diffusers import UNet2DConditionModel
from examples.reference_model.training.unet import scheduler
from torch import Tensor
from torch.nn import functional

from .captions import Scene
from .course import Dice
from .render import INK_VENDOR, PLACEMENTS, Pictures, vendors_of
from .text import HIDDEN

DROPPED_CAPTIONS: Final = 0.10  # these learn the empty prompt, which guidance needs
# Times are drawn from this normal distribution cut to the schedule: the middle decides what is drawn.
TIME_MEAN, TIME_DEVIATION = 430.0, 270.0
# How often a kind of scene is shown, and how often each colour set.
KINDS: Final = {"single": 0.64, "ground": 0.11, "count": 0.09, "pair": 0.16}
VENDOR_SHARES: Final = {"noto": 0.7, "fluent-emoji-flat": 0.3, INK_VENDOR: 1.0}


def build_unet() -> UNet2DConditionModel:
    """The untrained denoiser: cross-attention at 8x8, 4x4 and in the middle."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=(48, 96, 192),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4, 4),
        cross_attention_dim=HIDDEN,
        norm_num_groups=16,
    )


def kind_of(scene: Scene) -> str:
    """Which of KINDS a scene is."""
    if len(scene.things) > 1:
        return "pair"
    if scene.count > 1:
        return "count"
    return "single" if scene.ground is None else "ground"


def picture_weights(pictures: Pictures) -> Tensor:
    """How likely each picture is drawn: kinds by KINDS, within a single cell the sets by VENDOR_SHARES."""
    kinds = [kind_of(scene) for scene in pictures.scenes]
    raw = torch.tensor(
        [
            VENDOR_SHARES[vendor] / PLACEMENTS if kind == "single" and len(vendors_of(scene.style)) > 1 else 1.0
            for kind, scene, vendor in zip(kinds, pictures.scenes, pictures.vendors, strict=True)
        ],
        dtype=torch.float64,
    )
    weights = torch.zeros_like(raw)
    for kind, share in KINDS.items():
        chosen = torch.tensor([own == kind for own in kinds])
        if chosen.any():
            weights[chosen] = share * raw[chosen] / raw[chosen].sum()
    return weights


@dataclass(frozen=True, slots=True)
class Cache:
    """What a step reads: latents [n, 4, 16, 16], embeddings [m, 17, width] with their mask, rows by scene."""

    latents: Tensor
    scenes: Sequence[Scene]
    weights: Tensor
    embeddings: Tensor
    mask: Tensor
    rows: Mapping[Scene, Sequence[int]]
    empty: int


class DenoiserTeacher:
    """Draws training batches and computes the loss."""

    def __init__(self, unet: UNet2DConditionModel, cache: Cache, batch: int, device: torch.device) -> None:
        self._unet, self._cache, self._batch, self._device = unet, cache, batch, device
        self._alphas = scheduler().alphas_cumprod

    def _times(self, dice: Dice) -> Tensor:
        """One time from each of equally likely slices, which lowers the variance of the loss."""
        low, high = (torch.special.ndtr(torch.tensor((edge - TIME_MEAN) / TIME_DEVIATION)) for edge in (0.0, 999.0))
        places = (torch.arange(self._batch) + torch.rand(self._batch, generator=dice.noise)) / self._batch
        times = TIME_MEAN + TIME_DEVIATION * torch.special.ndtri(low + (high - low) * places)
        return torch.as_tensor(times).round().long().clamp(0, 999)

    def _row(self, index: int, dice: Dice) -> int:
        if dice.words.random() < DROPPED_CAPTIONS:
            return self._cache.empty
        return dice.words.choice(self._cache.rows[self._cache.scenes[index]])

    def loss(self, dice: Dice) -> Tensor:
        """The v-prediction loss of one random batch, not weighted over time."""
        cache, device = self._cache, self._device
        chosen = torch.multinomial(cache.weights, self._batch, replacement=True, generator=dice.noise)
        rows = [self._row(index, dice) for index in chosen.tolist()]
        text = cache.embeddings[rows].to(device).float()
        clean = cache.latents[chosen].float()
        noise = torch.randn(clean.shape, generator=dice.noise)
        times = self._times(dice)
        signal = self._alphas[times].sqrt()[:, None, None, None]
        sigma = (1 - self._alphas[times]).sqrt()[:, None, None, None]
        noisy, target = (signal * clean + sigma * noise).to(device), (signal * noise - sigma * clean).to(device)
        mask = cache.mask.to(device).expand(self._batch, -1)
        guess: Tensor = self._unet(
            noisy, times.to(device), encoder_hidden_states=text, encoder_attention_mask=mask
        ).sample
        return functional.mse_loss(guess, target)
