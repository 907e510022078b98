"""Hosts with quantised layers: what of a motion is merged, and what runs beside.

A quantised layer's codes cannot be compared with a base, so somebody has to say which base was quantised
(`rasura.attach(…, quantised_from=…)`). That word stands in the log; compared are the base's parameters with those that
the patches were computed on, and its shapes with the layers'. Taking branches away needs no word.

Models without quantised layers, and all models on disk, know nothing of this.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Final

from rasura.patches.checks.verdict import SHORT
from rasura.patches.errors import BaseMismatchError, NotFoundError, UnsupportedHostError
from rasura.patches.format.manifest_parts import TensorIdentity
from rasura.patches.hosts.interface import Host, ParameterInfo, QuantisedFrom
from rasura.patches.types import Digest, ParamName
from rasura.registry.registry import Registry

if TYPE_CHECKING:
    from rasura.registry.apply.hosts.branches import Branches

__all__ = [
    "BESIDE",
    "QUANTISED_FROM",
    "check_claimed",
    "entries",
    "exchange_branches",
    "find_quantised",
    "find_quantised_base",
    "running",
    "said",
]

BESIDE: Final = "beside"
"""Name of the detail of an entry that counts the touched parameters which are written as side branches."""
QUANTISED_FROM: Final = "quantised_from"
"""Name of the detail of an entry that holds the digest of the base that somebody says was quantised."""
_HINT: Final = "rasura.attach(pipe, quantised_from=BASE), where BASE is one of: rasura base list"


def find_quantised_base(registry: Registry, base: str) -> QuantisedFrom:
    """What a registry knows of the base that somebody says was quantised.

    Args:
        registry: where.
        base: its name, digest or an abbreviation.

    Raises:
        NotFoundError, AmbiguousIdError: no such base, or several.
    """
    try:
        found = registry.base(base)
    except NotFoundError as error:
        # Of the same type: an abbreviation of several bases is another error than one of none.
        raise type(error)(f"quantised_from: {error.message}", hint=_HINT, **error.details) from None
    parameters = {p.name: TensorIdentity(p.name, p.dtype, p.shape, p.sha256) for p in found.parameters}
    return QuantisedFrom(found.digest, parameters)


def find_quantised(host: Host, names: Iterable[ParamName]) -> frozenset[ParamName]:
    """Those of these parameters that are never merged."""
    part = host.quantised_part()
    # No part: a model on disk, or a live one in which nothing is quantised.
    return frozenset() if part is None else frozenset(part.layers()) & frozenset(names)


def running(host: Host) -> frozenset[ParamName]:
    """The parameters beside which something runs, by looking at the hooks."""
    part = host.quantised_part()
    return frozenset() if part is None else part.attached()


def check_claimed(host: Host, expected: Iterable[TensorIdentity]) -> list[TensorIdentity]:
    """Hold what is expected of quantised layers against the base that somebody named.

    Returns:
        The others, which can be compared by their numbers.

    Raises:
        UnsupportedHostError: nobody named a base.
        BaseMismatchError: the named base has other shapes or other weights.
    """
    wanted, part = list(expected), host.quantised_part()
    if part is None:
        return wanted
    found = part.layers()
    for parameter in wanted:
        if parameter.name in found:
            _check(host, part.quantised_from, parameter, found[parameter.name])
    return [parameter for parameter in wanted if parameter.name not in found]  # these have numbers to compare


def entries(host: Host, branches: Branches) -> dict[ParamName, tuple[str, str, tuple[int, ...], Digest]]:
    """What a tensor-set digest says of quantised layers once these branches are attached."""
    part = host.quantised_part()
    if part is None or not branches:
        return {}
    infos = host.parameters()
    # Of a quantised layer a digest is over codes and factors together: both decide what it computes.
    return {n: (n, infos[n].dtype, infos[n].shape, digest) for n, digest in part.predicted(branches).items()}


def exchange_branches(host: Host, branches: Branches) -> AbstractContextManager[None]:
    """Attach these branches for good if the block succeeds; if not, everything is as before.

    Raises:
        HostError, BusyError: that cannot be; nothing was changed.
    """
    part = host.quantised_part()
    return nullcontext() if part is None or not branches else part.exchanging(branches)


def said(host: Host, branches: Branches) -> dict[str, str | int]:
    """What the log says of them; of a motion without any, nothing."""
    part = host.quantised_part()
    if part is None or not branches:
        return {}
    base = part.quantised_from
    # Without a base nothing can have been attached, only taken away.
    return {BESIDE: len(branches), **({} if base is None else {QUANTISED_FROM: base.base})}


def _check(host: Host, base: QuantisedFrom | None, parameter: TensorIdentity, layer: ParameterInfo) -> None:
    name = parameter.name
    if base is None:
        raise UnsupportedHostError(
            f"{host.location}: {name} is quantised ({layer.dtype}): expected to be told which base was quantised, "
            "since codes cannot be compared with one, got none",
            hint=_HINT,
            parameter=name,
        )
    known = base.parameters.get(name)
    if known is None or known.shape != layer.shape:  # the only thing that codes and a base have in common
        raise BaseMismatchError(
            f"{host.location}: {name}: expected shape {'none' if known is None else [*known.shape]}, as in base "
            f"{base.base[:SHORT]}, got {[*layer.shape]}; another base was quantised",
            hint=_HINT,
            parameter=name,
        )
    if known != parameter:  # base against patch; the codes say nothing to this
        raise BaseMismatchError(
            f"{host.location}: {name}: expected sha256 {parameter.sha256[:SHORT]}…, got {known.sha256[:SHORT]}… in "
            f"base {base.base[:SHORT]}, from which it was quantised; the patch was made for other weights",
            hint=_HINT,
            parameter=name,
        )
