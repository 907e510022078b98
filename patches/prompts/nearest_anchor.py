"""Finding an anchor: the nearest general concept of a list, so that a person need not know what the model knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from rasura.patches.errors import ConceptError
from rasura.patches.models.text_encoders.plain_text import normal
from rasura.patches.models.text_encoders.text_encoder import TextEncoder
from rasura.patches.prompts.concept_prompts import AUTO, Target
from rasura.patches.prompts.nearest_concepts import find_nearest_protected

GENERAL: Final = (
    "animal", "person", "plant", "food", "vehicle", "building", "object", "clothing", "furniture", "toy", "weapon",
    "art", "painting", "photograph", "cartoon", "landscape", "style",
)  # fmt: skip
"""Everyday general words, where a request brings no list of its own."""


def with_anchor(encoder: TextEncoder, target: Target, general: Sequence[str]) -> Target:
    """The target, with the nearest of the general concepts in place of `auto`.

    Concepts are compared as `rasura.patches.prompts.nearest_concepts` does: at the last token, outside the null
    prompt's span.

    Raises:
        ConceptError: none of them can be compared.
    """
    if target.anchor != AUTO:
        return target
    own = {normal(name) for name in target.spoken}
    others = [word for word in general or GENERAL if normal(word) not in own]
    nearest = find_nearest_protected(encoder, target.concept, others, {})
    if not nearest:
        raise ConceptError(
            f"no anchor found for {target.concept!r} among {len(others)} general concepts: expected one that the model "
            "can read",
            hint="--anchor TEXT",
        )
    return replace(target, anchor=nearest[0].name)
