"""What the denoiser is trained on, computed once: latents of the pictures, embeddings of the captions."""

# mypy: disable-error-code="no-untyped-call"
# (many of torch's own methods carry no types)

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from .common import Pictures, save_atomically, to_unit
from .vocabulary import STYLES, all_captions

T = TypeVar("T")

NEAREST_PLACEMENTS = 4  # of each drawing in each style, those nearest to their mean: the rest blur a small model
# Most of the training replaces the padding states, which are nearly the same vector, by their mean with its count in
# the attention mask: 17 tokens instead of 77 for the same attention.
LEADING_TOKENS = 16


@dataclass(frozen=True)
class Cache:
    """Everything a worker reads: latents with labels, caption embeddings and their row numbers."""

    latents: Tensor
    things: list[int]
    styles: list[int]
    embeddings: Tensor
    rows: dict[str, int]


@torch.no_grad()
def encode_captions(folder: Path) -> tuple[Tensor, dict[str, int]]:
    """Full-length last hidden states, exactly as StableDiffusionPipeline computes them, in fp16."""
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    model = CLIPTextModel.from_pretrained(folder / "text_encoder").eval()
    texts = list(all_captions())
    parts = []
    for start in range(0, len(texts), 64):
        part = texts[start : start + 64]
        ids = tokenizer(part, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
        parts.append(model(ids).last_hidden_state.half())
    return torch.cat(parts), {text: row for row, text in enumerate(texts)}


def nearest(latents: Tensor, cells: Tensor) -> Tensor:
    """Mask of the placements of each cell (object and style) that lie nearest to the cell's mean."""
    kept = torch.zeros(len(latents), dtype=torch.bool)
    for cell in cells.unique():
        members = (cells == cell).nonzero().squeeze(1)
        distance = (latents[members] - latents[members].mean(dim=0)).flatten(1).norm(dim=1)
        kept[members[distance.argsort()[:NEAREST_PLACEMENTS]]] = True
    return kept


def shorten(embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """Leading tokens plus the mean of the rest, and the mask that gives that mean the weight of all it stands for.

    diffusers turns a mask m into the bias (m - 1) * 10000, and adding log(n) to a logit counts a token n times.
    """
    rest = embeddings[:, LEADING_TOKENS:]
    short = torch.cat([embeddings[:, :LEADING_TOKENS], rest.mean(dim=1, keepdim=True)], dim=1)
    mask = torch.ones(LEADING_TOKENS + 1)
    mask[-1] += math.log(rest.shape[1]) / 10_000
    return short, mask


def encode_pictures(pixels: Tensor, folder: Path) -> Tensor:
    """Latents of pictures, without sampling noise."""
    vae = AutoencoderKL.from_pretrained(folder).eval()
    return torch.cat([vae.encode(part).latent_dist.mode() for part in pixels.split(32)])


def once(path: Path, compute: Callable[[], T]) -> T:
    """Compute a thing, or read what an earlier run stored."""
    if not path.exists():
        save_atomically(compute(), path)
    stored: T = torch.load(path, weights_only=True)
    return stored


@torch.no_grad()
def make_cache(pictures: Pictures, vae_folder: Path, text_folder: Path, out: Path) -> Cache:
    """Encode all pictures and captions once; the results are kept for the next run."""
    # All facing one way: the choice between two mirror images costs a model of this size more than it gives.
    own = pictures.where(pictures.of_generator).unmirrored()
    latents = once(out / "latents.pt", lambda: encode_pictures(to_unit(own.pixels), vae_folder))
    kept = nearest(latents, torch.from_numpy(own.thing * len(STYLES) + own.style))
    latents, own = latents[kept], own.where(kept.numpy())
    embeddings, rows = once(out / "captions.pt", lambda: encode_captions(text_folder))
    print(f"{len(latents)} latents (std {latents.std().item():.3f}), {len(rows)} captions", flush=True)
    return Cache(latents.share_memory_(), own.thing.tolist(), own.style.tolist(), embeddings.share_memory_(), rows)
