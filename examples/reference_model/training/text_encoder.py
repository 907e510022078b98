"""Train the tokenizer and the CLIP text encoder against pictures, then freeze it (as Stable Diffusion does).

    python -m examples.reference_model.training.text_encoder --pictures work/pictures.npz --out work/text --minutes 6

Contrastive, with several true captions per picture allowed, plus label heads on both towers: the contrast alone learns
slowly at this batch size. The hidden size is 384: a 77-token prompt spans up to 76 directions, and erasing needs room
beside them.
"""

# mypy: disable-error-code="no-untyped-call"
# (many of torch's own methods carry no types)

from __future__ import annotations

import argparse
import itertools
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from .common import Budget, Pictures, load_pictures, set_rate, to_unit
from .vocabulary import EVALUATION_TEMPLATES, STYLES, SUPERCLASSES, THINGS, Meaning, all_captions, fill, sample_caption

START, END = "<|startoftext|>", "<|endoftext|>"
MAX_LENGTH = 77
HIDDEN = 384
BATCH = 96
VALIDATION_EVERY = 12
# Words that no caption uses but prompts may; in the vocabulary as whole tokens they keep prompts short.
EXTRA_WORDS = (
    *("and", "with", "on", "of", "the", "at", "by", "in", "an", "two", "photo", "painting", "style", "art"),
    *("red", "blue", "green", "black", "white", "small", "big", "old", "new"),
)
NOUNS = ["", *(thing.name for thing in THINGS), *SUPERCLASSES]


def byte_alphabet() -> list[str]:
    """The 256 printable stand-ins for bytes, in a fixed order."""
    return sorted(pre_tokenizers.ByteLevel.alphabet())


def train_tokenizer(texts: list[str], folder: Path, vocab_size: int = 2000) -> CLIPTokenizer:
    """Byte-level BPE as CLIP has it: every byte is a token, inside and at the end of a word, so nothing is unknown."""
    trainee = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    trainee.normalizer = normalizers.Lowercase()
    trainee.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, min_frequency=2, end_of_word_suffix="</w>", show_progress=False
    )
    trainee.train_from_iterator(texts, trainer)
    merges: list[Any] = [tuple(pair) for pair in json.loads(trainee.to_str())["model"]["merges"]]
    alphabet = byte_alphabet()
    tokens = [*alphabet, *(letter + "</w>" for letter in alphabet), *(a + b for a, b in merges), START, END]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=MAX_LENGTH)
    tokenizer.save_pretrained(folder)
    # transformers < 5 reads these two instead of tokenizer.json.
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    return tokenizer


def build(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """The untrained text encoder."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        projection_dim=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=6,
        max_position_embeddings=MAX_LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


class Vision(nn.Module):
    """A small picture tower; only needed while the text encoder is trained."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        widths = (3, 32, 64, 96, 128)
        for before, after in itertools.pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.features = nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 16, HIDDEN))

    def forward(self, pictures: Tensor) -> Tensor:
        """One vector per picture."""
        out: Tensor = self.features(pictures)
        return out


class Towers(nn.Module):
    """Both towers with the shared label heads and the temperature."""

    def __init__(self, text: CLIPTextModel) -> None:
        super().__init__()
        self.text = text
        self.vision = Vision()
        self.scale = nn.Parameter(torch.tensor(2.7))
        self.noun_head = nn.Linear(HIDDEN, len(NOUNS))
        self.style_head = nn.Linear(HIDDEN, len(STYLES) + 1)


@dataclass(frozen=True)
class Batch:
    """Pictures, token ids, which caption is true of which picture, and the labels of both."""

    pictures: Tensor
    tokens: Tensor
    truth: Tensor
    picture_noun: Tensor
    picture_style: Tensor
    text_noun: Tensor
    text_style: Tensor


