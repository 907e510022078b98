"""Rows of the table of families whose pipeline reads the prompt itself, by its own `encode_prompt`.

One row a family, told from names and shapes as the older ones are (`rasura.patches.models.families`, which tries these
after its own). What each layer reads is what `rasura probe` must find.
"""

from typing import Final

from rasura.patches.models.family import Encoder, Family, Layered, Reader

__all__ = ["CONTEXT", "PIPELINE_FAMILIES", "POOLED", "STREAM", "read_projected"]

POOLED: Final = Reader("transformer.time_text_embed.text_embedder.linear_1.weight", "pooled")
CONTEXT: Final = "transformer.context_embedder.weight"
STREAM: Final = tuple(Reader(f"transformer.*.attn.add_{role}_proj.weight", "stream") for role in "kv")


def read_projected(blocks: str, *through: str) -> tuple[Reader, ...]:
    """Cross-attention that reads what these modules make of the text."""
    return tuple(Reader(f"{blocks}.attn2.to_{role}.weight", "projected", through) for role in "kv")


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
_QWEN_OF_COSMOS_25: Final = _pipeline("Cosmos2_5_PredictBase", 100352, 512, masked=False)
_GLM_OF_KOLORS: Final = _pipeline("Kolors", 4096, 256, masked=False, causal=False)
_QWEN_OF_QWEN_IMAGE_21: Final = _pipeline("QwenImage21", 4096, 1024, alone=True)
_MINISTRAL_OF_ERNIE: Final = _pipeline("ErnieImage", 2560, 512, alone=True)
_QWEN_OF_KREA: Final = _pipeline("Krea2", 30720, 512, causal=False)
_T5_OF_HIDREAM: Final = Encoder(
    "text_encoder_3", "pipeline", 4096, length=128, pipeline="HiDreamImagePipeline", method="_get_t5_prompt_embeds"
)
_LLAMA_OF_HIDREAM: Final = Encoder(
    "text_encoder_4",
    "pipeline",
    4096,
    length=128,
    causal=True,
    pipeline="HiDreamImagePipeline",
    layered=True,
    method="_get_llama3_prompt_embeds",
)
_POOLED_OF_HIDREAM: Final = (Encoder("text_encoder", "CLIP", 768), Encoder("text_encoder_2", "CLIP", 1280))
_HIDREAM_MAPS: Final = "transformer.caption_projection.*.linear.weight"
_LUMINA_TEXT: Final = "transformer.time_caption_embed.caption_embedder"
_KREA_TEXT: Final = "transformer.txt_in"
_COSMOS_BLOCKS: Final = "transformer.transformer_blocks.*"
_COSMOS_TEXT: Final = "transformer.crossattn_proj"
_COSMOS_TIME: Final = "transformer.time_embed.t_embedder.linear_1.weight"
_FLUX2: Final = "transformer.double_stream_modulation_txt.linear.weight"
_GUIDED: Final = "transformer.time_guidance_embed.guidance_embedder"
_WAN: Final = (
    Reader(f"{_WAN_TEXT}.linear_1.weight", "text"),
    Reader(f"{_WAN_TEXT}.linear_2.weight", "projected"),
    *read_projected("transformer.blocks.*", _WAN_TEXT),
)
_WAN_IMAGES: Final = ("transformer.condition_embedder.image_embedder.*",)  # which also reads a picture's features

