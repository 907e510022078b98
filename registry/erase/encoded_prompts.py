"""Moments of prompts that were encoded before, kept from one command to the next.

Encoding a retain set and the held-out prompts is most of what erasing one concept costs, and the next concept asks for
the same prompts again. What is kept is the sum that the solver would have made, bit for bit: the key is the digest of
everything that decides its bits (weights, tokenizers and configuration of the text encoders, the prompts in their
order, the arithmetic of this machine and of the libraries), so no patch has another identifier for it.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final

import torch

from rasura import patches
from rasura.patches.algebra.protected_subspace import Moment
from rasura.patches.models.base_identity import BaseIdentity
from rasura.patches.models.library_output import load_transformers
from rasura.patches.models.text_encoders.text_encoder import TextEncoder
from rasura.patches.solving.moments import Moments
from rasura.patches.types import Digest
from rasura.registry._storage.digests import sha256
from rasura.registry._storage.files.cache import Cache
from rasura.registry.erase.base_models import OpenBase
from rasura.registry.registry import Registry

__all__ = ["EncodedPrompts", "describe_reader", "open_moments"]

_FORMAT: Final = 1
_ENCODING: Final = (
    "algebra/one_thread.py", "algebra/protected_subspace.py", "models/text_encoders", "prompts/prompt_blocks.py",
    "solving/moments.py",
)  # fmt: skip
"""Files and folders of `rasura.patches`."""
_COUNT_BYTES: Final = 8
_NUMBER_BYTES: Final = 8


def open_moments(registry: Registry, opened: OpenBase) -> Moments:
    """The moments that are known of this base's text encoders, here and in the registry's cache."""
    return EncodedPrompts(Cache(registry.location.cache), describe_reader(opened.encoder, opened.identity, _ENCODING))


@dataclass(slots=True, eq=False)
class EncodedPrompts(MutableMapping[str, "Moment"]):
    """Moments of one base's text encoders by the digest of their prompts: in memory, and in a cache.

    Attributes:
        cache: where they are kept.
        reader: digest of what turns prompts into moments.
    """

    cache: Cache
    reader: str
    _known: dict[str, Moment] = field(default_factory=dict)

    def __getitem__(self, prompts: str) -> Moment:
        if prompts not in self._known:
            data = self.cache.read(self._key(prompts))
            moment = None if data is None else _decode(data)
            if moment is None:
                raise KeyError(prompts)
            self._known[prompts] = moment
        return self._known[prompts]

    def __setitem__(self, prompts: str, moment: Moment) -> None:
        self._known[prompts] = moment
        self.cache.write(self._key(prompts), _encode(moment))

    def __delitem__(self, prompts: str) -> None:
        del self._known[prompts]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)

    def _key(self, prompts: str) -> Digest:
        return sha256(f"{self.reader} {prompts}".encode())


def _encode(moment: Moment) -> bytes:
    """Count, then Σ c·cᵀ row by row; little-endian."""
    return moment.count.to_bytes(_COUNT_BYTES, "little") + moment.total.numpy().astype("<f8").tobytes()


def _decode(data: bytes) -> Moment | None:
    numbers, rest = divmod(len(data) - _COUNT_BYTES, _NUMBER_BYTES)
    width = round(max(0, numbers) ** 0.5)
    if rest or width**2 != numbers:
        return None
    total = torch.frombuffer(bytearray(data[_COUNT_BYTES:]), dtype=torch.float64) if numbers else torch.zeros(0)
    return Moment.of(total.double().reshape(width, width), int.from_bytes(data[:_COUNT_BYTES], "little"))


def describe_reader(encoder: TextEncoder, identity: BaseIdentity, sources: tuple[str, ...]) -> str:
    """The digest of everything that decides the bits that are read of a text: weights, programs, this machine.

    Args:
        encoder: reads.
        identity: its base's.
        sources: files and folders of `rasura.patches` whose code decides, too.
    """
    version = load_transformers().__version__  # seconds; what is remembered needs none
    decides = {
        "format": _FORMAT,
        "text_encoder": identity.text_encoder,
        "tokenizer": identity.tokenizer,
        "reading": encoder.reading(),
        "programs": [_digest_sources(sources), torch.__version__, version, torch.__config__.show()],
        "arithmetic": [torch.backends.cpu.get_cpu_capability(), _processor()],  # one thread, however many there are
    }
    return sha256(json.dumps(decides, sort_keys=True, default=str).encode())


@cache
def _digest_sources(names: tuple[str, ...]) -> str:
    """Of the modules that turn prompts into moments: a change in one of them may change bits, whatever the version."""
    places = [Path(patches.__path__[0]) / name for name in names]
    files = [file for place in places for file in (sorted(place.glob("*.py")) if place.is_dir() else [place])]
    return sha256(b"".join(file.read_bytes() for file in files))


@cache
def _processor() -> str:
    """What kind of processor this is: BLAS chooses its kernels, and so the last bits, by it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    kind = sorted({line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))})
    return platform.machine() + hashlib.sha256("\n".join(kind).encode()).hexdigest()
