"""How a single file calls its parameters: CompVis' way for a UNet, its authors' way for a transformer."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rasura.patches._io.safetensors_file import TensorInfo
from rasura.patches.format.spellings.catalogue import find_spelling
from rasura.patches.hosts.disk.layouts import compvis_names
from rasura.patches.hosts.disk.layouts.compvis_names import Part
from rasura.patches.hosts.disk.layouts.native_names import find_native_unmatched, list_native_parts
from rasura.patches.types import ParamName

__all__ = ["SingleNames", "read_names"]


@dataclass(frozen=True, slots=True)
class SingleNames:
    """What a single file holds of ours.

    Attributes:
        parts: parameters that are ranges of its bytes.
        unmatched: those that it holds otherwise, and how.
        native: whether it is a transformer's, in its authors' names.
    """

    parts: tuple[Part, ...]
    unmatched: dict[ParamName, str]
    native: bool


def read_names(tensors: Iterable[TensorInfo]) -> SingleNames:
    """Every parameter that the file holds; none, if its names are known in no way."""
    known: Sequence[TensorInfo] = tuple(tensors)
    if (found := find_spelling(frozenset(tensor.name for tensor in known))) is not None:
        parts = tuple(list_native_parts(known, *found))
        return SingleNames(parts, find_native_unmatched(known, *found), native=True)
    return SingleNames(tuple(compvis_names.parts(known)), compvis_names.find_unmatched(known), native=False)
