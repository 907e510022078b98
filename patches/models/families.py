"""Families of text-to-image models: what encodes their text, and which of their layers read what of it.

One row a family; everything is told from the names and shapes of a host's parameters, never from a configuration file.

    family      text encoders (width)                       layers that read text embeddings as they are
    SD 1.x      text_encoder: CLIP (768)                     attn2.to_k, attn2.to_v
    SD 2.x      text_encoder: CLIP (1024)                    attn2.to_k, attn2.to_v
    SDXL        text_encoder, text_encoder_2: CLIP           attn2.to_k, attn2.to_v, of both side by side (2048)
                (768 + 1280)
    SD3         two CLIPs and text_encoder_3: T5 (4096)      context_embedder
    FLUX        text_encoder: CLIP (pooled only),            context_embedder
                text_encoder_2: T5 (4096)
    PixArt      text_encoder: T5 (4096)                      caption_projection.linear_1

What looks like a text projection and is none: PixArt's `attn2` reads what a two-layer network made of the text; in SD3
and FLUX `add_k_proj` and `add_v_proj` read a stream that is modulated by the time step and, from the second block on,
has attended to the picture; `attn2` of SD3.5's dual blocks reads the picture alone.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from rasura.patches.hosts.interface import ParameterInfo
from rasura.patches.models.family import Encoder, Family, Reader
from rasura.patches.types import ParamName

__all__ = ["CLIP", "FAMILIES", "PROJECTED", "find_family"]


_ATTENTION: Final = ("unet.*.attn2.to_k.weight", "unet.*.attn2.to_v.weight")
_MOTION: Final = ".motion_modules."
_UNET: Final = (
    *(Reader(f"unet.*{_MOTION}*.attn2.to_{role}.weight", "picture") for role in "kv"),  # AnimateDiff's: over frames
    *(Reader(pattern, "text") for pattern in _ATTENTION),
)
# A UNet with this projects its text first, as Kolors does; its attn2 does not see the encoder's output.
PROJECTED: Final = "unet.encoder_hid_proj.*"
_POOLED: Final = Reader("transformer.time_text_embed.text_embedder.linear_1.weight", "pooled")
_CONTEXT: Final = "transformer.context_embedder.weight"
_STREAM: Final = tuple(Reader(f"transformer.*.attn.add_{role}_proj.weight", "stream") for role in "kv")


def _projected(blocks: str, *through: str) -> tuple[Reader, ...]:
    """Cross-attention that reads what these modules make of the text."""
    return tuple(Reader(f"{blocks}.attn2.to_{role}.weight", "projected", through) for role in "kv")


CLIP: Final = Encoder("text_encoder", "CLIP", 768)
_CLIP_G: Final = Encoder("text_encoder_2", "CLIP", 1280)
_CLIP_H: Final = Encoder("text_encoder", "CLIP", 1024)
_BOTH: Final = (replace(CLIP, states="penultimate"), replace(_CLIP_G, states="penultimate"))
_T5_OF_SD3: Final = Encoder("text_encoder_3", "T5", 4096, length=256)
_T5_OF_FLUX: Final = Encoder("text_encoder_2", "T5", 4096, length=512)
_T5_OF_PIXART: Final = Encoder("text_encoder", "T5", 4096, length=120, masked=True)

_WAN_TEXT: Final = "transformer.condition_embedder.text_embedder"
_WAN_TEXT_2: Final = "transformer_2.condition_embedder.text_embedder"
_CAPTION: Final = "transformer.caption_projection"


def _pipeline(
    name: str, width: int, length: int, *, masked: bool = True, causal: bool = True, alone: bool = False
) -> Encoder:
    """The encoder that a pipeline of diffusers reads with, by its own method."""
    return Encoder(
        "text_encoder",
        "pipeline",
        width,
        length=length,
        masked=masked,
        causal=causal,
        pipeline=f"{name}Pipeline",
        alone=alone,
    )


_UMT5_OF_WAN: Final = _pipeline("Wan", 4096, 512, masked=False, causal=False)
_T5_OF_LTX: Final = _pipeline("LTX", 4096, 128, causal=False)
_UMT5_OF_AURAFLOW: Final = _pipeline("AuraFlow", 2048, 256, causal=False)
_T5_OF_CHROMA: Final = _pipeline("Chroma", 4096, 512, causal=False)
_GEMMA_OF_SANA: Final = _pipeline("Sana", 2304, 300)
_MISTRAL_OF_FLUX2: Final = _pipeline("Flux2", 15360, 512, masked=False)
_QWEN_OF_QWEN_IMAGE: Final = _pipeline("QwenImage", 3584, 1024)
_QWEN_OF_Z_IMAGE: Final = _pipeline("ZImage", 2560, 512)
_QWEN_OF_KLEIN: Final = _pipeline("Flux2Klein", 7680, 512, masked=False)
_GEMMA_OF_LUMINA: Final = _pipeline("Lumina2", 2304, 256)
_GLM_OF_COGVIEW4: Final = _pipeline("CogView4", 4096, 1024, alone=True)
_LLAMA_OF_HUNYUAN: Final = _pipeline("HunyuanVideo", 4096, 256)
_T5_OF_COSMOS: Final = _pipeline("Cosmos2TextToImage", 1024, 512, causal=False)
_LUMINA_TEXT: Final = "transformer.time_caption_embed.caption_embedder"
_COSMOS_TIME: Final = "transformer.time_embed.t_embedder.linear_1.weight"
_FLUX2: Final = "transformer.double_stream_modulation_txt.linear.weight"
_GUIDED: Final = "transformer.time_guidance_embed.guidance_embedder"
_WAN: Final = (
    Reader(f"{_WAN_TEXT}.linear_1.weight", "text"),
    Reader(f"{_WAN_TEXT}.linear_2.weight", "projected"),
    *_projected("transformer.blocks.*", _WAN_TEXT),
)
_WAN_IMAGES: Final = ("transformer.condition_embedder.image_embedder.*",)  # which also reads a picture's features

FAMILIES: Final = (
    Family(
        "SDXL",
        _BOTH,
        (*_UNET, Reader("unet.add_embedding.linear_1.weight", "pooled")),
        has=(_ATTENTION[0], "unet.add_embedding.linear_1.weight"),
        lacks=(PROJECTED,),
        sequence=(_BOTH,),
    ),
    Family(
        "SD 1.x",
        (CLIP,),
        _UNET,
        has=_ATTENTION,
        lacks=(PROJECTED, "unet.add_embedding.*"),
        dimensions=("unet.*.attentions.*.proj_in.weight", 4),
        sequence=((CLIP,),),
    ),
    Family(
        "SD 2.x",
        (_CLIP_H,),
        _UNET,
        has=_ATTENTION,
        lacks=(PROJECTED, "unet.add_embedding.*"),
        dimensions=("unet.*.attentions.*.proj_in.weight", 2),
        sequence=((_CLIP_H,),),
    ),
    Family(
        "SD3",
        (*_BOTH, _T5_OF_SD3),
        (
            Reader(_CONTEXT, "text"),
            _POOLED,
            *_STREAM,
            *(Reader(f"transformer.*.attn2.to_{role}.weight", "picture") for role in "kv"),
        ),
        has=(_CONTEXT, "transformer.pos_embed.proj.weight", _POOLED.pattern),
        lacks=("transformer.single_transformer_blocks.*",),
        sequence=(_BOTH, (_T5_OF_SD3,)),
    ),
    Family(
        "FLUX",
        (CLIP, _T5_OF_FLUX),
        (Reader(_CONTEXT, "text"), _POOLED, *_STREAM),
        has=(_CONTEXT, "transformer.x_embedder.weight", "transformer.single_transformer_blocks.*", _POOLED.pattern),
        sequence=((_T5_OF_FLUX,),),
    ),
    Family(
        "PixArt",
        (_T5_OF_PIXART,),
        (
            Reader("transformer.caption_projection.linear_1.weight", "text"),
            Reader("transformer.caption_projection.linear_2.weight", "projected"),
            *_projected("transformer.*", "transformer.caption_projection"),
        ),
        has=("transformer.caption_projection.linear_1.weight", "transformer.adaln_single.linear.weight"),
        # Latte and Allegro call their layers alike: films, of which PixArt's noise and its variance tell it.
        lacks=("transformer.temporal_transformer_blocks.*",),
        doubled=(ParamName("transformer.proj_out.weight"), ParamName("transformer.pos_embed.proj.weight")),
        sequence=((_T5_OF_PIXART,),),
    ),
    Family(
        "Wan 2.2",
        (_UMT5_OF_WAN,),
        (
            *_WAN,
            Reader(f"{_WAN_TEXT_2}.linear_1.weight", "text"),
            Reader(f"{_WAN_TEXT_2}.linear_2.weight", "projected"),
        ),
        has=(f"{_WAN_TEXT}.linear_1.weight", f"{_WAN_TEXT_2}.linear_1.weight"),
        lacks=_WAN_IMAGES,
        sequence=((_UMT5_OF_WAN,),),
    ),
    Family(
        "Wan",
        (_UMT5_OF_WAN,),
        _WAN,
        has=(f"{_WAN_TEXT}.linear_1.weight", "transformer.blocks.*.attn2.to_k.weight"),
        lacks=_WAN_IMAGES,
        sequence=((_UMT5_OF_WAN,),),
    ),
    Family(
        "LTX",
        (_T5_OF_LTX,),
        (
            Reader(f"{_CAPTION}.linear_1.weight", "text"),
            Reader(f"{_CAPTION}.linear_2.weight", "projected"),
            *_projected("transformer.*", _CAPTION),
        ),
        has=(f"{_CAPTION}.linear_1.weight", "transformer.proj_in.weight", "transformer.time_embed.linear.weight"),
        sequence=((_T5_OF_LTX,),),
    ),
    Family(
        "AuraFlow",
        (_UMT5_OF_AURAFLOW,),
        (Reader(_CONTEXT, "text"), *_STREAM),
        has=(_CONTEXT, "transformer.register_tokens", "transformer.time_step_proj.linear_1.weight"),
        sequence=((_UMT5_OF_AURAFLOW,),),
    ),
    Family(
        "Chroma",
        (_T5_OF_CHROMA,),
        (Reader(_CONTEXT, "text"), *_STREAM),
        has=(_CONTEXT, "transformer.distilled_guidance_layer.in_proj.weight"),
        sequence=((_T5_OF_CHROMA,),),
    ),
    Family(
        "Sana",
        (_GEMMA_OF_SANA,),
        (
            Reader(f"{_CAPTION}.linear_1.weight", "text"),
            Reader(f"{_CAPTION}.linear_2.weight", "projected"),
            *_projected("transformer.*", _CAPTION, "transformer.caption_norm"),
        ),
        has=(f"{_CAPTION}.linear_1.weight", "transformer.caption_norm.weight", "transformer.patch_embed.proj.weight"),
        sequence=((_GEMMA_OF_SANA,),),
    ),
    Family(
        "Qwen-Image",
        (_QWEN_OF_QWEN_IMAGE,),
        (Reader("transformer.txt_in.weight", "normed", ("transformer.txt_norm",)), *_STREAM),
        has=("transformer.txt_in.weight", "transformer.txt_norm.weight", "transformer.img_in.weight"),
        sequence=((_QWEN_OF_QWEN_IMAGE,),),
    ),
    Family(
        "Z-Image",
        (_QWEN_OF_Z_IMAGE,),
        (Reader("transformer.cap_embedder.1.weight", "normed", ("transformer.cap_embedder.0",)),),
        has=("transformer.cap_embedder.1.weight", "transformer.all_x_embedder.*", "transformer.context_refiner.*"),
        sequence=((_QWEN_OF_Z_IMAGE,),),
    ),
    Family(
        "FLUX.2",
        (_MISTRAL_OF_FLUX2,),
        (Reader(_CONTEXT, "text"), *_STREAM),
        has=(_CONTEXT, _FLUX2, f"{_GUIDED}.linear_1.weight"),
        sequence=((_MISTRAL_OF_FLUX2,),),
    ),
    Family(
        "FLUX.2 klein",
        (_QWEN_OF_KLEIN,),
        (Reader(_CONTEXT, "text"), *_STREAM),
        has=(_CONTEXT, _FLUX2),
        lacks=(f"{_GUIDED}.*",),
        sequence=((_QWEN_OF_KLEIN,),),
    ),
    Family(
        "CogView4",
        (_GLM_OF_COGVIEW4,),
        (Reader("transformer.patch_embed.text_proj.weight", "text"),),
        has=("transformer.patch_embed.text_proj.weight", "transformer.time_condition_embed.*"),
        sequence=((_GLM_OF_COGVIEW4,),),
    ),
    Family(
        "HunyuanVideo",
        (_LLAMA_OF_HUNYUAN, replace(CLIP, component="text_encoder_2")),
        (
            Reader("transformer.context_embedder.proj_in.weight", "text"),
            _POOLED,
            *_STREAM,
        ),
        # HunyuanImage calls its layers alike, and pools no prompt: its pipeline reads with other encoders.
        has=(
            "transformer.context_embedder.proj_in.weight",
            "transformer.context_embedder.token_refiner.*",
            _POOLED.pattern,
        ),
        lacks=("transformer.image_embedder.*", "transformer.context_embedder_2.*"),
        sequence=((_LLAMA_OF_HUNYUAN,),),
    ),
    Family(
        "Cosmos",
        (_T5_OF_COSMOS,),
        tuple(Reader(f"transformer.transformer_blocks.*.attn2.to_{role}.weight", "text") for role in "kv"),
        has=("transformer.transformer_blocks.*.attn2.to_k.weight", "transformer.patch_embed.proj.weight", _COSMOS_TIME),
        lacks=("transformer.crossattn_proj.*",),  # of later ones, whose pipeline reads with another encoder
        sequence=((_T5_OF_COSMOS,),),
    ),
    Family(
        "Lumina 2",
        (_GEMMA_OF_LUMINA,),
        (Reader(f"{_LUMINA_TEXT}.1.weight", "normed", (f"{_LUMINA_TEXT}.0",)),),
        has=(f"{_LUMINA_TEXT}.1.weight", "transformer.context_refiner.*"),
        sequence=((_GEMMA_OF_LUMINA,),),
    ),
)
"""In the order in which they are tried; a host fits at most one."""


def find_family(infos: Mapping[ParamName, ParameterInfo]) -> Family | None:
    """The family of a host with these parameters; None for one that is not in the table."""
    return next((family for family in FAMILIES if family.fits(infos)), None)


def encoders_of(family: Family | None) -> list[Encoder]:
    """The encoders of a family in the order of its sequence; without one, CLIP."""
    return [CLIP] if family is None else [encoder for part in family.sequence for encoder in part]
