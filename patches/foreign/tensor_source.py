"""Tensors of somebody else's file: names, shapes and types first, values one at a time.

A safetensors file is read by our own reader of headers. Pickled weights (`.pt`, `.bin`, `.ckpt`) are opened by
`torch.load(weights_only=True, mmap=True)` alone, which makes tensors and plain containers and runs nothing; whatever it
does not take is refused. Links are followed: a Hugging Face cache is made of them, and nothing is written.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from rasura.patches._io.byte_ranges import read_whole
from rasura.patches._io.safetensors_file import CHECKPOINT_LIMITS, Header, TensorInfo, read_header
from rasura.patches._io.tensor_bytes import DTYPES, dtype_name, is_finite, require_little_endian, torch_dtype
from rasura.patches.errors import FormatError, HostError, NotFiniteError, UnsupportedHostError
from rasura.patches.hosts.disk.weight_files import open_weights

__all__ = ["PICKLES", "SAFE", "TensorSource", "open_source"]

SAFE: Final = (".safetensors", ".sft")
PICKLES: Final = (".pt", ".pth", ".bin", ".ckpt")
_CONVERT: Final = "save it as safetensors: safetensors.torch.save_file(state_dict, FILE)"
_DEPTH: Final = 4  # dictionaries in dictionaries; a checkpoint has two
_WRAPPERS: Final = frozenset({"state_dict", "module", "params"})
"""Keys that only say that weights follow."""
_MOST: Final = 20_000


@dataclass(frozen=True, slots=True, eq=False)
class TensorSource:
    """One file.

    Attributes:
        what: what people call it, for messages.
        infos: its tensors by name; `start` and `stop` count from the tensor's own first byte where the file is pickled.
        metadata: free texts of a safetensors header.
        load: gives the tensor of a name.
    """

    what: str
    infos: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]
    load: Callable[[str], torch.Tensor]

    def read(self, name: str) -> torch.Tensor:
        """One tensor, on the CPU, in its own type.

        Raises:
            NotFiniteError: NaN or infinity.
            HostError: the file ends before it.
        """
        found = self.load(name)
        if not is_finite(found):
            raise NotFiniteError(f"{self.what}: {name}: expected finite numbers, got NaN or infinity", tensor=name)
        return found


def open_source(path: Path) -> TensorSource:
    """The tensors of a file, by its suffix.

    Raises:
        UnsupportedHostError: another suffix.
        FormatError: it breaks its format, or pickles more than tensors.
        HostError: it cannot be read.
    """
    if path.suffix in SAFE:
        return _open_safetensors(path)
    if path.suffix in PICKLES:
        return _open_pickle(path)
    raise UnsupportedHostError(
        f"{path}: expected weights named {', '.join((*SAFE, *PICKLES))}, got {path.suffix or 'no suffix'}",
        hint=_CONVERT,
    )


def _open_safetensors(path: Path) -> TensorSource:
    require_little_endian()
    with os.fdopen(open_weights(path.parent, path.name), "rb") as file:
        header = read_header(file, os.fstat(file.fileno()).st_size, what=str(path), limits=CHECKPOINT_LIMITS)
    infos = {info.name: info for info in header.tensors}
    return TensorSource(str(path), infos, header.metadata, lambda name: _read_range(path, header, infos[name]))


def _read_range(path: Path, header: Header, info: TensorInfo) -> torch.Tensor:
    descriptor = open_weights(path.parent, path.name)
    try:
        data = read_whole(descriptor, header.data_start + info.start, header.data_start + info.stop)
    except OSError as error:
        raise HostError(f"{path}: expected a readable file, got {error.strerror}", errno=error.errno) from None
    finally:
        os.close(descriptor)
    if not data:
        return torch.empty(info.shape, dtype=torch_dtype(info.dtype))
    return torch.frombuffer(data, dtype=torch_dtype(info.dtype)).reshape(info.shape)


def _open_pickle(path: Path) -> TensorSource:
    os.close(open_weights(path.parent, path.name))  # refuses pipes, folders and devices
    size = path.stat().st_size
    try:
        # mapped, so that a tensor costs memory when it is read; nothing in the archive is unpacked
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # noqa: BLE001  # what a stranger's pickle can raise is not to be listed
        raise FormatError(
            f"{path}: expected tensors and nothing else, as torch.load(weights_only=True, mmap=True) takes them, got "
            f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200] if str(error).strip() else 'nothing'}",
            hint=_CONVERT,
        ) from None
    tensors = dict(_flat(state, "", 0, path))
    if not tensors or len(tensors) > _MOST:
        raise FormatError(f"{path}: expected 1 to {_MOST} tensors, got {len(tensors)}", hint=_CONVERT)
    infos = {name: _info(name, tensor, size, path) for name, tensor in tensors.items()}
    return TensorSource(str(path), infos, {}, lambda name: tensors[name].detach().clone().contiguous())


def _flat(state: Any, prefix: str, depth: int, path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Every plain tensor of nested dictionaries, by its keys joined with dots."""
    if depth > _DEPTH:
        raise FormatError(f"{path}: expected at most {_DEPTH} dictionaries in one another, got more", hint=_CONVERT)
    if not isinstance(state, dict):
        return
    for key, value in state.items():
        if not isinstance(key, str):
            continue
        name = prefix if key in _WRAPPERS and isinstance(value, dict) else f"{prefix}.{key}".removeprefix(".")
        if isinstance(value, torch.Tensor):
            if value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized:
                yield name, value
        else:
            yield from _flat(value, name, depth + 1, path)


def _info(name: str, tensor: torch.Tensor, size: int, path: Path) -> TensorInfo:
    dtype, shape = dtype_name(tensor.dtype), tuple(tensor.shape)
    length = math.prod(shape) * DTYPES[dtype][1]
    if length > size:  # a view that repeats a few bytes
        raise FormatError(f"{path}: {name}: expected at most the file's {size} bytes, got a tensor of {length}")
    return TensorInfo(name, dtype, shape, 0, length)
