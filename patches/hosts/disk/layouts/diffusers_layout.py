"""Which bytes of which files of a diffusers folder hold which parameter.

    model_index.json
    unet/diffusion_pytorch_model.safetensors                      one file, or
    unet/diffusion_pytorch_model.safetensors.index.json           an index and
    unet/diffusion_pytorch_model-00001-of-00002.safetensors …     its shards
    text_encoder/model.fp16.safetensors                           a variant, read when it is the only one

Only headers and indexes are read, and links are followed: a Hugging Face cache is made of them. Writing is stricter,
see `rasura.patches.hosts.disk.weight_files`.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, Final

from rasura.patches._io import canonical_json
from rasura.patches._io.canonical_json import Fields
from rasura.patches._io.safetensors_file import CHECKPOINT_LIMITS, Header, TensorInfo, read_header
from rasura.patches._io.sha256 import digest_of
from rasura.patches.errors import FormatError, HostError, NotFoundError, UnsupportedHostError
from rasura.patches.hosts.disk.weight_files import FileIdentity, open_weights
from rasura.patches.hosts.interface import COMPONENTS, ParameterInfo, name_parameter
from rasura.patches.types import ParamName

__all__ = [
    "ADOPT",
    "FLOATS",
    "Layout",
    "TensorLocation",
    "find_component_layout",
    "find_layout",
    "is_second_copy",
    "read_weights",
    "refuse_coded",
]

FLOATS: Final = frozenset({"BF16", "F16", "F32", "F64"})
"""Element types that a patch can be added to; anything else is quantised, or no weight at all."""

_ADAPTERS: Final = ("adapter_config.json", "adapter_model.safetensors", "pytorch_lora_weights.safetensors")
ADOPT: Final = "if it erases something, make a patch of it: rasura adopt FILE --base BASE"
_DENOISERS: Final = ("unet", "transformer", "transformer_2")
_CONVERT: Final = "convert with diffusers: save_pretrained(DIR, safe_serialization=True)"
_STEMS: Final = ("diffusion_pytorch_model", "model")
_INDEX_LIMIT: Final = 16 * 2**20  # bytes; that of Stable Diffusion XL's UNet has 0.2 MiB
_SHARD: Final = re.compile(r"[A-Za-z0-9._-]{1,200}\.safetensors")
# stem[.variant].safetensors, or stem.safetensors.index[.variant].json, or stem[.variant].safetensors.index.json
_WEIGHTS: Final = re.compile(
    r"(?:diffusion_pytorch_model|model)"
    r"(?:(?:\.[A-Za-z0-9_]+)?\.safetensors|(?:\.[A-Za-z0-9_]+)?\.safetensors\.index(?:\.[A-Za-z0-9_]+)?\.json)"
)
# What other loaders read where they do not want safetensors, or do not know them: never opened here.
_SECOND: Final = re.compile(
    r"(?:diffusion_pytorch_model|diffusion_flax_model|pytorch_model|flax_model|tf_model|model)(?:[.-][A-Za-z0-9_-]+)?"
    r"\.(?:bin|pt|pth|ckpt|msgpack|h5|onnx|onnx_data|bin\.index\.json)"
)
# What people find under the name of a weight file, by its first bytes.
_STRANGERS: Final = (
    ((b"version https://git-lfs",), "a Git LFS pointer of a file that was not fetched", "git lfs pull"),
    ((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04"), "a pickle, which is never opened", _CONVERT),
    ((b"<!doc", b"<html", b"<?xml"), "a page of the web, such as one that asks to log in", "download the file again"),
)


@dataclass(frozen=True, slots=True)
class TensorLocation:
    """Where one parameter's bytes lie."""

    file: str
    """Relative to the model's folder, with forward slashes; of a single file its name."""
    start: int
    """First byte, counted from the file's beginning."""
    stop: int
    """One past the last byte."""
    info: ParameterInfo


