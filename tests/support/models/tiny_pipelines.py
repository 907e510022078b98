"""Tiny random pipelines of families whose pipeline reads the prompt itself: the real classes, with a few thousand weights.

NAMES                              families
tiny_of(folder, "Wan")             a private copy of a family's folder
open_tiny(folder)                  its live pipeline
"""

import functools
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from support.models.tiny import workspace
from support.models.tiny_t5 import t5_tokenizer

__all__ = ["NAMES", "open_tiny", "tiny_of"]


def tiny_of(folder: Path, name: str) -> Path:
    """A private copy of a family's folder, at `folder` (made; must not exist). Returns `folder`."""
    shutil.copytree(_built(name), folder)
    return folder


def open_tiny(folder: Path) -> Any:
    """The live pipeline of a folder, without what decodes pictures."""
    import diffusers

    index = json.loads((folder / "model_index.json").read_text())
    absent = {name: None for name, said in index.items() if said == [None, None]}
    kind = getattr(diffusers, index["_class_name"])
    pipeline = kind.from_pretrained(folder, local_files_only=True, **{"vae": None, **absent})
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@functools.lru_cache(maxsize=20)
def _built(name: str) -> Path:
    folder = workspace() / name.replace(" ", "-")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipeline = _BUILDERS[name]()
        for parameter in pipeline.transformer.parameters():  # gates begin at zero
            parameter.data.normal_(0, 0.2)
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def _umt5(width: int) -> Any:
    from transformers import UMT5Config, UMT5EncoderModel

    return UMT5EncoderModel(
        UMT5Config(
            vocab_size=len(t5_tokenizer()), d_model=width, d_kv=16, d_ff=64, num_layers=2, num_heads=4, dropout_rate=0.0
        )
    )


def _wan() -> Any:
    import diffusers

    return diffusers.WanPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=_umt5(48),
        vae=None,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        transformer=diffusers.WanTransformer3DModel(
            num_attention_heads=4, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=48, ffn_dim=64,
            num_layers=2, freq_dim=16, rope_max_seq_len=32,
        ),
    )  # fmt: skip


def _t5(width: int) -> Any:
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(
        T5Config(
            vocab_size=len(t5_tokenizer()), d_model=width, d_kv=16, d_ff=64, num_layers=2, num_heads=4, dropout_rate=0.0
        )
    )


def _flow() -> Any:
    import diffusers

    return diffusers.FlowMatchEulerDiscreteScheduler()


def _ltx() -> Any:
    import diffusers

    return diffusers.LTXPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=_t5(48),
        vae=None,
        scheduler=_flow(),
        transformer=diffusers.LTXVideoTransformer3DModel(
            in_channels=4, out_channels=4, num_attention_heads=4, attention_head_dim=12, cross_attention_dim=48,
            num_layers=2, caption_channels=48,
        ),
    )  # fmt: skip


def _auraflow() -> Any:
    import diffusers

    return diffusers.AuraFlowPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=_umt5(48),
        vae=None,
        scheduler=_flow(),
        transformer=diffusers.AuraFlowTransformer2DModel(
            sample_size=8, num_mmdit_layers=1, num_single_dit_layers=1, attention_head_dim=8, num_attention_heads=4,
            caption_projection_dim=32, joint_attention_dim=48, pos_embed_max_size=64,
        ),
    )  # fmt: skip


def _chroma() -> Any:
    import diffusers

    return diffusers.ChromaPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=_t5(48),
        vae=None,
        scheduler=_flow(),
        transformer=diffusers.ChromaTransformer2DModel(
            in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=48, axes_dims_rope=(4, 4, 8), approximator_num_channels=8, approximator_hidden_dim=16,
            approximator_layers=1,
        ),
    )  # fmt: skip


def _gemma(width: int) -> Any:
    from transformers import Gemma2Config, Gemma2Model

    return Gemma2Model(
        Gemma2Config(
            vocab_size=len(t5_tokenizer()), hidden_size=width, intermediate_size=32, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=2, head_dim=8, initializer_range=0.3, pad_token_id=0,
        )
    )  # fmt: skip


def _sana() -> Any:
    import diffusers

    return diffusers.SanaPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=_gemma(48),
        vae=None,
        scheduler=_flow(),
        transformer=diffusers.SanaTransformer2DModel(
            in_channels=4, out_channels=4, num_layers=1, num_attention_heads=4, attention_head_dim=12,
            num_cross_attention_heads=4, cross_attention_head_dim=12, cross_attention_dim=48, caption_channels=48,
            sample_size=8,
        ),
    )  # fmt: skip


def _lumina() -> Any:
    import diffusers

    return diffusers.Lumina2Pipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=_gemma(320),
        vae=None,
        scheduler=_flow(),
        transformer=diffusers.Lumina2Transformer2DModel(
            in_channels=4, hidden_size=24, num_layers=1, num_refiner_layers=2, num_attention_heads=3, num_kv_heads=1,
            cap_feat_dim=320, axes_dim_rope=(4, 2, 2), axes_lens=(512, 128, 128), multiple_of=16,
        ),
    )  # fmt: skip


_BUILDERS: Final[Mapping[str, Callable[[], Any]]] = {
    "Wan": _wan,
    "LTX": _ltx,
    "AuraFlow": _auraflow,
    "Chroma": _chroma,
    "Sana": _sana,
    "Lumina 2": _lumina,
}
NAMES: Final = tuple(_BUILDERS)
