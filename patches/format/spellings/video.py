"""Names of the code of Wan, LTX, HunyuanVideo, Cosmos and Cosmos 2.5."""

from dataclasses import replace
from typing import Final

from rasura.patches.format.spellings.bfl import DOUBLE, NORMS, SINGLE_NORMS
from rasura.patches.format.spellings.spelling import Names, Spelling, in_blocks

__all__ = ["COSMOS", "COSMOS_25", "HUNYUAN_VIDEO", "LTX", "WAN"]

_WAN_EMBEDDERS: Final = "condition_embedder"
WAN: Final = Spelling(
    ("text_embedding.0.weight", "head.modulation", "blocks.0.cross_attn.k.weight"),
    {
        "patch_embedding": "patch_embedding",
        "text_embedding.0": f"{_WAN_EMBEDDERS}.text_embedder.linear_1",
        "text_embedding.2": f"{_WAN_EMBEDDERS}.text_embedder.linear_2",
        "time_embedding.0": f"{_WAN_EMBEDDERS}.time_embedder.linear_1",
        "time_embedding.2": f"{_WAN_EMBEDDERS}.time_embedder.linear_2",
        "time_projection.1": f"{_WAN_EMBEDDERS}.time_proj",
        "img_emb.proj.0": f"{_WAN_EMBEDDERS}.image_embedder.norm1",
        "img_emb.proj.1": f"{_WAN_EMBEDDERS}.image_embedder.ff.net.0.proj",
        "img_emb.proj.3": f"{_WAN_EMBEDDERS}.image_embedder.ff.net.2",
        "img_emb.proj.4": f"{_WAN_EMBEDDERS}.image_embedder.norm2",
        "head.head": "proj_out",
        **dict(
            in_blocks(
                "blocks.#.",
                "blocks.#.",
                {
                    **{
                        f"{theirs}.{name}": f"{ours}.{our_name}"
                        for theirs, ours in (("self_attn", "attn1"), ("cross_attn", "attn2"))
                        for name, our_name in (
                            *((role, f"to_{role}") for role in "qkv"),
                            ("o", "to_out.0"),
                            ("norm_q", "norm_q"),
                            ("norm_k", "norm_k"),
                        )
                    },
                    "cross_attn.k_img": "attn2.add_k_proj",
                    "cross_attn.v_img": "attn2.add_v_proj",
                    "cross_attn.norm_k_img": "attn2.norm_added_k",
                    "norm3": "norm2",
                    "ffn.0": "ffn.net.0.proj",
                    "ffn.2": "ffn.net.2",
                },
            )
        ),
    },
    {"head.modulation": "scale_shift_table", "blocks.#.modulation": "blocks.#.scale_shift_table"},
    lacks=("vace_blocks.0.before_proj.weight", "face_adapter.fuser_blocks.0.linear1_q.weight"),
)

LTX: Final = Spelling(
    ("caption_projection.linear_1.weight", "patchify_proj.weight", "adaln_single.linear.weight"),
    {
        "patchify_proj": "proj_in",
        "adaln_single.linear": "time_embed.linear",
        "adaln_single.emb.timestep_embedder.linear_1": "time_embed.emb.timestep_embedder.linear_1",
        "adaln_single.emb.timestep_embedder.linear_2": "time_embed.emb.timestep_embedder.linear_2",
        **dict(
            in_blocks(
                "transformer_blocks.#.",
                "transformer_blocks.#.",
                {
                    f"{attention}.{theirs}": f"{attention}.{ours}"
                    for attention in ("attn1", "attn2")
                    for theirs, ours in (("q_norm", "norm_q"), ("k_norm", "norm_k"))
                },
            )
        ),
    },
    plain=True,
    lacks=("audio_patchify_proj.weight",),  # of LTX-2, which calls the rest alike
)

