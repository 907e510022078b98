"""Base plus sum, rounded and stored in one pass over a CUDA device's memory: bit for bit what `round_into` makes.

Only where the setting `RASURA_FUSED=1` asks for it, since whether it is faster has to be measured on the device
(`benchmarks/hosts/fused.py`). Everywhere else `rasura.patches.algebra.rounding` takes plain steps to the same bits.
"""

from __future__ import annotations

import importlib.util
from typing import Final

import torch

from rasura.patches._io.settings import FUSED, get_settings
from rasura.patches.errors import InputError

__all__ = ["SWITCH", "add_round_store", "fits", "is_wanted"]

SWITCH: Final = FUSED
_LANES: Final = 1024


def is_wanted(device: torch.device) -> bool:
    """Whether the kernel was asked for and is for this device; never for any but CUDA.

    Raises:
        InputError: it was asked for in a way that means nothing, or cannot run on this CUDA device.
    """
    said = get_settings().fused
    if said not in ("", "0", "1"):
        raise InputError(f"{SWITCH} is {said[:20]!a}: expected 1, 0 or nothing")
    if said != "1" or device.type != "cuda":
        return False
    _check_possible()
    return True


def _check_possible() -> None:
    if torch.version.cuda is None:
        raise InputError(f"{SWITCH}=1 is for NVIDIA devices, got a torch for others: expected {SWITCH}=0")
    if importlib.util.find_spec("triton") is None:
        raise InputError(f"{SWITCH}=1 expects Triton, which is not installed", hint="pip install triton")


def fits(result: torch.Tensor, base: torch.Tensor) -> bool:
    """Whether both lie row by row, which is how the kernel goes over them."""
    return result.is_contiguous() and base.is_contiguous()


def add_round_store(result: torch.Tensor, base: torch.Tensor, sums: torch.Tensor, broken: torch.Tensor) -> None:
    """`rasura.patches.algebra.rounding.round_into`, and a look at whether the result is finite.

    Args:
        result: contiguous, of the base's shape, dtype and device; written.
        base: contiguous; float16, bfloat16 or float32.
        sums: contiguous, of that shape, float64; kept.
        broken: [1] int32; becomes 1 if a result is NaN or infinite, and otherwise stays.
    """
    from rasura.patches.algebra.fused_add_kernel import add_round_store as kernel  # needs triton, which CPUs lack

    count = result.numel()
    grid = (-(-count // _LANES),)
    with torch.cuda.device_of(result):  # type: ignore[no-untyped-call]  # Triton launches on the current device, wherever the tensors are
        kernel[grid](
            result,
            base,
            sums,
            broken,
            count,
            BLOCK=_LANES,
            BF16=base.dtype == torch.bfloat16,
            enable_fp_fusion=False,  # there is no product to fuse; Triton warns where it has to guess
        )
