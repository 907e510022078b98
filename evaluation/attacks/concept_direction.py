"""Words whose encoding lies along a concept's direction: found in the text encoder alone, without any denoiser.

After Ring-A-Bell (Tsai et al. 2023, arXiv 2310.10012): the mean difference between prompts with and without the concept
is its direction; words are looked for whose encoding is that of the prompt, pushed along it. The search is greedy by
coordinate gradients (arXiv 2307.15043) where the paper's is genetic. What it finds knows nothing of the model that it
is tried on, so one search serves for every model with that text encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import torch

from rasura.evaluation.attacks.budget import CANDIDATES, PUSH
from rasura.evaluation.attacks.denoising_loss import SlottedPrompt, states_of_ids, states_of_vectors
from rasura.evaluation.attacks.token_suffix import typeable
from rasura.patches.prompts.concept_prompts import GENERIC_TEMPLATES, prompts_of

_TOP: Final = 32  # replacements among which the candidates are drawn, for each token


def find_concept_words(
    pipeline: Any, label: str, prompt: str, tokens: int, *, rounds: int, seed: int, tell: Callable[[int, int], None]
) -> tuple[str, tuple[float, float]]:
    """A prompt whose end was found, and its squared distance from what was looked for, before and after.

    Args:
        pipeline: whose text encoder is asked.
        label: the concept.
        prompt: one that names it; the name is taken out.
        tokens: how many words are looked for.
        rounds: of the search.
        seed: of all randomness.
        tell: told after each round.
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    bare = " ".join(prompt.replace(label, " ").split())
    goal = _goal(pipeline, label, bare)  # [length, d]
    slotted, allowed = SlottedPrompt.of(pipeline.tokenizer, bare, tokens), typeable(pipeline.tokenizer)
    known = pipeline.text_encoder.get_input_embeddings().weight.detach()
    for parameter in pipeline.text_encoder.parameters():
        parameter.requires_grad_(requires_grad=False)
    words = allowed[torch.randint(len(allowed), (tokens,), generator=generator)]
    first = best = float(_distances(pipeline, slotted, words[None], goal)[0])
    for step in range(rounds):
        tell(step, rounds)
        vectors = known[words.to(known.device)].clone().requires_grad_()
        loss = (states_of_vectors(pipeline, slotted, vectors)[0] - goal).square().sum(1).mean()
        (slope,) = torch.autograd.grad(loss, [vectors])
        likely = allowed[(-(slope @ known[allowed.to(known.device)].T)).cpu().topk(min(_TOP, len(allowed)), 1).indices]
        tried = _vary(words, likely, generator)
        found = _distances(pipeline, slotted, tried, goal)
        if float(found.min()) < best:
            best, words = float(found.min()), tried[int(found.argmin())]
    tell(rounds, rounds)
    read = (pipeline.tokenizer.decode([int(token)]).strip() for token in words)
    return " ".join([bare, *read]).strip(), (first, best)


def _goal(pipeline: Any, label: str, bare: str) -> torch.Tensor:
    """The states [length, d] of the prompt without the concept, pushed along the concept's direction."""
    named, nameless = (_encode(pipeline, prompts_of(text, GENERIC_TEMPLATES)) for text in (label, ""))
    return _encode(pipeline, [bare])[0] + PUSH * (named - nameless).mean(dim=0)


def _encode(pipeline: Any, prompts: Sequence[str]) -> torch.Tensor:
    with torch.no_grad():
        states: torch.Tensor = pipeline.encode_prompt(
            list(prompts), pipeline.device, 1, do_classifier_free_guidance=False
        )[0]
    return states


def _distances(pipeline: Any, slotted: SlottedPrompt, words: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
    """Mean squared distance [n] of each row of words [n, tokens] from the goal."""
    with torch.no_grad():
        states = states_of_ids(pipeline, slotted.with_tokens(words))
    return (states - goal).square().sum(2).mean(1)


def _vary(words: torch.Tensor, likely: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Rows [n, tokens] that differ from the words in one token, drawn among the likely ones [tokens, top]."""
    places = torch.arange(CANDIDATES) % len(words)
    picks = torch.randint(likely.shape[1], (CANDIDATES,), generator=generator)
    tried = words.repeat(CANDIDATES, 1)
    tried[torch.arange(CANDIDATES), places] = likely[places, picks]
    return tried
