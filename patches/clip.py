"""Loading a pipeline's CLIP tokenizers and text encoders: from its folder alone, whole or not at all."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rasura.patches.errors import NotFoundError, UnsupportedHostError
from rasura.patches.hosts import parameter_name
from rasura.patches.names import ParamName
from rasura.patches.quiet import quiet
from rasura.patches.tower import Tower

if TYPE_CHECKING:
    import torch

    from rasura.patches.hosts.families import States

_LEAST_VOCABULARY: Final = 258  # every byte, start and end of text
_PLAIN: Final = "CLIPTextModel"
_PROJECTED: Final = "CLIPTextModelWithProjection"


def load_tower(folder: Path, component: str = "text_encoder", states: "States" = "last") -> Tower:
    """A text encoder of a diffusers folder (float32, evaluating) and its tokenizer, without the network.

    Args:
        folder: the model's.
        component: the encoder's name.
        states: which of its hidden states the denoiser reads.

    Raises:
        NotFoundError: no such folder.
        UnsupportedHostError: the folders do not hold a whole CLIP text encoder and its tokenizer.
    """
    reader = component.replace("text_encoder", "tokenizer")
    for part in (reader, component):
        if not (folder / part).is_dir():
            raise NotFoundError(
                f"{folder} has no {part}/ folder: expected a diffusers pipeline folder", hint="rasura base add DIR"
            )
    tokenizer, model, missing = _loaded(folder / reader, folder / component)
    if missing:
        raise UnsupportedHostError(
            f"{folder}: {component}/ lacks {len(missing)} tensors, {min(missing)} among them: expected all"
        )
    if not _LEAST_VOCABULARY <= len(tokenizer) <= model.config.vocab_size:
        raise UnsupportedHostError(
            f"{folder}: {reader}/ has {len(tokenizer)} entries: expected {_LEAST_VOCABULARY} to "
            f"{model.config.vocab_size}, as many as the text encoder can read"
        )
    model.train(mode=False)
    return Tower(component, tokenizer, model, states)


def put_back(model: Any, originals: "Mapping[ParamName, torch.Tensor]", component: str = "text_encoder") -> None:
    """Give a loaded text encoder these weights: what a patched folder's files held before any patch.

    Args:
        model: the text encoder.
        originals: by the names that a host gives them; names that the model has not are left out.
        component: the encoder's name in a pipeline.
    """
    import torch

    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if (original := originals.get(parameter_name(component, key))) is not None:
                parameter.copy_(original)


def _loaded(tokenizer_folder: Path, model_folder: Path) -> tuple[Any, Any, set[str]]:
    """Tokenizer, text encoder, and the tensors that its files lack: transformers would fill them with noise."""
    import torch
    import transformers
    from safetensors import SafetensorError

    try:
        with quiet():
            tokenizer = transformers.CLIPTokenizer.from_pretrained(tokenizer_folder, local_files_only=True)
            text_model: Any = getattr(transformers, _kind(model_folder))  # its annotations know nothing of the report
            model, report = text_model.from_pretrained(
                model_folder,
                local_files_only=True,
                dtype=torch.float32,
                use_safetensors=True,
                variant=_variant(model_folder),
                output_loading_info=True,
            )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise UnsupportedHostError(f"{model_folder.parent}: {model_folder.name}/ cannot be loaded: {error}") from error
    return tokenizer, model, set(report["missing_keys"])


def _kind(folder: Path) -> str:
    """The class of a text encoder: the second one of SDXL projects its pooled state."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return _PROJECTED if isinstance(config, dict) and config.get("architectures") == [_PROJECTED] else _PLAIN


def _variant(folder: Path) -> str | None:
    """The `fp16` of a lone `model.fp16.safetensors`, as Hub repositories name halves of a model."""
    names = [path.name.split(".") for path in folder.glob("model.*safetensors")]
    return names[0][1] if len(names) == 1 and len(names[0]) == 3 else None  # noqa: PLR2004  # model, variant, suffix
