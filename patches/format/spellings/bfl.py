"""Names of Black Forest Labs' code: FLUX.1, FLUX.2 and klein, and Chroma, which is made of FLUX.1."""

from typing import Final

from rasura.patches.format.spellings.spelling import Names, Spelling, in_blocks

__all__ = ["CHROMA", "DOUBLE", "FLUX", "FLUX2", "NORMS", "SINGLE_NORMS"]

_DOUBLE: Final = ("double_blocks.#.", "transformer_blocks.#.")
_SINGLE: Final = ("single_blocks.#.", "single_transformer_blocks.#.")

_JOINT: Final[Names] = {
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "img_attn.proj": "attn.to_out.0",
    "txt_attn.proj": "attn.to_add_out",
}
DOUBLE: Final[Names] = {
    **_JOINT,
    "img_mlp.0": "ff.net.0.proj",
    "img_mlp.2": "ff.net.2",
    "txt_mlp.0": "ff_context.net.0.proj",
    "txt_mlp.2": "ff_context.net.2",
}
"""Inside a block of two streams."""
_MODULATED: Final[Names] = {"img_mod.lin": "norm1.linear", "txt_mod.lin": "norm1_context.linear"}
NORMS: Final = {
    "double_blocks.#.img_attn.norm.query_norm.scale": "transformer_blocks.#.attn.norm_q.weight",
    "double_blocks.#.img_attn.norm.key_norm.scale": "transformer_blocks.#.attn.norm_k.weight",
    "double_blocks.#.txt_attn.norm.query_norm.scale": "transformer_blocks.#.attn.norm_added_q.weight",
    "double_blocks.#.txt_attn.norm.key_norm.scale": "transformer_blocks.#.attn.norm_added_k.weight",
}
SINGLE_NORMS: Final = {
    "single_blocks.#.norm.query_norm.scale": "single_transformer_blocks.#.attn.norm_q.weight",
    "single_blocks.#.norm.key_norm.scale": "single_transformer_blocks.#.attn.norm_k.weight",
}
_LINEAR1: Final[Names] = dict(
    in_blocks(*_SINGLE, {"linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")})
)  # the last part has another size
_TURNED: Final[Names] = {"final_layer.adaLN_modulation.1": "norm_out.linear"}  # scale and shift the other way round
_ENDS: Final[Names] = {"txt_in": "context_embedder", "img_in": "x_embedder", "final_layer.linear": "proj_out"}
_QKV: Final = "double_blocks.0.img_attn.qkv.weight"

FLUX: Final = Spelling(
    ("txt_in.weight", "vector_in.in_layer.weight", _QKV),
    {
        **_ENDS,
        "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
        "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
        "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
        "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
        "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
        "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
        **dict(in_blocks(*_DOUBLE, {**DOUBLE, **_MODULATED})),
        **dict(in_blocks(*_SINGLE, {"modulation.lin": "norm.linear", "linear2": "proj_out"})),
    },
    {**NORMS, **SINGLE_NORMS},
    {**_LINEAR1, **_TURNED},
    encoders={
        "text_encoders.clip_l.transformer.": "text_encoder",
        "text_encoders.t5xxl.transformer.": "text_encoder_2",
    },
)

CHROMA: Final = Spelling(
    ("txt_in.weight", "distilled_guidance_layer.in_proj.weight", _QKV),
    {
        **_ENDS,
        "distilled_guidance_layer.in_proj": "distilled_guidance_layer.in_proj",
        "distilled_guidance_layer.out_proj": "distilled_guidance_layer.out_proj",
        "distilled_guidance_layer.layers.#.in_layer": "distilled_guidance_layer.layers.#.linear_1",
        "distilled_guidance_layer.layers.#.out_layer": "distilled_guidance_layer.layers.#.linear_2",
        **dict(in_blocks(*_DOUBLE, DOUBLE)),
        **dict(in_blocks(*_SINGLE, {"linear2": "proj_out"})),
    },
    {
        **NORMS,
        **SINGLE_NORMS,
        "distilled_guidance_layer.norms.#.scale": "distilled_guidance_layer.norms.#.weight",
    },
    _LINEAR1,
)

FLUX2: Final = Spelling(
    ("txt_in.weight", "double_stream_modulation_txt.lin.weight", _QKV),
    {
        **_ENDS,
        "time_in.in_layer": "time_guidance_embed.timestep_embedder.linear_1",
        "time_in.out_layer": "time_guidance_embed.timestep_embedder.linear_2",
        "guidance_in.in_layer": "time_guidance_embed.guidance_embedder.linear_1",
        "guidance_in.out_layer": "time_guidance_embed.guidance_embedder.linear_2",
        "double_stream_modulation_img.lin": "double_stream_modulation_img.linear",
        "double_stream_modulation_txt.lin": "double_stream_modulation_txt.linear",
        "single_stream_modulation.lin": "single_stream_modulation.linear",
        **dict(
            in_blocks(
                *_DOUBLE,
                {
                    **_JOINT,
                    "img_mlp.0": "ff.linear_in",
                    "img_mlp.2": "ff.linear_out",
                    "txt_mlp.0": "ff_context.linear_in",
                    "txt_mlp.2": "ff_context.linear_out",
                },
            )
        ),
        **dict(in_blocks(*_SINGLE, {"linear1": "attn.to_qkv_mlp_proj", "linear2": "attn.to_out"})),
    },
    {**NORMS, **SINGLE_NORMS},
    _TURNED,
)
