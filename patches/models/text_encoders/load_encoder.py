"""Loading a pipeline's tokenizers and text encoders: from its folder alone, whole or not at all."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import torch
from safetensors import SafetensorError

from rasura.patches._io.files import check_regular_files, read_config
from rasura.patches.errors import NotFoundError, RasuraError, UnsupportedHostError
from rasura.patches.hosts.interface import name_parameter
from rasura.patches.models.families import CLIP, encoders_of
from rasura.patches.models.family import Encoder, Family
from rasura.patches.models.library_output import load_transformers, quiet
from rasura.patches.models.text_encoders.clip_or_t5 import Tower
from rasura.patches.models.text_encoders.encoder_place import dtype_for
from rasura.patches.models.text_encoders.pipeline_tower import PipelineTower
from rasura.patches.models.text_encoders.reading_pipeline import (
    check_reads_text_alone,
    check_reads_these_layers,
    make_pipeline,
)
from rasura.patches.models.text_encoders.sentencepiece_file import take_model
from rasura.patches.models.text_encoders.tokenizer_reading import check_one_tokenizer, describe_file
from rasura.patches.types import ParamName

_UNREADABLE: Final = (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError)
_LEAST_VOCABULARY: Final = 258  # every byte, start and end of text
_OF_DIFFUSERS: Final = {
    "ChatGLMModel": "diffusers.pipelines.kolors.text_encoder",
    "ChatGLMTokenizer": "diffusers.pipelines.kolors.tokenizer",
}
"""Classes that transformers has not and diffusers brings along; no code out of a model's folder is run."""
_PLAIN: Final = "CLIPTextModel"
_PROJECTED: Final = "CLIPTextModelWithProjection"


def load_readers(folder: Path, family: Family | None = None) -> list[Tower]:
    """The tokenizers of a diffusers folder without the weights of their encoders.

    Raises:
        UnsupportedHostError: they cannot be loaded.
    """
    return [load_reader(folder, encoder) for encoder in encoders_of(family)]


def load_tower(folder: Path, kind: Encoder = CLIP) -> Tower:
    """A text encoder of a diffusers folder and its tokenizer, without the network: float32 unless chosen otherwise.

    Args:
        folder: the model's.
        kind: which of the encoders, and what the family's table says of it.

    Raises:
        NotFoundError: no such folder.
        UnsupportedHostError: the folders do not hold a whole text encoder and its tokenizer.
    """
    for part in (kind.tokenizer, kind.component):
        if not (folder / part).is_dir():
            raise _missing(folder, part, kind)
    if kind.kind == "pipeline":
        check_reads_text_alone(folder, kind.pipeline)
    tokenizer, model, missing = _loaded(folder / kind.tokenizer, folder / kind.component, kind)
    if missing:
        raise UnsupportedHostError(
            f"{folder}: {kind.component}/ lacks {len(missing)} tensors, {min(missing)} among them: expected all"
        )
    least = _LEAST_VOCABULARY if kind.kind == "CLIP" else 1
    most = model.config.get_text_config().vocab_size
    if not least <= len(tokenizer) <= most:
        raise UnsupportedHostError(
            f"{folder}: {kind.tokenizer}/ has {len(tokenizer)} entries: expected {least} to "
            f"{most}, as many as the text encoder can read"
        )
    model.train(mode=False)
    return _towered(folder, kind, tokenizer, model)


def at_layer(tower: Tower, layer: int) -> Tower:
    """The same encoder, of which one layer's hidden states are read.

    Raises:
        UnsupportedHostError: it has no such layer.
    """
    most = int(tower.module.config.get_text_config().num_hidden_layers)
    if not isinstance(tower, PipelineTower) or layer >= most:
        raise UnsupportedHostError(
            f"{tower.component}: expected layers 0 to {most - 1}, got {layer} by the denoiser's configuration",
            hint="rasura base add MODEL, of the model as it was published",
        )
    return replace(tower, reading_layer=layer)


def _missing(folder: Path, part: str, kind: Encoder) -> NotFoundError:
    if kind.component == CLIP.component and (folder / "text_encoder_2").is_dir():
        return NotFoundError(
            f"{folder} has no {part}/ folder, and has text_encoder_2/: expected a whole model, got what may be SDXL's "
            "refiner, which reads the second encoder alone; no patch is computed for it, and concepts come back by it",
            hint="rasura base add MODEL, of the base model",
        )
    if kind.component == CLIP.component:
        return NotFoundError(
            f"{folder} has no {part}/ folder: expected a diffusers pipeline folder", hint="rasura base add DIR"
        )
    return NotFoundError(
        f"{folder} has no {part}/ folder: it was saved without one of the encoders that the model reads, and what is "
        "solved without it is not what a whole pipeline draws; put "
        f"{kind.tokenizer}/ and {kind.component}/ of the whole model there",
        hint="rasura base add DIR",
        encoder=kind.component,
    )


def load_reader(folder: Path, kind: Encoder = CLIP) -> Tower:
    """A tokenizer alone, in a tower whose module holds a configuration and no weights.

    Raises:
        UnsupportedHostError: as `load_tower`.
    """
    if kind.kind == "pipeline":  # what it puts around a prompt is seen only where it reads one
        return load_tower(folder, kind)
    name = _class(folder / kind.component, kind)
    settings = getattr(load_transformers(), "T5Config" if kind.kind == "T5" else "CLIPTextConfig")
    try:
        with quiet():
            config = settings.from_pretrained(folder / kind.component, local_files_only=True)
            tokenizer = _tokenizer(folder / kind.tokenizer, kind)
    except _UNREADABLE as error:
        raise UnsupportedHostError(f"{folder}: {kind.tokenizer}/ cannot be loaded: {error}") from error
    return _towered(folder, kind, tokenizer, SimpleNamespace(config=config, name=name))


