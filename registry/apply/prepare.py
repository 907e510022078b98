"""What a motion of a host would write: verified, checked and composed, and nothing changed yet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from rasura.patches.algebra.light.layers import Layer, layers_of
from rasura.patches.algebra.stack import Stack
from rasura.patches.checks.check import Member, Policy, require
from rasura.patches.errors import BaseMismatchError, CheckRefusedError
from rasura.patches.format.manifest_parts import TensorIdentity
from rasura.patches.hosts.interface import Host
from rasura.patches.obstacles import Obstacles
from rasura.patches.types import ParamName, PatchId
from rasura.registry._storage.records.base_records import BaseRecord
from rasura.registry.apply.hosts import side_branches
from rasura.registry.apply.hosts.cached_host import Glance
from rasura.registry.apply.hosts.host_state import (
    check_names,
    list_touched,
    name_add_base,
    state_of,
)
from rasura.registry.apply.motion_parts import (
    Composed,
    Motion,
    Originals,
    check_originals,
    find_own_base,
    make_record,
    name_entries,
)
from rasura.registry.apply.preconditions.look_ahead import note_unready
from rasura.registry.registry import Registry
from rasura.registry.trust.check import judge_loaded, load_readable
from rasura.registry.trust.tokenizer_check import check_tokenizer

_TEXT_ENCODER: Final = "text_encoder"
_POOLED: Final = ".text_projection.weight"  # of no use to the states; single files hold it transposed


def prepare_motion(
    registry: Registry,
    seen: Glance,
    present: Stack,
    wanted: Stack,
    policy: Policy,
) -> Motion:
    """Verify, check and compose a wanted set: steps (1) and (2) of a motion.

    Args:
        registry: where the patches are.
        seen: the model, which nobody else moves meanwhile; read only.
        present: the set that is applied.
        wanted: the set that shall be.
        policy: limits of the check.

    Raises:
        VerificationError, BaseMismatchError, DriftError, CheckRefusedError, HostError: this cannot be.
        NotFoundError: the base of the patches is not in this registry.
        RasuraError: of several of these the first, with the others in `others`.
    """
    host, way, obstacles = seen.host, present.diff(wanted), Obstacles()
    asks = policy if way.added or way.changed else None  # taking out is always allowed
    # A key that was revoked since takes nothing out: of these it is enough that they are what was signed.
    stays = [patch_id for patch_id, strength in wanted.items() if present.get(patch_id) == strength]
    loaded = note_unready(registry, wanted, asks, obstacles, in_force=stays, add_base=name_add_base(host))
    stack = loaded.stack
    layers = {layer.name: layer for layer in layers_of((m.patch.arrays.increments, m.strength) for m in stack)}
    # Of both sets: what only the old one touches gets its original back.
    touched = sorted({*layers, *list_touched(registry, present)})
    originals = _open_touched(registry, seen, stack, touched, obstacles)
    # What also puts something in is checked as a whole.
    gone = [] if way.added or way.changed else load_readable(registry, way.removed)
    found = judge_loaded(registry, loaded, policy, gone=gone, originals=originals.values, host=host)  # (2)
    with obstacles.noting():
        require(found.verdict)
    with obstacles.noting():
        base = stack[0].patch.manifest.base.sha256 if stack else find_own_base(registry, seen, originals)
        if stack:
            _check_text_encoder(registry.base(base), seen)
    with obstacles.noting():
        if asks is not None:
            check_tokenizer(registry, host, stack)
    obstacles.refuse()
    composed = _compose(host, stack, layers, originals)
    return Motion(
        make_record(registry, host, base, wanted, composed.digest(layers)),
        present,
        require(found.verdict),
        found.keys,
        composed.tensors,
        composed.branches,
        frozenset(originals.values.keys() - layers.keys()),
        state_of(seen, touched),
        composed.digest(composed.entries),
        loaded.revoked,
    )


def _open_touched(
    registry: Registry, seen: Glance, stack: Sequence[Member], touched: Sequence[ParamName], obstacles: Obstacles
) -> Originals:
    """The originals of what is touched, where the patches were made for this model and it can be written."""
    with obstacles.noting():
        _check_made_for(registry, seen, stack, touched)
    # A missing evaluation keeps nobody from checking, too; patches that are not good, or not for this model, do.
    if any(not isinstance(error, CheckRefusedError) for error in obstacles.found):
        obstacles.refuse()
    with obstacles.noting():
        seen.host.ensure_writable(touched)
    return Originals.read(seen, touched)


def _compose(
    host: Host,
    stack: Sequence[Member],
    layers: Mapping[ParamName, Layer],
    originals: Originals,
) -> Composed:
    """The values of the wanted set, from the originals; what no wanted patch touches gets its original back."""
    merged = {name: layer for name, layer in layers.items() if name in originals.values}
    terms: dict[ParamName, set[tuple[PatchId, int]]] = {name: set() for name in merged}
    for member in stack:  # a set of each: the sum is exact, in any order
        for name in member.patch.arrays.increments.keys() & terms.keys():
            terms[name].add((member.patch_id, member.strength.sixteenths))
    # What each value is a function of: a host may have it from before.
    made_of = {name: (originals.digests[name], frozenset(own)) for name, own in terms.items()}
    values = host.compose(merged, originals.values, made_of)
    found = {**originals.values, **{name: value.tensor for name, value in values.items()}}
    plain = name_entries(found, {**originals.digests, **{name: value.digest for name, value in values.items()}})
    if not originals.coded:  # as every model on disk
        return Composed(found, {}, plain)
    from rasura.registry.apply.hosts.branches import make_branches  # needs torch, as quantised layers do

    branches = make_branches(originals.coded, layers)
    return Composed(found, branches, {**plain, **side_branches.entries(host, branches)})


def _check_made_for(registry: Registry, seen: Glance, stack: Sequence[Member], touched: Sequence[ParamName]) -> None:
    """Refuse patches that were made for other weights than the host's originals, and a host without what is touched."""
    bases = [member.patch.manifest.base for member in stack]
    check_names(seen, [*touched, *sorted({parameter.name for base in bases for parameter in base.through})])
    Originals.read(seen, touched)  # what is checked are then the very bytes that are composed from
    expected = [parameter for base in bases for parameter in (*base.parameters, *base.through)]
    try:
        check_originals(expected, seen)
    except BaseMismatchError as error:
        raise _name_nearest_base(registry, seen, {p.name: None for p in expected}, error) from None


