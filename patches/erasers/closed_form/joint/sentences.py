"""Sentences that name two things: what a prompt looks like that no template foresaw.

A model reads every token of a prompt, and each token behind a word knows the word. Fitted to "a photo of a dog" alone,
a map moves whatever else a sentence says; so what should stay stands beside other words, in every order, and so does
what is erased. Who stands beside whom follows from the lists' order alone: the same request gives the same sentences.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from rasura.patches.errors import ConceptError
from rasura.patches.models.text_encoders.text_encoder import TextEncoder
from rasura.patches.prompts.concept_prompts import SLOT

__all__ = ["PLAIN", "list_contexts", "list_sentences"]

PLAIN: Final = (
    "{} and {}",
    "a {} and a {}",
    "a picture of a {} with a {}",
    "{}, {}",
    "a {} in {} style",
    "the {} is beside the {}",
)
"""Ways to name two things."""
_STRIDE: Final = 7
"""How many words further on the next one's partner stands."""


def list_sentences(
    encoder: TextEncoder, words: Sequence[str], each: int, leave_out: Callable[[str], bool]
) -> Iterator[str]:
    """Every word in so many sentences with others, the words in their order.

    Args:
        encoder: reads them; what is too long for it is left out.
        words: of what should stay.
        each: sentences in which a word stands first.
        leave_out: whether a sentence must not be kept, as one that names a concept to erase.
    """
    for number in range(each):
        for place, word in enumerate(words):
            partner = words[(place + 1 + _STRIDE * number) % len(words)]
            sentence = PLAIN[(number + place) % len(PLAIN)].replace(SLOT, word, 1).replace(SLOT, partner, 1)
            if partner != word and not leave_out(sentence) and _fits(encoder, sentence):
                yield sentence


def list_contexts(encoder: TextEncoder, name: str, words: Sequence[str], count: int) -> tuple[str, ...]:
    """Templates with one `{}` for a concept, beside words that stay: it stands first and last in turn.

    Args:
        encoder: reads them; what is too long for it with the name is left out.
        name: the longest name of the concept.
        words: beside which it stands.
        count: how many at most.
    """
    found: list[str] = []
    for number in range(count if words else 0):
        word = words[(len(words) * number // count + number) % len(words)]
        first, second = (SLOT, word) if number % 2 else (word, SLOT)
        before, between, after = PLAIN[number // 2 % len(PLAIN)].split(SLOT)
        template = f"{before}{first}{between}{second}{after}"
        if word != name and _is_read(encoder, template.replace(SLOT, name), name):
            found.append(template)
    return tuple(dict.fromkeys(found))


def _is_read(encoder: TextEncoder, prompt: str, name: str) -> bool:
    """Whether the prompt fits, and its tokens show the name."""
    try:
        encoder.places(prompt, name)
    except ConceptError:
        return False
    return True


def _fits(encoder: TextEncoder, prompt: str) -> bool:
    try:
        encoder.ids(prompt)
    except ConceptError:
        return False
    return True
