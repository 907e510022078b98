"""Words behind a prompt that bring an erased concept back: greedy coordinate gradient over real tokens.

After HotFlip (Ebrahimi et al. 2018, arXiv 1712.06751) and GCG (Zou et al. 2023, arXiv 2307.15043, algorithm 1): the
gradient by the one-hot choice of each token names the most promising replacements, some of them are tried, the best is
kept if it is better than what was there. Prompts of real words as an attack on erasures: P4D (Chin et al. 2023,
arXiv 2309.06135) and UnlearnDiffAtk (Zhang et al. 2023, arXiv 2310.11868).

Only tokens that a person can type are used: those whose text gives the same token again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch

from rasura.evaluation.attacks.budget import BATCH, CANDIDATES
from rasura.evaluation.attacks.denoising_loss import Denoising, Noised, SlottedPrompt, states_of_ids, states_of_vectors

_TOP: Final = 32  # replacements among which the candidates are drawn, for each token


def find_suffix(
    denoising: Denoising, prompt: str, tokens: int, rounds: int, tell: Callable[[int, int], None]
) -> tuple[str, tuple[float, float]]:
    """The prompt with the best suffix that was found, and the error before and after.

    All suffixes are compared on the same noised latents, so the error only falls.

    Args:
        denoising: the model and pictures of the concept.
        prompt: what stands before the suffix.
        tokens: of the suffix.
        rounds: of the search.
        tell: told after each round.
    """
    pipeline = denoising.pipeline
    noised = denoising.noised(BATCH)
    slotted = SlottedPrompt.of(pipeline.tokenizer, prompt, tokens)
    allowed = typeable(pipeline.tokenizer)
    suffix = allowed[torch.randint(len(allowed), (tokens,), generator=denoising.generator)]
    with torch.no_grad():
        first = best = float(_losses(denoising, slotted, suffix[None], noised)[0])
    for step in range(rounds):
        tell(step, rounds)
        tried = _candidates(denoising, slotted, suffix, allowed, noised)
        with torch.no_grad():
            losses = _losses(denoising, slotted, tried, noised)
        if float(losses.min()) < best:
            best, suffix = float(losses.min()), tried[int(losses.argmin())]
    tell(rounds, rounds)
    words = (pipeline.tokenizer.decode([int(token)]).strip() for token in suffix)
    return " ".join([prompt, *words]), (first, best)


def typeable(tokenizer: Any) -> torch.Tensor:
    """Ids whose text, typed between spaces, is read as the same one token."""
    special = set(tokenizer.all_special_ids)
    ids = [i for i in range(len(tokenizer)) if i not in special]
    texts = [tokenizer.decode([i]).strip() for i in ids]
    read = tokenizer([text or "." for text in texts])["input_ids"]
    found = [i for i, text, back in zip(ids, texts, read, strict=True) if text.isprintable() and back[1:-1] == [i]]
    return torch.tensor(found)


def _candidates(
    denoising: Denoising, slotted: SlottedPrompt, suffix: torch.Tensor, allowed: torch.Tensor, noised: Noised
) -> torch.Tensor:
    """Suffixes [n, tokens] that differ in one token, chosen among those that the gradient recommends."""
    pipeline = denoising.pipeline
    known = pipeline.text_encoder.get_input_embeddings().weight.detach()
    vectors = known[suffix.to(known.device)].clone().requires_grad_()
    denoising.losses(states_of_vectors(pipeline, slotted, vectors), noised).sum().backward()  # type: ignore[no-untyped-call]
    assert vectors.grad is not None
    promise = -(vectors.grad @ known[allowed.to(known.device)].T).cpu()
    best = allowed[promise.topk(min(_TOP, len(allowed)), dim=1).indices]
    places = torch.arange(CANDIDATES) % len(suffix)
    picks = torch.randint(best.shape[1], (CANDIDATES,), generator=denoising.generator)
    tried = suffix.repeat(CANDIDATES, 1)
    tried[torch.arange(CANDIDATES), places] = best[places, picks]
    return tried


def _losses(denoising: Denoising, slotted: SlottedPrompt, suffixes: torch.Tensor, noised: Noised) -> torch.Tensor:
    states = states_of_ids(denoising.pipeline, slotted.with_tokens(suffixes))
    return torch.cat([denoising.losses(one[None], noised) for one in states])
