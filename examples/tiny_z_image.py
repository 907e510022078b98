"""A Z-Image pipeline with a few thousand random weights, to try on it what is meant for one of six billion.

`python examples/tiny_z_image.py FOLDER` writes a diffusers folder of the real classes: Qwen3 with a byte tokenizer that
knows a few words, and the denoiser. There is no VAE, so it draws latents alone, and these show nothing.
"""

import sys
from typing import Any, Final

import diffusers
import torch
from transformers import Qwen2Tokenizer, Qwen3Config, Qwen3Model

WORDS: Final = ("dog", "cat", "photo", "tree", "house", "of", "a")
WIDTH: Final = 192


def make_tokenizer() -> Qwen2Tokenizer:
    """Bytes as GPT-2 spells them, the words behind a space, and the marks of a chat."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spelled = {byte: chr(byte) for byte in printable}
    for at, byte in enumerate(byte for byte in range(256) if byte not in spelled):
        spelled[byte] = chr(256 + at)
    pairs: dict[tuple[str, str], None] = {}
    for word in WORDS:
        left = spelled[32]
        for letter in word:
            pairs[left, letter] = None
            left += letter
    symbols = [*spelled.values(), *("".join(pair) for pair in pairs), "<|endoftext|>"]
    merges: Any = list(pairs)  # which transformers takes as pairs, and calls texts
    tokenizer = Qwen2Tokenizer({symbol: at for at, symbol in enumerate(symbols)}, merges)
    tokenizer.chat_template = "<|im_start|>{{ messages[0]['content'] }}<|im_end|>"
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>"], special_tokens=True)
    return tokenizer


def main() -> None:
    """Write the folder."""
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=2048, initializer_range=0.3,
    )  # fmt: skip
    transformer = diffusers.ZImageTransformer2DModel(
        in_channels=4, dim=32, n_layers=1, n_refiner_layers=2, n_heads=2, n_kv_heads=2, cap_feat_dim=WIDTH,
        axes_dims=[4, 6, 6], axes_lens=[64, 32, 32],
    )  # fmt: skip
    for parameter in transformer.parameters():
        parameter.data.normal_(0, 0.2)
    pipeline = diffusers.ZImagePipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=None,
        text_encoder=Qwen3Model(config),
        tokenizer=tokenizer,
        transformer=transformer,
    )
    pipeline.save_pretrained(sys.argv[1])


if __name__ == "__main__":
    main()
