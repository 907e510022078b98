"""The pipeline of a family, made to read prompts: with a tokenizer and an encoder, and nothing to draw with."""

from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import Any, Final

import torch

from rasura.patches._io.files import read_config
from rasura.patches.errors import UnsupportedHostError
from rasura.patches.models.family import Encoder
from rasura.patches.models.library_output import load_diffusers, quiet
from rasura.patches.models.text_encoders.pipeline_tower import TextAlone

__all__ = ["check_reads_text_alone", "check_reads_these_layers", "make_pipeline"]

_CHECKER: Final = "safety_checker"
_VAE: Final = "vae"
_LOOK_AT_THE_VAE: Final = frozenset({"Cosmos2_5_PredictBasePipeline"})
"""Pipelines that cannot be made without what decodes pictures: one without weights does, since none is decoded."""
_INDEX: Final = "model_index.json"
_CHOSEN: Final = "text_encoder_select_layers"


class _Unasked:
    """In the place of what judges pictures; a prompt is read without it."""


def make_pipeline(kind: Encoder, tokenizer: Any, module: Any) -> Any:
    """A pipeline with a tokenizer and an encoder, and nothing to draw with.

    Raises:
        UnsupportedHostError: this version of diffusers has no such pipeline.
    """
    found = _find_pipeline(kind.pipeline)
    if found is None:
        raise UnsupportedHostError(
            f"expected diffusers with {kind.pipeline}, got {load_diffusers().__version__}",
            hint="pip install --upgrade diffusers",
        )
    accepted = signature(found.__init__).parameters
    parts: dict[str, Any] = dict.fromkeys(name for name, p in list(accepted.items())[1:] if p.default is p.empty)
    if _CHECKER in accepted:  # one that is missing would be loaded
        parts[_CHECKER] = _Unasked()
    if kind.pipeline in _LOOK_AT_THE_VAE:
        with quiet(), torch.device("meta"):
            parts[_VAE] = accepted[_VAE].annotation()
    reads = {"processor": TextAlone(tokenizer)} if "processor" in accepted else {kind.tokenizer: tokenizer}
    with quiet():
        return found(**(parts | reads | {kind.component: module}))


def check_reads_text_alone(folder: Path, known: str) -> None:
    """Refuse a folder whose own pipeline reads prompts beside a picture, as those for editing do.

    Args:
        folder: the model's.
        known: the family's pipeline, which is asked with no picture.

    Raises:
        UnsupportedHostError: naming the pipeline.
    """
    named = str(_index_of(folder).get("_class_name", ""))
    reads = getattr(_find_pipeline(named), "encode_prompt", None)
    if named != known and reads is not None and {"image", "images"} & set(signature(reads).parameters):
        raise UnsupportedHostError(
            f"{folder}: expected a pipeline that reads the prompt alone, got {named}, whose encode_prompt reads it "
            "beside a picture: what a word becomes there depends on that",
            hint="rasura base add MODEL, of the model that draws from text",
            pipeline=named,
        )


def check_reads_these_layers(folder: Path, pipe: Any) -> None:
    """Refuse a folder whose pipeline is told to read other layers of its encoder than its class does by itself.

    Args:
        folder: the model's.
        pipe: the pipeline that reads its prompts, as its class makes it.

    Raises:
        UnsupportedHostError: naming both.
    """
    index, known = _index_of(folder), pipe.config.get(_CHOSEN)
    chosen = index.get(_CHOSEN)
    if chosen is not None and known is not None and list(chosen) != list(known):
        raise UnsupportedHostError(
            f"{folder}/{_INDEX}: expected {_CHOSEN} {list(known)}, as {type(pipe).__name__} reads its encoder, got "
            f"{chosen}",
            hint="rasura base add MODEL, of the model as it was published",
        )


def _index_of(folder: Path) -> dict[str, Any]:
    path = folder / _INDEX
    index = read_config(path) if path.is_file() else None
    return index if isinstance(index, dict) else {}


def _find_pipeline(name: str) -> Any:
    """A pipeline's class; None for one that this version of diffusers has not.

    Raises:
        UnsupportedHostError: a library that it reads with is not installed.
    """
    diffusers = load_diffusers()
    with quiet():
        found = getattr(diffusers, name, None) if name.isidentifier() else None
    if isinstance(found, diffusers.utils.import_utils.DummyObject):
        wanted = [backend for backend in getattr(found, "_backends", ()) if find_spec(backend) is None]
        raise UnsupportedHostError(
            f"{name}: expected the libraries that it reads with, got an environment without {', '.join(wanted)}",
            hint=f"pip install {' '.join(wanted)}",
            pipeline=name,
        )
    return found
