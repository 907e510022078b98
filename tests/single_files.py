"""Single-file checkpoints in the CompVis layout, made of the tensors of a diffusers folder.

The names follow from the configuration by the arithmetic of `layers_per_block`, not, as in the program, from the names
themselves; a test holds the result to diffusers' own converter.

    file = single_file(tiny_model(tmp_path / "model"), tmp_path / "model.safetensors")
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

__all__ = ["single_file", "to_ldm", "to_open_clip"]

_INSIDE = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_PLAIN = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}


def single_file(folder: Path, file: Path, *, averages: bool = False) -> Path:
    """Write the pipeline in `folder` as one file; `averages` adds a running average of the UNet, as trainers leave it."""
    unet = _tensors(folder / "unet")
    layers = json.loads((folder / "unet/config.json").read_text())["layers_per_block"]
    found = {f"model.diffusion_model.{key}": tensor for key, tensor in to_ldm(unet, layers).items()}
    if averages:
        found |= {f"model_ema.{key[6:].replace('.', '')}": tensor * 0.99 for key, tensor in found.items()}
        found["model_ema.num_updates"] = torch.tensor(100, dtype=torch.int32)
    for key, tensor in _tensors(folder / "text_encoder").items():
        found[f"cond_stage_model.transformer.{key if key.startswith('text_model') else f'text_model.{key}'}"] = tensor
    found |= {f"first_stage_model.{key}": tensor for key, tensor in _tensors(folder / "vae").items()}
    save_file(found, file, metadata={"format": "pt", "modelspec.title": "tiny"})
    return file


def to_ldm(unet: Mapping[str, torch.Tensor], layers: int) -> dict[str, torch.Tensor]:
    """A UNet's tensors under their CompVis names."""
    attended = {key.split(".attentions")[0] for key in unet if ".attentions." in key}
    return {_ldm_key(key, layers, attended): tensor for key, tensor in unet.items()}


def _ldm_key(key: str, layers: int, attended: set[str]) -> str:
    stem, _, leaf = key.rpartition(".")
    if stem in _PLAIN:
        return f"{_PLAIN[stem]}.{leaf}"
    side, *rest = stem.split(".")
    if side == "mid_block":
        kind, index, *inner = rest
        place = f"middle_block.{2 * int(index) if kind == 'resnets' else 1}"
    else:
        block, kind, index, *inner = rest
        row, down = int(block) * (layers + 1), side == "down_blocks"
        if kind.endswith("samplers"):
            last = f"{row + layers + 1}.0.op" if down else f"{row + layers}.{1 + (f'{side}.{block}' in attended)}.conv"
            return f"{'input' if down else 'output'}_blocks.{last}.{leaf}"
        place = f"{'input' if down else 'output'}_blocks.{row + int(index) + down}.{int(kind == 'attentions')}"
    name = ".".join(inner)
    return f"{place}.{_INSIDE.get(name, name) if kind == 'resnets' else name}.{leaf}"


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


def _tensors(component: Path) -> dict[str, torch.Tensor]:
    return {key: tensor for file in component.glob("*.safetensors") for key, tensor in load_file(file).items()}
