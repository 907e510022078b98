"""A whole pipeline in one safetensors file as a layout: which bytes of it hold which parameter."""

import os
import shlex
from collections.abc import Iterable
from pathlib import Path
from types import MappingProxyType
from typing import Final

from rasura.patches._io.safetensors_file import Header
from rasura.patches.errors import FormatError, HostError, NotFoundError, UnsupportedHostError
from rasura.patches.format.spellings.catalogue import SPELLINGS
from rasura.patches.hosts.disk.layouts.compvis_names import Part, list_averages
from rasura.patches.hosts.disk.layouts.diffusers_layout import (
    ADOPT,
    FLOATS,
    Layout,
    TensorLocation,
    find_layout,
    read_weights,
    refuse_coded,
)
from rasura.patches.hosts.disk.layouts.single_names import read_names
from rasura.patches.hosts.interface import COMPONENTS, ParameterInfo
from rasura.patches.types import ParamName

__all__ = ["find_layout_of", "find_model", "find_single_layout", "is_single_name", "say_conversion"]

_SUFFIXES: Final = (".safetensors", ".sft")
_PICKLES: Final = frozenset({".ckpt", ".pt", ".pth", ".bin"})
_NAME_BYTES: Final = 220  # of a file's name; with what is added to it, it must stay below 255
_ADAPTED: Final = ("lora_A", "lora_B", "lora_up", "lora_down", "hada_w1", "lokr_w1")
_EMBEDDED: Final = ("emb_params", "clip_l", "clip_g", "string_to_param.*")
_EMBEDDING: Final = "give the model's folder; erase the word's concept there: rasura erase --base DIR --concept TEXT"
_CONVERT: Final = "convert it with diffusers' from_single_file(…).save_pretrained(DIR)"
_PIPELINES: Final = {False: "StableDiffusionPipeline", True: "StableDiffusionXLPipeline"}  # with a second encoder
_BESIDE: Final = (
    "put it beside its family's encoders, in a copy of their folder: diffusers' from_single_file(FILE, "
    "config=DIR/transformer).save_pretrained(DIR/transformer)"
)


def find_model(path: Path) -> Path:
    """The absolute path of a model folder or single file.

    Links above the model are followed: they are the person's own choice of a path. A single file that is itself a link
    stays one, because what it points to may be somebody else's, a Hugging Face cache above all.

    Raises:
        NotFoundError: nothing is there.
    """
    try:
        if path.is_file() and path.is_symlink():
            return path.parent.resolve(strict=True) / path.name
        return path.resolve(strict=True)
    except OSError as error:
        raise NotFoundError(
            f"expected a model folder at {path}, got {error.strerror}", hint="rasura host list"
        ) from None


def find_layout_of(model: Path) -> Layout:
    """The layout of a diffusers folder or of a single file.

    Raises:
        NotFoundError: nothing is there.
        UnsupportedHostError: neither, or several candidates for one component.
        FormatError: a header or an index that breaks the format.
    """
    return find_layout(model) if not model.exists() or model.is_dir() else _single(model)


def is_single_name(file: Path) -> bool:
    """Whether a single file may be called so: its suffix says what it is, and there is room for ours."""
    return file.suffix in _SUFFIXES and len(os.fsencode(file.name)) <= _NAME_BYTES


def say_conversion(file: Path, layout: Layout) -> str:
    """How a folder is made of a single file, which may be a denoiser alone: the whole command, where its kind is known.

    diffusers fetches the configuration and the tokenizer, which no single file has, from the Hugging Face Hub.
    """
    held = {name.partition(".")[0] for name in layout.places}
    if "text_encoder" not in held:
        return _BESIDE
    if "unet" not in held:
        return _CONVERT
    pipeline = _PIPELINES["text_encoder_2" in held]
    made = f"diffusers.{pipeline}.from_single_file(sys.argv[1]).save_pretrained(sys.argv[2])"
    return f"python -c 'import sys, diffusers; {made}' {shlex.quote(str(file))} {shlex.quote(file.stem)}"


def _single(file: Path) -> Layout:
    if not is_single_name(file):
        what = "pickled weights, which are never opened" if file.suffix in _PICKLES else "another name"
        raise UnsupportedHostError(
            f"{file}: expected a diffusers folder or a file NAME{_SUFFIXES[0]} with a name of at most {_NAME_BYTES} "
            f"bytes, got {what}",
            hint=_CONVERT,
        )
    return find_single_layout(file)


def find_single_layout(file: Path) -> Layout:
    """The layout of a single file, whatever it is called.

    Raises:
        UnsupportedHostError: names that are known in no way, or a component of a diffusers folder.
        FormatError: a header that breaks the format.
    """
    try:
        header, identity = read_weights(file.parent, file.name)
    except OSError as error:
        raise HostError(f"{file}: expected a readable file, got {error.strerror}", errno=error.errno) from None
    names = read_names(header.tensors)
    if names.native and file.parent.name in COMPONENTS and (file.parent.parent / "model_index.json").is_file():
        raise _unknown(file, header)  # a folder's weights in names that happen to be the same are patched there
    places = _places(file, header, names.parts)
    for part in names.parts:
        refuse_coded(part.name.partition(".")[0], part.tensor, file)
    if not places:
        raise _unknown(file, header)
    average = list_averages(header.tensors)
    doubled = frozenset(part.name for part in names.parts if part.tensor.name in average)
    return Layout(
        MappingProxyType({name: places[name] for name in sorted(places)}),
        MappingProxyType({file.name: identity}),
        doubled,
        MappingProxyType(names.unmatched),
    )


def _places(file: Path, header: Header, parts: Iterable[Part]) -> dict[ParamName, TensorLocation]:
    places: dict[ParamName, TensorLocation] = {}
    for part in parts:
        if part.tensor.dtype in FLOATS:
            if part.name in places:
                raise FormatError(f"{file}: expected one tensor for {part.name}, got two")
            info = ParameterInfo(part.name, part.tensor.dtype, part.shape)
            start, stop = header.data_start + part.start, header.data_start + part.stop
            places[part.name] = TensorLocation(file.name, start, stop, info)
    return places


def _unknown(file: Path, header: Header) -> UnsupportedHostError:
    pipeline = next((above for above in file.parents if (above / "model_index.json").is_file()), None)
    if what := _stranger(header):
        return UnsupportedHostError(
            f"{file}: expected a diffusers folder or a Stable Diffusion checkpoint, got {what[0]}", hint=what[1]
        )
    got = f"a single file with names like {header.tensors[0].name}" if header.tensors else "a single file of no tensors"
    return UnsupportedHostError(
        f"{file}: expected a diffusers folder, a Stable Diffusion checkpoint (model.diffusion_model.…), or a single "
        f"file in the native names of {', '.join(SPELLINGS)}, got {got}",
        hint=f"--model {shlex.quote(str(pipeline))}" if pipeline else _CONVERT,
    )


def _stranger(header: Header) -> tuple[str, str] | None:
    """What a file of weights is that holds no model, and what to do with it."""
    names = [tensor.name for tensor in header.tensors]
    if any(mark in name for name in names for mark in _ADAPTED):
        return "an adapter (LoRA), which changes a model and is none", ADOPT
    if names and len(names) <= len(_EMBEDDED) and all("." not in name or name in _EMBEDDED for name in names):
        return "the embedding of a word (textual inversion), which changes what is read and no weight", _EMBEDDING
    return None
