"""Which layers of a denoiser read the same states of a prompt, and what these are.

Most families have one such *space*: what the text encoder gives, or what one network makes of it. HiDream reads a layer
of Llama by each of its maps and T5 by the last; both denoisers of Wan 2.2 have a network of their own in front of their
cross-attention. Each space is protected and solved by itself, and one patch holds them all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rasura.patches._io.json_fields import show
from rasura.patches.errors import UnsupportedHostError
from rasura.patches.models.family import OF_TEXT, Family, Layered
from rasura.patches.types import ParamName

__all__ = ["TextSpace", "find_text_spaces", "list_entries"]

_MOST: Final = 1000
"""Layers that a configuration may name."""


@dataclass(frozen=True, slots=True)
class TextSpace:
    """Layers that read the same states.

    Attributes:
        name: what the states are called; "" of the space whose rows and columns are a patch's own.
        names: the layers, in name order.
        through: the modules that the states go through before.
        layer: of which layer of the family's `layered` encoder they are; None: of the encoders of its sequence.
    """

    name: str
    names: tuple[ParamName, ...]
    through: tuple[str, ...] = ()
    layer: int | None = None


def find_text_spaces(
    family: Family | None, names: Sequence[ParamName], config: Mapping[str, object]
) -> tuple[TextSpace, ...]:
    """The spaces that these layers read, the family's own first.

    Args:
        family: of the model; None of one that is in no table: one space.
        names: layers that read text.
        config: of the denoiser.

    Raises:
        UnsupportedHostError: a configuration that does not say which layer of its encoder each map reads.
    """
    if family is None or not names:
        return (TextSpace("", tuple(names)),)
    found: dict[tuple[int | None, tuple[str, ...]], list[ParamName]] = {}
    others: list[ParamName] = []  # of the text encoder, or of pictures
    for name in sorted(names):
        if family.reads(name) in OF_TEXT:
            found.setdefault((_layer(family, name, config), family.way_to(name)), []).append(name)
        else:
            others.append(name)
    if len(found) < 2:  # noqa: PLR2004
        return (TextSpace("", tuple(names)),)
    first = min(found, key=lambda key: (key[0] is not None, found[key][0]))
    found[first] = sorted([*found[first], *others])
    ordered = [first, *sorted((key for key in found if key != first), key=lambda key: (key[0] or 0, key[1]))]
    return tuple(
        TextSpace("" if key == first else _name(family, *key), tuple(found[key]), key[1], key[0]) for key in ordered
    )


def list_entries(layered: Layered, config: Mapping[str, object]) -> tuple[int, ...]:
    """Which layer of its encoder each map of a denoiser reads, in the order of the maps.

    Raises:
        UnsupportedHostError: the configuration names none, or something else than numbers from 0 on.
    """
    said = config.get(layered.key)
    entries = list(said) if isinstance(said, list | tuple) and len(said) <= _MOST else []
    numbers = [each for each in entries if isinstance(each, int) and not isinstance(each, bool) and 0 <= each < _MOST]
    if not numbers or len(numbers) != len(entries):
        raise UnsupportedHostError(
            f"the denoiser's configuration: expected {layered.key} to name a layer of {layered.component} for each "
            f"map, got {show(str(said)[:80])}",
            hint="rasura base add MODEL, of the model as it was published",
        )
    return tuple(numbers)


def _layer(family: Family, name: ParamName, config: Mapping[str, object]) -> int | None:
    if family.layered is None or (number := family.layered.number_of(name)) is None:
        return None
    entries = list_entries(family.layered, config)
    return entries[number] if number < len(entries) else None


def _name(family: Family, layer: int | None, through: tuple[str, ...]) -> str:
    """The encoder's layer, or the last module that the states go through."""
    if layer is not None and family.layered is not None:
        return f"{family.layered.component}.layers.{layer}"
    return through[-1] if through else family.sequence[0][0].component
