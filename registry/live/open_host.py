"""The host of a live model, of the kind that its layers need."""

from __future__ import annotations

from rasura.patches.hosts.interface import QuantisedFrom
from rasura.patches.hosts.live.originals import KeepOn
from rasura.patches.hosts.live.torch_host import TorchHost
from rasura.patches.hosts.quantised.quantised_host import QuantisedHost

__all__ = ["open_live_host"]


def open_live_host(
    model: object, label: str, base: QuantisedFrom | None, *, keep_on: KeepOn = "cpu", remember: int = 2
) -> TorchHost:
    """A host of a live model; without quantised layers a plain one, that need not look for them again.

    Raises:
        UnsupportedHostError: neither a pipeline nor one of its modules.
    """
    host = QuantisedHost.told(model, label, base=base, keep_on=keep_on, remember=remember)
    # Decided once: a model is not quantised while it is attached.
    return host if host.layers() else TorchHost.of(model, label, keep_on=keep_on, remember=remember)
