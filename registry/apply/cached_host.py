"""A host looked at once: within one motion every parameter is hashed once, however many steps ask for it.

A motion asks for the same digests again and again: is the host what was last written, is it the base of every patch,
what is there before. Nobody else may move the host meanwhile (`Host.alone`), so the first answer serves for all, until
the motion itself writes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from rasura.patches.hosts.interface import Host, ParameterInfo
from rasura.patches.types import Digest, ParamName

if TYPE_CHECKING:
    import torch

    from rasura.patches.hosts.live.value_cache import Remembered

__all__ = ["Glance"]


@runtime_checkable
class _Lender(Protocol):
    def lent(self, names: Iterable[ParamName]) -> dict[ParamName, torch.Tensor]: ...


@runtime_checkable
class _Rememberer(Protocol):
    memory: Remembered


class Glance:
    """A host that remembers what it answered; see `rasura.patches.hosts.interface.Host` for its methods."""

    def __init__(self, host: Host) -> None:
        """Look at this host; at a glance, for the same one."""
        self.host: Host = host.host if isinstance(host, Glance) else host
        self._forget_all()

    def _forget_all(self) -> None:
        self._infos: Mapping[ParamName, ParameterInfo] | None = None
        self._kept: frozenset[ParamName] | None = None
        self._present: dict[ParamName, Digest] = {}
        self._before: dict[ParamName, Digest] = {}

    @property
    def location(self) -> str:
        """See `Host`."""
        return self.host.location

    @property
    def host_id(self) -> str:
        """See `Host`."""
        return self.host.host_id

    @property
    def lasting(self) -> bool:
        """See `Host`."""
        return self.host.lasting

    @property
    def memory(self) -> Remembered:
        """What the host remembers of values; of most hosts, nothing."""
        from rasura.patches.hosts.live.value_cache import Remembered

        return self.host.memory if isinstance(self.host, _Rememberer) else Remembered(0)

    def known_as(self, host_id: str) -> None:
        """See `Host`."""
        self.host.known_as(host_id)

    def alone(self) -> AbstractContextManager[object]:
        """See `Host`."""
        return self.host.alone()

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

    def read(self, names: Iterable[ParamName]) -> dict[ParamName, torch.Tensor]:
        """See `Host`."""
        return self.host.read(names)

    def originals(self, names: Iterable[ParamName]) -> dict[ParamName, torch.Tensor]:
        """See `Host`; where the host can lend them, not copies: to be read before the next write, never written."""
        if not (wanted := list(names)):
            return {}
        return self.host.lent(wanted) if isinstance(self.host, _Lender) else self.host.originals(wanted)

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

    def ensure_writable(self, names: Iterable[ParamName]) -> None:
        """See `Host`."""
        self.host.ensure_writable(names)

    def write(self, tensors: Mapping[ParamName, torch.Tensor], *, forget: Collection[ParamName] = ()) -> None:
        """See `Host`; what was seen before no longer counts."""
        self._forget_all()
        self.host.write(tensors, forget=forget)
