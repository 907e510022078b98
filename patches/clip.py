"""Loading a pipeline's CLIP tokenizer and text encoder: from its folder alone, whole or not at all."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rasura.patches.errors import NotFoundError, UnsupportedHostError
from rasura.patches.hosts import parameter_name
from rasura.patches.names import ParamName
from rasura.patches.quiet import quiet

if TYPE_CHECKING:
    import torch

_LEAST_VOCABULARY: Final = 258  # every byte, start and end of text


def load_clip(folder: Path) -> tuple[Any, Any]:
    """The tokenizer and the text encoder (float32, evaluating) of a diffusers folder, without the network.

    Raises:
        NotFoundError: no such folder.
        UnsupportedHostError: the folders do not hold a whole CLIP text encoder and its tokenizer.
    """
    for part in ("tokenizer", "text_encoder"):
        if not (folder / part).is_dir():
            raise NotFoundError(
                f"{folder} has no {part}/ folder: expected a diffusers pipeline folder", hint="rasura base add DIR"
            )
    tokenizer, model, missing = _loaded(folder)
    if missing:
        raise UnsupportedHostError(
            f"{folder}: text_encoder/ lacks {len(missing)} tensors, {min(missing)} among them: expected all"
        )
    if not _LEAST_VOCABULARY <= len(tokenizer) <= model.config.vocab_size:
        raise UnsupportedHostError(
            f"{folder}: tokenizer/ has {len(tokenizer)} entries: expected {_LEAST_VOCABULARY} to "
            f"{model.config.vocab_size}, as many as the text encoder can read"
        )
    model.train(mode=False)
    return tokenizer, model


def put_back(model: Any, originals: "Mapping[ParamName, torch.Tensor]") -> None:
    """Give a loaded text encoder these weights: what a patched folder's files held before any patch.

    Args:
        model: the text encoder.
        originals: by the names that a host gives them; names that the model has not are left out.
    """
    import torch

    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if (original := originals.get(parameter_name("text_encoder", key))) is not None:
                parameter.copy_(original)


def _loaded(folder: Path) -> tuple[Any, Any, set[str]]:
    """Tokenizer, text encoder, and the tensors that its files lack: transformers would fill them with noise."""
    import torch
    from safetensors import SafetensorError
    from transformers import CLIPTextModel, CLIPTokenizer

    text_model: Any = CLIPTextModel  # its annotations know nothing of the report
    try:
        with quiet():
            tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
            model, report = text_model.from_pretrained(
                folder / "text_encoder",
                local_files_only=True,
                dtype=torch.float32,
                use_safetensors=True,
                variant=_variant(folder / "text_encoder"),
                output_loading_info=True,
            )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise UnsupportedHostError(f"{folder}: its text encoder cannot be loaded: {error}") from error
    return tokenizer, model, set(report["missing_keys"])


def _variant(folder: Path) -> str | None:
    """The `fp16` of a lone `model.fp16.safetensors`, as Hub repositories name halves of a model."""
    names = [path.name.split(".") for path in folder.glob("model.*safetensors")]
    return names[0][1] if len(names) == 1 and len(names[0]) == 3 else None  # noqa: PLR2004  # model, variant, suffix
