"""What of a single file reads text: it has no configuration to build a twin from, so the family's row says it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rasura.patches._io import canonical_json
from rasura.patches.errors import UnsupportedHostError
from rasura.patches.hosts.disk.layouts.compvis_layout import find_layout_of, find_model
from rasura.patches.hosts.disk.layouts.diffusers_layout import read_weights
from rasura.patches.hosts.disk.layouts.single_names import read_names
from rasura.patches.hosts.interface import ParameterInfo
from rasura.patches.models.families import find_family
from rasura.patches.models.family import Family, Reader, Reads, find_matching
from rasura.patches.types import ParamName

__all__ = ["FileLayers", "NativeLayer", "describe_file"]

_ENTER: Final[tuple[Reads, ...]] = ("text", "normed", "projected", "fused", "pooled")
"""What reads nothing but text; `pooled` is looked at and not erased in."""


@dataclass(frozen=True, slots=True)
class NativeLayer:
    """Matrices that read text alike.

    Attributes:
        native: the first one's name in the file.
        name: ours.
        count: how many there are.
        reads: what of the text, as the table of families has it.
        width: numbers a row.
    """

    native: str
    name: ParamName
    count: int
    reads: Reads
    width: int

    def to_json(self) -> dict[str, canonical_json.JsonValue]:
        """The JSON object."""
        return {
            "native": self.native,
            "name": self.name,
            "count": self.count,
            "reads": self.reads,
            "width": self.width,
        }


@dataclass(frozen=True, slots=True)
class FileLayers:
    """A single file's family, and its layers that read text."""

    family: str
    layers: tuple[NativeLayer, ...]


def describe_file(file: Path) -> FileLayers:
    """Tell a single file's family, and where text enters it, from its header.

    Raises:
        NotFoundError: nothing is there.
        UnsupportedHostError: names that are known in no way, or a model of none of the families.
        FormatError: a header that breaks the format.
    """
    path = find_model(file)
    infos = {name: place.info for name, place in find_layout_of(path).places.items()}
    family = find_family(infos)
    if family is None:
        raise UnsupportedHostError(
            f"{path}: expected a model of a family in the table, got one of none: where its text enters is not known",
            hint="rasura probe DIR",
        )
    names = {part.name: part.tensor.name for part in read_names(read_weights(path.parent, path.name)[0].tensors).parts}
    found = (
        _layer(reader, family, infos, names) for reads in _ENTER for reader in family.readers if reader.reads == reads
    )
    return FileLayers(family.name, tuple(layer for layer in found if layer is not None))


def _layer(
    reader: Reader, family: Family, infos: Mapping[ParamName, ParameterInfo], names: Mapping[ParamName, str]
) -> NativeLayer | None:
    """What a pattern of the family is in this file; None where nothing is called so."""
    matching = [info for info in find_matching(infos, reader.pattern) if family.reads(info.name) == reader.reads]
    if not matching:
        return None
    first = matching[0]
    return NativeLayer(names[first.name], first.name, len(matching), reader.reads, first.shape[-1])
