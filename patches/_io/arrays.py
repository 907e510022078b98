"""Numbers without torch: a stored value as a numpy array on the same memory, and back.

numpy has no bfloat16, and takes five times as long for float16 as adding integers does. A bfloat16's bits are the upper
half of a float32's, so widening is a shift; a float16's are a float32's shifted, but for the exponents' bias. Rounding
is one integer addition: to nearest, of two equally near to the even one, as IEEE 754 has it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from rasura.patches._io.tensor_bytes import DTYPES, RawValue, Storable, dtype_name, require_little_endian

if TYPE_CHECKING:
    import torch  # whoever has a tensor has imported it

__all__ = ["Array", "Numbers", "as_array", "as_raw", "round_to_bfloat16", "round_to_float16", "view_as_tensor", "widen"]

Array: TypeAlias = npt.NDArray[Any]
Numbers: TypeAlias = "torch.Tensor | Array"
"""What somebody hands in: both are looked at as arrays."""

_BF16: Final = "BF16"
_F16: Final = "F16"
_LOWER: Final = 16  # bits of a float32 that a bfloat16 does not have
_SHIFT: Final = 13  # bits of a float32's fraction that a float16's does not have
_BIAS: Final = 112  # 127 - 15: what a float32's exponent is larger by
_LEAST: Final = (_BIAS + 1) << 23  # bits of 2⁻¹⁴, the smallest float32 that is a normal float16
_INFINITE: Final = 0x7C00
_REBIAS: Final = np.uint32((0xFFF - (_BIAS << 23)) % 2**32)
"""What rounds to the 13th place and takes the bias from the exponent, as an integer that wraps around."""
_HALF: Final = np.float32(0.5).view(np.uint32)


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
    """Weights in float32, exact of finite float16 and of bfloat16; float32 is not copied.

    Infinities and NaN of float16 become numbers from 65,536 on: whoever may meet some looks for them.
    """
    if not isinstance(value, RawValue):
        return as_array(value.float())
    require_little_endian()
    if value.dtype == _BF16:
        bits = np.frombuffer(value.data, dtype=np.uint16).reshape(value.shape).astype(np.uint32)
        return (bits << _LOWER).view(np.float32)
    if value.dtype != _F16:
        return as_array(value).astype(np.float32, copy=False)
    halves = np.frombuffer(value.data, dtype=np.int16).reshape(value.shape)
    # The sign comes along as a negative number's ones; three of its four copies are cleared again.
    moved = np.left_shift(halves, _SHIFT, dtype=np.int32) & np.int32(~0x70000000)
    return moved.view(np.float32) * np.float32(2.0**_BIAS)  # subnormal ones come right, too


def round_to_bfloat16(singles: Array) -> Array:
    """The bits of float32 numbers in bfloat16, as uint16; infinity from half a step above the largest number on.

    Args:
        singles: float32, no NaN among them.
    """
    bits = singles.view(np.uint32)
    # Half a step less one, and one more where the last bit that stays is odd: halves go to the even one.
    return ((bits + (((bits >> _LOWER) & 1) + 0x7FFF)) >> _LOWER).astype(np.uint16)


def round_to_float16(singles: Array) -> Array:
    """The bits of float32 numbers in float16, as uint16; those of infinity for all that are too large, and for NaN.

    Args:
        singles: float32.
    """
    bits = singles.view(np.uint32)
    sizes = bits & 0x7FFFFFFF
    # As with bfloat16, and the exponent less by the bias. In place: fresh memory would take longer than the arithmetic.
    found = sizes >> _SHIFT
    found &= 1
    found += _REBIAS
    found += sizes
    found >>= _SHIFT
    small = np.flatnonzero(sizes < _LEAST)
    if small.size:  # multiples of 2⁻²⁴, which is the last place of 0.5 in float32: adding that rounds to it
        found.reshape(-1)[small] = (sizes.reshape(-1)[small].view(np.float32) + np.float32(0.5)).view(np.uint32) - _HALF
    np.minimum(found, _INFINITE, out=found)
    signs = np.right_shift(bits, _LOWER, out=sizes)
    signs &= 0x8000
    found |= signs
    return found.astype(np.uint16)
