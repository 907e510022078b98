"""What a person asks for: concepts, what must stay, and the method that solves it."""

from __future__ import annotations

from dataclasses import dataclass, field

from rasura.patches.erasers.closed_form.null_space import NullSpace
from rasura.patches.erasers.concept_request import ConceptRequest
from rasura.patches.erasers.interface import Eraser


@dataclass(frozen=True, slots=True)
class EraseRequest(ConceptRequest):
    """Everything that decides a patch, besides the model. A method sees the `ConceptRequest` only.

    Attributes:
        eraser: the method with its choices.
    """

    eraser: Eraser = field(default_factory=NullSpace)
