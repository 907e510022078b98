"""Values under the UNet's guidance: what `fc2` should give so that the UNet sees the anchor in the concept's prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch

    from rasura.patches.erasers.edits import Edit
    from rasura.patches.erasers.memory import Space
    from rasura.patches.erasers.problem import Problem


class Guidance(Protocol):
    """The choices of a guided edit; see the options of the method."""

    epochs: int


def guide(problem: Problem, edits: Sequence[Edit], known: Mapping[int, Space], options: Guidance) -> list[dict[str, str]]:
    raise NotImplementedError
