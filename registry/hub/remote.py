"""Which Hub, and how to be known there."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Remote"]


@dataclass(frozen=True, slots=True)
class Remote:
    """Which Hub, and how to be known there; None takes what huggingface_hub is set to."""

    endpoint: str | None = None
    token: str | None = None