def _towered(folder: Path, kind: Encoder, tokenizer: Any, module: Any) -> Tower:
    check_one_tokenizer(folder / kind.tokenizer)
    if kind.kind == "pipeline":
        pipe = make_pipeline(kind, tokenizer, module)
        check_reads_these_layers(folder, pipe)
        return PipelineTower(kind, tokenizer, module, pipe=pipe, reading_layer=0 if kind.layered else None)
    return Tower(kind, tokenizer, module, describe_file(folder / kind.tokenizer, tokenizer))


def take_readers(parts: Mapping[str, object], kinds: Iterable[Encoder]) -> list[Tower] | None:
    """The tokenizers of a live pipeline with the configurations of their encoders; None where they cannot be asked.

    A tokenizer that was read from a folder remembers it; what that folder's files say otherwise than its class counts
    as it does on disk. Without the folder, what was loaded counts alone.
    """
    found: list[Tower] = []
    for kind in kinds:
        tokenizer: Any = parts.get(kind.tokenizer)
        if kind.kind == "pipeline":  # FLUX.2's is a processor of pictures, too, in which the tokenizer lies
            tokenizer = tokenizer if take_model(tokenizer) else getattr(tokenizer, "tokenizer", tokenizer)
        config = getattr(parts.get(kind.component), "config", None)
        fast = getattr(tokenizer, "backend_tokenizer", None)
        if config is None or (fast is None and take_model(tokenizer) is None):
            return None
        module = SimpleNamespace(config=config, name=kind.component)
        if kind.kind == "pipeline":
            whole = parts[kind.component]  # a pipeline looks at its encoder's class; nothing of it is run
            pipe, layer = make_pipeline(kind, tokenizer, whole), 0 if kind.layered else None
            found.append(PipelineTower(kind, tokenizer, whole, pipe=pipe, reading_layer=layer))
            continue
        folder = Path(str(getattr(tokenizer, "name_or_path", "")) or "-")
        found.append(Tower(kind, tokenizer, module, describe_file(folder, tokenizer) if folder.is_dir() else {}))
    return found


def _tokenizer(folder: Path, kind: Encoder) -> Any:
    path = folder / "tokenizer_config.json"
    settings = read_config(path) if kind.kind == "pipeline" and path.is_file() else {}
    named = settings.get("tokenizer_class") if isinstance(settings, dict) else None
    general = "CLIPTokenizer" if kind.kind == "CLIP" else "AutoTokenizer"
    reader = _find_class(str(named) if named in _OF_DIFFUSERS else general)
    return reader.from_pretrained(folder, local_files_only=True)


def _find_class(name: str) -> Any:
    """A class of transformers, or of those that diffusers brings along."""
    # Seconds, and a motion mostly needs no text encoder.
    return getattr(import_module(_OF_DIFFUSERS.get(name, "transformers")), name)


def put_back(model: Any, originals: "Mapping[ParamName, torch.Tensor]", component: str = "text_encoder") -> None:
    """Give a loaded text encoder these weights: what a patched folder's files held before any patch.

    Args:
        model: the text encoder.
        originals: by the names that a host gives them; names that the model has not are left out.
        component: the encoder's name in a pipeline.
    """
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if (original := originals.get(name_parameter(component, key))) is not None:
                parameter.copy_(original)


def _loaded(tokenizer_folder: Path, model_folder: Path, kind: Encoder) -> tuple[Any, Any, set[str]]:
    """Tokenizer, text encoder, and the tensors that its files lack: transformers would fill them with noise."""
    reading = tokenizer_folder
    try:
        check_regular_files(tokenizer_folder)
        with quiet():
            tokenizer = _tokenizer(tokenizer_folder, kind)
        reading = model_folder
        check_regular_files(model_folder)
        with quiet():
            model, report = _find_class(_class(model_folder, kind)).from_pretrained(
                model_folder,
                local_files_only=True,
                dtype=dtype_for(kind),
                use_safetensors=True,
                variant=_variant(model_folder),
                output_loading_info=True,
            )
    except (*_UNREADABLE, RasuraError) as error:
        raise UnsupportedHostError(f"{reading.parent}: {reading.name}/ cannot be loaded: {error}") from error
    return tokenizer, model, set(report["missing_keys"])


def _class(folder: Path, kind: Encoder) -> str:
    """The class of a text encoder: some CLIPs project their pooled state."""
    if kind.kind == "T5":
        return "T5EncoderModel"
    config = read_config(folder / "config.json")
    if kind.kind == "pipeline":
        named = config.get("architectures") if isinstance(config, dict) else None
        if not isinstance(named, list) or len(named) != 1 or not str(named[0]).isidentifier():
            raise UnsupportedHostError(f"{folder}/config.json: expected one class under architectures, got {named!r}")
        return str(named[0])
    return _PROJECTED if isinstance(config, dict) and config.get("architectures") == [_PROJECTED] else _PLAIN


def _variant(folder: Path) -> str | None:
    """The `fp16` of a lone `model.fp16.safetensors`, as Hub repositories name halves of a model."""
    names = [path.name.split(".") for path in folder.glob("model.*safetensors")]
    return names[0][1] if len(names) == 1 and len(names[0]) == 3 else None  # noqa: PLR2004  # model, variant, suffix
