"""Single-file checkpoints in the CompVis layout, made of the tensors of a diffusers folder.

The names follow from the configuration by the arithmetic of `layers_per_block`, as in `examples/single_file.py`, and
not, as in the program, from the names themselves; a test holds the result to diffusers' own converter.

    file = single_file(tiny_model(tmp_path / "model"), tmp_path / "model.safetensors")
"""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from examples.single_file import single_file, to_ldm
else:
    _spec = importlib.util.spec_from_file_location("single_file", Path(__file__).parents[3] / "examples/single_file.py")
    _example = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(_example)
    single_file, to_ldm = _example.single_file, _example.to_ldm

__all__ = ["single_file", "to_ldm", "to_open_clip"]

_OPEN = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
_OPEN_PLAIN = {
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
}


def to_open_clip(text: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A CLIP text encoder's tensors, `text_model.…`, as OpenCLIP keeps them: one tensor for query, key and value."""
    found: dict[str, torch.Tensor] = {}
    for key, tensor in text.items():
        if key in _OPEN_PLAIN:
            found[_OPEN_PLAIN[key]] = tensor
        elif key == "text_projection.weight":
            found["text_projection"] = tensor.T.contiguous()
        elif ".self_attn." not in key or ".out_proj." in key:
            layer, _, rest = key.removeprefix("text_model.encoder.layers.").partition(".")
            stem, _, leaf = rest.rpartition(".")
            found[f"transformer.resblocks.{layer}.{_OPEN[stem]}.{leaf}"] = tensor
        elif ".q_proj." in key:
            layer, leaf = key.split(".")[3], key.rpartition(".")[2]
            thirds = [text[key.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            found[f"transformer.resblocks.{layer}.attn.in_proj_{leaf}"] = torch.cat(thirds)
    return found
