"""Parameters of a model on disk, read and hashed: as they are there, or as they were before anything was written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rasura.patches._io.byte_ranges import digest_ranges, read_into
from rasura.patches._io.parallel import count_at_once
from rasura.patches._io.rooms import make_rooms
from rasura.patches._io.sha256 import digest_of
from rasura.patches._io.tensor_bytes import RawValue
from rasura.patches.hosts.disk.layouts.diffusers_layout import Layout
from rasura.patches.hosts.disk.saved_again import check_uncast
from rasura.patches.hosts.disk.state_folder import KeptOriginal
from rasura.patches.hosts.disk.weight_files import WeightFiles
from rasura.patches.types import Digest, ParamName

__all__ = ["digest_present", "read_digested", "read_values"]


def digest_present(
    layout: Layout, location: str, names: Iterable[ParamName], files: WeightFiles
) -> dict[ParamName, Digest]:
    """SHA-256 of what is there now.

    Raises:
        UnsupportedHostError: the model has no such parameter.
        DriftError: a weight file was replaced since it was described.
    """
    places = {name: layout.place(name, location) for name in names}
    ranges = [(files.descriptor(place.file), place.start, place.stop) for place in places.values()]
    return dict(zip(places, digest_ranges(ranges), strict=True))


def read_values(
    layout: Layout,
    location: str,
    names: Iterable[ParamName],
    kept: Mapping[ParamName, KeptOriginal],
    files: WeightFiles,
) -> dict[ParamName, RawValue]:
    """Kept originals, and of what is not kept what is there now; raises as `read_digested`."""
    return {name: value for name, (value, _) in _read(layout, location, names, kept, files, hashed=False).items()}


def read_digested(
    layout: Layout,
    location: str,
    names: Iterable[ParamName],
    kept: Mapping[ParamName, KeptOriginal],
    files: WeightFiles,
) -> tuple[dict[ParamName, RawValue], dict[ParamName, Digest]]:
    """As `read_values`, each value hashed while a core has it at hand.

    Raises:
        UnsupportedHostError: the model has no such parameter, or it was saved again in another type.
        DigestMismatchError: a kept original was damaged.
        DriftError: a weight file was replaced since it was described.
    """
    found = _read(layout, location, names, kept, files, hashed=True)
    return {name: value for name, (value, _) in found.items()}, {name: digest for name, (_, digest) in found.items()}


def _read(
    layout: Layout,
    location: str,
    names: Iterable[ParamName],
    kept: Mapping[ParamName, KeptOriginal],
    files: WeightFiles,
    *,
    hashed: bool,
) -> dict[ParamName, tuple[RawValue, Digest]]:
    places = {name: layout.place(name, location) for name in names}
    for name, place in places.items():
        if name in kept:
            check_uncast(location, place.info, kept[name].info)
        else:
            files.descriptor(place.file)  # opened before threads share the files

    rooms = make_rooms({name: place.stop - place.start for name, place in places.items()})

    def read(name: ParamName) -> tuple[RawValue, Digest]:
        place, room = places[name], rooms[name]
        if name in kept:  # it is read with its digest, and was finite when something was added to it
            kept[name].read_into(room)
            return RawValue(place.info.dtype, place.info.shape, room, kept[name].digest), kept[name].digest
        read_into(room, files.descriptor(place.file), place.start)
        return RawValue(place.info.dtype, place.info.shape, room), digest_of(room) if hashed else Digest("")

    return dict(zip(places, count_at_once(read, places), strict=True))
