"""A host looked at once: within one motion every parameter is hashed once, however many steps ask for it.

A motion asks for the same digests again and again: is the host what was last written, is it the base of every patch,
what is there before. Nobody else may move the host meanwhile (`Host.alone`), so the first answer serves for all, until
the motion itself writes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from rasura.patches.hosts.interface import Host, MadeOf, ParameterInfo, QuantisedPart, Value
from rasura.patches.types import Digest, ParamName

if TYPE_CHECKING:
    import torch

    from rasura.patches.algebra.compose import Layer

__all__ = ["Glance"]


class Glance(Host):
    """A host that remembers what it answered; see `rasura.patches.hosts.interface.Host` for its methods."""

    def __init__(self, host: Host) -> None:
        """Answer for this host."""
        self._host = host
        self._forget_all()

    def _forget_all(self) -> None:
        self._infos: Mapping[ParamName, ParameterInfo] | None = None
        self._kept: frozenset[ParamName] | None = None
        self._present: dict[ParamName, Digest] = {}
        self._before: dict[ParamName, Digest] = {}

    @property
    def location(self) -> str:
        """See `Host`."""
        return self._host.location

    @property
    def host_id(self) -> str:
        """See `Host`."""
        return self._host.host_id

    @property
    def lasting(self) -> bool:
        """See `Host`."""
        return self._host.lasting

    def known_as(self, host_id: str) -> None:
        """See `Host`."""
        self._host.known_as(host_id)

    def alone(self) -> AbstractContextManager[object]:
        """See `Host`."""
        return self._host.alone()

    def kept(self) -> frozenset[ParamName]:
        """See `Host`; asked once."""
        if self._kept is None:
            self._kept = self._host.kept()
        return self._kept

    def parameters(self) -> Mapping[ParamName, ParameterInfo]:
        """See `Host`; asked once."""
        if self._infos is None:
            self._infos = self._host.parameters()
        return self._infos

    def read(self, names: Iterable[ParamName]) -> dict[ParamName, torch.Tensor]:
        """See `Host`."""
        return self._host.read(names)

    def originals(self, names: Iterable[ParamName]) -> dict[ParamName, torch.Tensor]:
        """See `Host`; where the host can lend them, not copies: to be read before the next write, never written."""
        if not (wanted := list(names)):
            return {}
        return self._host.lent(wanted)

    def digests(self, names: Iterable[ParamName]) -> dict[ParamName, Digest]:
        """See `Host`; every parameter is hashed once."""
        wanted = list(names)
        if missing := [name for name in wanted if name not in self._present]:
            self._present |= self._host.digests(missing)
        return {name: self._present[name] for name in wanted}

    def original_digests(self, names: Iterable[ParamName]) -> dict[ParamName, Digest]:
        """See `Host`; every parameter is hashed once, and what is not kept is as it was before."""
        wanted = list(names)
        kept = [name for name in wanted if name in self.kept()]
        if missing := [name for name in kept if name not in self._before]:
            self._before |= self._host.original_digests(missing)
        return {**self.digests([n for n in wanted if n not in self.kept()]), **{n: self._before[n] for n in kept}}

    def ensure_writable(self, names: Iterable[ParamName]) -> None:
        """See `Host`."""
        self._host.ensure_writable(names)

    def write(self, tensors: Mapping[ParamName, torch.Tensor], *, forget: Collection[ParamName] = ()) -> None:
        """See `Host`; what was seen before must be there still, and no longer counts afterwards."""
        self._host.hold_to(self._present)
        self._forget_all()
        self._host.write(tensors, forget=forget)

    def model_folder(self) -> Path | None:
        """See `Host`."""
        return self._host.model_folder()

    def pipeline_parts(self) -> Mapping[str, object]:
        """The host's own."""
        return self._host.pipeline_parts()

    def quantised_part(self) -> QuantisedPart | None:
        """See `Host`; its answers are not remembered."""
        return self._host.quantised_part()

    def compose(
        self,
        layers: Mapping[ParamName, Layer],
        originals: Mapping[ParamName, torch.Tensor],
        made_of: Mapping[ParamName, MadeOf],
    ) -> dict[ParamName, Value]:
        """See `Host`."""
        return self._host.compose(layers, originals, made_of)
