"""The parts of a motion, without torch: what it will do, from which originals, and which base the host is.

Composing for a model on disk needs numpy (`rasura.registry.apply.prepare`); taking everything out needs neither
(`rasura.registry.apply.take_all_out`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self, TypeAlias

from rasura.patches._io.tensor_bytes import Storable, digest_tensor_set, dtype_name
from rasura.patches.algebra.stack import Stack
from rasura.patches.checks.verdict import Accepted
from rasura.patches.errors import BaseMismatchError, DriftError
from rasura.patches.format.manifest_parts import TensorIdentity
from rasura.patches.hosts.interface import Host
from rasura.patches.types import Digest, KeyId, ParamName, PatchId
from rasura.registry._storage.records.records import HostRecord
from rasura.registry.apply.hosts import side_branches
from rasura.registry.apply.hosts.cached_host import Glance
from rasura.registry.apply.hosts.host_state import find_record, host_uuid, location_of
from rasura.registry.registry import Registry

if TYPE_CHECKING:
    from rasura.registry.apply.hosts.branches import Branches  # needs torch, as what runs beside quantised layers does

__all__ = [
    "Composed",
    "Entry",
    "Motion",
    "Originals",
    "check_originals",
    "find_own_base",
    "make_record",
    "name_entries",
]

Entry: TypeAlias = tuple[str, str, tuple[int, ...], Digest]
"""Name, dtype, shape and digest of a parameter, as `digest_tensor_set` takes them."""
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
    tensors: Mapping[ParamName, Storable]
    branches: Branches
    forget: frozenset[ParamName]
    before: Digest
    after: Digest
    revoked: Mapping[PatchId, KeyId] = field(default_factory=dict)

    @property
    def parameters(self) -> int:
        """How many parameters it touches, in either way."""
        return len(self.tensors) + len(self.branches)


@dataclass(frozen=True, slots=True, eq=False)
class Originals:
    """What the parameters that a motion touches are without patches.

    Attributes:
        values: of the plain ones, in the host's dtype; lent where the host can, so never written to.
        digests: SHA-256 of each of these.
        coded: names of those whose layers are quantised: their codes are nothing to compute with.
    """

    values: Mapping[ParamName, Storable]
    digests: Mapping[ParamName, Digest]
    coded: frozenset[ParamName]

    @classmethod
    def read(cls, seen: Glance, touched: Iterable[ParamName]) -> Self:
        """Those of a host."""
        names = list(touched)
        coded = side_branches.find_quantised(seen.host, names)
        plain = [name for name in names if name not in coded]
        return cls(seen.examine(plain), seen.original_digests(plain), coded)


@dataclass(frozen=True, slots=True, eq=False)
class Composed:
    """What the touched parameters will be.

    Attributes:
        tensors: new values of the plain ones.
        branches: what shall run beside the others.
        entries: name, dtype, shape and digest of all of them, as a tensor-set digest takes them.
    """

    tensors: Mapping[ParamName, Storable]
    branches: Branches
    entries: Mapping[ParamName, Entry]

    def digest(self, names: Iterable[ParamName]) -> Digest:
        """Tensor-set digest of some of them."""
        return digest_tensor_set(self.entries[name] for name in names)


def name_entries(values: Mapping[ParamName, Storable], digests: Mapping[ParamName, Digest]) -> dict[ParamName, Entry]:
    """Parameters as a tensor-set digest takes them."""
    return {n: (str(n), dtype_name(value.dtype), tuple(value.shape), digests[n]) for n, value in values.items()}


def check_originals(expected: Iterable[TensorIdentity], seen: Glance) -> None:
    """`check_touched`, each distinct expectation once, and without hashing again what is as it should be."""
    wanted = dict.fromkeys(side_branches.check_claimed(seen.host, expected))
    infos, digests = seen.parameters(), seen.original_digests({p.name: None for p in wanted})
    found = {name: TensorIdentity(name, infos[name].dtype, infos[name].shape, d) for name, d in digests.items()}
    # Numbers are looked at only where digests differ, to say how they do.
    odd = [parameter for parameter in wanted if found[parameter.name] != parameter]
    if odd:
        from rasura.patches.models.base_identity import check_touched  # needs torch, to look at numbers

        check_touched(odd, seen.host.lent(dict.fromkeys(p.name for p in odd)), seen.location)


def make_record(registry: Registry, host: Host, base: Digest, wanted: Stack, state: Digest) -> HostRecord:
    """What the registry will say of a host."""
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


def find_own_base(registry: Registry, seen: Glance, originals: Originals) -> Digest:
    """The base of a host that no wanted patch tells: it must have its originals.

    Raises:
        DriftError: it has not, or something is touched that no patch of this registry touches.
    """
    record = find_record(registry, seen.host)
    assert record is not None  # only a host that had patches can come to have none
    expected = [TensorIdentity(p.name, p.dtype, p.shape, p.sha256) for p in registry.base(record.base).parameters]
    try:
        check_originals([p for p in expected if p.name in originals.values], seen)
    except BaseMismatchError as error:
        raise DriftError(f"{error.message}; its originals are lost", hint=_FRESH) from None
    if strange := sorted(seen.kept() - originals.values.keys() - originals.coded):
        raise DriftError(f"{seen.location}: {strange[0]} is touched by no patch of this registry", hint=_FRESH)
    return record.base
