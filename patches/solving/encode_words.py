"""The columns that a patch's concept has, or other words for it, encoded anew in the prompts that the patch names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch

from rasura.patches.format.patch import Patch
from rasura.patches.format.patch_tensors import Pairs
from rasura.patches.models.text_encoders.text_encoder import TextEncoder
from rasura.patches.prompts.concept_prompts import Target, align_columns

_SAME: Final = 1e-3
"""Relative difference of Gram matrices up to which columns are those that were stored, which are compressed by 1e-4."""


def encode_words(encoder: TextEncoder, patch: Patch, words: Sequence[str]) -> Pairs:
    """Token embeddings of words in the patch's prompts, each with what it was to become; rows.

    Args:
        encoder: of the patch's base, as its layers read it.
        patch: whose templates, tokens and anchor count.
        words: at least one.

    Raises:
        ConceptError: a word that no prompt of the patch can hold, or that is what the concept was to become.
    """
    concept = patch.manifest.concept
    found = [align_columns(encoder, Target(w, concept.anchor), concept.templates, concept.tokens) for w in words]
    targets, anchors = (torch.cat(side, dim=1).T.contiguous() for side in zip(*found, strict=True))
    return Pairs(targets, anchors)


def are_stored(columns: Pairs, patch: Patch) -> bool:
    """Whether columns are those that the patch was made of; some methods pair theirs in ways of their own."""
    tensors = patch.tensors
    if columns.targets.shape[1] != tensors.targets.shape[1]:
        return False
    mine, stored = (
        torch.cat([pairs.targets, pairs.anchors], dim=1) for pairs in (columns, Pairs(tensors.targets, tensors.anchors))
    )
    wanted = stored.T @ stored  # [2d, 2d]: the same for all columns that were compressed to these
    return bool(torch.linalg.matrix_norm(mine.T @ mine - wanted) <= _SAME * torch.linalg.matrix_norm(wanted))
