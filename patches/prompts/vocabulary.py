"""Words of a model's own vocabulary: what else may be asked for, and what may be typed around a concept.

A word is a token whose text, typed alone, is read as the same token again. Words are picked evenly over the
vocabulary, so that frequent and rare ones are among them, and always the same ones for the same tokenizer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from rasura.patches.models.text_encoders.text_encoder import TextEncoder

__all__ = ["list_words", "pick_evenly"]

_SHORTEST: Final = 3
"""Letters of a word: shorter tokens are pieces of words."""


def list_words(encoder: TextEncoder, leave_out: Callable[[str], bool]) -> tuple[str, ...]:
    """Every word of the first tokenizer's vocabulary, in its order.

    Args:
        encoder: the model's text encoder.
        leave_out: whether a word is none of these, as one that names a concept to erase.
    """
    tokenizer = encoder.towers[0].tokenizer
    special = set(tokenizer.all_special_ids)
    texts = {i: tokenizer.decode([i]).strip() for i in range(len(tokenizer)) if i not in special}
    words = {i: text for i, text in texts.items() if len(text) >= _SHORTEST and text.isalpha()}
    opening = encoder.towers[0].opening
    read = tokenizer(list(words.values()), verbose=False)["input_ids"] if words else []
    same = (text for (i, text), back in zip(words.items(), read, strict=True) if back[opening:-1] == [i])
    return tuple(dict.fromkeys(word for word in same if not leave_out(word)))


def pick_evenly(words: tuple[str, ...], count: int, *, start: int = 0) -> tuple[str, ...]:
    """At most `count` of the words, evenly over all of them.

    Args:
        words: to pick from.
        count: how many at most.
        start: where to begin, so that two picks have nothing in common: 0 or 1.
    """
    step = max(2, len(words) // max(1, count))
    return words[start::step][:count]
