"""What a base's text encoders made of texts, kept in the registry's cache from one command to the next.

As with the moments (`rasura.registry.erase.encoded_prompts`), the key covers everything that decides the bits, so no
patch has another identifier for it. What float32 holds exactly, which is what encoders give, is kept in float32.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass, replace
from typing import Final

import torch

from rasura.patches.models.remembered_texts import Tensors
from rasura.patches.types import Digest
from rasura.registry._storage.digests import sha256
from rasura.registry._storage.files.cache import Cache
from rasura.registry.erase.base_models import OpenBase
from rasura.registry.erase.encoded_prompts import describe_reader
from rasura.registry.registry import Registry

__all__ = ["EncodedTexts", "with_memory"]

_DECIDING: Final = (
    "erasers/columns.py", "models/remembered_texts.py", "models/text_encoders", "prompts/concept_prompts.py",
    "prompts/nearest_concepts.py", "prompts/prompt_blocks.py", "solving/judge_erasure.py", "solving/solve.py",
)  # fmt: skip
"""Files and folders of `rasura.patches` that decide what is kept."""
_SHAPE: Final = struct.Struct("<BII")
_KINDS: Final = (torch.float32, torch.float64)


def with_memory(registry: Registry, opened: OpenBase) -> OpenBase:
    """The base, with text encoders that remember in the registry's cache what they made of texts."""
    reader = describe_reader(opened.encoder, opened.identity, _DECIDING)
    memory = EncodedTexts(Cache(registry.location.cache), reader)
    return replace(opened, encoder=opened.encoder.remembering(memory))


@dataclass(frozen=True, slots=True, eq=False)
class EncodedTexts(MutableMapping[str, Tensors]):
    """Matrices of one base's text encoders by the digest of what was read; in a cache alone, which may forget them.

    Attributes:
        cache: where they are kept.
        reader: digest of what turns texts into matrices.
    """

    cache: Cache
    reader: str

    def __getitem__(self, asked: str) -> Tensors:
        data = self.cache.read(self._key(asked))
        found = None if data is None else _decode(data)
        if found is None:
            raise KeyError(asked)
        return found

    def __setitem__(self, asked: str, made: Tensors) -> None:
        self.cache.write(self._key(asked), b"".join(map(_encode, made)))

    def __delitem__(self, asked: str) -> None:
        raise KeyError(asked)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def _key(self, asked: str) -> Digest:
        return sha256(f"texts {self.reader} {asked}".encode())


def _encode(tensor: torch.Tensor) -> bytes:
    """Kind, rows and columns, then the numbers row by row; little-endian."""
    narrow = tensor.to(torch.float32)
    exact = torch.equal(narrow.to(torch.float64), tensor)
    numbers = narrow.numpy().astype("<f4") if exact else tensor.numpy().astype("<f8")
    return _SHAPE.pack(int(not exact), *tensor.shape) + numbers.tobytes()


def _decode(data: bytes) -> Tensors | None:
    found, at = [], 0
    while at < len(data):
        if len(data) - at < _SHAPE.size:
            return None
        wide, rows, columns = _SHAPE.unpack_from(data, at)
        at += _SHAPE.size
        size = rows * columns * (8 if wide else 4)
        if wide > 1 or len(data) - at < size:
            return None
        numbers = torch.frombuffer(bytearray(data[at : at + size]), dtype=_KINDS[wide]) if size else torch.zeros(0)
        found.append(numbers.to(torch.float64).reshape(rows, columns))
        at += size
    return tuple(found)
