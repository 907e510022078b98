"""Stands in for a fine-tune: noise of a tenth of their spread on the UNet's cross-attention weights.

python examples/fine_tuned.py FOLDER
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

SPREAD = 0.1


def main(folder: Path) -> None:
    """Change the weights of the pipeline in this folder."""
    generator = torch.Generator().manual_seed(1)
    for path in sorted((folder / "unet").glob("*.safetensors")):
        tensors = load_file(path)
        for name, tensor in tensors.items():
            if "attn2" in name and name.endswith(".weight"):
                noise = torch.randn(tensor.shape, generator=generator) * tensor.float().std()
                tensors[name] = (tensor.float() + SPREAD * noise).to(tensor.dtype)
        save_file(tensors, path, {"format": "pt"})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
