"""What a motion of a host would write: verified, checked and composed, and nothing changed yet."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rasura.patches.base import check_touched
from rasura.patches.compose import composed, layers_of
from rasura.patches.errors import BaseMismatchError, DriftError, NotFoundError
from rasura.patches.hosts import Host
from rasura.patches.increment import Strength
from rasura.patches.names import Digest, KeyId, ParamName, PatchId
from rasura.patches.projection import SHORT, Accepted, Member, Policy, check, require
from rasura.patches.specs import TensorIdentity
from rasura.patches.tensors import dtype_name, tensor_digest, tensor_set_digest
from rasura.registry.intake import load_signed
from rasura.registry.records import BaseRecord, HostRecord
from rasura.registry.standing import check_names, find_record, host_uuid, location_of, state_of, touched_by

if TYPE_CHECKING:
    import torch

    from rasura.registry.store import Registry

_TEXT_ENCODER: Final = "text_encoder."
_FRESH: Final = "take a fresh copy of the base model"


@dataclass(frozen=True, slots=True, eq=False)
class Motion:
    """Everything that a motion is going to do.

    Attributes:
        record: what the registry will say of the host.
        present: the set that is applied.
        verdict: what the composer said of the wanted set; accepted.
        keys: who signed each wanted patch.
        tensors: the new value of every parameter that the old or the new set touches.
        forget: those that get their originals back.
        before: tensor-set digest of these parameters as they are.
        after: the same as they will be.
    """

    record: HostRecord
    present: Mapping[PatchId, Strength]
    verdict: Accepted
    keys: Mapping[PatchId, KeyId]
    tensors: Mapping[ParamName, torch.Tensor]
    forget: frozenset[ParamName]
    before: Digest
    after: Digest


def prepared(
    registry: Registry,
    host: Host,
    present: Mapping[PatchId, Strength],
    wanted: Mapping[PatchId, Strength],
    policy: Policy,
) -> Motion:
    """Verify, check and compose a wanted set: steps (1) and (2) of a motion.

    Args:
        registry: where the patches are.
        host: the model; read only.
        present: the set that is applied.
        wanted: the set that shall be.
        policy: limits of the check.

    Raises:
        VerificationError, BaseMismatchError, DriftError, CheckRefusedError, HostError: this cannot be.
        NotFoundError: the base of the patches is not in this registry.
    """
    loaded = {patch_id: load_signed(registry, patch_id) for patch_id in wanted}
    stack = [Member(loaded[patch_id].patch, strength) for patch_id, strength in wanted.items()]
    verdict = require(check(stack, policy))
    layers = {layer.name: layer for layer in layers_of((m.patch.tensors.increments, m.strength) for m in stack)}
    touched = sorted({*layers, *touched_by(registry, present)})
    check_names(host, touched)
    originals = host.originals(touched)
    for member in stack:
        check_touched(member.patch.manifest.base.parameters, originals, host.location)
    base = _base_of(registry, host, stack, originals)
    if stack:
        _check_text_encoder(registry.base(base), host)
    host.ensure_writable(touched)
    tensors = {name: composed(originals[name], layers[name].terms if name in layers else ()) for name in touched}
    return Motion(
        _new_record(registry, host, base, wanted, _digest({name: tensors[name] for name in layers})),
        present,
        verdict,
        {patch_id: verified.key_id for patch_id, verified in loaded.items()},
        tensors,
        frozenset(name for name in touched if name not in layers),
        state_of(host, touched),
        _digest(tensors),
    )


def _check_text_encoder(base: BaseRecord, host: Host) -> None:
    """Refuse a host that reads prompts otherwise: the detectors would look for vectors that no longer come.

    A live denoiser without its text encoder cannot be asked.
    """
    infos = host.parameters()
    expected = [
        TensorIdentity(p.name, p.dtype, p.shape, p.sha256) for p in base.parameters if p.name.startswith(_TEXT_ENCODER)
    ]
    if not any(name.startswith(_TEXT_ENCODER) for name in infos):
        return
    check_names(host, [parameter.name for parameter in expected])
    same = [p.name for p in expected if infos[p.name].dtype == p.dtype]
    digests = host.original_digests(same)
    odd = [p for p in expected if digests.get(p.name) != p.sha256]
    check_touched(odd, host.originals([p.name for p in odd]), host.location)


def _new_record(
    registry: Registry, host: Host, base: Digest, wanted: Mapping[PatchId, Strength], state: Digest
) -> HostRecord:
    record = find_record(registry, host)
    if record is not None:  # it keeps the name that the registry has for it
        host.known_as(record.host_id.replace("-", ""))
    return HostRecord(
        host_id=host_uuid(host),
        location=location_of(host),
        base=base,
        applied={patch_id: strength.sixteenths for patch_id, strength in wanted.items()},
        state=state,
        updated_at=registry.now(),
    )


def _digest(tensors: Mapping[ParamName, torch.Tensor]) -> Digest:
    return tensor_set_digest((n, dtype_name(t.dtype), tuple(t.shape), tensor_digest(t)) for n, t in tensors.items())


def _base_of(
    registry: Registry, host: Host, stack: Sequence[Member], originals: Mapping[ParamName, torch.Tensor]
) -> Digest:
    """The base of a stack, or for an empty one that of the host, whose originals it must then have."""
    if stack:
        base = stack[0].patch.manifest.base.sha256
        if all(known.digest != base for known in registry.bases()):
            raise NotFoundError(
                f"the base {base[:SHORT]} of patch {stack[0].patch_id[:SHORT]} is not in this registry",
                hint=f"rasura base add {shlex.quote(host.location)}",
            )
        return base
    record = find_record(registry, host)
    assert record is not None  # only a host that had patches can come to have none
    expected = [TensorIdentity(p.name, p.dtype, p.shape, p.sha256) for p in registry.base(record.base).parameters]
    try:
        check_touched([p for p in expected if p.name in originals], originals, host.location)
    except BaseMismatchError as error:
        raise DriftError(f"{error.message}; its originals are lost", hint=_FRESH) from None
    if strange := sorted(host.kept() - originals.keys()):
        raise DriftError(f"{host.location}: {strange[0]} is touched by no patch of this registry", hint=_FRESH)
    return record.base
