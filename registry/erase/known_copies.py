"""A model that this registry patched once, and that comes back as if it were new.

A motion leaves the digest of all that it touched in the log. A copy of such a model carries no kept originals with it,
so that by its own looks it is another base: one in which concepts are erased already, and which nothing brings back.
Whoever took it for a base would promise of every patch what it does beside the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, combinations
from typing import Final

from rasura.patches._io.tensor_bytes import digest_tensor_set
from rasura.patches.errors import NotFoundError, RasuraError, UnsupportedHostError
from rasura.patches.models.base_identity import BaseIdentity
from rasura.patches.types import SHORT, Digest, ParamName
from rasura.registry._storage.records.records import EntryRecord
from rasura.registry.registry import Registry
from rasura.registry.trust.verified_patch import manifest_of

__all__ = ["refuse_patched_copy"]

_MOST: Final = 6
"""Kinds of patches by what they touch, whose unions are tried: K and V, a text encoder and the like."""


def refuse_patched_copy(registry: Registry, identity: BaseIdentity, where: str) -> None:
    """Refuse to take for a base what a motion of this registry wrote.

    Raises:
        UnsupportedHostError: naming the entry that left these values, and its patches.
    """
    left = {entry.after: entry for entry in registry.entries() if entry.outcome == "done" and entry.after is not None}
    if not left:
        return
    for names in _touched(registry):
        state = _state(identity, names)
        entry = None if state is None else left.get(state)
        if entry is not None and state not in _pristine(registry, names):
            raise UnsupportedHostError(
                f"{where}: expected a model without patches, got what entry {entry.index} of the log left "
                f"({_said(registry, entry)}): a copy of a patched model, which does not bring its originals with it",
                hint="give the model that was patched, or a fresh copy of its base: rasura base list",
                entry=entry.index,
            )


def _said(registry: Registry, entry: EntryRecord) -> str:
    names = []
    for patch_id in entry.patches:
        try:
            names.append(f"{', '.join(registry.patch(patch_id).concepts)} {patch_id[:SHORT]}")
        except NotFoundError:
            names.append(patch_id[:SHORT])
    return f"{entry.action} {', '.join(names)}".strip()


def _touched(registry: Registry) -> Iterator[frozenset[ParamName]]:
    """Every set of parameters that a motion may have touched together."""
    kinds: dict[frozenset[ParamName], None] = {}
    for patch in registry.patches():
        try:
            kinds[frozenset(p.name for p in manifest_of(registry, patch.patch_id).base.parameters)] = None
        except RasuraError:  # one that cannot be read any more explains nothing
            continue
    few = list(kinds)[:_MOST]
    together = chain.from_iterable(combinations(few, size) for size in range(1, len(few) + 1))
    yield from dict.fromkeys(frozenset[ParamName]().union(*sets) for sets in together)


def _state(identity: BaseIdentity, names: frozenset[ParamName]) -> Digest | None:
    found = [(p.name, p.dtype, p.shape, p.sha256) for p in identity.parameters if p.name in names]
    return digest_tensor_set(found) if len(found) == len(names) else None


def _pristine(registry: Registry, names: frozenset[ParamName]) -> set[Digest]:
    """What these parameters are in the registered bases, in every type in which people load them: a revert's traces."""
    found: set[Digest] = set()
    for summary in registry.bases():
        mine = [p for p in registry.base(summary.digest).parameters if p.name in names]
        found.add(digest_tensor_set((p.name, p.dtype, p.shape, p.sha256) for p in mine))
        for dtype in set.intersection(*(set(p.casts) for p in mine)) if mine else ():
            found.add(digest_tensor_set((p.name, dtype, p.shape, p.casts[dtype]) for p in mine))
    return found
