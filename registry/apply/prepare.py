"""What a motion of a host would write: verified, checked and composed, and nothing changed yet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

import torch

from rasura.patches._io.tensor_bytes import digest_tensor_set, dtype_name
from rasura.patches.algebra.compose import Layer, layers_of
from rasura.patches.algebra.stack import Stack
from rasura.patches.checks.check import Accepted, Member, Policy, require
from rasura.patches.errors import BaseMismatchError, CheckRefusedError, DriftError
from rasura.patches.format.manifest_parts import TensorIdentity
from rasura.patches.hosts.interface import Host, MadeOf
from rasura.patches.models.base_identity import check_touched
from rasura.patches.obstacles import Obstacles
from rasura.patches.types import Digest, KeyId, ParamName, PatchId
from rasura.registry._storage.records.records import BaseRecord, HostRecord
from rasura.registry.apply.hosts import side_branches
from rasura.registry.apply.hosts.branches import Branches, make_branches
from rasura.registry.apply.hosts.cached_host import Glance
from rasura.registry.apply.hosts.host_state import (
    check_names,
    find_record,
    host_uuid,
    location_of,
    name_add_base,
    state_of,
    touched_by,
)
from rasura.registry.apply.preconditions.look_ahead import note_unready
from rasura.registry.registry import Registry
from rasura.registry.trust.check import judge_loaded, load_readable
from rasura.registry.trust.tokenizer_check import check_tokenizer

_TEXT_ENCODER: Final = "text_encoder"
_POOLED: Final = ".text_projection.weight"  # of no use to the states; single files hold it transposed
_FRESH: Final = "take a fresh copy of the base model"


@dataclass(frozen=True, slots=True, eq=False)
class Motion:
    """Everything that a motion is going to do.

    Attributes:
        record: what the registry will say of the host.
        present: the set that is applied.
        verdict: what the composer said of the wanted set; accepted.
        keys: who signed each wanted patch.
        revoked: of those that stay as they are and that no key which counts has signed: who once did.
        tensors: the new value of every plain parameter that the old or the new set touches.
        branches: what shall run beside every quantised layer they touch (`rasura.registry.apply.hosts.side_branches`).
        forget: those that get their originals back.
        before: tensor-set digest of these parameters as they are.
        after: the same as they will be.
    """

    record: HostRecord
    present: Stack
    verdict: Accepted
    keys: Mapping[PatchId, KeyId]
    tensors: Mapping[ParamName, torch.Tensor]
    branches: Branches
    forget: frozenset[ParamName]
    before: Digest
    after: Digest
    revoked: Mapping[PatchId, KeyId] = field(default_factory=dict)

    @property
    def parameters(self) -> int:
        """How many parameters it touches, in either way."""
        return len(self.tensors) + len(self.branches)


def prepared(
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
    layers = {layer.name: layer for layer in layers_of((m.patch.tensors.increments, m.strength) for m in stack)}
    # Of both sets: what only the old one touches gets its original back.
    touched = sorted({*layers, *touched_by(registry, present)})
    with obstacles.noting():
        check_names(seen, [*touched, *sorted({p.name for m in stack for p in m.patch.manifest.base.through})])
        _check_made_for(registry, seen, stack)
    # A missing evaluation keeps nobody from checking, too; patches that are not good, or not for this model, do.
    if any(not isinstance(error, CheckRefusedError) for error in obstacles.found):
        obstacles.refuse()
    with obstacles.noting():
        host.ensure_writable(touched)
    originals = _Originals.read(seen, touched)
    # What also puts something in is checked as a whole.
    gone = [] if way.added or way.changed else load_readable(registry, way.removed)
    found = judge_loaded(registry, loaded, policy, gone=gone, originals=originals.tensors, host=host)  # (2)
    with obstacles.noting():
        require(found.verdict)
    with obstacles.noting():
        base = _base_of(registry, seen, stack, originals)
        if stack:
            _check_text_encoder(registry.base(base), seen)
    with obstacles.noting():
        if asks is not None:
            check_tokenizer(registry, host, stack)
    obstacles.refuse()
    composed = _compose(host, stack, layers, originals)
    return Motion(
        _new_record(registry, host, base, wanted, composed.digest(layers)),
        present,
        require(found.verdict),
        found.keys,
        composed.tensors,
        composed.branches,
        frozenset(originals.tensors.keys() - layers.keys()),
        state_of(seen, touched),
        composed.digest(composed.entries),
        loaded.revoked,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Originals:
    """What the parameters that a motion touches are without patches.

    Attributes:
        tensors: of the plain ones, in the host's dtype; lent where the host can, so never written to.
        digests: SHA-256 of each of these.
        coded: names of those whose layers are quantised: their codes are nothing to compute with.
    """

    tensors: Mapping[ParamName, torch.Tensor]
    digests: Mapping[ParamName, Digest]
    coded: frozenset[ParamName]

    @classmethod
    def read(cls, seen: Glance, touched: Iterable[ParamName]) -> Self:
        names = list(touched)
        coded = side_branches.quantised(seen.host, names)
        plain = [name for name in names if name not in coded]
        return cls(seen.host.lent(plain) if plain else {}, seen.original_digests(plain), coded)


@dataclass(frozen=True, slots=True, eq=False)
class _Composed:
    """What the touched parameters will be.

    Attributes:
        tensors: new values of the plain ones.
        branches: what shall run beside the others.
        entries: name, dtype, shape and digest of all of them, as a tensor-set digest takes them.
    """

    tensors: Mapping[ParamName, torch.Tensor]
    branches: Branches
    entries: Mapping[ParamName, tuple[str, str, tuple[int, ...], Digest]]

    def digest(self, names: Iterable[ParamName]) -> Digest:
        return digest_tensor_set(self.entries[name] for name in names)


def _compose(
    host: Host, stack: Sequence[Member], layers: Mapping[ParamName, Layer], originals: _Originals
) -> _Composed:
    """The values of the wanted set, from the originals; what no wanted patch touches gets its original back."""
    merged = {name: layer for name, layer in layers.items() if name in originals.tensors}
    values = host.compose(merged, originals.tensors, _made_of(stack, originals.digests))
    tensors = {**originals.tensors, **{name: value.tensor for name, value in values.items()}}
    digests = {**originals.digests, **{name: value.digest for name, value in values.items()}}
    plain = {n: (str(n), dtype_name(t.dtype), tuple(t.shape), digests[n]) for n, t in tensors.items()}
    if not originals.coded:  # as every model on disk
        return _Composed(tensors, {}, plain)
    branches = make_branches(originals.coded, layers)
    return _Composed(tensors, branches, {**plain, **side_branches.entries(host, branches)})


def _check_made_for(registry: Registry, seen: Glance, stack: Sequence[Member]) -> None:
    """Refuse patches that were made for other weights than the host's originals."""
    bases = [member.patch.manifest.base for member in stack]
    expected = [parameter for base in bases for parameter in (*base.parameters, *base.through)]
    try:
        _check_originals(expected, seen)
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


