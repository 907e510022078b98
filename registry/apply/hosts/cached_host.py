"""A host looked at once: within one motion every parameter is hashed once, however many steps ask for it.

A motion asks for the same digests again and again: is the host what was last written, is it the base of every patch,
what is there before. Nobody else may move the host meanwhile (`Host.alone`), so the first answer serves for all, until
the motion itself writes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from rasura.patches._io.tensor_bytes import Storable
from rasura.patches.hosts.interface import Host, ParameterInfo
from rasura.patches.types import Digest, ParamName

__all__ = ["Glance"]


class Glance:
    """What a host answered; a `rasura.patches.hosts.interface.Reading`. Whoever needs more of it asks `host`."""

    def __init__(self, host: Host) -> None:
        """Nothing is asked yet."""
        self.host = host
        self.location, self.lasting = host.location, host.lasting
        self._forget_all()

    def _forget_all(self) -> None:
        self._infos: Mapping[ParamName, ParameterInfo] | None = None
        self._kept: frozenset[ParamName] | None = None
        self._present: dict[ParamName, Digest] = {}
        self._before: dict[ParamName, Digest] = {}
        self._values: dict[ParamName, Storable] = {}

    def kept(self) -> frozenset[ParamName]:
        """See `Host`; asked once."""
        if self._kept is None:
            self._kept = self.host.kept()
        return self._kept

    def parameters(self) -> Mapping[ParamName, ParameterInfo]:
        """See `Host`; asked once."""
        if self._infos is None:
            self._infos = self.host.parameters()
        return self._infos

    def digests(self, names: Iterable[ParamName]) -> dict[ParamName, Digest]:
        """See `Host`; every parameter is hashed once."""
        wanted = list(names)
        if missing := [name for name in wanted if name not in self._present]:
            self._present |= self.host.digests(missing)
        return {name: self._present[name] for name in wanted}

    def original_digests(self, names: Iterable[ParamName]) -> dict[ParamName, Digest]:
        """See `Host`; every parameter is hashed once, and what is not kept is as it was before."""
        wanted = list(names)
        kept = [name for name in wanted if name in self.kept()]
        if missing := [name for name in kept if name not in self._before]:
            self._before |= self.host.original_digests(missing)
        return {**self.digests([n for n in wanted if n not in self.kept()]), **{n: self._before[n] for n in kept}}

    def examine(self, names: Iterable[ParamName]) -> dict[ParamName, Storable]:
        """See `Host`; every parameter is read once, and hashed then where the host does that."""
        wanted = list(names)
        if missing := [name for name in wanted if name not in self._values]:
            values, digests = self.host.examine(missing)
            self._values |= values
            kept = self.kept()
            self._before |= {name: digest for name, digest in digests.items() if name in kept}
            self._present |= {name: digest for name, digest in digests.items() if name not in kept}
        return {name: self._values[name] for name in wanted}

    def write(self, tensors: Mapping[ParamName, Storable], *, forget: Collection[ParamName] = ()) -> None:
        """See `Host`; what was seen before must be there still, and no longer counts afterwards."""
        self.host.hold_to(self._present)
        self._forget_all()  # before the write: also where it fails, nobody knows what is there now
        self.host.write(tensors, forget=forget)
