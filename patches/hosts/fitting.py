"""Whether a value fits a parameter."""

from typing import TYPE_CHECKING

from rasura.patches.errors import NotFiniteError, UnsupportedHostError
from rasura.patches.hosts import ParameterInfo
from rasura.patches.names import ParamName
from rasura.patches.tensors import dtype_name, is_finite

if TYPE_CHECKING:
    import torch

__all__ = ["check_same", "check_value", "info_of"]


def info_of(name: ParamName, tensor: "torch.Tensor") -> ParameterInfo:
    """What a tensor would be as a parameter of this name."""
    return ParameterInfo(name, dtype_name(tensor.dtype), tuple(tensor.shape))


def check_value(info: ParameterInfo, tensor: "torch.Tensor") -> None:
    """Refuse a value that cannot be written.

    Raises:
        UnsupportedHostError: another dtype or shape.
        NotFiniteError: NaN or infinity in it.
    """
    check_same(info, info_of(info.name, tensor))
    if not is_finite(tensor):
        raise NotFiniteError(f"{info.name}: expected finite numbers, got NaN or infinity", parameter=info.name)


def check_same(info: ParameterInfo, got: ParameterInfo) -> None:
    """Refuse another dtype or shape.

    Raises:
        UnsupportedHostError: it is one.
    """
    if got != info:
        raise UnsupportedHostError(
            f"{info.name}: expected {info.dtype} {list(info.shape)}, got {got.dtype} {list(got.shape)}",
            parameter=info.name,
        )
