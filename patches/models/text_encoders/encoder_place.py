"""Where large text encoders lie while they read, and in which dtype: what whoever starts the process chose.

    RASURA_ENCODER_DTYPE    float32 (default) or bfloat16: half the memory, and states of eight bits instead of 24
    RASURA_ENCODER_DEVICE   cpu (default), or a device of torch such as cuda

Neither is asked of CLIP, which is small. One encoder at a time lies on the device: the next one that reads sends it
back.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch

from rasura.patches._io.settings import get_settings
from rasura.patches.errors import InputError
from rasura.patches.models.family import Encoder

__all__ = ["dtype_for", "dtype_of", "moves", "placed"]

_DTYPES: Final = {"": torch.float32, "float32": torch.float32, "bfloat16": torch.bfloat16}
_CPU: Final = torch.device("cpu")
_THERE: Final[list[weakref.ref[Any]]] = []
"""The encoder that lies on the device."""


def dtype_for(kind: Encoder) -> torch.dtype:
    """In which dtype an encoder is loaded.

    Raises:
        InputError: another dtype was chosen than these.
    """
    chosen = get_settings().encoder_dtype
    if chosen not in _DTYPES:
        raise InputError(f"RASURA_ENCODER_DTYPE: expected float32 or bfloat16, got {chosen!r}")
    return torch.float32 if kind.kind == "CLIP" else _DTYPES[chosen]


def dtype_of(module: Any) -> str:
    """What a manifest says of an encoder's dtype: "" for float32, and where there are no weights."""
    parameter = next(iter(module.parameters()), None) if isinstance(module, torch.nn.Module) else None
    return "BF16" if parameter is not None and parameter.dtype == torch.bfloat16 else ""


def moves(kind: Encoder) -> bool:
    """Whether an encoder is moved to the chosen device when it reads."""
    return bool(get_settings().encoder_device) and kind.kind != "CLIP"


@contextmanager
def placed(module: Any, kind: Encoder) -> Iterator[torch.device]:
    """For the length of the block, an encoder lies where it was chosen to read; which device that is.

    Raises:
        InputError: no such device, or not enough memory there.
    """
    if not moves(kind):
        yield _CPU
        return
    chosen = get_settings().encoder_device
    try:
        device = torch.device(chosen)
        before = _THERE[0]() if _THERE else None
        if before is not module:
            if before is not None:
                before.to(_CPU)
            module.to(device)
            _THERE[:] = [weakref.ref(module)]
    except (RuntimeError, AssertionError) as error:  # torch says so in either way
        reason = str(error).splitlines()[0]
        raise InputError(f"RASURA_ENCODER_DEVICE: {kind.component} cannot be put on {chosen!r}: {reason}") from error
    yield device
