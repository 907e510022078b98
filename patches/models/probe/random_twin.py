"""A random twin of a denoiser: the same class from the same configuration, with fewer layers and narrower.

Which layer reads what is a matter of the class and its configuration, not of the weights; so a model of any size is
probed by a twin of a few million numbers. Widths of text and picture stay, because they decide what goes where.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch

from rasura.patches.errors import UnsupportedHostError
from rasura.patches.models.library_output import load_diffusers, quiet

__all__ = ["Twin", "list_shapes", "make_twins"]

_LAYERS: Final = frozenset(
    {
        "num_layers", "num_single_layers", "num_mmdit_layers", "num_single_dit_layers", "n_layers", "depth",
        "num_refiner_layers", "n_refiner_layers", "layers_per_block", "approximator_layers",
        "num_layerwise_text_blocks", "num_refiner_text_blocks",
        "transformer_layers_per_block", "reverse_transformer_layers_per_block", "temporal_transformer_layers_per_block",
    }
)  # fmt: skip
_COUNTS: Final = frozenset({"num_layers", "num_single_layers", "n_layers", "num_refiner_layers", "n_refiner_layers"})
_KEPT: Final = 2
"""So many of these stay: in some families the first block alone is fed otherwise."""
_FEW_HEADS: Final = (2, 4)
_HEADS: Final = ("num_attention_heads", "n_heads", "num_heads")
_OTHER_HEADS: Final = ("n_kv_heads", "num_kv_heads", "num_cross_attention_heads", "num_key_value_heads")
_OF_TEXT: Final = frozenset(
    {
        "caption_channels", "joint_attention_dim", "text_dim", "text_embed_dim", "cap_feat_dim", "context_in_dim",
        "pooled_projection_dim", "text_emb_dim", "encoder_hid_dim", "in_channels", "out_channels",
        "encoder_hidden_states_channels", "crossattn_proj_in_channels", "text_hidden_dim", "cross_attention_dim_t5",
        "attention_head_dim",
        "cross_attention_head_dim", "sample_size", "sample_width", "sample_height", "num_embeds_ada_norm",
    }
)  # fmt: skip
_FEED_FORWARD: Final = ("ffn_dim", "approximator_hidden_dim", "time_embed_dim", "text_intermediate_size")
_MOST: Final = 600_000_000
"""Parameters up to which a twin is made at all; 4 bytes each."""
_SMALL: Final = 3_000_000
_PADDED: Final = "concat_padding_mask"
_PICKED: Final = "llama_layers"
_SCALE: Final = 0.1
_GROUP: Final = 32


@dataclass(frozen=True, slots=True, eq=False)
class Twin:
    """A denoiser with random weights.

    Attributes:
        module: float32, on the CPU, evaluating.
        how: what it is to the model, for people.
    """

    module: Any
    how: str


def make_twins(name: str, config: Mapping[str, Any], *, seed: int = 0) -> Iterator[Twin]:
    """Twins of a class of diffusers, from the smallest on; a caller takes the first that runs.

    Args:
        name: the class.
        config: its configuration, as `config.json` has it.
        seed: of the weights.

    Raises:
        UnsupportedHostError: diffusers has no such class, or no twin can be built.
    """
    diffusers = load_diffusers()
    with quiet():
        kind = getattr(diffusers, name, None)
    if not isinstance(kind, type) or not issubclass(kind, torch.nn.Module):
        raise UnsupportedHostError(
            f"expected a denoiser of diffusers {diffusers.__version__}, got class {name!r}: it has none of this name",
            hint="pip install --upgrade diffusers",
        )
    plain = {key: value for key, value in config.items() if not key.startswith("_")}
    said: list[str] = []
    try:
        wanted_ones = list(_shrunk(plain, kind))
    except Exception as error:
        raise UnsupportedHostError(
            f"{name}: nothing can be built of its configuration: {type(error).__name__}: {error}",
            hint="take config.json from the model itself",
        ) from error
    for wanted in wanted_ones:
        try:
            if (size := _size(kind, wanted)) > _MOST:
                said.append(f"{size} parameters")
                continue
            twin = Twin(_random(kind, wanted, seed), _say_how(plain, wanted))
        except Exception as error:  # noqa: BLE001  # each class refuses configurations in its own way
            said.append(f"{type(error).__name__}: {error}")
        else:
            yield twin
    if said:
        raise UnsupportedHostError(
            f"{name}: no small twin can be built of its configuration: {said[0]}", hint="rasura methods"
        )


def list_shapes(name: str, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """What parameters a denoiser of this class and configuration has, without making one of them.

    Args:
        name: a class of diffusers, of which a twin was made.
        config: its configuration, as `config.json` has it.
    """
    with quiet(), torch.device("meta"):
        module = getattr(load_diffusers(), name).from_config({k: v for k, v in config.items() if not k.startswith("_")})
    return {key: tuple(parameter.shape) for key, parameter in module.named_parameters()}


def _size(kind: Any, config: Mapping[str, Any]) -> int:
    with quiet(), torch.device("meta"):
        return sum(p.numel() for p in kind.from_config(dict(config)).parameters())


def _random(kind: Any, config: Mapping[str, Any], seed: int) -> Any:
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = kind.from_config(dict(config)).to(torch.float32)
        for parameter in module.parameters():  # gates begin at zero, behind which nothing would be seen
            parameter.data.normal_(0, _SCALE)
    return module.requires_grad_(False).eval()  # noqa: FBT003  # torch's own signature


def _shrunk(config: dict[str, Any], kind: Any) -> Iterator[dict[str, Any]]:
    """Configurations from the smallest to the largest worth trying; of a small model its own alone."""
    if config.get(_PADDED):  # a channel of the picture, for which Cosmos asks torchvision
        config = {**config, _PADDED: False}
    if _size(kind, config) <= _SMALL:
        yield config
        return
    # Where each block reads a layer of the encoder of its own, all of them are asked.
    shallow = dict(config) if config.get(_PICKED) else {key: _fewer(key, value) for key, value in config.items()}
    if "block_out_channels" in config:
        yield _narrow_unet(shallow)
    else:
        yield from (found for heads in _FEW_HEADS if (found := _narrow(shallow, heads)) is not None)
    yield shallow


def _fewer(key: str, value: Any) -> Any:
    if key not in _LAYERS or value is None:
        return value
    if isinstance(value, list | tuple):
        return type(value)([1] * len(value)) if all(isinstance(each, int) for each in value) else value
    return min(value, _KEPT if key in _COUNTS else 1)


def _narrow(config: Mapping[str, Any], heads: int) -> dict[str, Any] | None:
    """With so many heads; whatever was as wide as all heads together stays as wide as they are."""
    key = next((key for key in _HEADS if isinstance(config.get(key), int)), None)
    if key is None or config[key] <= heads:
        return None
    head = config.get("attention_head_dim")
    wide = next((config[name] for name in ("dim", "hidden_size") if isinstance(config.get(name), int)), None)
    inner = wide or config[key] * (head if isinstance(head, int) else 1)
    narrow = inner // config[key] * heads
    found: dict[str, Any] = {}
    for name, value in config.items():
        if name == key:
            found[name] = heads
        elif name in _OTHER_HEADS and isinstance(value, int):
            found[name] = min(heads, value)
        elif name in _FEED_FORWARD and isinstance(value, int):
            found[name] = min(value, narrow)
        elif name not in _OF_TEXT and isinstance(value, int) and value == inner:
            found[name] = narrow
        else:
            found[name] = value
    if "num_cross_attention_heads" in config:  # a second set of heads of another size, as wide as the first
        found |= {"num_cross_attention_heads": 1, "cross_attention_head_dim": narrow}
    return found


def _narrow_unet(config: Mapping[str, Any]) -> dict[str, Any]:
    channels = config["block_out_channels"]
    found = {**config, "block_out_channels": tuple(_GROUP if i == 0 else 2 * _GROUP for i in range(len(channels)))}
    for key in ("attention_head_dim", "num_attention_heads"):
        value = config.get(key)
        if value is not None:
            found[key] = 8 if isinstance(value, int) else [8] * len(value)
    return found


def _say_how(config: Mapping[str, Any], twin: Mapping[str, Any]) -> str:
    changed = [f"{key} {twin[key]} of {config[key]}" for key in sorted(config) if twin[key] != config[key]]
    return "a random twin" + (f" with {', '.join(changed)}" if changed else " of its size")