def _name_nearest_base(
    registry: Registry, seen: Glance, touched: Iterable[ParamName], error: BaseMismatchError
) -> BaseMismatchError:
    """The same error, with the registered base that has most of the model's touched parameters, if one has any."""
    names = [name for name in touched if name in seen.parameters()]
    digests = seen.original_digests(names)
    counts: dict[str, int] = {}
    for base in registry.bases():
        # With its casts: a base that is loaded in another dtype is the same base.
        known = {p.name: {p.sha256, *p.casts.values()} for p in registry.base(base.digest).parameters}
        counts[base.name] = sum(digest in known.get(name, ()) for name, digest in digests.items())
    best = max(counts, key=lambda name: counts[name], default="")
    if not counts.get(best):
        return error
    said = f"{error.message}; the model has {counts[best]} of these {len(names)} parameters in common with base {best}"
    return BaseMismatchError(said, hint=error.hint, **{**error.details, "nearest": best, "common": counts[best]})


def _check_text_encoder(base: BaseRecord, seen: Glance) -> None:
    """Refuse a host that reads prompts otherwise: the detectors would look for vectors that no longer come.

    A live denoiser without its text encoders cannot be asked.
    """
    there = {name.partition(".")[0] for name in seen.parameters() if name.startswith(_TEXT_ENCODER)}
    # A live pipeline may have let go of an encoder once prompts were encoded; a lone UNet never had one.
    named = (p for p in base.parameters if p.name.partition(".")[0] in there and not p.name.endswith(_POOLED))
    expected = [TensorIdentity(p.name, p.dtype, p.shape, p.sha256) for p in named]
    check_names(seen, [parameter.name for parameter in expected])
    check_originals(expected, seen)
