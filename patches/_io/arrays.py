"""Numbers without torch: a stored value as a numpy array on the same memory, and back.

numpy has no bfloat16. Its bits are the upper half of a float32's, so widening is a shift, and rounding is one integer
addition (`round_to_bfloat16`): to nearest, of two equally near to the even one, as IEEE 754 has it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from rasura.patches._io.tensor_bytes import DTYPES, RawValue, Storable, dtype_name, require_little_endian

if TYPE_CHECKING:
    import torch  # whoever has a tensor has imported it

__all__ = ["Array", "Numbers", "as_array", "as_raw", "round_to_bfloat16", "view_as_tensor", "widen"]

Array: TypeAlias = npt.NDArray[Any]
Numbers: TypeAlias = "torch.Tensor | Array"
"""What somebody hands in: both are looked at as arrays."""

_BF16: Final = "BF16"
_HALF: Final = 16  # bits of a float32 that a bfloat16 does not have


def as_array(value: Storable | Array) -> Array:
    """The elements on the memory that holds them; those of a tensor on another device are copied.

    Not for bfloat16, see `widen`.
    """
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, RawValue):
        require_little_endian()
        return np.frombuffer(value.data, dtype=DTYPES[value.dtype][0]).reshape(value.shape)
    found: Array = value.detach().cpu().numpy()
    return found


def as_raw(array: Array) -> RawValue:
    """A value on the array's memory, or on a copy that lies row by row; any of numpy's own floats and integers."""
    require_little_endian()
    rows = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return RawValue(dtype_name(f"torch.{array.dtype}"), array.shape, rows.data)


def view_as_tensor(array: Array) -> torch.Tensor:
    """A tensor on the array's memory."""
    import torch  # arrays are for whoever has none

    return torch.from_numpy(array)


def widen(value: Storable) -> Array:
    """Weights in float32, exact of float16 and bfloat16; float32 is not copied."""
    if not isinstance(value, RawValue):
        return as_array(value.float())
    if value.dtype != _BF16:
        return as_array(value).astype(np.float32, copy=False)
    require_little_endian()
    bits = np.frombuffer(value.data, dtype=np.uint16).reshape(value.shape).astype(np.uint32)
    return (bits << _HALF).view(np.float32)


def round_to_bfloat16(singles: Array) -> Array:
    """The bits of float32 numbers in bfloat16, as uint16; infinity from half a step above the largest number on.

    Args:
        singles: float32, no NaN among them.
    """
    bits = singles.view(np.uint32)
    # Half a step less one, and one more where the last bit that stays is odd: halves go to the even one.
    return ((bits + (((bits >> _HALF) & 1) + 0x7FFF)) >> _HALF).astype(np.uint16)
