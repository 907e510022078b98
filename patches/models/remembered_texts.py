"""What an encoder made of a text, kept by content: asked again, the same bits without reading anything.

Judging an anchor reads a hundred words in a few prompts each, and every attempt of a takedown reads the prompts of all
that is erased. They are the same words each time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, MutableMapping
from typing import Final, Protocol, TypeAlias

import torch

__all__ = ["Memory", "RememberingReader", "Tensors", "recall"]

Tensors: TypeAlias = tuple[torch.Tensor, ...]
Memory: TypeAlias = MutableMapping[str, Tensors]
"""Matrices of float64 by the digest of what was read and of how; of one set of weights and tokenizers."""
_LIMIT: Final = 64 << 20
"""Most bytes of what is kept for one text: more is sooner read again."""


class RememberingReader(Protocol):
    """What reads texts: a text encoder as some layers see it."""

    @property
    def memory(self) -> Memory | None:
        """What it made of texts before; None: nothing is kept."""
        ...

    @property
    def space(self) -> str:
        """What tells its embeddings from those of the same weights, read otherwise."""
        ...


def recall(encoder: RememberingReader, asked: Iterable[str | bytes], read: Callable[[], Tensors]) -> Tensors:
    """What `read` gives, or what it gave before.

    Args:
        encoder: with a memory, or without one: then everything is read.
        asked: everything that decides the result but the encoder itself: what for, which prompts, which positions.
        read: does it; matrices of float64.
    """
    if encoder.memory is None:
        return read()
    key = _key(encoder.space, asked)
    if (found := encoder.memory.get(key)) is not None:
        return found
    made = read()
    if sum(tensor.numel() * tensor.element_size() for tensor in made) <= _LIMIT:
        encoder.memory[key] = made
    return made


def _key(space: str, asked: Iterable[str | bytes]) -> str:
    """The digest of these texts, each with its length in front, so that no two lists are one text."""
    found = hashlib.sha256()
    for text in (space, *asked):
        data = text if isinstance(text, bytes) else text.encode(errors="surrogatepass")
        found.update(len(data).to_bytes(8, "big") + data)
    return found.hexdigest()