PIPELINE_FAMILIES: Final = (
    Family(
        "HiDream",
        (_T5_OF_HIDREAM, _LLAMA_OF_HIDREAM, *_POOLED_OF_HIDREAM),
        (
            Reader(_HIDREAM_MAPS, "text"),
            Reader("transformer.p_embedder.pooled_embedder.linear_1.weight", "pooled"),
        ),
        has=(_HIDREAM_MAPS, "transformer.p_embedder.*", "transformer.double_stream_blocks.*"),
        sequence=((_T5_OF_HIDREAM,),),
        layered=Layered(_LLAMA_OF_HIDREAM, _HIDREAM_MAPS, "llama_layers", "encoder_hidden_states_llama3"),
    ),
    Family(
        "Wan 2.2",
        (_UMT5_OF_WAN,),
        (
            *_WAN,
            Reader(f"{_WAN_TEXT_2}.linear_1.weight", "text"),
            Reader(f"{_WAN_TEXT_2}.linear_2.weight", "projected"),
            *read_projected("transformer_2.blocks.*", _WAN_TEXT_2),
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
            *read_projected("transformer.*", _CAPTION),
        ),
        has=(f"{_CAPTION}.linear_1.weight", "transformer.proj_in.weight", "transformer.time_embed.linear.weight"),
        sequence=((_T5_OF_LTX,),),
    ),
    Family(
        "AuraFlow",
        (_UMT5_OF_AURAFLOW,),
        (Reader(CONTEXT, "text"), *STREAM),
        has=(CONTEXT, "transformer.register_tokens", "transformer.time_step_proj.linear_1.weight"),
        sequence=((_UMT5_OF_AURAFLOW,),),
    ),
    Family(
        "Chroma",
        (_T5_OF_CHROMA,),
        (Reader(CONTEXT, "text"), *STREAM),
        has=(CONTEXT, "transformer.distilled_guidance_layer.in_proj.weight"),
        sequence=((_T5_OF_CHROMA,),),
    ),
    Family(
        "Sana",
        (_GEMMA_OF_SANA,),
        (
            Reader(f"{_CAPTION}.linear_1.weight", "text"),
            Reader(f"{_CAPTION}.linear_2.weight", "projected"),
            *read_projected("transformer.*", _CAPTION, "transformer.caption_norm"),
        ),
        has=(f"{_CAPTION}.linear_1.weight", "transformer.caption_norm.weight", "transformer.patch_embed.proj.weight"),
        sequence=((_GEMMA_OF_SANA,),),
    ),
    Family(
        "Qwen-Image",
        (_QWEN_OF_QWEN_IMAGE,),
        (Reader("transformer.txt_in.weight", "normed", ("transformer.txt_norm",)), *STREAM),
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
        (Reader(CONTEXT, "text"), *STREAM),
        has=(CONTEXT, _FLUX2, f"{_GUIDED}.linear_1.weight"),
        sequence=((_MISTRAL_OF_FLUX2,),),
    ),
    Family(
        "FLUX.2 klein",
        (_QWEN_OF_KLEIN,),
        (Reader(CONTEXT, "text"), *STREAM),
        has=(CONTEXT, _FLUX2),
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
        (_LLAMA_OF_HUNYUAN, Encoder("text_encoder_2", "CLIP", 768)),
        (
            Reader("transformer.context_embedder.proj_in.weight", "text"),
            POOLED,
            *STREAM,
        ),
        # HunyuanImage calls its layers alike, and pools no prompt: its pipeline reads with other encoders.
        has=(
            "transformer.context_embedder.proj_in.weight",
            "transformer.context_embedder.token_refiner.*",
            POOLED.pattern,
        ),
        lacks=("transformer.image_embedder.*", "transformer.context_embedder_2.*"),
        sequence=((_LLAMA_OF_HUNYUAN,),),
    ),
    Family(
        "Cosmos",
        (_T5_OF_COSMOS,),
        tuple(Reader(f"{_COSMOS_BLOCKS}.attn2.to_{role}.weight", "text") for role in "kv"),
        has=(f"{_COSMOS_BLOCKS}.attn2.to_k.weight", "transformer.patch_embed.proj.weight", _COSMOS_TIME),
        lacks=(f"{_COSMOS_TEXT}.*",),  # of later ones, whose pipeline reads with another encoder
        sequence=((_T5_OF_COSMOS,),),
    ),
    Family(
        "Cosmos 2.5",
        (_QWEN_OF_COSMOS_25,),
        (Reader(f"{_COSMOS_TEXT}.0.weight", "text"), *read_projected(_COSMOS_BLOCKS, _COSMOS_TEXT)),
        has=(f"{_COSMOS_TEXT}.0.weight", f"{_COSMOS_BLOCKS}.attn2.to_k.weight", _COSMOS_TIME),
        lacks=("transformer.img_context_proj.*",),  # of Transfer 2.5, whose ControlNet reads the text, too
        sequence=((_QWEN_OF_COSMOS_25,),),
    ),
    Family(
        "Lumina 2",
        (_GEMMA_OF_LUMINA,),
        (Reader(f"{_LUMINA_TEXT}.1.weight", "normed", (f"{_LUMINA_TEXT}.0",)),),
        has=(f"{_LUMINA_TEXT}.1.weight", "transformer.context_refiner.*"),
        sequence=((_GEMMA_OF_LUMINA,),),
    ),
    Family(
        "Qwen-Image 2.1",
        (_QWEN_OF_QWEN_IMAGE_21,),
        (
            Reader("transformer.txt_in.in_layer.weight", "normed", ("transformer.txt_in.text_norm",)),
            Reader("transformer.txt_in.out_layer.weight", "projected"),
        ),
        has=("transformer.txt_in.in_layer.weight", "transformer.txt_in.text_norm.weight", "transformer.img_in.weight"),
        sequence=((_QWEN_OF_QWEN_IMAGE_21,),),
    ),
    Family(
        "Krea 2",
        (_QWEN_OF_KREA,),
        (Reader(f"{_KREA_TEXT}.linear_1.weight", "fused", ("transformer.text_fusion", f"{_KREA_TEXT}.norm")),),
        has=(f"{_KREA_TEXT}.linear_1.weight", "transformer.text_fusion.projector.weight"),
        sequence=((_QWEN_OF_KREA,),),
    ),
    Family(
        "ERNIE-Image",
        (_MINISTRAL_OF_ERNIE,),
        (Reader("transformer.text_proj.weight", "text"),),
        has=("transformer.text_proj.weight", "transformer.adaLN_modulation.*", "transformer.x_embedder.proj.weight"),
        sequence=((_MINISTRAL_OF_ERNIE,),),
    ),
    Family(
        "Kolors",
        (_GLM_OF_KOLORS,),
        (
            Reader("unet.encoder_hid_proj.weight", "text"),
            *read_projected("unet.*", "unet.encoder_hid_proj"),
            Reader("unet.add_embedding.linear_1.weight", "pooled"),
        ),
        has=("unet.encoder_hid_proj.weight", "unet.*.attn2.to_k.weight", "unet.add_embedding.linear_1.weight"),
        sequence=((_GLM_OF_KOLORS,),),
    ),
)
"""In the order in which they are tried."""
