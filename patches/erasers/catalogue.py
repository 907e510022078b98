"""Every eraser by name; a method's module is imported when the method is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from rasura.patches._io.json_fields import show
from rasura.patches.erasers.options import check_idle, with_options
from rasura.patches.errors import InputError

if TYPE_CHECKING:
    from rasura.patches.erasers.interface import Eraser


@dataclass(frozen=True, slots=True)
class Method:
    """A line of the catalogue.

    Attributes:
        name: as typed in `--method`.
        where: module below `patches/erasers`, and class.
        text: what it does, in a line.
        source: the paper it follows.
    """

    name: str
    where: str
    text: str
    source: str

    @property
    def closed_form(self) -> bool:
        """Whether it solves what reads text at once, from embeddings and weights alone."""
        return self.where.startswith("closed_form.")


METHODS: Final = {
    method.name: method
    for method in (
        Method(
            "null-space",
            "closed_form.null_space:NullSpace",
            "Smallest map from target to anchor that ignores everything protected; one detector for all layers.",
            "SPEED eq. 3, arXiv 2503.07392",
        ),
        Method(
            "span",
            "closed_form.span.eraser:Span",
            "All names of a concept and what a search finds, erased together within a bound on what else is disturbed.",
            "own; after SPEED, arXiv 2503.07392, and RECE, arXiv 2407.12383",
        ),
        Method(
            "joint",
            "closed_form.joint.eraser:Joint",
            "Each concept's share of one least-squares map for all of them; many concepts, little room taken.",
            "own; after UCE, arXiv 2308.14761, and SPEED, arXiv 2503.07392",
        ),
        Method(
            "speed",
            "closed_form.speed:Speed",
            "Null space of a filtered and augmented retain set, null prompt kept by its centres; a detector a layer.",
            "SPEED, arXiv 2503.07392",
        ),
        Method(
            "uce",
            "closed_form.uce:Uce",
            "Ridge regression with the retain set as data, keys and values alike; preserves softly, promises nothing.",
            "UCE, arXiv 2308.14761",
        ),
        Method(
            "rece",
            "closed_form.rece:Rece",
            "UCE, then again for the embeddings that would bring the concept back; promises nothing.",
            "RECE, arXiv 2407.12383",
        ),
        Method(
            "sepme",
            "trained.sepme:SepMe",
            "Trains until what the concept adds to the prediction is gone; whole prompts of others are protected.",
            "SepME, arXiv 2402.05947",
        ),
        Method(
            "all-but-one",
            "trained.all_but_one:AllButOne",
            "Trains the concept's guidance term towards another's; the unconditional prediction stays.",
            "All but One, AAAI 2024",
        ),
        Method(
            "clip-null-space",
            "text_encoder.clip_null_space:ClipNullSpace",
            "Rewrites what feed-forward layers of the CLIP text encoder remember; protected keys keep their values.",
            "AlphaEdit, arXiv 2410.02355; Om Prakash et al. 2025",
        ),
    )
}


def load_method(name: str) -> type[Any]:
    """The eraser class of a method.

    Raises:
        InputError: no such method.
    """
    if name not in METHODS:
        raise InputError(
            f"no method is called {show(name)}: expected one of {', '.join(METHODS)}", hint="rasura methods"
        )
    module, _, attribute = METHODS[name].where.partition(":")
    found: type[Any] = getattr(importlib.import_module(f"rasura.patches.erasers.{module}"), attribute)
    return found


def eraser(name: str, settings: Mapping[str, str]) -> Eraser:
    """A method with these choices, as texts.

    Raises:
        InputError: no such method or option, a value that the option cannot be, or one that does nothing beside the
            others.
    """
    made: Eraser = with_options(load_method(name), settings)
    check_idle(made, settings)
    return made
