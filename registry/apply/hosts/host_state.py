"""Where a host stands: what the registry says is applied to it, compared with what is really there.

A host that lasts (a folder) is known by the identity that it carries while something is applied, and otherwise by its
location; it may be moved, but not be in two places. A live host is known by its identity alone: a process that starts
anew starts with a new one.

A motion writes an entry *begun* before it writes anything else, from which the set that it wanted can be read: an apply
and a revert name the patches that come and go, a switch the whole set, as a blob. Where that has no end, the process
died, and the host's digests tell which side it is on; a host undoes half a write by itself when it is opened.
"""

from __future__ import annotations

import shlex
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from rasura.patches._io import canonical_json
from rasura.patches._io.json_fields import Fields
from rasura.patches._io.tensor_bytes import digest_tensor_set
from rasura.patches.algebra.stack import Stack
from rasura.patches.algebra.strength import ONE, Strength
from rasura.patches.errors import BaseMismatchError, ConflictError, DriftError, FormatError
from rasura.patches.hosts.disk.new_copy import target_of
from rasura.patches.hosts.disk.state_folder import StateFolder
from rasura.patches.hosts.interface import Host, Reading
from rasura.patches.types import SHORT, Digest, ParamName, PatchId
from rasura.registry._storage.records.records import Draft, EntryRecord, HostRecord
from rasura.registry.registry import Registry
from rasura.registry.trust.verified_patch import manifest_of

APPLY = "patch.apply"
REVERT = "patch.revert"
SWITCH = "patch.switch"
SET = "set"
"""Name of the detail of an entry that holds the digest of the wanted set, whose canonical JSON is a blob."""
STRENGTH = "strength"
"""Name of the detail of an entry that holds the strength of what is applied, in sixteenths."""

_OR_COPY: Final = "; another registry did, or it is a copy of a patched model"
_LIVE_FRESH: Final = "attach the model that was copied, or load this one anew"
_SECOND: Final = "transformer_2."
_SET_FORMAT: Final = "rasura-set/1"
_SET_BYTES: Final = 16 * 1024**2  # some 200 000 patches


def location_of(host: Host) -> str:
    """What the registry calls a host; a live one is told from others with the same label."""
    return host.location if host.lasting else f"{host.location}#{host.host_id[:SHORT]}"


def find_record(registry: Registry, host: Host) -> HostRecord | None:
    """What the registry knows of a host.

    Raises:
        ConflictError: the host carries the identity of another folder that is still there: somebody copied it.
    """
    record = registry.find_host(host_uuid(host))
    if record is not None and host.lasting and record.location != host.location:
        _check_moved(record, host)
    # A folder with nothing applied carries no identity; there the place says which it is.
    return record or (registry.find_host(host.location) if host.lasting else None)


def present_set(registry: Registry, host: Host, seen: Reading | None = None) -> Stack:
    """What the registry says is applied, compared with what is there.

    Args:
        registry: what says so.
        host: the model.
        seen: what it answered already, if it was asked before.

    Raises:
        DriftError: the host's touched parameters are not those that the registry last wrote, or the host keeps
            originals that this registry knows nothing of.
    """
    return _compared(registry, seen or host, find_record(registry, host))


def sight_host(registry: Registry, host: Host) -> HostRecord | None:
    """What is known of a host that nobody may be moving now, for those who only look: nothing is settled or written.

    Of an interrupted motion, the side that the host is on counts, which is what the next motion will settle.

    Raises:
        DriftError: see `present_set`.
    """
    record, entry = find_record(registry, host), find_unfinished_motion(registry, host)
    if entry is not None:
        record = find_reached(registry, host, entry) or record
    _compared(registry, host, record)
    return record


def _compared(registry: Registry, host: Reading, record: HostRecord | None) -> Stack:
    applied = applied_of(record)
    if not applied and host.kept():  # kept originals and no record: somebody else's patches
        raise DriftError(
            f"{host.location} holds patches that this registry did not apply: "
            f"{len(host.kept())} parameters have kept originals" + ("" if host.lasting else _OR_COPY),
            hint="use the registry that applied them (--registry)" if host.lasting else _LIVE_FRESH,
        )
    if record and applied:
        _check_state(registry, host, record)
    return applied


