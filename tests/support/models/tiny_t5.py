"""Tiny random folders of the families that read T5: SD3, FLUX and PixArt, with tokenizers, without a VAE's pictures.

T5's tokenizer is a real SentencePiece unigram model of a few words and the letters; the two CLIPs are those of `tiny_xl`.
"""

import functools
import shutil
from pathlib import Path
from typing import Any, Final

import diffusers
import torch
from support.models.tiny import workspace
from support.models.tiny_xl import WIDTHS, tiny_clip_encoders, tiny_vae, xl_tokenizers
from transformers import CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel, T5Tokenizer

__all__ = ["NAMES", "T5_WIDTH", "t5_tokenizer", "tiny_t5", "tiny_t5_pipeline"]

NAMES: Final = ("SD3", "FLUX", "PixArt")
T5_WIDTH: Final = 768
"""Wider than the positions of SD3 and FLUX are many, which the null prompt may take."""
_WORDS: Final = ("a", "photo", "of", "dog", "cat", "van", "gogh", "painting", "tree", "house")
_CLASSES: Final = {"SD3": "StableDiffusion3Pipeline", "FLUX": "FluxPipeline", "PixArt": "PixArtAlphaPipeline"}


def tiny_t5(folder: Path, name: str) -> Path:
    """A private copy of a family's folder, at `folder` (made; must not exist). Returns `folder`."""
    shutil.copytree(_built(name), folder)
    return folder


def tiny_t5_pipeline(folder: Path, name: str) -> Any:
    """The live pipeline of a folder."""
    pipeline = getattr(diffusers, _CLASSES[name]).from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@functools.lru_cache(maxsize=1)
def t5_tokenizer() -> Any:
    """Words and letters; "</s>" ends a text, and nothing begins it."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -10.0), ("▁", -3.0)]
    pieces += [(f"▁{word}", -2.0) for word in _WORDS]
    pieces += [(letter, -5.0) for letter in "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ!,"]
    return T5Tokenizer(vocab=pieces, extra_ids=0)


@functools.lru_cache(maxsize=3)
def _built(name: str) -> Path:
    folder = workspace() / name
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipeline = {"SD3": _sd3, "FLUX": _flux, "PixArt": _pixart}[name]()
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def _t5() -> Any:
    config = T5Config(
        vocab_size=len(t5_tokenizer()),
        d_model=T5_WIDTH,
        d_kv=16,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        dropout_rate=0.0,
        initializer_factor=1.0,
    )
    return T5EncoderModel(config)


def _sd3() -> Any:
    first, second = xl_tokenizers()
    one, two = tiny_clip_encoders(CLIPTextModelWithProjection)
    return diffusers.StableDiffusion3Pipeline(
        transformer=diffusers.SD3Transformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=4,
            joint_attention_dim=T5_WIDTH,
            caption_projection_dim=32,
            pooled_projection_dim=64,
            pos_embed_max_size=8,
        ),
        vae=tiny_vae(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        text_encoder=one,
        tokenizer=first,
        text_encoder_2=two,
        tokenizer_2=second,
        text_encoder_3=_t5(),
        tokenizer_3=t5_tokenizer(),
    )


def _flux() -> Any:
    one, _ = tiny_clip_encoders(CLIPTextModel)
    return diffusers.FluxPipeline(
        transformer=diffusers.FluxTransformer2DModel(
            patch_size=1,
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=T5_WIDTH,
            pooled_projection_dim=WIDTHS[0],
            axes_dims_rope=(4, 4, 8),
        ),
        vae=tiny_vae(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        text_encoder=one,
        tokenizer=xl_tokenizers()[0],
        text_encoder_2=_t5(),
        tokenizer_2=t5_tokenizer(),
    )


def _pixart() -> Any:
    return diffusers.PixArtAlphaPipeline(
        transformer=diffusers.PixArtTransformer2DModel(
            sample_size=8,
            num_layers=2,
            patch_size=2,
            attention_head_dim=8,
            num_attention_heads=4,
            in_channels=4,
            out_channels=8,
            cross_attention_dim=32,
            caption_channels=T5_WIDTH,
            norm_num_groups=4,
            use_additional_conditions=False,
        ),
        vae=tiny_vae(),
        scheduler=diffusers.DDIMScheduler(),
        text_encoder=_t5(),
        tokenizer=t5_tokenizer(),
    )
