"""Which known base a model comes nearest to, for a person who holds a patch that was made for another one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rasura.patches.errors import BaseMismatchError
from rasura.patches.hosts.interface import Host
from rasura.patches.types import ParamName

if TYPE_CHECKING:
    from rasura.registry.registry import Registry

__all__ = ["with_nearest"]


def with_nearest(
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