def _made_of(stack: Sequence[Member], originals: Mapping[ParamName, Digest]) -> dict[ParamName, MadeOf]:
    """What each parameter's value is a function of."""
    factors: dict[ParamName, set[tuple[PatchId, int]]] = {}
    for member in stack:
        for name in member.patch.tensors.increments.keys() & originals.keys():
            # a set: the sum is exact, in any order
            factors.setdefault(name, set()).add((member.patch_id, member.strength.sixteenths))
    return {name: (originals[name], frozenset(terms)) for name, terms in factors.items()}


def _check_originals(expected: Iterable[TensorIdentity], seen: Glance) -> None:
    """`check_touched`, each distinct expectation once, and without hashing again what is as it should be."""
    wanted = dict.fromkeys(side_branches.claimed(seen.host, expected))
    infos, digests = seen.parameters(), seen.original_digests({p.name: None for p in wanted})
    found = {name: TensorIdentity(name, infos[name].dtype, infos[name].shape, d) for name, d in digests.items()}
    # Numbers are looked at only where digests differ, to say how they do.
    odd = [parameter for parameter in wanted if found[parameter.name] != parameter]
    if odd:
        check_touched(odd, seen.host.lent(dict.fromkeys(p.name for p in odd)), seen.location)


def _check_text_encoder(base: BaseRecord, seen: Glance) -> None:
    """Refuse a host that reads prompts otherwise: the detectors would look for vectors that no longer come.

    A live denoiser without its text encoders cannot be asked.
    """
    there = {name.partition(".")[0] for name in seen.parameters() if name.startswith(_TEXT_ENCODER)}
    # A live pipeline may have let go of an encoder once prompts were encoded; a lone UNet never had one.
    named = (p for p in base.parameters if p.name.partition(".")[0] in there and not p.name.endswith(_POOLED))
    expected = [TensorIdentity(p.name, p.dtype, p.shape, p.sha256) for p in named]
    check_names(seen, [parameter.name for parameter in expected])
    _check_originals(expected, seen)


def _new_record(registry: Registry, host: Host, base: Digest, wanted: Stack, state: Digest) -> HostRecord:
    record = find_record(registry, host)
    if record is not None:  # it keeps the name that the registry has for it
        host.known_as(record.host_id.replace("-", ""))
    return HostRecord(
        host_id=host_uuid(host),
        location=location_of(host),
        base=base,
        applied=wanted.sixteenths,
        state=state,
        updated_at=registry.now(),
    )


def _base_of(
    registry: Registry,
    seen: Glance,
    stack: Sequence[Member],
    originals: _Originals,
) -> Digest:
    """The base of a stack, or for an empty one that of the host, whose originals it must then have."""
    if stack:
        return stack[0].patch.manifest.base.sha256
    record = find_record(registry, seen.host)
    assert record is not None  # only a host that had patches can come to have none
    expected = [TensorIdentity(p.name, p.dtype, p.shape, p.sha256) for p in registry.base(record.base).parameters]
    try:
        _check_originals([p for p in expected if p.name in originals.tensors], seen)
    except BaseMismatchError as error:
        raise DriftError(f"{error.message}; its originals are lost", hint=_FRESH) from None
    if strange := sorted(seen.kept() - originals.tensors.keys() - originals.coded):
        raise DriftError(f"{seen.location}: {strange[0]} is touched by no patch of this registry", hint=_FRESH)
    return record.base
