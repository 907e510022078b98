"""A tiny random Kolors: diffusers' own ChatGLM and its tokenizer on a SentencePiece model of a few words and the letters.

Its tokenizer is written in Python and reads with the library `sentencepiece`, without which diffusers has no Kolors.
"""

import struct
import tempfile
from typing import Any, Final

import pytest

__all__ = ["tiny_kolors"]

_WORDS: Final = ("a", "photo", "of", "dog", "cat", "van", "gogh", "painting", "tree", "house")
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ!,"
_PLAIN, _UNKNOWN, _CONTROL = 1, 2, 3
_SPECIAL: Final = 9
"""Marks that the tokenizer puts behind its pieces."""
_WIDTH: Final = 64


def tiny_kolors() -> Any:
    """The pipeline, without what decodes pictures."""
    pytest.importorskip("sentencepiece", reason="Kolors' tokenizer reads with it")
    import diffusers
    from diffusers.pipelines.kolors.text_encoder import ChatGLMConfig, ChatGLMModel
    from diffusers.pipelines.kolors.tokenizer import ChatGLMTokenizer

    with tempfile.NamedTemporaryFile(suffix=".model", delete=False) as file:
        file.write(_sentencepiece())
    tokenizer = ChatGLMTokenizer(file.name)  # read again where it is saved
    encoder = ChatGLMModel(
        ChatGLMConfig(
            num_layers=3, padded_vocab_size=_count_pieces() + _SPECIAL, hidden_size=_WIDTH, ffn_hidden_size=32,
            kv_channels=16, num_attention_heads=4, multi_query_attention=True, multi_query_group_num=2, seq_length=256,
            original_rope=True,
        )
    )  # fmt: skip
    for parameter in encoder.parameters():  # which the class leaves as the memory was
        parameter.data.normal_(0, 0.3)
    unet = diffusers.UNet2DConditionModel(
        sample_size=4, layers_per_block=1, block_out_channels=(8, 16), norm_num_groups=4, attention_head_dim=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=48, encoder_hid_dim=_WIDTH, encoder_hid_dim_type="text_proj", use_linear_projection=True,
        addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + _WIDTH,
    )  # fmt: skip
    return diffusers.KolorsPipeline(
        vae=None, text_encoder=encoder, tokenizer=tokenizer, unet=unet, scheduler=diffusers.EulerDiscreteScheduler()
    )


def _count_pieces() -> int:
    return 4 + len(_WORDS) + len(_LETTERS)


def _sentencepiece() -> bytes:
    """The message of a unigram model (protobuf): pieces, their scores and kinds."""
    pieces: list[tuple[str, float, int]] = [("<unk>", 0.0, _UNKNOWN), ("<s>", 0.0, _CONTROL), ("</s>", 0.0, _CONTROL)]
    pieces += [("▁", -3.0, _PLAIN), *((f"▁{word}", -2.0, _PLAIN) for word in _WORDS)]
    pieces += [(letter, -5.0, _PLAIN) for letter in _LETTERS]
    return b"".join(_field(1, _piece(*piece)) for piece in pieces)


def _piece(text: str, score: float, kind: int) -> bytes:
    return _field(1, text.encode()) + b"\x15" + struct.pack("<f", score) + b"\x18" + bytes([kind])


def _field(number: int, data: bytes) -> bytes:
    """A field of bytes, fewer than 128."""
    return bytes([number << 3 | 2, len(data)]) + data
