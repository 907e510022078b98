"""Sentences that name two things: what a prompt looks like that no template foresaw.

A model reads every token of a prompt, and each token behind a word knows the word. Fitted to "a photo of a dog" alone,
a map moves whatever else a sentence says; so what should stay stands beside other words, in every order, and so does
what is erased.

Who stands beside whom is decided by the words' own digests, as on the ring of consistent hashing (Karger et al., 1997):
the same list in any order gives the same sentences, and a list that lost a word gives the same but for those that named
it, which stand together. So the next takedown, which keeps one word less, reads little anew.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from rasura.patches.errors import ConceptError
from rasura.patches.models.text_encoders.text_encoder import TextEncoder
from rasura.patches.prompts.concept_prompts import SLOT

__all__ = ["PLAIN", "list_contexts", "list_sentences", "pick_scattered"]

PLAIN: Final = (
    "{} and {}",
    "a {} and a {}",
    "a picture of a {} with a {}",
    "{}, {}",
    "a {} in {} style",
    "the {} is beside the {}",
)
"""Ways to name two things."""


def list_sentences(
    encoder: TextEncoder, words: Sequence[str], each: int, leave_out: Callable[[str], bool]
) -> Iterator[str]:
    """Every word in so many sentences, each with one of the words that follow it on the ring.

    Args:
        encoder: reads them; what is too long for it is left out.
        words: of what should stay.
        each: sentences in which a word stands first.
        leave_out: whether a sentence must not be kept, as one that names a concept to erase.
    """
    ring = [word for _, word in _arrange(words)]
    for place, word in enumerate(ring):
        for number in range(min(each, len(ring) - 1)):
            partner = ring[(place + 1 + number) % len(ring)]
            plain = PLAIN[_place(f"{word} {partner}") % len(PLAIN)]  # of the pair, whatever else is on the ring
            sentence = plain.replace(SLOT, word, 1).replace(SLOT, partner, 1)
            if not leave_out(sentence) and _fits(encoder, sentence):
                yield sentence


def list_contexts(encoder: TextEncoder, name: str, words: Sequence[str], count: int) -> tuple[str, ...]:
    """Templates with one `{}` for a concept, beside words that stay: it stands first and last in turn.

    Args:
        encoder: reads them; what is too long for it with the name is left out.
        name: the longest name of the concept.
        words: beside which it stands.
        count: how many at most.
    """
    ring = _arrange(words)
    found: list[str] = []
    for number in range(count if ring else 0):
        place = bisect_left(ring, (_place(f"{number} {name}"), ""))
        word = ring[place % len(ring)][1]
        first, second = (SLOT, word) if number % 2 else (word, SLOT)
        before, between, after = PLAIN[number // 2 % len(PLAIN)].split(SLOT)
        template = f"{before}{first}{between}{second}{after}"
        if word != name and _is_read(encoder, template.replace(SLOT, name), name):
            found.append(template)
    return tuple(dict.fromkeys(found))


def pick_scattered(words: Sequence[str], count: int) -> tuple[str, ...]:
    """At most `count` of the words: those that come first on the ring."""
    return tuple(word for _, word in _arrange(words)[:count])


def _arrange(words: Sequence[str]) -> list[tuple[int, str]]:
    """The words in the order of their places on the ring."""
    return sorted((_place(word), word) for word in dict.fromkeys(words))


def _place(text: str) -> int:
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big")


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
