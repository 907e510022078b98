"""The text encoder: a small CLIP, trained against the pictures' latents, then frozen (as Stable Diffusion does).

The other tower reads latents, which are cached, so a step costs little more than reading the captions. Heads on the
captions teach order, number and ground. One head asks which groups the first noun belongs to: what is alike gets
states that are alike, as in a large model, and neighbours are neighbours in the text, too.
"""

# mypy: disable-error-code="no-untyped-call"
# (many of torch's own methods carry no types)

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Final

import torch
from examples.reference_model.training.cache import shorten
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from .captions import GROUND_NAMES, Caption, Said, Scene, names, sample_caption
from .concepts import GROUPS, STYLES, THINGS
from .course import Dice
from .words import Words

HIDDEN: Final = 512
MAX_LENGTH: Final = 77
NOUNS: Final = ("", *(thing.name for thing in THINGS), *dict.fromkeys(group.words["en"] for group in GROUPS))
_STYLE_NAMES: Final = ("", *(style.name for style in STYLES))
_GROUNDS: Final = ("", *GROUND_NAMES)
_HEADS: Final = {
    "first": len(NOUNS),
    "second": len(NOUNS),
    "count": 4,
    "style": len(_STYLE_NAMES),
    "ground": len(_GROUNDS),
}


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """The untrained text encoder."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        projection_dim=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=8,
        max_position_embeddings=MAX_LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


class Towers(nn.Module):
    """The text encoder with what teaches it: a tower for latents, heads, a temperature."""

    def __init__(self, text: CLIPTextModel, latent_size: int) -> None:
        super().__init__()
        self.text = text
        self.latents = nn.Sequential(nn.Flatten(), nn.Linear(latent_size, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN))
        self.scale = nn.Parameter(torch.tensor(2.7))
        self.heads = nn.ModuleDict({name: nn.Linear(HIDDEN, size) for name, size in _HEADS.items()})
        self.groups = nn.Linear(HIDDEN, len(GROUPS))


@cache
def groups_of(noun: str) -> tuple[float, ...]:
    """For every group 1.0 if all that the noun can mean is a member, else 0.0."""
    meant = frozenset(THINGS[index].name for index in range(len(THINGS)) if noun and names(noun, index))
    return tuple(float(bool(meant) and meant <= group.members) for group in GROUPS)


def labels_of(said: Said) -> dict[str, int]:
    """What each head should answer."""
    return {
        "first": NOUNS.index(said.first),
        "second": NOUNS.index(said.second),
        "count": said.count,
        "style": _STYLE_NAMES.index(said.style),
        "ground": _GROUNDS.index(said.ground),
    }


class TextTeacher:
    """Draws batches of pictures with true captions and computes the loss."""

    def __init__(
        self,
        towers: Towers,
        tokenizer: CLIPTokenizer,
        *,
        latents: Tensor,
        scenes: list[Scene],
        weights: Tensor,
        words: Mapping[str, Words],
        batch: int,
    ) -> None:
        self._towers, self._tokenizer = towers, tokenizer
        self._latents, self._scenes, self._weights = latents, scenes, weights
        self._words, self._batch = words, batch

    def loss(self, dice: Dice) -> Tensor:
        """Symmetric contrast with several positives, plus what the heads say of the captions."""
        device = self._towers.scale.device
        chosen = torch.multinomial(self._weights, self._batch, replacement=True, generator=dice.noise)
        scenes = [self._scenes[index] for index in chosen.tolist()]
        captions = [sample_caption(scene, self._words, dice.words) for scene in scenes]
        latents = self._latents[chosen].float()
        latents = latents + 0.3 * torch.randn(latents.shape, generator=dice.noise)
        seen = functional.normalize(self._towers.latents(latents.to(device)), dim=-1)
        read = self._towers.text(self._ids([caption.text for caption in captions]).to(device)).pooler_output
        truth = torch.tensor([[caption.said.is_true_of(scene) for caption in captions] for scene in scenes])
        logits = self._towers.scale.clamp(max=4.0).exp() * seen @ functional.normalize(read, dim=-1).T
        positive = logits.masked_fill(~truth.to(device), -torch.inf)
        contrast = sum((logits.logsumexp(axis) - positive.logsumexp(axis)).mean() for axis in (0, 1))
        return torch.as_tensor(contrast) + 0.5 * self._head_loss(read, captions)

    def _ids(self, texts: list[str]) -> Tensor:
        """Padded to the longest only: attention is causal, so the end token's state is that of full padding."""
        ids: Tensor = self._tokenizer(texts, padding="longest", truncation=True, return_tensors="pt").input_ids
        return ids

    def _head_loss(self, read: Tensor, captions: list[Caption]) -> Tensor:
        labels = [labels_of(caption.said) for caption in captions]
        loss = torch.zeros((), device=read.device)
        for name, head in self._towers.heads.items():
            target = torch.tensor([label[name] for label in labels], device=read.device)
            loss = loss + functional.cross_entropy(head(read), target)
        members = torch.tensor([groups_of(caption.said.first) for caption in captions], device=read.device)
        return loss + 4.0 * functional.binary_cross_entropy_with_logits(self._towers.groups(read), members)

    @torch.no_grad()
    def accuracy(self, captions: list[Caption]) -> dict[str, float]:
        """The share of captions of which each head says the right thing."""
        device = self._towers.scale.device
        parts = [captions[start : start + 128] for start in range(0, len(captions), 128)]
        read = torch.cat(
            [self._towers.text(self._ids([c.text for c in part]).to(device)).pooler_output for part in parts]
        )
        labels = [labels_of(caption.said) for caption in captions]
        return {
            name: float((head(read).argmax(1).cpu() == torch.tensor([label[name] for label in labels])).float().mean())
            for name, head in self._towers.heads.items()
        }


@torch.no_grad()
def embed(model: CLIPTextModel, tokenizer: CLIPTokenizer, texts: list[str]) -> tuple[Tensor, Tensor]:
    """Last hidden states as a pipeline computes them, shortened: [n, 17, width] in fp16, and the mask that goes along.

    The states of padding are nearly one vector: their mean stands for them, with their count in the mask.
    """
    device = next(model.parameters()).device
    parts: list[Tensor] = []
    mask = torch.ones(1)
    for start in range(0, len(texts), 64):
        part = texts[start : start + 64]
        ids = tokenizer(part, padding="max_length", max_length=MAX_LENGTH, truncation=True, return_tensors="pt")
        short, mask = shorten(model(ids.input_ids.to(device)).last_hidden_state.float().cpu())
        parts.append(short.half())
    return torch.cat(parts), mask
