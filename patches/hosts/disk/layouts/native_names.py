"""The names of a transformer's single file, in ours; see `rasura.patches.format.spellings`.

    model.diffusion_model.txt_in.weight         transformer.context_embedder.weight    FLUX.1, as ComfyUI's all-in-one
    txt_in.weight                               transformer.context_embedder.weight    the same, as its authors have it
    text_encoders.clip_l.transformer.…          text_encoder.…                         beside it, in the all-in-one

A matrix in which several of ours lie one after the other is that many ranges of bytes. An encoder that is stored in 8
bits is left out, as if the file had none: it cannot be compared with the base's.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from rasura.patches._io.safetensors_file import TensorInfo
from rasura.patches.format.spellings.spelling import Spelling
from rasura.patches.hosts.disk.layouts.compvis_names import Part
from rasura.patches.hosts.disk.layouts.diffusers_layout import FLOATS
from rasura.patches.hosts.interface import name_parameter
from rasura.patches.types import ParamName

__all__ = ["find_native_unmatched", "list_native_parts"]

_DENOISER: Final = "transformer"


def list_native_parts(tensors: Sequence[TensorInfo], spelling: Spelling, prefix: str) -> Iterator[Part]:
    """Every parameter that such a file holds as a range of bytes, of its denoiser and of its text encoders."""
    coded = _find_coded(tensors, spelling)
    for tensor in tensors:
        if (found := _of_encoder(tensor.name, spelling)) is not None:
            component, key = found
            if component not in coded:
                yield Part(name_parameter(component, key), tensor, tensor.shape, tensor.start, tensor.stop)
        elif tensor.name.startswith(prefix):
            yield from _ranges(tensor, spelling.read(tensor.name.removeprefix(prefix)))


def find_native_unmatched(tensors: Sequence[TensorInfo], spelling: Spelling, prefix: str) -> dict[ParamName, str]:
    """Parameters that are no range of bytes in such a file, and why."""
    return {
        name_parameter(_DENOISER, ours): f"{tensor.name}, which holds it in parts of several sizes or in another order"
        for tensor in tensors
        if tensor.name.startswith(prefix)
        for ours in spelling.read_mixed(tensor.name.removeprefix(prefix))
    }


def _ranges(tensor: TensorInfo, ours: Sequence[str]) -> Iterator[Part]:
    """One range a parameter, each of as many rows."""
    rows = tensor.shape[0] if tensor.shape else 0
    if len(ours) == 1:
        yield Part(name_parameter(_DENOISER, ours[0]), tensor, tensor.shape, tensor.start, tensor.stop)
    elif ours and rows % len(ours) == 0:
        size = (tensor.stop - tensor.start) // len(ours)
        shape = (rows // len(ours), *tensor.shape[1:])
        for index, name in enumerate(ours):
            start = tensor.start + index * size
            yield Part(name_parameter(_DENOISER, name), tensor, shape, start, start + size)


def _of_encoder(name: str, spelling: Spelling) -> tuple[str, str] | None:
    """The text encoder's component and its own name of a tensor; None of any other tensor."""
    for start, component in spelling.encoders.items():
        if name.startswith(start):
            return component, name.removeprefix(start)
    return None


def _find_coded(tensors: Sequence[TensorInfo], spelling: Spelling) -> frozenset[str]:
    """The text encoders of which a matrix is stored as no number that is compared."""
    found: Mapping[str, str] = {
        tensor.name: part[0] for tensor in tensors if (part := _of_encoder(tensor.name, spelling)) is not None
    }
    odd = (tensor for tensor in tensors if len(tensor.shape) > 1 and tensor.dtype not in FLOATS | {"I64", "I32"})
    return frozenset(found[tensor.name] for tensor in odd if tensor.name in found)
