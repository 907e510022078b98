"""Arithmetic that decides the bits of a patch, in one thread however many there are.

LAPACK's decompositions, sums over whole tensors and even matrix products of some shapes are split among the threads of
a process, and each way of splitting rounds otherwise. So whatever lies between a request and its patch is computed in
one thread, and prompts are encoded several batches at a time, each batch in a thread of its own (decision 26).

How many threads torch, OpenMP and MKL use is kept by each thread for itself. `torch.set_num_threads` changes that of
its caller, and besides what threads begin with that have computed nothing so far; that is put back at once, so other
threads of the process go on as they were.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain, islice
from typing import Final, TypeVar

import torch

from rasura.patches._io.parallel import count_workers

__all__ = ["map_in_single_threads", "use_all_threads", "use_one_thread"]

T = TypeVar("T")
R = TypeVar("R")

_CHANGING: Final = threading.Lock()


class _Own(threading.local):
    """How many threads the present thread had before it was kept to one; 0: it was not."""

    before: int = 0


_OWN: Final = _Own()


@contextmanager
def use_one_thread() -> Iterator[None]:
    """For the length of the block, or of the function that this decorates, torch computes in the calling thread alone.

    Not for generators: what runs between two of their values would be kept to one thread, too.
    """
    before, outer = torch.get_num_threads(), _OWN.before
    if before == 1:
        yield
        return
    _set_own_threads(1)
    _OWN.before = before
    try:
        yield
    finally:
        _OWN.before = outer
        _set_own_threads(before)


@contextmanager
def use_all_threads() -> Iterator[None]:
    """Inside of `use_one_thread`: what may take hours gets all threads again, and gives up the promise."""
    before, outer = torch.get_num_threads(), _OWN.before
    if outer in {0, before}:
        yield
        return
    _set_own_threads(outer)
    _OWN.before = 0
    try:
        yield
    finally:
        _OWN.before = outer
        _set_own_threads(before)


def map_in_single_threads(function: Callable[[T], R], items: Iterable[T], *, alone: bool = False) -> Iterator[R]:
    """`map(function, items)`, each call in one thread and several calls at a time, in the order of the items.

    Items are taken by the caller's thread, one for each worker ahead of what is given back. As many workers as the
    caller has threads, or `count_workers`, whichever is less.

    Args:
        function: may be called by several threads at once.
        items: taken as they are needed.
        alone: one call at a time, in the caller's thread.
    """
    waiting = iter(items)
    at_once = 1 if alone else min(count_workers(), _OWN.before or torch.get_num_threads())
    first = [] if at_once == 1 else list(islice(waiting, 2))  # alone, nothing is read ahead
    if len(first) < 2:  # noqa: PLR2004
        for item in chain(first, waiting):
            with use_one_thread():
                found = function(item)
            yield found
        return
    running: deque[Future[R]] = deque()
    with ThreadPoolExecutor(at_once, "rasura", _set_own_threads, (1,)) as pool:
        for item in chain(first, waiting):
            running.append(pool.submit(function, item))
            if len(running) > at_once:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()


def _set_own_threads(count: int) -> None:
    """How many threads the calling thread computes with; what other threads have or will begin with stays as it is."""
    # A new thread begins with the number of the process, and tells it.
    with _CHANGING, ThreadPoolExecutor(1) as fresh:
        everybody = fresh.submit(torch.get_num_threads).result()
        torch.get_num_threads()  # a thread that has computed nothing takes the process's number first
        torch.set_num_threads(count)
        fresh.submit(torch.set_num_threads, everybody).result()
