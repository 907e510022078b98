"""Fields that several parts of a manifest have: lists in one order, identities of patches, maps whose keys are data."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from rasura.patches._io.json_fields import Fields
from rasura.patches.errors import FormatError
from rasura.patches.types import PatchId

MAX_LIST: Final = 10_000


def check_sorted(what: str, names: Sequence[str]) -> None:
    """One order, and nothing twice: equal content has equal bytes.

    Raises:
        FormatError: naming the first that stands wrong.
    """
    for before, after in pairwise(names):
        if before >= after:
            raise FormatError(
                f"manifest.json: {what}: expected names in order, each once, got {after!a} after {before!a}"
            )


def patch_ids(fields: Fields, name: str) -> tuple[PatchId, ...]:
    """A list of patch ids."""
    found = fields.texts(name, MAX_LIST, 64)
    for text in found:
        if len(text) != 64 or set(text) - set("0123456789abcdef"):  # noqa: PLR2004
            raise FormatError(f"manifest.json: {name} must hold patch ids of 64 hexadecimal digits, got {text!r}")
    return tuple(PatchId(text) for text in found)


def text_map(fields: Fields) -> dict[str, str]:
    """An object whose keys are data and whose values are texts."""
    found = {name: fields.text(name) for name in fields.names()}
    fields.done()
    return found


def decimal_map(fields: Fields) -> dict[str, str]:
    """An object whose keys are data and whose values are decimals."""
    found = {name: fields.decimal(name) for name in fields.names()}
    fields.done()
    return found