_REFINER: Final = ("txt_in.individual_token_refiner.blocks.#.", "context_embedder.token_refiner.refiner_blocks.#.")
_HUNYUAN_TEXT: Final = "context_embedder.time_text_embed"
_TIMED: Final = "time_text_embed"
_SINGLE: Final = ("single_blocks.#.", "single_transformer_blocks.#.")
# Tencent's own names, and below those that ComfyUI's files have: FLUX.1's.
_TENCENT_DOUBLE: Final[Names] = {
    "img_mod.linear": "norm1.linear",
    "txt_mod.linear": "norm1_context.linear",
    "img_attn_qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn_qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "img_attn_q_norm": "attn.norm_q",
    "img_attn_k_norm": "attn.norm_k",
    "txt_attn_q_norm": "attn.norm_added_q",
    "txt_attn_k_norm": "attn.norm_added_k",
    "img_attn_proj": "attn.to_out.0",
    "txt_attn_proj": "attn.to_add_out",
    "img_mlp.fc1": "ff.net.0.proj",
    "img_mlp.fc2": "ff.net.2",
    "txt_mlp.fc1": "ff_context.net.0.proj",
    "txt_mlp.fc2": "ff_context.net.2",
}
_TENCENT_REFINER: Final[Names] = {
    "norm1": "norm1",
    "norm2": "norm2",
    "adaLN_modulation.1": "norm_out.linear",
    "self_attn_qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "self_attn_proj": "attn.to_out.0",
    "mlp.fc1": "ff.net.0.proj",
    "mlp.fc2": "ff.net.2",
}
_COMFY_REFINER: Final[Names] = {
    "self_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "self_attn.proj": "attn.to_out.0",
    "mlp.0": "ff.net.0.proj",
    "mlp.2": "ff.net.2",
}
HUNYUAN_VIDEO: Final = Spelling(
    ("txt_in.input_embedder.weight", "txt_in.individual_token_refiner.blocks.0.norm1.weight", "img_in.proj.weight"),
    {
        "txt_in.input_embedder": "context_embedder.proj_in",
        "txt_in.t_embedder.mlp.0": f"{_HUNYUAN_TEXT}.timestep_embedder.linear_1",
        "txt_in.t_embedder.mlp.2": f"{_HUNYUAN_TEXT}.timestep_embedder.linear_2",
        "txt_in.c_embedder.linear_1": f"{_HUNYUAN_TEXT}.text_embedder.linear_1",
        "txt_in.c_embedder.linear_2": f"{_HUNYUAN_TEXT}.text_embedder.linear_2",
        "img_in.proj": "x_embedder.proj",
        "time_in.mlp.0": f"{_TIMED}.timestep_embedder.linear_1",
        "time_in.mlp.2": f"{_TIMED}.timestep_embedder.linear_2",
        "guidance_in.mlp.0": f"{_TIMED}.guidance_embedder.linear_1",
        "guidance_in.mlp.2": f"{_TIMED}.guidance_embedder.linear_2",
        "vector_in.in_layer": f"{_TIMED}.text_embedder.linear_1",
        "vector_in.out_layer": f"{_TIMED}.text_embedder.linear_2",
        "final_layer.linear": "proj_out",
        **dict(in_blocks("double_blocks.#.", "transformer_blocks.#.", _TENCENT_DOUBLE)),
        **dict(
            in_blocks(
                *_SINGLE,
                {
                    "modulation.linear": "norm.linear",
                    "linear2": "proj_out",
                    "q_norm": "attn.norm_q",
                    "k_norm": "attn.norm_k",
                },
            )
        ),
        **dict(in_blocks(*_REFINER, _TENCENT_REFINER)),
        "txt_in.t_embedder.in_layer": f"{_HUNYUAN_TEXT}.timestep_embedder.linear_1",
        "txt_in.t_embedder.out_layer": f"{_HUNYUAN_TEXT}.timestep_embedder.linear_2",
        "txt_in.c_embedder.in_layer": f"{_HUNYUAN_TEXT}.text_embedder.linear_1",
        "txt_in.c_embedder.out_layer": f"{_HUNYUAN_TEXT}.text_embedder.linear_2",
        "time_in.in_layer": f"{_TIMED}.timestep_embedder.linear_1",
        "time_in.out_layer": f"{_TIMED}.timestep_embedder.linear_2",
        "guidance_in.in_layer": f"{_TIMED}.guidance_embedder.linear_1",
        "guidance_in.out_layer": f"{_TIMED}.guidance_embedder.linear_2",
        **dict(
            in_blocks(
                "double_blocks.#.",
                "transformer_blocks.#.",
                {**DOUBLE, "img_mod.lin": "norm1.linear", "txt_mod.lin": "norm1_context.linear"},
            )
        ),
        **dict(in_blocks(*_SINGLE, {"modulation.lin": "norm.linear"})),
        **dict(in_blocks(*_REFINER, _COMFY_REFINER)),
    },
    {**NORMS, **SINGLE_NORMS},
    {
        **dict(in_blocks(*_SINGLE, {"linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")})),
        "final_layer.adaLN_modulation.1": "norm_out.linear",
    },
)

_COSMOS_TEXT: Final = "crossattn_proj.0.weight"
COSMOS: Final = Spelling(
    ("blocks.0.cross_attn.k_proj.weight", "x_embedder.proj.1.weight", "t_embedder.1.linear_1.weight"),
    {
        "x_embedder.proj.1": "patch_embed.proj",
        "t_embedder.1.linear_1": "time_embed.t_embedder.linear_1",
        "t_embedder.1.linear_2": "time_embed.t_embedder.linear_2",
        "t_embedding_norm": "time_embed.norm",
        "final_layer.adaln_modulation.1": "norm_out.linear_1",
        "final_layer.adaln_modulation.2": "norm_out.linear_2",
        "final_layer.linear": "proj_out",
        **dict(
            in_blocks(
                "blocks.#.",
                "transformer_blocks.#.",
                {
                    **{
                        f"{theirs}.{name}": f"{ours}.{our_name}"
                        for theirs, ours in (("self_attn", "attn1"), ("cross_attn", "attn2"))
                        for name, our_name in (
                            *((f"{role}_proj", f"to_{role}") for role in "qkv"),
                            ("output_proj", "to_out.0"),
                            ("q_norm", "norm_q"),
                            ("k_norm", "norm_k"),
                        )
                    },
                    **{
                        f"adaln_modulation_{theirs}.{number}": f"{ours}.linear_{number}"
                        for theirs, ours in (("self_attn", "norm1"), ("cross_attn", "norm2"), ("mlp", "norm3"))
                        for number in (1, 2)
                    },
                    "mlp.layer1": "ff.net.0.proj",
                    "mlp.layer2": "ff.net.2",
                },
            )
        ),
    },
    prefixes=("net.", "model.diffusion_model.", ""),
    lacks=(_COSMOS_TEXT,),
    without=("learnable_pos_embed.pos_emb_h",),  # Cosmos 1, whose code has other names
)
COSMOS_25: Final = replace(
    COSMOS,
    marks=(*COSMOS.marks, _COSMOS_TEXT),
    modules={**COSMOS.modules, "crossattn_proj.0": "crossattn_proj.0"},
    lacks=(),
)
