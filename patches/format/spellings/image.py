"""Names of the code of SD3, AuraFlow, Sana, PixArt, Lumina 2, Z-Image, Qwen-Image, Krea 2 and HiDream."""

from typing import Final

from rasura.patches.format.spellings.spelling import Names, Spelling, in_blocks

__all__ = ["AURAFLOW", "HIDREAM", "KREA2", "LUMINA2", "PIXART", "QWEN_IMAGE", "SANA", "SD3", "Z_IMAGE"]

_TURNED: Final = "norm_out.linear"  # scale and shift the other way round

SD3: Final = Spelling(
    ("context_embedder.weight", "y_embedder.mlp.0.weight", "joint_blocks.0.x_block.attn.qkv.weight"),
    {
        "context_embedder": "context_embedder",
        "x_embedder.proj": "pos_embed.proj",
        "t_embedder.mlp.0": "time_text_embed.timestep_embedder.linear_1",
        "t_embedder.mlp.2": "time_text_embed.timestep_embedder.linear_2",
        "y_embedder.mlp.0": "time_text_embed.text_embedder.linear_1",
        "y_embedder.mlp.2": "time_text_embed.text_embedder.linear_2",
        "final_layer.linear": "proj_out",
        **dict(
            in_blocks(
                "joint_blocks.#.",
                "transformer_blocks.#.",
                {
                    "x_block.attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
                    "x_block.attn.ln_q": "attn.norm_q",
                    "x_block.attn.ln_k": "attn.norm_k",
                    "x_block.attn.proj": "attn.to_out.0",
                    "x_block.attn2.qkv": ("attn2.to_q", "attn2.to_k", "attn2.to_v"),
                    "x_block.attn2.ln_q": "attn2.norm_q",
                    "x_block.attn2.ln_k": "attn2.norm_k",
                    "x_block.attn2.proj": "attn2.to_out.0",
                    "x_block.adaLN_modulation.1": "norm1.linear",
                    "x_block.mlp.fc1": "ff.net.0.proj",
                    "x_block.mlp.fc2": "ff.net.2",
                    "context_block.attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
                    "context_block.attn.ln_q": "attn.norm_added_q",
                    "context_block.attn.ln_k": "attn.norm_added_k",
                    "context_block.attn.proj": "attn.to_add_out",
                    "context_block.mlp.fc1": "ff_context.net.0.proj",
                    "context_block.mlp.fc2": "ff_context.net.2",
                },
            )
        ),
    },
    {"pos_embed": "pos_embed.pos_embed"},
    {
        "final_layer.adaLN_modulation.1": _TURNED,
        # In the last block alone; which one that is, no name tells.
        "joint_blocks.#.context_block.adaLN_modulation.1": "transformer_blocks.#.norm1_context.linear",
    },
    encoders={
        "text_encoders.clip_l.transformer.": "text_encoder",
        "text_encoders.clip_g.transformer.": "text_encoder_2",
        "text_encoders.t5xxl.transformer.": "text_encoder_3",
    },
)

HIDREAM: Final = Spelling(
    ("caption_projection.0.linear.weight", "double_stream_blocks.0.block.adaLN_modulation.1.bias"), {}, plain=True
)
"""Its authors' names are diffusers'."""

_AURAFLOW_MLP: Final = {"c_fc1": "linear_1", "c_fc2": "linear_2", "c_proj": "out_projection"}
AURAFLOW: Final = Spelling(
    ("cond_seq_linear.weight", "register_tokens", "double_layers.0.attn.w1q.weight"),
    {
        "cond_seq_linear": "context_embedder",
        "init_x_linear": "pos_embed.proj",
        "t_embedder.mlp.0": "time_step_proj.linear_1",
        "t_embedder.mlp.2": "time_step_proj.linear_2",
        "final_linear": "proj_out",
        **dict(
            in_blocks(
                "double_layers.#.",
                "joint_transformer_blocks.#.",
                {
                    **{f"mlpX.{theirs}": f"ff.{ours}" for theirs, ours in _AURAFLOW_MLP.items()},
                    **{f"mlpC.{theirs}": f"ff_context.{ours}" for theirs, ours in _AURAFLOW_MLP.items()},
                    "modX.1": "norm1.linear",
                    "modC.1": "norm1_context.linear",
                    **{f"attn.w2{role}": f"attn.to_{role}" for role in "qkv"},
                    "attn.w2o": "attn.to_out.0",
                    **{f"attn.w1{role}": f"attn.add_{role}_proj" for role in "qkv"},
                    "attn.w1o": "attn.to_add_out",
                },
            )
        ),
        **dict(
            in_blocks(
                "single_layers.#.",
                "single_transformer_blocks.#.",
                {
                    **{f"mlp.{theirs}": f"ff.{ours}" for theirs, ours in _AURAFLOW_MLP.items()},
                    "modCX.1": "norm1.linear",
                    **{f"attn.w1{role}": f"attn.to_{role}" for role in "qkv"},
                    "attn.w1o": "attn.to_out.0",
                },
            )
        ),
    },
    {"register_tokens": "register_tokens", "positional_encoding": "pos_embed.pos_embed"},
    {"modF.1": _TURNED},
)

