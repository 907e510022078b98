"""What a motion of a host would write: verified, checked and composed, and nothing changed yet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import torch

from rasura.patches._io.tensor_bytes import digest_tensor_set, dtype_name
from rasura.patches.algebra.compose import layers_of
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
    add_base,
    check_names,
    find_record,
    host_uuid,
    location_of,
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
    host: Glance,
    present: Stack,
    wanted: Stack,
    policy: Policy,
) -> Motion:
    """Verify, check and compose a wanted set: steps (1) and (2) of a motion.

    Args:
        registry: where the patches are.
        host: the model, which nobody else moves meanwhile; read only.
        present: the set that is applied.
        wanted: the set that shall be.
        policy: limits of the check.

    Raises:
        VerificationError, BaseMismatchError, DriftError, CheckRefusedError, HostError: this cannot be.
        NotFoundError: the base of the patches is not in this registry.
        RasuraError: of several of these the first, with the others in `others`.
    """
    way, obstacles = present.diff(wanted), Obstacles()
    asks = policy if way.added or way.changed else None  # taking out is always allowed
    stays = [patch_id for patch_id, strength in wanted.items() if present.get(patch_id) == strength]
    loaded = note_unready(registry, wanted, asks, obstacles, in_force=stays, add_base=add_base(host))
    stack = loaded.stack
    layers = {layer.name: layer for layer in layers_of((m.patch.tensors.increments, m.strength) for m in stack)}
    touched = sorted({*layers, *touched_by(registry, present)})
    with obstacles.noting():
        check_names(host, [*touched, *sorted({p.name for m in stack for p in m.patch.manifest.base.through})])
        _check_made_for(registry, host, stack)
    # A missing evaluation keeps nobody from checking, too; patches that are not good, or not for this model, do.
    if any(not isinstance(error, CheckRefusedError) for error in obstacles.found):
        obstacles.refuse()
    with obstacles.noting():
        host.ensure_writable(touched)
    coded = side_branches.quantised(host, touched)
    plain = [name for name in touched if name not in coded]
    originals, digests = host.originals(plain), host.original_digests(plain)
    # What also puts something in is checked as a whole.
    gone = [] if way.added or way.changed else load_readable(registry, way.removed)
    found = judge_loaded(registry, loaded, policy, gone=gone, originals=originals, host=host)
    with obstacles.noting():
        require(found.verdict)
    with obstacles.noting():
        base = _base_of(registry, host, stack, originals, coded)
        if stack:
            _check_text_encoder(registry.base(base), host)
    with obstacles.noting():
        if asks is not None:
            check_tokenizer(registry, host, stack)
    obstacles.refuse()
    verdict = require(found.verdict)
    merged = {name: layer for name, layer in layers.items() if name in originals}
    values = host.compose(merged, originals, _made_of(stack, digests))
    tensors = originals | {name: value.tensor for name, value in values.items()}
    digests |= {name: value.digest for name, value in values.items()}
    branches = make_branches(coded, layers)
    entries: dict[ParamName, tuple[str, str, tuple[int, ...], Digest]] = {
        n: (n, dtype_name(t.dtype), tuple(t.shape), digests[n]) for n, t in tensors.items()
    }
    entries |= side_branches.entries(host, branches)
    return Motion(
        _new_record(registry, host, base, wanted, digest_tensor_set(entries[name] for name in layers)),
        present,
        verdict,
        found.keys,
        tensors,
        branches,
        frozenset(name for name in plain if name not in layers),
        state_of(host, touched),
        digest_tensor_set(entries.values()),
        loaded.revoked,
    )


def _check_made_for(registry: Registry, host: Host, stack: Sequence[Member]) -> None:
    """Refuse patches that were made for other weights than the host's originals."""
    bases = [member.patch.manifest.base for member in stack]
    expected = [parameter for base in bases for parameter in (*base.parameters, *base.through)]
    try:
        _check_originals(expected, host)
    except BaseMismatchError as error:
        raise _name_nearest_base(registry, host, {p.name: None for p in expected}, error) from None


def _name_nearest_base(
    registry: Registry, host: Host, touched: Iterable[ParamName], error: BaseMismatchError
) -> BaseMismatchError:
    """The same error, with the registered base that has most of the model's touched parameters, if one has any."""
    names = [name for name in touched if name in host.parameters()]
    digests = host.original_digests(names)
    counts: dict[str, int] = {}
    for base in registry.bases():
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
            factors.setdefault(name, set()).add((member.patch_id, member.strength.sixteenths))
    return {name: (originals[name], frozenset(terms)) for name, terms in factors.items()}


def _check_originals(expected: Iterable[TensorIdentity], host: Host) -> None:
    """`check_touched`, each distinct expectation once, and without hashing again what is as it should be."""
    wanted = dict.fromkeys(side_branches.claimed(host, expected))
    infos, digests = host.parameters(), host.original_digests({p.name: None for p in wanted})
    found = {name: TensorIdentity(name, infos[name].dtype, infos[name].shape, d) for name, d in digests.items()}
    odd = [parameter for parameter in wanted if found[parameter.name] != parameter]
    check_touched(odd, host.originals(dict.fromkeys(p.name for p in odd)), host.location)


def _check_text_encoder(base: BaseRecord, host: Host) -> None:
    """Refuse a host that reads prompts otherwise: the detectors would look for vectors that no longer come.

    A live denoiser without its text encoders cannot be asked.
    """
    there = {name.partition(".")[0] for name in host.parameters() if name.startswith(_TEXT_ENCODER)}
    named = (p for p in base.parameters if p.name.partition(".")[0] in there and not p.name.endswith(_POOLED))
    expected = [TensorIdentity(p.name, p.dtype, p.shape, p.sha256) for p in named]
    check_names(host, [parameter.name for parameter in expected])
    _check_originals(expected, host)


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
    host: Host,
    stack: Sequence[Member],
    originals: Mapping[ParamName, torch.Tensor],
    coded: frozenset[ParamName],
) -> Digest:
    """The base of a stack, or for an empty one that of the host, whose originals it must then have."""
    if stack:
        return stack[0].patch.manifest.base.sha256
    record = find_record(registry, host)
    assert record is not None  # only a host that had patches can come to have none
    expected = [TensorIdentity(p.name, p.dtype, p.shape, p.sha256) for p in registry.base(record.base).parameters]
    try:
        _check_originals([p for p in expected if p.name in originals], host)
    except BaseMismatchError as error:
        raise DriftError(f"{error.message}; its originals are lost", hint=_FRESH) from None
    if strange := sorted(host.kept() - originals.keys() - coded):
        raise DriftError(f"{host.location}: {strange[0]} is touched by no patch of this registry", hint=_FRESH)
    return record.base
