"""Whether a value fits a parameter."""

from rasura.patches._io.tensor_bytes import Storable, dtype_name, is_finite, torch_dtype
from rasura.patches.errors import NotFiniteError, UnsupportedHostError
from rasura.patches.hosts.interface import ParameterInfo
from rasura.patches.types import ParamName

__all__ = ["check_same", "check_same_kind", "check_uncast", "check_value", "info_of"]


def info_of(name: ParamName, tensor: Storable) -> ParameterInfo:
    """What a tensor would be as a parameter of this name."""
    return ParameterInfo(name, dtype_name(tensor.dtype), tuple(tensor.shape))


def check_value(info: ParameterInfo, tensor: Storable) -> None:
    """Refuse a value that cannot be written.

    Raises:
        UnsupportedHostError: another dtype or shape.
        NotFiniteError: NaN or infinity in it.
    """
    check_same(info, info_of(info.name, tensor))
    if not is_finite(tensor):
        raise NotFiniteError(f"{info.name}: expected finite numbers, got NaN or infinity", parameter=info.name)


def check_same_kind(info: ParameterInfo, tensor: Storable) -> None:
    """Refuse a value of another dtype or shape, whatever its numbers.

    Raises:
        UnsupportedHostError: it is one.
    """
    check_same(info, info_of(info.name, tensor))


def check_uncast(now: ParameterInfo, original: ParameterInfo) -> None:
    """Refuse a parameter that was cast after its original was kept: neither fits the other any more.

    Raises:
        UnsupportedHostError: naming the dtype to cast it back to.
    """
    if now.shape == original.shape and now.dtype != original.dtype:
        own = torch_dtype(original.dtype)
        raise UnsupportedHostError(
            f"{now.name}: expected {original.dtype}, as when it was patched, got {now.dtype}: the model was cast since",
            hint=f"model.to({own}); if the cast rounded, model.revert(force=True) then puts the originals back",
            parameter=now.name,
        )
    check_same(now, original)


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