_CAPTION: Final[Names] = {
    "y_embedder.y_proj.fc1": "caption_projection.linear_1",
    "y_embedder.y_proj.fc2": "caption_projection.linear_2",
    "final_layer.linear": "proj_out",
}
_ATTENTIONS: Final[Names] = {
    "attn.qkv": ("attn1.to_q", "attn1.to_k", "attn1.to_v"),
    "attn.proj": "attn1.to_out.0",
    "cross_attn.q_linear": "attn2.to_q",
    "cross_attn.kv_linear": ("attn2.to_k", "attn2.to_v"),
    "cross_attn.proj": "attn2.to_out.0",
}
_TABLES: Final = {
    "final_layer.scale_shift_table": "scale_shift_table",
    "blocks.#.scale_shift_table": "transformer_blocks.#.scale_shift_table",
}
_BLOCKS: Final = ("blocks.#.", "transformer_blocks.#.")

SANA: Final = Spelling(
    ("y_embedder.y_proj.fc1.weight", "attention_y_norm.weight", "blocks.0.cross_attn.kv_linear.weight"),
    {
        **_CAPTION,
        "attention_y_norm": "caption_norm",
        "x_embedder.proj": "patch_embed.proj",
        "t_embedder.mlp.0": "time_embed.emb.timestep_embedder.linear_1",
        "t_embedder.mlp.2": "time_embed.emb.timestep_embedder.linear_2",
        "t_block.1": "time_embed.linear",
        **dict(
            in_blocks(
                *_BLOCKS,
                {
                    **_ATTENTIONS,
                    "mlp.inverted_conv.conv": "ff.conv_inverted",
                    "mlp.depth_conv.conv": "ff.conv_depth",
                    "mlp.point_conv.conv": "ff.conv_point",
                },
            )
        ),
    },
    _TABLES,
)

_PIXART_TIME: Final = "adaln_single.emb"
PIXART: Final = Spelling(
    ("y_embedder.y_proj.fc1.weight", "t_block.1.weight", "blocks.0.cross_attn.kv_linear.weight"),
    {
        **_CAPTION,
        "x_embedder.proj": "pos_embed.proj",
        "t_embedder.mlp.0": f"{_PIXART_TIME}.timestep_embedder.linear_1",
        "t_embedder.mlp.2": f"{_PIXART_TIME}.timestep_embedder.linear_2",
        "csize_embedder.mlp.0": f"{_PIXART_TIME}.resolution_embedder.linear_1",
        "csize_embedder.mlp.2": f"{_PIXART_TIME}.resolution_embedder.linear_2",
        "ar_embedder.mlp.0": f"{_PIXART_TIME}.aspect_ratio_embedder.linear_1",
        "ar_embedder.mlp.2": f"{_PIXART_TIME}.aspect_ratio_embedder.linear_2",
        "t_block.1": "adaln_single.linear",
        **dict(in_blocks(*_BLOCKS, {**_ATTENTIONS, "mlp.fc1": "ff.net.0.proj", "mlp.fc2": "ff.net.2"})),
    },
    _TABLES,
    lacks=("attention_y_norm.weight",),
)

