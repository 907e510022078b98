"""Memory for many values that come and go together.

A system gives memory in pages of 4 KiB as they are first touched, which takes longer than filling them. Where it can,
it is asked for pages of megabytes instead; the values then lie side by side, and are freed together.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from typing import Final, TypeVar

__all__ = ["make_rooms"]

K = TypeVar("K")

_ALIGNED: Final = 64  # bytes; what vector instructions like
_FEW: Final = 2**22  # bytes; below, a large page would hold little else


def make_rooms(sizes: Mapping[K, int]) -> dict[K, memoryview]:
    """Bytes of zero that may be written, as many for each key as it says."""
    starts: dict[K, int] = {}
    end = 0
    for key, size in sizes.items():
        starts[key] = end
        end += size + -size % _ALIGNED
    if end < _FEW:
        return {key: memoryview(bytearray(size)) for key, size in sizes.items()}
    pages = mmap.mmap(-1, end, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # shared memory has no large pages
    if hasattr(mmap, "MADV_HUGEPAGE"):
        pages.madvise(mmap.MADV_HUGEPAGE)
    whole = memoryview(pages)
    return {key: whole[start : start + sizes[key]] for key, start in starts.items()}