def find_unfinished_motion(registry: Registry, host: Host) -> EntryRecord | None:
    """The entry of a motion of this host that nothing ended; there is one at most."""
    # By place, too: a folder to which nothing was applied yet is opened with a fresh identity each time.
    keys = (host_uuid(host), location_of(host))
    found = (e for e in registry.unfinished() if e.host == keys[0] or e.details.get("location") == keys[1])
    return next((entry for entry in found if entry.action in {APPLY, REVERT, SWITCH}), None)


def find_reached(registry: Registry, host: Host, entry: EntryRecord) -> HostRecord | None:
    """The record of a host whose interrupted motion had written everything; None where it had written nothing."""
    record = find_record(registry, host)
    before = applied_of(record)
    after = _after(registry, entry, before)
    # The entry's digests are over all that the motion touches, those among it that got their originals back.
    if state_of(host, list_touched(registry, {*before, *after})) != entry.after:
        return None
    return HostRecord(
        host_id=entry.host or host_uuid(host),
        location=location_of(host),
        base=entry.base or Digest(""),
        applied=after.sixteenths,
        state=state_of(host, list_touched(registry, after)),  # the record's is over what is applied now alone
        updated_at=registry.now(),
    )


def settle_motion(registry: Registry, host: Host) -> None:
    """End an interrupted motion, if there is one: as done where everything was written, else as failed."""
    entry = find_unfinished_motion(registry, host)
    if entry is None:
        return
    details = {**entry.details, "settled": "yes"}
    draft = Draft(entry.actor, entry.reason, entry.action, "done", entry.patches, details=details, closes=entry.index)
    record = find_reached(registry, host, entry)
    if record is not None:
        # Everything had been written: what was missing is the end of the entry, and the record.
        sides = {"before": entry.before, "after": entry.after}
        registry.set_host(record, _with(draft, entry, outcome="done", **sides))
    else:
        registry.note(_with(draft, entry, outcome="failed", error="interrupted", before=entry.before))


def find_unborn(registry: Registry, place: Path) -> tuple[EntryRecord, ...]:
    """Motions without an end of a new copy whose process died before it stood at its target.

    Args:
        registry: whose log says that they began.
        place: where the copy was made, see `rasura.patches.hosts.disk.new_copy`.
    """
    target = target_of(place)
    # Renamed already, or something else stands at the target: then this is no motion without a model.
    if not (place / target.name).exists() or target.is_file() or (target.is_dir() and any(target.iterdir())):
        return ()
    location = str(target.parent.resolve() / target.name)  # as the log spells it; the target itself is not there
    begun = (entry for entry in registry.unfinished() if entry.action in {APPLY, REVERT, SWITCH})
    return tuple(entry for entry in begun if entry.details.get("location") == location)


def settle_unborn(registry: Registry, place: Path) -> None:
    """End those motions, as failed."""
    for entry in find_unborn(registry, place):
        details = {**entry.details, "settled": "yes"}
        draft = Draft(entry.actor, entry.reason, entry.action, "failed", entry.patches, details=details)
        registry.note(_with(draft, entry, closes=entry.index, error="interrupted", before=entry.before))


def state_of(host: Reading, names: Iterable[ParamName]) -> Digest:
    """Tensor-set digest of some parameters as they are now."""
    chosen = list(names)
    return digest_set(host, chosen, host.digests(chosen))


def digest_set(host: Reading, names: Iterable[ParamName], digests: Mapping[ParamName, Digest]) -> Digest:
    """Tensor-set digest of some parameters of a host, if these were their digests."""
    infos = host.parameters()
    return digest_tensor_set((name, infos[name].dtype, infos[name].shape, digests[name]) for name in names)


def applied_of(record: HostRecord | None) -> Stack:
    """The applied set of a record; of a host without one, the empty set."""
    return Stack() if record is None else Stack.of_sixteenths(record.applied)


def list_touched(registry: Registry, patch_ids: Iterable[PatchId]) -> list[ParamName]:
    """The parameters that these patches touch, sorted."""
    return sorted({p.name for patch_id in patch_ids for p in manifest_of(registry, patch_id).base.parameters})


