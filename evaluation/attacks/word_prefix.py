"""Words before a prompt that bring an erased concept back: gradient steps on word vectors, each taken to a real word.

After UnlearnDiffAtk (Zhang et al. 2023, arXiv 2310.11868): tokens are put before the prompt and optimised on the
denoising loss of pictures of the concept. The loss and its gradient are taken at the nearest words, the step is made
from the vectors themselves (as in Wen et al. 2023, arXiv 2302.03668); the best words that were seen are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch

from rasura.evaluation.attacks.budget import BATCH
from rasura.evaluation.attacks.denoising_loss import Denoising, SlottedPrompt, states_of_vectors
from rasura.evaluation.attacks.token_suffix import typeable

_RATE: Final = 0.5
"""Adam's, in standard deviations of the vocabulary's embeddings: a step must be able to reach another word."""


def find_prefix(
    denoising: Denoising, prompt: str, tokens: int, steps: int, tell: Callable[[int, int], None]
) -> tuple[str, tuple[float, float]]:
    """The prompt behind the best words that were found, and the error before and after.

    Args:
        denoising: the model and pictures of the concept.
        prompt: what stands behind the words.
        tokens: how many words.
        steps: of the search.
        tell: told after each step.
    """
    pipeline = denoising.pipeline
    noised, slotted = denoising.noised(BATCH), SlottedPrompt.before(pipeline.tokenizer, prompt, tokens)
    allowed = typeable(pipeline.tokenizer)
    known = pipeline.text_encoder.get_input_embeddings().weight.detach()
    words = known[allowed.to(known.device)]  # [v, d]
    start = torch.randint(len(allowed), (tokens,), generator=denoising.generator)
    free = words[start.to(known.device)].clone().requires_grad_()
    optimiser = torch.optim.Adam([free], lr=_RATE * float(known.std()))
    best, chosen, first = float("inf"), start, None
    for step in range(steps):
        tell(step, steps)
        places = torch.cdist(free.detach(), words).argmin(dim=1)
        vectors = words[places].clone().requires_grad_()
        loss = denoising.losses(states_of_vectors(pipeline, slotted, vectors), noised).sum()
        (free.grad,) = torch.autograd.grad(loss, [vectors])
        optimiser.step()
        value = float(loss.detach())
        first = value if first is None else first
        if value < best:
            best, chosen = value, places
    tell(steps, steps)
    found = (pipeline.tokenizer.decode([int(allowed[place])]).strip() for place in chosen)
    return " ".join([*found, prompt]), (best if first is None else first, best)
