"""Lists against the text encoder: a text whose prompt is too long is refused with its line, or cut.

A cut text is another text: the longest beginning, at a word's end, that fits in every template. What is retained,
digested and kept is the cut text, so that the promise is the one that the manifest names; how many were cut stands
there, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rasura.patches.errors import ConceptError
from rasura.patches.models.text_encoders.text_encoder import TextEncoder
from rasura.patches.prompts.concept_prompts import prompts_of
from rasura.patches.prompts.retain_set import RetainSet

__all__ = ["fit_list"]


def fit_list(encoder: TextEncoder, words: RetainSet, templates: Sequence[str]) -> RetainSet:
    """The list, with texts cut that are too long, where that was allowed.

    Args:
        encoder: the model's.
        words: the list.
        templates: in which its texts stand; whole prompts stand alone whatever is named here.

    Raises:
        ConceptError: a text is too long, and may not be cut or has no beginning that fits; its line is named.
    """
    own = ("{}",) if words.whole else tuple(templates)
    # A token is a byte at least, so that short prompts need not be counted. The rest is for the encoder to say.
    room = min(tower.length for tower in encoder.towers) - 2 - max(len(template.encode()) for template in own)
    found: dict[str, None] = {}
    cut = 0
    for text in words.concepts:
        fitting = text
        if len(text.encode()) > room and (said := _too_long(encoder, text, own)):
            place = words.source if words.origin is None else words.origin.place(text)
            if not words.cuttable:
                raise ConceptError(f"{place}: {said}", hint="--truncate")
            fitting = _cut(encoder, text, own)
            if not fitting:
                raise ConceptError(
                    f"{place}: {said}; no beginning of it fits in every template", hint="--template '{}'"
                )
            cut += 1
        found[fitting] = None
    if not cut:
        return words
    return replace(
        words, concepts=tuple(found), cut=words.cut + cut, repeated=words.repeated + len(words.concepts) - len(found)
    )


def _too_long(encoder: TextEncoder, text: str, templates: Sequence[str]) -> str:
    """What the encoder says to a text in its templates; "" where all fit."""
    for prompt in prompts_of(text, templates):
        try:
            encoder.ids(prompt)
        except ConceptError as error:
            return error.message
    return ""


def _cut(encoder: TextEncoder, text: str, templates: Sequence[str]) -> str:
    """The longest beginning that fits, to a word's end; "" where none does."""
    low, high = 0, len(text)  # a beginning of `low` characters fits, one of `high` does not
    while high - low > 1:
        middle = (low + high) // 2
        if _too_long(encoder, text[:middle], templates):
            high = middle
        else:
            low = middle
    found = text[:low]
    if low and not text[low].isspace() and " " in found:  # in the middle of a word
        found = found.rpartition(" ")[0]
    return found.strip()