@dataclass(frozen=True, slots=True)
class Layout:
    """All patchable parameters of a model and the files they lie in."""

    places: Mapping[ParamName, TensorLocation]
    """In name order."""
    files: Mapping[str, FileIdentity]
    """By name relative to the folder."""
    doubled: frozenset[ParamName] = frozenset()
    """Parameters of which the file holds a running average, too: a second copy of whatever is to be erased."""
    unmatched: Mapping[ParamName, str] = field(default_factory=dict)
    """Parameters that the file holds, but not as a range of bytes, and why."""
    second: Mapping[str, str] = field(default_factory=dict)
    """Components of which another format holds the weights, too, and one such file, which is not patched."""

    def place(self, name: ParamName, location: str) -> TensorLocation:
        """Where `name` lies.

        Raises:
            UnsupportedHostError: the model has no such parameter, or stores it in a type that cannot be patched.
        """
        if (place := self.places.get(name)) is None:
            raise UnsupportedHostError(
                f"{location}: expected a parameter {name} of type {', '.join(sorted(FLOATS))}, "
                f"got {self.unmatched.get(name, 'none')}",
                hint="use the architecture that the patch was computed on, not quantised",
                parameter=name,
            )
        return place


def find_layout(folder: Path) -> Layout:
    """Read the headers of every component of the pipeline in `folder`.

    Raises:
        NotFoundError: no such folder.
        UnsupportedHostError: no component with safetensors weights, or several candidates for one component.
        FormatError: a header or an index that breaks the format.
    """
    if not folder.is_dir():
        raise NotFoundError(f"expected a model folder at {folder}, got nothing", path=str(folder))
    places: dict[ParamName, TensorLocation] = {}
    files: dict[str, FileIdentity] = {}
    try:
        for component in COMPONENTS:
            if (folder / component).is_dir():
                _add_component(folder, component, places, files)
    except OSError as error:
        raise HostError(f"{folder}: expected a readable folder, got {error.strerror}", errno=error.errno) from None
    if not places and any((folder / name).is_file() for name in _ADAPTERS):
        raise UnsupportedHostError(
            f"{folder}: expected a diffusers folder with one of {', '.join(COMPONENTS)}, got an adapter, which changes "
            "a model and is none",
            hint=ADOPT,
        )
    if not places:
        raise UnsupportedHostError(
            f"{folder}: expected a diffusers folder with one of {', '.join(COMPONENTS)}, got none of them",
            hint="give the folder that holds model_index.json",
        )
    second = {
        component: names[0]
        for component in COMPONENTS
        if (names := sorted(p.name for p in folder.glob(f"{component}/*") if is_second_copy(component, p.name)))
    }
    return Layout(
        MappingProxyType({name: places[name] for name in sorted(places)}), MappingProxyType(files), second=second
    )


def is_second_copy(component: str, name: str) -> bool:
    """Whether a file of a component holds its weights in a format that is not patched, and that others load."""
    return component in COMPONENTS and _SECOND.fullmatch(name) is not None


def find_component_layout(folder: Path, component: str) -> Layout:
    """The layout of one component that lies alone in `folder`: places relative to the folder above it.

    Raises:
        UnsupportedHostError: no safetensors weights, or several candidates.
        FormatError: a header or an index that breaks the format.
        HostError: the folder cannot be read.
    """
    places: dict[ParamName, TensorLocation] = {}
    files: dict[str, FileIdentity] = {}
    try:
        _add_component(folder.parent, folder.name, places, files, named=component)
    except OSError as error:
        raise HostError(f"{folder}: expected a readable folder, got {error.strerror}", errno=error.errno) from None
    return Layout(MappingProxyType(places), MappingProxyType(files))


def _add_component(
    folder: Path,
    component: str,
    places: dict[ParamName, TensorLocation],
    files: dict[str, FileIdentity],
    *,
    named: str | None = None,
) -> None:
    choice = _choose(folder, component)
    owners: Mapping[str, str] | None = None
    if choice.endswith(".json"):
        owners = _read_index(folder, choice)
    found: dict[str, str] = {}
    for file in sorted({choice} if owners is None else set(owners.values())):
        header, files[file] = read_weights(folder, file)
        path = folder / file
        for tensor in header.tensors:
            found[tensor.name] = file
            refuse_coded(component, tensor, path)
            if tensor.dtype in FLOATS:
                name = name_parameter(named or component, tensor.name)
                if name in places:
                    raise FormatError(f"{folder / file}: expected one tensor for {name}, got two")
                info = ParameterInfo(name, tensor.dtype, tensor.shape)
                start, stop = header.data_start + tensor.start, header.data_start + tensor.stop
                places[name] = TensorLocation(file, start, stop, info)
    if owners is not None and found != owners:
        odd = sorted(key for key in found.keys() | owners.keys() if found.get(key) != owners.get(key))
        raise FormatError(f"{folder / choice}: expected the index to name every tensor's file, got another: {odd[0]}")


