"""Who is told what is going on."""

from collections.abc import Callable
from typing import TypeAlias

__all__ = ["Progress", "ignore_progress"]

Progress: TypeAlias = Callable[[str, int, int], None]
"""Told a stage, how much of it is done, and of how much."""


def ignore_progress(stage: str, done: int, total: int) -> None:
    """Nobody asked what is going on."""
