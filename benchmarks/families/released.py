"""Configurations of released denoisers, as diffusers' classes have them by default or its scripts write them.

What is not named in a row is the default of the class in the installed diffusers. No torch: whoever measures other
processes holds little memory of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["CONFIGURED", "WHOLE", "Released"]


@dataclass(frozen=True, slots=True)
class Released:
    """One released model.

    Attributes:
        name: as people call it.
        kind: the class of its denoiser in diffusers.
        options: where its configuration differs from the defaults of the class.
        source: where that is written.
        encoder: of the ones that `random_model.py` makes; "" where the denoiser is only configured.
        depth: how many layers of it are made; some pipelines read the last but one.
        layers: what is erased in, for `--layers`.
    """

    name: str
    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)
    source: str = "defaults of the class"
    encoder: str = ""
    depth: int = 1
    layers: tuple[str, ...] = ("text",)


_WAN: Final = "diffusers' convert_wan_to_diffusers.py"
_FLUX2: Final = "diffusers' convert_flux2_to_diffusers.py"
_KLEIN: Final[Mapping[str, Any]] = {"guidance_embeds": False}
_COSMOS: Final = "diffusers' convert_cosmos_to_diffusers.py"
_COSMOS_25: Final[Mapping[str, Any]] = {
    "in_channels": 17,
    "num_attention_heads": 16,
    "rope_scale": (1.0, 3.0, 3.0),
    "extra_pos_embed_type": None,
    "use_crossattn_projection": True,
    "crossattn_proj_in_channels": 100352,
}
_KOLORS: Final[Mapping[str, Any]] = {
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": (5, 10, 20),
    "transformer_layers_per_block": (1, 2, 10),
    "cross_attention_dim": 2048,
    "encoder_hid_dim": 4096,
    "encoder_hid_dim_type": "text_proj",
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 5632,
    "sample_size": 128,
}

_HIDREAM: Final = {
    "patch_size": 2,
    "in_channels": 16,
    "out_channels": 16,
    "caption_channels": [4096, 4096],
    "axes_dims_rope": [64, 32, 32],
    "llama_layers": [*range(32), *[31] * 16],
}

WHOLE: Final = (
    Released("Sana 1.6B", "SanaTransformer2DModel", encoder="Gemma2", layers=("text", "kv")),
    Released(
        "Wan 2.1 1.3B",
        "WanTransformer3DModel",
        {"num_attention_heads": 12, "num_layers": 30, "ffn_dim": 8960},
        _WAN,
        encoder="UMT5",
        layers=("kv",),
    ),
    Released("Lumina 2", "Lumina2Transformer2DModel", {"cap_feat_dim": 2304}, "its config.json", "Gemma2", depth=2),
    Released("Z-Image", "ZImageTransformer2DModel", encoder="Qwen3", depth=2),
)
"""Written with all their weights, random and in bfloat16, and erased in."""

CONFIGURED: Final = (
    Released("LTX-Video 2B", "LTXVideoTransformer3DModel"),
    Released("Wan 2.1 14B", "WanTransformer3DModel"),
    Released(
        "FLUX.2 klein 4B",
        "Flux2Transformer2DModel",
        {**_KLEIN, "num_layers": 5, "num_single_layers": 20, "num_attention_heads": 24, "joint_attention_dim": 7680},
        _FLUX2,
    ),
    Released(
        "FLUX.2 klein 9B",
        "Flux2Transformer2DModel",
        {**_KLEIN, "num_layers": 8, "num_single_layers": 24, "num_attention_heads": 32, "joint_attention_dim": 12288},
        _FLUX2,
    ),
    Released("FLUX.2 dev", "Flux2Transformer2DModel"),
    Released("Qwen-Image", "QwenImageTransformer2DModel"),
    Released("Chroma", "ChromaTransformer2DModel"),
    Released("AuraFlow", "AuraFlowTransformer2DModel"),
    Released(
        "CogView4 6B",
        "CogView4Transformer2DModel",
        {"num_layers": 28, "num_attention_heads": 32, "attention_head_dim": 128},
        "diffusers' convert_cogview4_to_diffusers.py",
    ),
    Released("HunyuanVideo", "HunyuanVideoTransformer3DModel"),
    Released(
        "Cosmos-Predict2 2B",
        "CosmosTransformer3DModel",
        {"num_attention_heads": 16, "rope_scale": (1.0, 4.0, 4.0), "extra_pos_embed_type": None},
        _COSMOS,
    ),
    Released("Cosmos-Predict2.5 2B", "CosmosTransformer3DModel", _COSMOS_25, _COSMOS),
    Released("Qwen-Image 2.1", "QwenImage21Transformer2DModel"),
    Released("Krea 2", "Krea2Transformer2DModel"),
    Released("ERNIE-Image", "ErnieImageTransformer2DModel"),
    Released("HiDream I1", "HiDreamImageTransformer2DModel", _HIDREAM, "its config.json"),
    Released("Kolors", "UNet2DConditionModel", _KOLORS, "its config.json"),
)
"""Probed from their configuration; no weight of them exists here."""