def refuse_coded(component: str, tensor: TensorInfo, path: Path) -> None:
    """Refuse a denoiser whose layers are stored as 8-bit floats: a rounding away from what a patch is exact on."""
    if component in _DENOISERS and tensor.dtype.startswith("F8_") and len(tensor.shape) > 1:
        raise UnsupportedHostError(
            f"{path}: expected layers of type {', '.join(sorted(FLOATS))}, got {tensor.name} as {tensor.dtype}, into "
            "which nothing is merged: its steps are larger than what a patch changes",
            hint="apply to the model that it was made of, and convert the result",
            path=str(path),
        )


def _choose(folder: Path, component: str) -> str:
    """The one weight file or index of a component, relative to the folder."""
    names = sorted(entry.name for entry in (folder / component).iterdir())
    candidates = [name for name in names if _WEIGHTS.fullmatch(name)]
    if len(candidates) > 1:
        raise UnsupportedHostError(
            f"{folder / component}: expected one set of weights, got {len(candidates)}: {', '.join(candidates)}; "
            "the ones that are not patched would bring the concept back",
            hint=f"keep the one that you serve and move the others out of {folder / component}",
        )
    if not candidates:
        pickles = any(name.endswith((".bin", ".pt", ".ckpt", ".msgpack")) for name in names)
        raise UnsupportedHostError(
            f"{folder / component}: expected {' or '.join(_STEMS)}.safetensors, "
            f"got {'pickled weights only, which are never opened' if pickles else 'no weights'}",
            hint=_CONVERT,
        )
    return f"{component}/{candidates[0]}"


def _read_index(folder: Path, index: str) -> dict[str, str]:
    """The index of a sharded component: tensor name → file relative to the model's folder."""
    path = folder / index
    with _opened(folder, index) as (file, size):
        if size > _INDEX_LIMIT:
            raise FormatError(f"{path}: expected at most {_INDEX_LIMIT} bytes, got {size}")
        data = file.read(size + 1)
    shards = Fields.of(canonical_json.parse(data, what=str(path), limit=_INDEX_LIMIT, floats=True), str(path)).fields(
        "weight_map"
    )
    owners: dict[str, str] = {}
    for key in shards.names():
        shard = shards.text(key, limit=255)
        if not _SHARD.fullmatch(shard):
            raise FormatError(f"{path}: expected a file name like {_SHARD.pattern}, got {shard!a}")
        owners[key] = f"{index.rpartition('/')[0]}/{shard}"
    return owners


def read_weights(folder: Path, file: str) -> tuple[Header, FileIdentity]:
    """The header of one weight file, and what the file must still be when it is read or written.

    Raises:
        FormatError: it breaks the format.
        HostError: it cannot be read.
    """
    with _opened(folder, file) as (stream, size):
        _refuse_stranger(stream.read(32), folder / file)
        stream.seek(0)
        header = read_header(stream, size, what=str(folder / file), limits=CHECKPOINT_LIMITS)
        stream.seek(0)
        digest = digest_of(stream.read(header.data_start))
    return header, FileIdentity(size, header.data_start, digest)


def _refuse_stranger(start: bytes, path: Path) -> None:
    """Say what a file is that is none of weights, where its first bytes tell."""
    for starts, what, hint in _STRANGERS:
        if start.lower().startswith(tuple(known.lower() for known in starts)):
            raise FormatError(f"{path}: expected safetensors weights, got {what}", hint=hint, path=str(path))


@contextmanager
def _opened(folder: Path, file: str) -> Iterator[tuple[BinaryIO, int]]:
    with os.fdopen(open_weights(folder, file), "rb") as stream:
        yield stream, os.fstat(stream.fileno()).st_size
