"""What has to change on disk so that parameters have new values, and which originals are kept for the first time."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from rasura.patches._io.tensor_bytes import Storable, digest_tensors
from rasura.patches.errors import DriftError, HostWriteError
from rasura.patches.hosts.disk.journal.journal_record import RangeChange, Record
from rasura.patches.hosts.disk.journal.stage_originals import StagedFile, plan_rewritten, sort_into_files
from rasura.patches.hosts.disk.layouts.diffusers_layout import Layout
from rasura.patches.hosts.disk.read_values import digest_present
from rasura.patches.hosts.disk.state_folder import KeptOriginal, StateFolder
from rasura.patches.hosts.disk.weight_files import WeightFiles
from rasura.patches.types import SHORT, Digest, ParamName

__all__ = ["plan_write"]


def plan_write(
    state: StateFolder,
    layout: Layout,
    location: str,
    tensors: Mapping[ParamName, Storable],
    *,
    forget: Collection[ParamName],
    held: Mapping[ParamName, Digest],
) -> tuple[Record, list[StagedFile]]:
    """What has to change, and the files of what is kept for the first time; nothing is written.

    Args:
        state: what is kept of the model.
        layout: where its tensors lie.
        location: what the model is called.
        tensors: the new values.
        forget: parameters whose originals are no longer kept.
        held: digests of what was checked, which must be there still.

    Raises:
        DriftError: something else is there now.
        HostWriteError: the only copy of an original would be lost.
    """
    kept = state.kept()
    with WeightFiles(state.root, layout.files) as files:
        after = digest_tensors(tensors)
        before = _digest_before(layout, location, after, held, files, forget=forget)
    places = {name: layout.place(name, location) for name in tensors if before[name] != after[name]}
    fresh = sort_into_files(state, {name: place for name, place in places.items() if name not in kept})
    _check_forgotten(kept, fresh, {name: after.get(name, before[name]) for name in forget})
    changes = {
        name: RangeChange(places[name].file, places[name].start, places[name].stop, before[name], after[name], staged)
        for name in [*fresh, *(name for name in places if name not in fresh)]
        for staged in [fresh.get(name, "")]
    }
    dropped, rewritten = plan_rewritten(state, kept, forget)
    identities = {file: layout.files[file] for file in {change.file for change in changes.values()}}
    record = Record(identities, tuple(changes.values()), tuple(dropped), tuple(file.name for file in rewritten))
    staged = []
    for file in dict.fromkeys(fresh.values()):
        names = [name for name in fresh if fresh[name] == file]
        parts = tuple((changes[name], places[name].info) for name in names)
        staged.append(StagedFile(file, places[names[0]].file, parts))
    return record, [*staged, *rewritten]


def _check_forgotten(
    kept: Mapping[ParamName, KeptOriginal], fresh: Mapping[ParamName, str], forgotten: Mapping[ParamName, Digest]
) -> None:
    """Refuse to forget originals of parameters that will hold something else."""
    for name, value in forgotten.items():
        if (name in kept and kept[name].digest != value) or name in fresh:
            raise HostWriteError(
                f"{name}: expected to be as it was before its original is forgotten, got other values; nothing was "
                "changed",
                parameter=name,
            )


def _digest_before(
    layout: Layout,
    location: str,
    after: Mapping[ParamName, Digest],
    held: Mapping[ParamName, Digest],
    files: WeightFiles,
    *,
    forget: Collection[ParamName],
) -> dict[ParamName, Digest]:
    """What is there now of all that a write names; what it was held to must be there still."""
    # Old bytes of what changes are hashed while the journal keeps them, and refused there if they are others.
    told = {name: held[name] for name, digest in after.items() if name in held and held[name] != digest}
    named = [name for name in {**after, **dict.fromkeys(forget)} if name not in told]
    found = digest_present(layout, location, named, files)
    for name, digest in found.items():
        if held.get(name, digest) != digest:
            raise DriftError(
                f"{location}: expected {name} with SHA-256 {held[name][:SHORT]}…, as it was checked, got "
                f"{digest[:SHORT]}…: somebody changed it meanwhile; nothing was written",
                hint="stop what writes to this model, and try again",
                parameter=name,
            )
    return {**found, **told}
