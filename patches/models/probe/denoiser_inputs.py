"""Small inputs for a denoiser of any class, from the names of what its `forward` takes and from its configuration.

The names are diffusers' own and few: a picture (`sample`, `hidden_states`, `x`), a time (`timestep`, `t`), token states
(`encoder_hidden_states`, `cap_feats`), pooled text (`pooled_projections`, `text_embeds`). What shape the picture has
cannot be told from them: all that are in use are tried.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch

__all__ = ["LENGTH", "SHAPES", "Inputs", "make_inputs"]

LENGTH: Final = 32
"""Words of the text."""
SHAPES: Final = ("frame", "film", "packed", "frames")
"""A picture [1, c, 8, 8], a film [1, c, 1, 8, 8], patches in a row [1, 16, c], or a film [1, 1, c, 8, 8]."""
_SIDE: Final = 8
_PATCHES: Final = 16
_SLOTS: Final = 4
"""Places of the picture among the words, four patches each, as Qwen-Image 2.1 counts them."""
_PICTURES: Final = ("sample", "hidden_states", "x")
_LISTED: Final = "x"
_TIMES: Final = ("timestep", "timesteps", "t")
_WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    "encoder_hidden_states": (
        "encoder_hid_dim",
        "caption_channels",
        "joint_attention_dim",
        "text_embed_dim",
        "text_dim",
        "cap_feat_dim",
        "context_in_dim",
        "cross_attention_dim",
        "text_hidden_dim",
    ),
    "encoder_hidden_states_t5": ("cross_attention_dim_t5", "caption_channels"),
    "encoder_hidden_states_llama3": ("caption_channels",),
    "cap_feats": ("cap_feat_dim",),
    "text_bth": ("text_in_dim",),
}
"""Token states, and where a configuration has their width."""
_STACKED: Final = "num_text_layers"
"""Of how many layers of its encoder a token's states are, one above the other."""
_LAYERED: Final = "encoder_hidden_states_llama3"
_PICKED: Final = "llama_layers"
"""Layers of an encoder, one above the other, and which of them each block picks."""
_APART: Final = 1000
"""Added to the seed of these states, so that none of them are those of another argument."""
_BEHIND: Final = "crossattn_proj_in_channels"
_POOLED: Final[Mapping[str, tuple[str, ...]]] = {
    "pooled_projections": ("pooled_projection_dim",),
    "pooled_embeds": ("text_emb_dim",),
}
_MASKS: Final = ("encoder_attention_mask", "encoder_hidden_states_mask", "text_embedding_mask")


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """Arguments of one forward.

    Attributes:
        given: by their names.
        words: the token states among them, each [length, width], or [length, layers, width] of several layers; an
            entry each of an argument that takes layers one above the other.
    """

    given: Mapping[str, Any]
    words: Mapping[str, torch.Tensor]


def make_inputs(module: Any, shape: str, seeds: Mapping[str, int]) -> Inputs:
    """Arguments for one forward.

    Args:
        module: the denoiser, float32 on the CPU.
        shape: one of `SHAPES`.
        seeds: of `picture`, `time`, `text` and `pooled`; another seed is another input.

    Raises:
        KeyError: an argument without a default of which nothing is known here, or none that is text.
    """
    return _Maker(dict(module.config), shape, seeds).make(inspect.signature(type(module).forward))


