"""Word vectors that bring an erased concept back: gradient descent on the input embeddings of a few free tokens.

Textual inversion (Gal et al. 2022, arXiv 2208.01618, eq. 2), as an attack on erasures Pham et al. 2023 (arXiv
2308.01508). Nobody can type such vectors; they show what a model can still draw, not what its users will find.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch

from rasura.evaluation.attacks.budget import BATCH
from rasura.evaluation.attacks.denoising_loss import Denoising, SlottedPrompt, states_of_vectors

FREE_PROMPT: Final = "a picture of"
"""What stands before the free vectors."""

_RATE: Final = 0.1  # Adam's, in standard deviations of the vocabulary's embeddings


def find_embedding(
    denoising: Denoising, label: str, tokens: int, steps: int, tell: Callable[[int, int], None]
) -> tuple[torch.Tensor, tuple[float, float]]:
    """Vectors that make a model draw given pictures.

    They start from the concept's own words, as far as there is room, and from the mean of the vocabulary.

    Args:
        denoising: the model and pictures of the concept.
        label: the concept.
        tokens: how many vectors are free.
        steps: of Adam.
        tell: told after each step.

    Returns:
        The states [1, length, d] of the prompt with the vectors, and the first and the last loss.
    """
    pipeline = denoising.pipeline
    prompt = SlottedPrompt.of(pipeline.tokenizer, FREE_PROMPT, tokens)
    vectors, rate = _start(denoising, label, tokens)
    optimiser = torch.optim.Adam([vectors], lr=rate)
    losses = []
    for step in range(steps):
        tell(step, steps)
        optimiser.zero_grad()
        loss = denoising.losses(states_of_vectors(pipeline, prompt, vectors), denoising.noised(BATCH)).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(float(loss.detach()))
    tell(steps, steps)
    with torch.no_grad():
        return states_of_vectors(pipeline, prompt, vectors), (losses[0], losses[-1])


def _start(denoising: Denoising, label: str, tokens: int) -> tuple[torch.Tensor, float]:
    """The first vectors [tokens, d], which want gradients, and a rate that fits their scale."""
    known = denoising.pipeline.text_encoder.get_input_embeddings().weight.detach()
    vectors: torch.Tensor = known.mean(dim=0).repeat(tokens, 1)
    own = denoising.pipeline.tokenizer(label)["input_ids"][1:-1][:tokens]
    vectors[: len(own)] = known[own]
    return vectors.requires_grad_(), _RATE * float(known.std())
