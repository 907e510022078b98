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
from rasura.patches.models.pipeline_families import CONTEXT, PIPELINE_FAMILIES, POOLED, STREAM, read_projected
from rasura.patches.types import ParamName

__all__ = ["CLIP", "FAMILIES", "PROJECTED", "find_family"]


_ATTENTION: Final = ("unet.*.attn2.to_k.weight", "unet.*.attn2.to_v.weight")
_OVER_FRAMES: Final = ("unet.*.motion_modules.*", "unet.*.temp_attentions.*", "unet.transformer_in.*")
"""Where UNets of films (AnimateDiff, ModelScope) attend to frames, by layers that are called like cross-attention."""
_UNET: Final = (
    *(Reader(f"{place}.attn2.to_{role}.weight", "picture") for place in _OVER_FRAMES for role in "kv"),
    *(Reader(pattern, "text") for pattern in _ATTENTION),
)
# A UNet with this projects its text first, as Kolors does; its attn2 does not see the encoder's output.
PROJECTED: Final = "unet.encoder_hid_proj.*"
CLIP: Final = Encoder("text_encoder", "CLIP", 768)
_CLIP_G: Final = Encoder("text_encoder_2", "CLIP", 1280)
_CLIP_H: Final = Encoder("text_encoder", "CLIP", 1024)
_BOTH: Final = (replace(CLIP, states="penultimate"), replace(_CLIP_G, states="penultimate"))
_T5_OF_SD3: Final = Encoder("text_encoder_3", "T5", 4096, length=256)
_T5_OF_FLUX: Final = Encoder("text_encoder_2", "T5", 4096, length=512)
_T5_OF_PIXART: Final = Encoder("text_encoder", "T5", 4096, length=120, masked=True)

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
            Reader(CONTEXT, "text"),
            POOLED,
            *STREAM,
            *(Reader(f"transformer.*.attn2.to_{role}.weight", "picture") for role in "kv"),
        ),
        has=(CONTEXT, "transformer.pos_embed.proj.weight", POOLED.pattern),
        lacks=("transformer.single_transformer_blocks.*",),
        sequence=(_BOTH, (_T5_OF_SD3,)),
    ),
    Family(
        "FLUX",
        (CLIP, _T5_OF_FLUX),
        (Reader(CONTEXT, "text"), POOLED, *STREAM),
        has=(CONTEXT, "transformer.x_embedder.weight", "transformer.single_transformer_blocks.*", POOLED.pattern),
        sequence=((_T5_OF_FLUX,),),
    ),
    Family(
        "PixArt",
        (_T5_OF_PIXART,),
        (
            Reader("transformer.caption_projection.linear_1.weight", "text"),
            Reader("transformer.caption_projection.linear_2.weight", "projected"),
            *read_projected("transformer.*", "transformer.caption_projection"),
        ),
        has=("transformer.caption_projection.linear_1.weight", "transformer.adaln_single.linear.weight"),
        # Latte and Allegro call their layers alike: films, of which PixArt's noise and its variance tell it.
        lacks=("transformer.temporal_transformer_blocks.*",),
        doubled=(ParamName("transformer.proj_out.weight"), ParamName("transformer.pos_embed.proj.weight")),
        sequence=((_T5_OF_PIXART,),),
    ),
    *PIPELINE_FAMILIES,
)
"""In the order in which they are tried; a host fits at most one."""


def find_family(infos: Mapping[ParamName, ParameterInfo]) -> Family | None:
    """The family of a host with these parameters; None for one that is not in the table."""
    return next((family for family in FAMILIES if family.fits(infos)), None)


def encoders_of(family: Family | None) -> list[Encoder]:
    """The encoders of a family in the order of its sequence, then those beside it; without a family, CLIP."""
    if family is None:
        return [CLIP]
    return [*(encoder for part in family.sequence for encoder in part), *family.beside]
