"""Which protected concepts lie nearest to one that cannot be erased: what a person needs to hear with a refusal.

Concepts are compared as bare prompts, at their last token, after the span of the null prompt, which all prompts share,
is taken out; with it, any two words of CLIP have a cosine of 0.8. A registered patch is compared by the span of its
targets.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import torch

from rasura.patches.algebra.protected_subspace import join_rows
from rasura.patches.errors import ConceptError, ErasureRefusedError
from rasura.patches.models.remembered_texts import recall
from rasura.patches.models.text_encoders.text_encoder import TextEncoder
from rasura.patches.prompts.prompt_blocks import split_prompts
from rasura.patches.types import SHORT, PatchId

SHOWN: Final = 3
COMPARED: Final = 20_000
"""Most concepts that are encoded for one refusal: two minutes of CLIP ViT-L/14 on a CPU."""
_BLOCK: Final = 16
"""Concepts that are read together, on average: a power of two."""


@dataclass(frozen=True, slots=True)
class Near:
    """A protected concept, or a patch by its id, and its cosine with the refused concept, -1 to 1."""

    name: str
    cosine: float


def explain_nearest(
    error: ErasureRefusedError,
    encoder: TextEncoder,
    concepts: Sequence[str],
    guarded: Mapping[PatchId, torch.Tensor],
) -> ErasureRefusedError:
    """The same refusal, which also names what lies nearest to the refused concept.

    Args:
        error: its details name the `concept`.
        encoder: the model's text encoder.
        concepts: what is protected; the refused concept among them is passed over.
        guarded: rows [m, d] of registered patches' targets, by patch.
    """
    refused = str(error.details["concept"])
    others = [concept for concept in concepts if concept != refused]
    nearest = find_nearest_protected(encoder, refused, others, guarded)
    if not nearest:
        return error
    named = ", ".join(f"{near.name} ({near.cosine:.2f})" for near in nearest)
    return ErasureRefusedError(
        f"{error.message}; the nearest that is protected: {named}",
        hint=error.hint,
        **error.details,
        nearest=[{"name": near.name, "cosine": f"{near.cosine:.3f}"} for near in nearest],
    )


def find_nearest_protected(
    encoder: TextEncoder,
    refused: str,
    concepts: Sequence[str],
    guarded: Mapping[PatchId, torch.Tensor],
    shown: int = SHOWN,
) -> tuple[Near, ...]:
    """The nearest few of what is protected, the nearest first; none where nothing can be compared.

    Args:
        encoder: the model's text encoder.
        refused: the concept that cannot be erased.
        concepts: protected concepts; the first `COMPARED` count.
        guarded: rows [m, d] of registered patches' targets, by patch.
        shown: how many at most.
    """
    shared = join_rows([encoder.encode_all([""])[0]])
    own = next(_directions(encoder, [refused], shared), None)
    if own is None:
        return ()
    near = [Near(f"patch {i[:SHORT]}", _within(own[1], rows, shared)) for i, rows in guarded.items()]
    found = (Near(name, float(own[1] @ row)) for name, row in _directions(encoder, concepts[:COMPARED], shared))
    return tuple(heapq.nlargest(shown, (*near, *heapq.nlargest(shown, found, key=_cosine)), key=_cosine))


def _cosine(near: Near) -> float:
    return near.cosine


def _directions(
    encoder: TextEncoder, concepts: Sequence[str], shared: torch.Tensor
) -> Iterator[tuple[str, torch.Tensor]]:
    """Each concept with the unit vector [d] of its last token outside the shared span; those without are left out."""
    fitting = [concept for concept in concepts if _fits(encoder, concept)]
    # Blocks end where their words say: a list less a word is made of the same ones, of which the tokens are remembered.
    for part in split_prompts(fitting, _BLOCK):
        (tokens,) = recall(encoder, ("last tokens", *part), partial(_read_tokens, encoder, part))
        for concept, token in zip(part, tokens, strict=True):  # [d]
            own = token - shared.T @ (shared @ token)
            size = torch.linalg.vector_norm(own)
            if size > 1e-6 * torch.linalg.vector_norm(token):
                yield concept, own / size


def _read_tokens(encoder: TextEncoder, concepts: Sequence[str]) -> tuple[torch.Tensor]:
    """The last token of each concept as a prompt, [n, d]."""
    parts = encoder.encode_with((concept, concept) for concept in concepts)
    found = [hidden[i, encoder.subject(*pair)[-1]] for part, hidden in parts for i, pair in enumerate(part)]
    return (torch.stack(found),)


def _fits(encoder: TextEncoder, concept: str) -> bool:
    try:
        encoder.ids(concept)
    except ConceptError:
        return False
    return True


def _within(direction: torch.Tensor, rows: torch.Tensor, shared: torch.Tensor) -> float:
    """Length of the unit vector's part inside the span of rows [m, d], outside what is shared."""
    own = rows - (rows @ shared.T) @ shared
    _, values, span = torch.linalg.svd(own, full_matrices=False)
    return float(torch.linalg.vector_norm(span[values > 1e-6 * values[0]] @ direction))
