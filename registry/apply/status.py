"""What is really on a host: hashes of what is there, compared with what the registry can predict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rasura.patches.algebra.stack import Stack
from rasura.patches.errors import NotFoundError
from rasura.patches.hosts.interface import Host
from rasura.patches.types import Digest, ParamName
from rasura.registry._storage.records.records import HostRecord
from rasura.registry.apply.hosts import side_branches as beside
from rasura.registry.apply.hosts.host_state import (
    applied_of,
    digest_set,
    find_reached,
    find_record,
    find_unfinished_motion,
    list_touched,
    name_add_base,
    state_of,
)
from rasura.registry.registry import Registry

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Survey:
    """What a survey found.

    Attributes:
        location: the host.
        applied: the set that the registry says is applied.
        touched: how many parameters that set touches.
        hashed: how many parameters were hashed.
        drifted: parameters that are not what they should be.
        exact: whether that is known of each of them; a shallow look compares the touched parameters together, and where
            one of them differs, `drifted` names all.
        interrupted: the log's entry of a motion that never ended; the next one ends it.
        beside: parameters beside which something runs, because they are quantised; from the hooks.
        uncovered: parts of the pipeline that no patch touches, and what they bring to the picture.
    """

    location: str
    applied: Stack
    touched: int
    hashed: int
    drifted: tuple[ParamName, ...]
    interrupted: int | None = None
    beside: tuple[ParamName, ...] = ()
    exact: bool = True
    uncovered: tuple[str, ...] = ()


def survey(registry: Registry, host: Host, *, deep: bool, progress: Progress) -> Survey:
    """Hash a host and compare. Reads only; of an unfinished motion, the side that the host is on is what should be.

    Shallow, the touched parameters together must have the digest that the last motion left. Deep, every touched
    parameter is recomputed from its original and the verified patches, and every other one compared with the base.
    Codes of quantised layers can be recomputed from nothing: of touched ones, the digest that the last motion left says
    whether they changed; of others, nothing does.
    """
    entry = find_unfinished_motion(registry, host)
    record = find_record(
        registry, host
    )  # after the entry: a motion that ends in between is seen on one side or the other
    if entry is not None:
        record = find_reached(registry, host, entry) or record
    interrupted = entry.index if entry else None
    applied = applied_of(record)
    # `running` by looking at the hooks: somebody may have attached a branch without us.
    touched, running = list_touched(registry, applied), beside.running(host)
    if deep:
        from rasura.registry.apply.predict import predict_digests  # needs torch; a shallow look does not

        expected = {**_base_digests(registry, record, host), **predict_digests(registry, host, applied)}
        progress("hashing", 0, 1)
        present = host.digests(expected)
        progress("hashing", 1, 1)
        found = {name for name, digest in expected.items() if present[name] != digest} | (running - frozenset(touched))
        if record is not None and (coded := beside.find_quantised(host, touched)):
            # What is expected holds the present codes, so that of all that was written only they can make a difference.
            found |= coded if digest_set(host, touched, expected) != record.state else frozenset()
        drifted = tuple(sorted(found))
        sides = interrupted, tuple(sorted(running))
        return Survey(host.location, applied, len(touched), len(expected), drifted, *sides, uncovered=host.uncovered())
    whole = record is None or not applied or state_of(host, touched) == record.state
    strange = frozenset(host.kept()) - frozenset(touched)  # originals are kept of what no applied patch touches
    drifted = tuple(sorted(strange | (frozenset() if whole else frozenset(touched))))
    sides = interrupted, tuple(sorted(running))
    exact = whole or len(touched) == 1  # one digest over several does not say which it was
    return Survey(host.location, applied, len(touched), len(touched), drifted, *sides, exact, host.uncovered())


def _base_digests(registry: Registry, record: HostRecord | None, host: Host) -> dict[ParamName, Digest]:
    """What every parameter of the base should be; of a host that the registry does not know, the base it matches."""
    infos = host.parameters()
    if record is not None:
        parameters = registry.base(record.base).parameters
        digests = {p.name: {**p.casts, p.dtype: p.sha256} for p in parameters if p.name in infos}
        # A base loaded in another dtype is the same base: its casts were hashed when it was registered.
        known = {name: of.get(infos[name].dtype) for name, of in digests.items()}
        return {name: digest for name, digest in known.items() if digest is not None}
    coded = beside.find_quantised(host, infos)
    originals = host.original_digests(name for name in infos if name not in coded)
    for summary in registry.bases():
        parameters = registry.base(summary.digest).parameters
        plain = [p for p in parameters if p.name not in coded]
        if plain and all(originals.get(p.name) == p.sha256 for p in plain):
            return {p.name: p.sha256 for p in plain}
    raise NotFoundError(
        f"{host.location} is none of the registered bases, so there is nothing to compare it with",
        hint=name_add_base(host),
    )