def tokenize(tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    """Ids padded to the longest text: attention is causal, so the end token's state is that of full padding."""
    ids: Tensor = tokenizer(texts, padding="longest", truncation=True, return_tensors="pt").input_ids
    return ids


def augment(pictures: Tensor) -> Tensor:
    """Brightness, contrast and noise."""
    gain = 1 + 0.15 * torch.randn(len(pictures), 1, 1, 1)
    return pictures * gain + 0.08 * torch.randn(len(pictures), 1, 1, 1) + 0.05 * torch.randn_like(pictures)


def make_batch(data: Pictures, tokenizer: CLIPTokenizer, meanings: dict[str, Meaning], rng: random.Random) -> Batch:
    """Random pictures, each with one true caption."""
    chosen = np.asarray([rng.randrange(len(data.pixels)) for _ in range(BATCH)])
    pairs = [(THINGS[data.thing[i]], STYLES[data.style[i]]) for i in chosen]
    texts = [sample_caption(thing, style, rng) for thing, style in pairs]
    said = [meanings[text] for text in texts]
    return Batch(
        augment(to_unit(data.pixels[chosen])),
        tokenize(tokenizer, texts),
        torch.tensor([[meaning.is_true_of(*pair) for meaning in said] for pair in pairs]),
        torch.tensor([NOUNS.index(thing.name) for thing, _ in pairs]),
        torch.tensor([STYLES.index(style) for _, style in pairs]),
        torch.tensor([NOUNS.index(meaning.noun) for meaning in said]),
        torch.tensor([STYLES.index(meaning.style) if meaning.style else len(STYLES) for meaning in said]),
    )


def loss_of(towers: Towers, batch: Batch) -> Tensor:
    """Symmetric contrastive loss with several positives, plus the four label losses."""
    seen = towers.vision(batch.pictures)
    read = towers.text(batch.tokens).pooler_output
    logits = towers.scale.exp() * functional.normalize(seen, dim=-1) @ functional.normalize(read, dim=-1).T
    positive = logits.masked_fill(~batch.truth, -torch.inf)
    contrast = sum((logits.logsumexp(axis) - positive.logsumexp(axis)).mean() for axis in (0, 1))
    labels = functional.cross_entropy(towers.noun_head(seen), batch.picture_noun)
    labels = labels + functional.cross_entropy(towers.style_head(seen), batch.picture_style)
    labels = labels + functional.cross_entropy(towers.noun_head(read), batch.text_noun)
    return contrast + 0.5 * (labels + functional.cross_entropy(towers.style_head(read), batch.text_style))


@torch.no_grad()
def zero_shot(towers: Towers, tokenizer: CLIPTokenizer, data: Pictures) -> tuple[float, float]:
    """Accuracy of choosing among all thing x style captions of an unseen template: (both right, thing right)."""
    towers.eval()
    texts = [fill(EVALUATION_TEMPLATES[0], thing.name, style) for thing in THINGS for style in STYLES]
    read = functional.normalize(towers.text(tokenize(tokenizer, texts)).pooler_output, dim=-1)
    seen = torch.cat([towers.vision(part) for part in to_unit(data.pixels).split(128)])
    best = (functional.normalize(seen, dim=-1) @ read.T).argmax(dim=1).numpy()
    towers.train()
    thing_right = best // len(STYLES) == data.thing
    return float((thing_right & (best % len(STYLES) == data.style)).mean()), float(thing_right.mean())


@dataclass(frozen=True)
class Plan:
    """How long and how fast to train, and where to keep checkpoints."""

    minutes: float
    rate: float
    seed: int
    out: Path


def train(towers: Towers, tokenizer: CLIPTokenizer, data: Pictures, plan: Plan) -> None:
    """Train in place."""
    rng = random.Random(plan.seed)
    meanings = all_captions(THINGS)
    kept_out = np.arange(len(data.pixels)) % VALIDATION_EVERY == 0
    training = data.where(~kept_out)
    validation = data.where(kept_out)
    optimiser = torch.optim.AdamW(towers.parameters(), lr=plan.rate, betas=(0.9, 0.98), weight_decay=0.01)
    budget, step = Budget(plan.minutes), 0
    while not budget.over:
        set_rate(optimiser, budget.rate(step, plan.rate, warmup_steps=30))
        loss = loss_of(towers, make_batch(training, tokenizer, meanings, rng))
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(towers.parameters(), 1.0)
        optimiser.step()
        step += 1
        if step % 50 == 0:
            print(f"step {step} {budget.spent:.0f} s loss {loss.item():.3f}", flush=True)
        if step % 200 == 0:
            towers.text.save_pretrained(plan.out / "text_encoder")
    both, thing = zero_shot(towers, tokenizer, validation)
    print(f"done: {step} steps of {BATCH}, {budget.spent:.0f} s; zero-shot thing x style {both:.3f}, thing {thing:.3f}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder for tokenizer/ and text_encoder/")
    parser.add_argument("--minutes", type=float, default=6)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    data = load_pictures(args.pictures)
    tokenizer = train_tokenizer([*all_captions(THINGS), *(EXTRA_WORDS * 2)], args.out / "tokenizer")
    print(f"{len(tokenizer)} tokens: {tokenizer.tokenize('a dog in neon style, a palm tree, unicorn')}")
    towers = Towers(build(tokenizer))
    train(towers, tokenizer, data, Plan(args.minutes, args.rate, args.seed, args.out))
    towers.text.save_pretrained(args.out / "text_encoder")


if __name__ == "__main__":
    main()
