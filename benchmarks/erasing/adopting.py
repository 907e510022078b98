"""Draws docs/adopting/grid.png: the base; then UCE's file, a LoRA and an SPM, as they came and as separable parts.

python benchmarks/erasing/adopting.py
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw

import rasura

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "examples" / "reference_model"
OUT = ROOT / "docs" / "adopting" / "grid.png"
ROWS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("UCE, as it came", "uce.safetensors", {"take": "whole"}),
    ("UCE, separable, 8.72 times", "uce.safetensors", {"scale": 8.72}),
    ("LoRA, as it came", "lora", {"take": "whole"}),
    ("LoRA, separable, 8 times", "lora", {"scale": 8.0}),
    ("SPM, as it came", "spm.safetensors", {"take": "whole"}),
    ("SPM, separable, 5 times", "spm.safetensors", {"leave_out": True, "scale": 5.0}),
)
"""What a row shows, the file, and how it is adopted: the sizes are those of docs/adopting.md."""
PROMPTS = ("a dog", "a nice image of a dog", "a dog in ink style", "a cat", "a frog", "a lion", "a rose", "a guitar")
SIZE = 64
LABEL = 170
"""Pixels on the left for what a row shows."""


def draw(pipeline: Any, row: int, sheet: Image.Image) -> None:
    """One row of pictures; the same noise in each column."""
    for at, prompt in enumerate(PROMPTS):
        noise = torch.Generator().manual_seed(at)
        done = pipeline(prompt, height=SIZE, width=SIZE, num_inference_steps=20, guidance_scale=3.0, generator=noise)
        sheet.paste(
            done.images[0].resize((2 * SIZE, 2 * SIZE), Image.Resampling.NEAREST),
            (LABEL + at * 2 * SIZE, row * 2 * SIZE + 16),
        )


def main() -> None:
    """Adopt and draw each; what is reverted is the base again, bit for bit."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(
        MODEL / "pipeline", torch_dtype=torch.float32, safety_checker=None
    )
    pipeline.set_progress_bar_config(disable=True)
    sheet = Image.new("RGB", (LABEL + len(PROMPTS) * 2 * SIZE, (1 + len(ROWS)) * 2 * SIZE + 16), "white")
    pen = ImageDraw.Draw(sheet)
    for at, prompt in enumerate(PROMPTS):
        pen.text((LABEL + at * 2 * SIZE + 4, 2), prompt, fill="black")
    for row, name in enumerate(("the base", *(name for name, _, _ in ROWS))):
        pen.text((4, row * 2 * SIZE + 16 + SIZE), name, fill="black")
    with tempfile.TemporaryDirectory() as folder, rasura.init(folder) as registry:
        theirs = Path(folder) / "theirs"
        subprocess.run([sys.executable, ROOT / "examples" / "foreign.py", MODEL / "pipeline", theirs], check=True)
        registry.new_key("alice")
        base = registry.add_base(MODEL / "pipeline", name="ref")
        del base
        draw(pipeline, 0, sheet)
        for row, (_, file, how) in enumerate(ROWS, start=1):
            found = registry.adopt(
                theirs / file,
                "ref",
                "dog",
                anchor="cat",
                retain=MODEL / "retain.txt",
                templates=MODEL / "templates_objects.txt",
                **how,
            )
            handle = rasura.attach(pipeline, registry=folder)
            handle.apply([found.patch.patch_id], reason="a picture")
            draw(pipeline, row, sheet)
            handle.revert(reason="the next picture")
    OUT.parent.mkdir(exist_ok=True)
    sheet.save(OUT, optimize=True)


if __name__ == "__main__":
    main()
