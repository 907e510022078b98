"""A concept's columns, read from its prompts or remembered from the last time."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rasura.patches.algebra.protected_subspace import EXACT
from rasura.patches.erasers.columns import Columns, compress_columns
from rasura.patches.models.remembered_texts import recall
from rasura.patches.models.text_encoders.text_encoder import TextEncoder
from rasura.patches.prompts.concept_prompts import Target, align_columns

__all__ = ["read_columns"]


def read_columns(encoder: TextEncoder, target: Target, templates: Sequence[str], tokens: str) -> Columns:
    """The token embeddings of a concept in these templates, and those they become.

    Args:
        encoder: the model's text encoder.
        target: concept, its other names, and anchor.
        templates: texts with one `{}` each.
        tokens: which tokens stand for a concept.

    Returns:
        C1 and C* [d, n]; more than 2d pairs as fewer columns that stand for all.

    Raises:
        ConceptError: a prompt that the encoder cannot read, or that does not show the concept.
    """
    asked = ("columns", tokens, str(len(target.spoken)), *target.spoken, target.anchor, *templates)
    targets, anchors, count = recall(encoder, asked, lambda: _read(encoder, target, templates, tokens))
    return Columns(target.concept, targets, anchors, int(count[0, 0]))


def _read(
    encoder: TextEncoder, target: Target, templates: Sequence[str], tokens: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """C1 and C* [d, n], and how many pairs they stand for where they are compressed, as a matrix of one number."""
    columns = Columns(target.concept, *align_columns(encoder, target, templates, tokens))
    if columns.pairs > 2 * columns.targets.shape[0]:
        columns = compress_columns(columns, EXACT)
    return columns.targets, columns.anchors, torch.tensor([[columns.count]], dtype=torch.float64)
