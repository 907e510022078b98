"""Draws docs/adopting/grid.png: the base, UCE's file as it came, and its separable part with a scale.

python benchmarks/adopting.py
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw

import rasura

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "examples" / "reference_model"
OUT = ROOT / "docs" / "adopting" / "grid.png"
SCALE = 8.72
PROMPTS = ("a dog", "a nice image of a dog", "a dog in ink style", "a cat", "a frog", "a lion", "a rose", "a guitar")
SIZE = 64


def draw(pipeline: Any, row: int, sheet: Image.Image) -> None:
    """One row of pictures; the same noise in each column."""
    for at, prompt in enumerate(PROMPTS):
        noise = torch.Generator().manual_seed(at)
        done = pipeline(prompt, height=SIZE, width=SIZE, num_inference_steps=20, guidance_scale=3.0, generator=noise)
        sheet.paste(
            done.images[0].resize((2 * SIZE, 2 * SIZE), Image.Resampling.NEAREST), (at * 2 * SIZE, row * 2 * SIZE + 16)
        )


def main() -> None:
    """Adopt twice, draw three times."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(
        MODEL / "pipeline", torch_dtype=torch.float32, safety_checker=None
    )
    pipeline.set_progress_bar_config(disable=True)
    sheet = Image.new("RGB", (len(PROMPTS) * 2 * SIZE, 3 * 2 * SIZE + 16), "white")
    for at, prompt in enumerate(PROMPTS):
        ImageDraw.Draw(sheet).text((at * 2 * SIZE + 4, 2), prompt, fill="black")
    with tempfile.TemporaryDirectory() as folder, rasura.init(folder) as registry:
        theirs = Path(folder) / "theirs"
        subprocess.run([sys.executable, ROOT / "examples" / "foreign.py", MODEL / "pipeline", theirs], check=True)
        registry.new_key("alice")
        base = registry.add_base(MODEL / "pipeline", name="ref")
        del base
        draw(pipeline, 0, sheet)
        for row, how in enumerate(({"take": "whole"}, {"scale": SCALE}), start=1):
            found = registry.adopt(
                theirs / "uce.safetensors",
                "ref",
                "dog",
                anchor="cat",
                retain=MODEL / "retain.txt",
                templates=MODEL / "templates_objects.txt",
                **how,  # type: ignore[arg-type]  # two choices
            )
            handle = rasura.attach(pipeline, registry=folder)
            handle.apply([found.patch.patch_id], reason="a picture")
            draw(pipeline, row, sheet)
            handle.revert(reason="the next picture")
    OUT.parent.mkdir(exist_ok=True)
    sheet.save(OUT, optimize=True)


if __name__ == "__main__":
    main()