_LUMINA_BLOCK: Final[Names] = {
    "attention.out": "attn.to_out.0",
    "attention.q_norm": "attn.norm_q",
    "attention.k_norm": "attn.norm_k",
    "feed_forward.w1": "feed_forward.linear_1",
    "feed_forward.w2": "feed_forward.linear_2",
    "feed_forward.w3": "feed_forward.linear_3",
    "attention_norm2": "norm2",
    "ffn_norm1": "ffn_norm1",
    "ffn_norm2": "ffn_norm2",
}
_LUMINA_TIMED: Final[Names] = {
    **_LUMINA_BLOCK,
    "attention_norm1": "norm1.norm",
    "adaLN_modulation.1": "norm1.linear",
}
_GROUPED: Final[Names] = {"attention.qkv": ("attn.to_q", "attn.to_k", "attn.to_v")}  # fewer rows of the latter two
_LUMINA_TEXT: Final = "time_caption_embed.caption_embedder"
_LUMINA_TIME: Final = "time_caption_embed.timestep_embedder"
LUMINA2: Final = Spelling(
    ("cap_embedder.1.weight", "context_refiner.0.attention.qkv.weight", "layers.0.adaLN_modulation.1.weight"),
    {
        "cap_embedder.0": f"{_LUMINA_TEXT}.0",
        "cap_embedder.1": f"{_LUMINA_TEXT}.1",
        "t_embedder.mlp.0": f"{_LUMINA_TIME}.linear_1",
        "t_embedder.mlp.2": f"{_LUMINA_TIME}.linear_2",
        "x_embedder": "x_embedder",
        "final_layer.adaLN_modulation.1": "norm_out.linear_1",
        "final_layer.linear": "norm_out.linear_2",
        **dict(in_blocks("layers.#.", "layers.#.", _LUMINA_TIMED)),
        **dict(in_blocks("noise_refiner.#.", "noise_refiner.#.", _LUMINA_TIMED)),
        **dict(in_blocks("context_refiner.#.", "context_refiner.#.", {**_LUMINA_BLOCK, "attention_norm1": "norm1"})),
    },
    mixed={
        native: ours
        for part in ("layers.#.", "noise_refiner.#.", "context_refiner.#.")
        for native, ours in in_blocks(part, part, _GROUPED)
    },
)

Z_IMAGE: Final = Spelling(
    ("cap_embedder.1.weight", "context_refiner.0.attention.qkv.weight", "layers.0.adaLN_modulation.0.weight"),
    {
        "x_embedder": "all_x_embedder.2-1",
        "final_layer.linear": "all_final_layer.2-1.linear",
        "final_layer.adaLN_modulation.1": "all_final_layer.2-1.adaLN_modulation.1",
        **{
            native: ours
            for part in ("layers.#.", "noise_refiner.#.", "context_refiner.#.")
            for native, ours in in_blocks(
                part,
                part,
                {
                    "attention.qkv": ("attention.to_q", "attention.to_k", "attention.to_v"),
                    "attention.out": "attention.to_out.0",
                    "attention.q_norm": "attention.norm_q",
                    "attention.k_norm": "attention.norm_k",
                },
            )
        },
    },
    plain=True,
)

QWEN_IMAGE: Final = Spelling(
    ("txt_in.weight", "txt_norm.weight", "img_in.weight", "transformer_blocks.0.img_mod.1.weight"), {}, plain=True
)

_KREA2_BLOCKS: Final = (
    ("blocks.#.", "transformer_blocks.#."),
    *((f"txtfusion.{kind}_blocks.#.", f"text_fusion.{kind}_blocks.#.") for kind in ("layerwise", "refiner")),
)
KREA2: Final = Spelling(
    ("txtmlp.1.weight", "txtfusion.projector.weight", "first.weight"),
    {
        "first": "img_in",
        "tmlp.0": "time_embed.linear_1",
        "tmlp.2": "time_embed.linear_2",
        "tproj.1": "time_mod_proj",
        "txtmlp.1": "txt_in.linear_1",
        "txtmlp.3": "txt_in.linear_2",
        "txtfusion.projector": "text_fusion.projector",
        "last.linear": "final_layer.linear",
        **dict(
            row
            for theirs, ours in _KREA2_BLOCKS
            for row in in_blocks(
                theirs,
                ours,
                {
                    "attn.wq": "attn.to_q",
                    "attn.wk": "attn.to_k",
                    "attn.wv": "attn.to_v",
                    "attn.wo": "attn.to_out.0",
                    "attn.gate": "attn.to_gate",
                    **{f"mlp.{name}": f"ff.{name}" for name in ("gate", "up", "down")},
                },
            )
        ),
    },
    {
        "txtmlp.0.scale": "txt_in.norm.weight",
        "last.norm.scale": "final_layer.norm.weight",
        "last.modulation.lin": "final_layer.scale_shift_table",
        "blocks.#.mod.lin": "transformer_blocks.#.scale_shift_table",  # there in one row
        **{
            f"{theirs}{name}.scale": f"{ours}{our_name}.weight"
            for theirs, ours in _KREA2_BLOCKS
            for name, our_name in (
                ("attn.qknorm.qnorm", "attn.norm_q"),
                ("attn.qknorm.knorm", "attn.norm_k"),
                ("prenorm", "norm1"),
                ("postnorm", "norm2"),
            )
        },
    },
)
