"""Writing into tensors that others hold: in place, compared, and put back when anything fails."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch

from rasura.patches._io.parallel import count_at_once
from rasura.patches.errors import HostWriteError
from rasura.patches.hosts.live.bit_compare import same_bits
from rasura.patches.hosts.live.module_parameters import LiveParameter
from rasura.patches.types import ParamName

__all__ = ["copy_rows", "exchange", "restoring"]


@contextmanager
def restoring(
    lives: Mapping[ParamName, LiveParameter], names: Iterable[ParamName], kept: Mapping[ParamName, torch.Tensor]
) -> Iterator[None]:
    """Put the present values back if the block fails, whatever the reason; `kept` are copies that exist already."""
    tensors = {name: lives[name].tensor for name in names}
    # A copy beside the weights, unless somebody holds the very same values already.
    before = [(t, kept[name] if name in kept else copy_rows(t, t.device)) for name, t in tensors.items()]
    try:
        yield
        # Whoever uses another stream must not see the old values any more when this returns.
        for device in {tensor.device for tensor, _ in before if tensor.is_cuda}:
            torch.cuda.synchronize(device)
    except BaseException:  # an interrupt, too: half a set is no model
        for tensor, value in before:
            overwrite(tensor, value)
        raise


def exchange(lives: Mapping[ParamName, LiveParameter], values: Mapping[ParamName, torch.Tensor]) -> None:
    """Write these values and read them back.

    Raises:
        HostWriteError: something is not what was written.
    """
    here = [name for name in values if lives[name].tensor.device.type == "cpu"]
    away = [name for name in values if lives[name].tensor.device.type != "cpu"]
    for name in away:  # by the caller's thread, whose stream the device's work goes to
        overwrite(lives[name].tensor, values[name])

    def write(name: ParamName) -> None:
        overwrite(lives[name].tensor, values[name])
        read_back(lives[name], values[name])  # while a processor's caches still hold both

    count_at_once(write, here)
    count_at_once(lambda name: read_back(lives[name], values[name]), away)


def overwrite(tensor: torch.Tensor, value: torch.Tensor) -> None:
    """In place; the storage and its address stay."""
    # What was made in inference mode may be written to only inside of it.
    with torch.inference_mode() if tensor.is_inference() else torch.no_grad():
        tensor.copy_(value)


def read_back(live: LiveParameter, value: torch.Tensor) -> None:
    """Read back.

    Raises:
        HostWriteError: it is not what was written.
    """
    if not same_bits(live.tensor, value):
        raise HostWriteError(
            f"{live.name}: expected to read back what was written, got other values; nothing was changed",
            parameter=live.name,
        )


def copy_rows(tensor: torch.Tensor, device: str | torch.device) -> torch.Tensor:
    """A copy on a device, row by row."""
    return tensor.detach().to(device=device, copy=True, memory_format=torch.contiguous_format)
