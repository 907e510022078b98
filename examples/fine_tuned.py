"""Stands in for a fine-tune: noise on weights of a pipeline, a share of their spread.

python examples/fine_tuned.py FOLDER [--spread 0.1] [--seed 1] [--text-encoder]

Without `--text-encoder` the UNet's cross-attention weights change, with it those of the text encoder, too.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def change(folder: Path, part: str, spread: float, generator: torch.Generator) -> None:
    """Change the matrices of a folder's weights whose names have `part` in them."""
    for path in sorted(folder.glob("*.safetensors")):
        tensors = load_file(path)
        for name, tensor in tensors.items():
            if part in name and name.endswith(".weight"):
                noise = torch.randn(tensor.shape, generator=generator) * tensor.float().std()
                tensors[name] = (tensor.float() + spread * noise).to(tensor.dtype)
        save_file(tensors, path, {"format": "pt"})


def main() -> None:
    """Change the weights of a pipeline."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--spread", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--text-encoder", action="store_true")
    given = parser.parse_args()
    generator = torch.Generator().manual_seed(given.seed)
    change(given.folder / "unet", "attn2", given.spread, generator)
    if given.text_encoder:
        change(given.folder / "text_encoder", "layers", given.spread, generator)


if __name__ == "__main__":
    main()