def check_names(host: Reading, names: Iterable[ParamName]) -> None:
    """Refuse a host that lacks one of these parameters.

    Raises:
        BaseMismatchError: naming it.
    """
    known = host.parameters()
    for name in names:
        if name.startswith(_SECOND) and not any(other.startswith(_SECOND) for other in known):
            raise BaseMismatchError(
                f"{host.location} is one denoiser: expected a pipeline with both that the patch is of, got no {name}",
                hint="give the pipeline; other programs: rasura patch export ID -o DIR --format native --each",
            )
        if name not in known:
            raise BaseMismatchError(
                f"{host.location} has no parameter {name}: the patch was made for another model",
                hint="rasura base list",
            )


def model_option(host: Reading) -> str:
    """`--model …` as a shell would want it."""
    return f"--model {shlex.quote(host.location)}"


def look_at(host: Reading, *, deep: bool = False) -> str:
    """What to type to see what is applied to a host; no command reaches into a live one."""
    if not host.lasting:
        return f"model.status({'deep=True' if deep else ''})"
    return f"rasura patch status {'--deep ' if deep else ''}{model_option(host)}"


def name_add_base(host: Reading) -> str:
    """The command that registers a host's weights as a base."""
    return f"rasura base add {shlex.quote(host.location) if host.lasting else 'DIR'}"


def host_uuid(host: Host) -> str:
    """The host's identity in the spelling of the log."""
    return str(uuid.UUID(host.host_id))


def _with(draft: Draft, entry: EntryRecord, **fields: object) -> Draft:
    return replace(draft, base=entry.base, host=entry.host, **fields)  # type: ignore[arg-type]


def keep_set(registry: Registry, wanted: Stack) -> Digest:
    """Put a set into the blob store, where an entry of the log names it by its digest."""
    return registry.blobs.put(canonical_json.dumps({"format": _SET_FORMAT, "patches": wanted.to_json()}))


def read_set(registry: Registry, digest: Digest) -> Stack:
    """The set of a digest; the inverse of `keep_set`.

    Raises:
        NotFoundError, DigestMismatchError, FormatError: it is missing, damaged, or no set.
    """
    what = f"set {digest[:SHORT]}"
    fields = Fields.of(
        canonical_json.loads(registry.blobs.read(digest, limit=_SET_BYTES), what=what, limit=_SET_BYTES), what
    )
    if (found := fields.text("format")) != _SET_FORMAT:
        raise FormatError(
            f"{what}: expected format {_SET_FORMAT!r}, got {found!r}", hint="pip install --upgrade rasura"
        )
    # Taken out before `done`, which refuses whatever nobody asked for.
    inside = fields.fields("patches")
    fields.done()
    return Stack.parse(inside, what)


def _after(registry: Registry, entry: EntryRecord, before: Stack) -> Stack:
    """The set that a motion wanted to reach."""
    if entry.action == SWITCH:
        return read_set(registry, Digest(str(entry.details[SET])))
    if entry.action == REVERT:  # its `patches` are all that it took out
        return before.without(entry.patches)
    strength = Strength(int(entry.details.get(STRENGTH, ONE.sixteenths)))
    return before.with_(dict.fromkeys(entry.patches, strength))


def _check_state(registry: Registry, host: Reading, record: HostRecord) -> None:
    names = list_touched(registry, record.applied)
    check_names(host, names)
    if (got := state_of(host, names)) != record.state:  # one digest over all: hashing is what a look costs
        raise DriftError(
            f"{host.location} changed outside the registry: expected state {record.state[:SHORT]}, got {got[:SHORT]}",
            hint=look_at(host, deep=True),
        )


def _check_moved(record: HostRecord, host: Host) -> None:
    # Moved, nothing with this identity is left at the old place; copied, there is.
    if StateFolder(Path(record.location)).identity() == host.host_id:
        raise ConflictError(
            f"{host.location} is a copy of {record.location} as it is with its patches: the two cannot be told apart",
            hint=f"rasura patch apply ID... --model {shlex.quote(record.location)} --out PATH",
        )
