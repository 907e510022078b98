"""Memory that two parameters use: who writes to one changes the other."""

from collections.abc import Iterable, Mapping

import torch

from rasura.patches.errors import UnsupportedHostError
from rasura.patches.hosts.live.write_guards import is_plain
from rasura.patches.types import ParamName

__all__ = ["refuse_shared_memory"]


def refuse_shared_memory(touched: Iterable[ParamName], everything: Mapping[ParamName, torch.Tensor]) -> None:
    """Refuse to touch memory that a second parameter or buffer uses as well.

    Args:
        touched: what will be written.
        everything: all parameters and buffers of all components. Neighbours in one storage that do not overlap (a
            loader may cut all tensors from one mapped file) are no reason to refuse.

    Raises:
        UnsupportedHostError: naming both.
    """
    wanted = set(touched)
    spans = sorted(
        # Device, first byte, one past the last byte, name: in the order in which they lie in memory.
        (str(tensor.device), *_extent(tensor), name)
        for name, tensor in everything.items()
        if tensor.numel() and is_plain(tensor) and not tensor.is_meta
    )
    reach, owner = ("", 0), ParamName("")
    for device, start, stop, name in spans:
        # begins before the farthest one has ended
        if (device, start) < reach and device == reach[0] and {name, owner} & wanted:
            raise UnsupportedHostError(
                f"{name}: expected memory of its own, got the memory of {owner}",
                hint="untie them: give one a clone() of its tensor",
                parameter=name,
            )
        if device != reach[0] or stop > reach[1]:
            reach, owner = (device, stop), name


def _extent(tensor: torch.Tensor) -> tuple[int, int]:
    """First byte and one past the last byte that the tensor's elements can lie in."""
    # in elements, from the first
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    start = tensor.data_ptr()
    return start, start + (last + 1) * tensor.element_size()