@dataclass(frozen=True, slots=True)
class _Maker:
    config: Mapping[str, Any]
    shape: str
    seeds: Mapping[str, int]

    def make(self, signature: inspect.Signature) -> Inputs:
        given: dict[str, Any] = {}
        words: dict[str, torch.Tensor] = {}
        for name, parameter in list(signature.parameters.items())[1:]:  # without self
            needed = parameter.default is inspect.Parameter.empty
            if name == _LAYERED:
                layers = self._layers(name)
                words |= {f"{name}[{number}]": layer for number, layer in enumerate(layers)}
                given[name] = layers[:, None]
            elif name in _WORDS:
                words[name] = self._words(name)
                given[name] = self._as_given(name, words[name])
            elif (value := self._value(name, needed=needed)) is not None:
                given[name] = value
            elif needed:
                raise KeyError(name)
        if not words:
            raise KeyError(*_WORDS)
        return Inputs(given, words)

    def _value(self, name: str, *, needed: bool) -> Any:
        if name in _PICTURES:
            return self._picture(listed=name == _LISTED)
        if name in _TIMES:
            return torch.tensor([500.0 - 250.0 * self.seeds["time"]])
        if name in _POOLED:
            width = _width(self.config, _POOLED[name])
            return None if width is None else _normal(self.seeds["pooled"], 1, width)
        if name in _MASKS:
            return torch.ones(1, LENGTH, dtype=torch.int64) if needed else None
        return self._fixed().get(name)

    def _fixed(self) -> dict[str, Any]:
        """What stays the same whatever is asked about."""
        config, packed = self.config, self.shape == "packed"
        columns = max(3, len(config.get("axes_dims_rope") or ()))
        size = torch.full((1, 2), float(_SIDE))
        return {
            "added_cond_kwargs": self._added(),
            "img_ids": _grid(_PATCHES, columns),
            "txt_ids": torch.zeros(LENGTH, columns),
            "position_ids": torch.cat([torch.zeros(LENGTH, columns), _grid(_PATCHES, columns)])
            if _STACKED in config
            else None,
            "img_shapes": [[(1, 4, 4)]],
            "img_mask": torch.arange(LENGTH + _SLOTS)[None] >= LENGTH,
            "text_lens": torch.tensor([LENGTH]),
            "guidance": torch.tensor([4.0]) if config.get("guidance_embeds") else None,
            "num_frames": 1 if packed else None,
            "height": 4 if packed else None,
            "width": 4 if packed else None,
            "original_size": size,
            "target_size": size,
            "crop_coords": torch.zeros(1, 2),
            "padding_mask": torch.zeros(1, 1, _SIDE, _SIDE),
            "return_dict": False,
        }

    def _picture(self, *, listed: bool) -> Any:
        channels = int(self.config.get("in_channels") or 4)
        sizes = {
            "frame": (1, channels, _SIDE, _SIDE),
            "film": (1, channels, 1, _SIDE, _SIDE),
            "packed": (1, _PATCHES, channels),
            "frames": (1, 1, channels, _SIDE, _SIDE),
        }
        made = _normal(self.seeds["picture"], *sizes[self.shape])
        return list(made) if listed else made  # Z-Image takes a list of pictures

    def _words(self, name: str) -> torch.Tensor:
        keys = (_BEHIND,) if self.config.get("use_crossattn_projection") else _WORDS[name]  # Cosmos 2.5
        width = _width(self.config, keys)
        if width is None:
            raise KeyError(name)
        layers = (int(self.config[_STACKED]),) if _STACKED in self.config else ()
        return _normal(self.seeds["text"], LENGTH, *layers, width)

    def _as_given(self, name: str, words: torch.Tensor) -> Any:
        if name == "cap_feats":
            return [words]
        return words[None]

    def _layers(self, name: str) -> torch.Tensor:
        """States of all layers of an encoder that a denoiser picks from, [layers, length, width]: each other ones."""
        width = _width(self.config, _WORDS[name], last=True)
        chosen = [int(each) for each in self.config.get(_PICKED) or (0,)]
        if width is None:
            raise KeyError(name)
        return _normal(_APART + self.seeds["text"], max(chosen) + 1, LENGTH, width)

    def _added(self) -> dict[str, torch.Tensor | None]:
        config = self.config
        if config.get("addition_embed_type") == "text_time":
            ids = 6
            pooled = config["projection_class_embeddings_input_dim"] - ids * config["addition_time_embed_dim"]
            return {
                "text_embeds": _normal(self.seeds["pooled"], 1, pooled),
                "time_ids": torch.arange(float(ids))[None],
            }
        if config.get("use_additional_conditions") or (
            config.get("use_additional_conditions") is None and config.get("sample_size") == 128  # noqa: PLR2004
        ):
            return {"resolution": torch.tensor([[8.0, 8.0]]), "aspect_ratio": torch.tensor([[1.0]])}
        return {"resolution": None, "aspect_ratio": None}


def _width(config: Mapping[str, Any], keys: tuple[str, ...], *, last: bool = False) -> int | None:
    for key in keys:
        value = config.get(key)
        if isinstance(value, list | tuple) and value:
            value = value[-1 if last else 0]
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return None


def _normal(seed: int, *size: int) -> torch.Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def _grid(rows: int, columns: int) -> torch.Tensor:
    found = torch.zeros(rows, columns)
    found[:, 1], found[:, 2] = torch.arange(rows) // 4, torch.arange(rows) % 4
    return found
