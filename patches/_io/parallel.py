"""One function over many things at once: hashing and reading files leave Python alone, so threads share the cores."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from rasura.patches._io.settings import get_settings

__all__ = ["count_at_once", "count_workers"]

_MOST: Final = 8  # beyond that, memory is what everybody waits for

T = TypeVar("T")
R = TypeVar("R")


def count_workers() -> int:
    """How many threads: as many as the settings say, or the cores that this process may use; at most 8."""
    said = get_settings().threads
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(int(said) if said.isdecimal() else cores, _MOST))


def count_at_once(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """`[function(item) for item in items]`, several at a time; raises what the first of them in order raised.

    No call runs any more when this returns or raises.
    """
    listed = list(items)
    count = min(count_workers(), len(listed))
    if count < 2:  # noqa: PLR2004
        return [function(item) for item in listed]
    with ThreadPoolExecutor(count, thread_name_prefix="rasura") as pool:
        return list(pool.map(function, listed))
