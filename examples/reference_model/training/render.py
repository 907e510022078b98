"""Emoji packages from npm -> an array of 64x64 training pictures in five styles.

    python -m examples.reference_model.training.render --packages node_modules/@iconify-json --out work/pictures.npz

The ink style is a real high-contrast set; neon, sketch and pixel are computed from the colour drawings. Each style has
a ground of its own, so that it cannot be mistaken at 64 pixels. Shift, scale, rotation and mirror come before the
style: a mosaic that is moved afterwards would no longer lie on its grid.
"""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from .vocabulary import STYLES, THINGS

SIZE = 64
WORK_SIZE = 128  # styles are computed at twice the size and then averaged down: smooth lines
COLOUR_VENDORS = ("noto", "noto-v1", "fluent-emoji-flat")
INK_VENDOR = "fluent-emoji-high-contrast"
VENDORS = (*COLOUR_VENDORS, INK_VENDOR)

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]

GROUND: dict[str, Colour] = {
    "cartoon": (255, 255, 255),
    "ink": (196, 196, 200),
    "neon": (12, 8, 56),
    "sketch": (246, 232, 196),
    "pixel": (110, 185, 250),
}


def load_svg(packages: Path, vendor: str, slug: str) -> str:
    """The SVG document of one icon, following aliases."""
    icons = _icons(packages, vendor)
    name = slug
    while name not in icons["icons"]:
        name = icons["aliases"][name]["parent"]
    icon = icons["icons"][name]
    width = icon.get("width", icons.get("width", 16))
    height = icon.get("height", icons.get("height", 16))
    body = icon["body"].replace("currentColor", "#000000")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{icon.get("left", 0)} {icon.get("top", 0)} {width} {height}" width="512" height="512">{body}</svg>'
    )


_CACHE: dict[str, dict[str, Any]] = {}


def _icons(packages: Path, vendor: str) -> dict[str, Any]:
    if vendor not in _CACHE:
        _CACHE[vendor] = json.loads((packages / vendor / "icons.json").read_text())
    return _CACHE[vendor]


def rasterise(svg: str) -> Image.Image:
    """A 512-pixel RGBA picture with premultiplied alpha, so that resampling leaves no fringes."""
    import resvg_py

    image = Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg)))).convert("RGBA")
    return image.convert("RGBa")


def place(drawing: Image.Image, rng: np.random.Generator) -> tuple[Floats, bool]:
    """Shift, scale, turn and perhaps mirror a drawing: RGBA (premultiplied, WORK_SIZE) and whether it is mirrored."""
    scale = rng.uniform(0.84, 0.94)
    angle = np.deg2rad(rng.uniform(-5, 5))
    shift = rng.uniform(-0.035, 0.035, size=2) * WORK_SIZE
    mirror = -1.0 if rng.random() < 0.5 else 1.0
    factor = drawing.width / (WORK_SIZE * scale)
    cos, sin = np.cos(angle) * factor, np.sin(angle) * factor
    half, centre = WORK_SIZE / 2, drawing.width / 2
    row_x = (mirror * cos, mirror * -sin)
    row_y = (sin, cos)
    dx, dy = half + shift[0], half + shift[1]
    matrix = (
        *row_x, centre - row_x[0] * dx - row_x[1] * dy,
        *row_y, centre - row_y[0] * dx - row_y[1] * dy,
    )  # fmt: skip
    placed = drawing.transform((WORK_SIZE, WORK_SIZE), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
    return np.asarray(placed, dtype=np.float32) / np.float32(255), mirror < 0


def over(rgba: Floats, ground: Colour) -> Floats:
    """Composite a premultiplied drawing over a plain ground."""
    return np.asarray(rgba[..., :3] + (1 - rgba[..., 3:]) * (np.asarray(ground, np.float32) / 255), np.float32)


def edges(rgba: Floats) -> Floats:
    """Line strength in [0, 1]: the strongest gradient of any colour channel or of the outline."""
    soft = ndimage.gaussian_filter(np.concatenate([over(rgba, (255, 255, 255)), rgba[..., 3:]], axis=-1), (0.9, 0.9, 0))
    slope = np.hypot(ndimage.sobel(soft, axis=0), ndimage.sobel(soft, axis=1)).max(axis=-1)
    return np.asarray(np.clip(slope / 1.1, 0, 1) ** 0.8, np.float32)


def neon(rgba: Floats) -> Floats:
    """Cyan tubes with a magenta glow on a night ground."""
    line = edges(rgba)
    glow = np.clip(ndimage.gaussian_filter(line, 4.0) * 1.6, 0, 1)[..., None]
    picture = np.ones((*line.shape, 3), np.float32) * (np.asarray(GROUND["neon"], np.float32) / 255)
    picture = picture + glow * (np.asarray((0.95, 0.05, 0.75), np.float32) - picture)
    return np.asarray(picture + line[..., None] * (np.asarray((0.45, 1.0, 1.0)) - picture), np.float32)


def sketch(rgba: Floats, ground: Colour = GROUND["sketch"]) -> Floats:
    """Pencil lines and a little shading, on cream paper if nothing else is asked for."""
    line = edges(rgba)[..., None]
    dark = (1 - over(rgba, (255, 255, 255)).mean(axis=-1, keepdims=True)) * 0.35
    paper = np.asarray(ground, np.float32) / 255
    picture = paper * (1 - dark)
    return np.asarray(picture + line * 0.9 * (np.asarray((0.22, 0.18, 0.18)) - picture), np.float32)


def pixel(rgba: Floats, ground: Colour = GROUND["pixel"]) -> Floats:
    """A mosaic of 16x16 blocks, on a sky-blue ground if nothing else is asked for."""
    block = WORK_SIZE // 16
    small = over(rgba, ground).reshape(16, block, 16, block, 3).mean(axis=(1, 3))
    return np.asarray(small.repeat(block, axis=0).repeat(block, axis=1), np.float32)


def draw(rgba: Floats, style: str) -> Bytes:
    """A placed drawing in one style, as a 64x64 picture."""
    if style in {"cartoon", "ink"}:
        picture = over(rgba, GROUND[style])
    else:
        picture = {"neon": neon, "sketch": sketch, "pixel": pixel}[style](rgba)
    return shrink(picture)


def shrink(picture: Floats) -> Bytes:
    """Average a picture of WORK_SIZE down to 64x64 bytes."""
    ratio = WORK_SIZE // SIZE
    small = picture.reshape(SIZE, ratio, SIZE, ratio, 3).mean(axis=(1, 3))
    return np.asarray(np.clip(small, 0, 1) * 255 + 0.5).astype(np.uint8)


def render(packages: Path, variants: int, seed: int) -> dict[str, npt.NDArray[Any]]:
    """All pictures with their labels (indices into THINGS, STYLES and VENDORS; mirrored is 0 or 1)."""
    rng = np.random.default_rng(seed)
    pictures: list[Bytes] = []
    labels: list[tuple[int, int, int, int]] = []
    for vendor_index, vendor in enumerate(VENDORS):
        styles = ("ink",) if vendor == INK_VENDOR else tuple(s for s in STYLES if s != "ink")
        for thing_index, thing in enumerate(THINGS):
            # Halved first: the transform alone samples every fourth pixel and leaves jagged lines.
            drawing = rasterise(load_svg(packages, vendor, thing.slug)).reduce(2)
            for style in styles:
                for _ in range(variants):
                    placed, mirrored = place(drawing, rng)
                    pictures.append(draw(placed, style))
                    labels.append((thing_index, STYLES.index(style), vendor_index, int(mirrored)))
    columns = zip(("thing", "style", "vendor", "mirrored"), np.asarray(labels, np.int64).T, strict=True)
    return {"pictures": np.stack(pictures), **dict(columns)}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=Path, required=True, help="folder node_modules/@iconify-json")
    parser.add_argument("--out", type=Path, required=True, help="pictures.npz to write")
    parser.add_argument("--variants", type=int, default=24, help="placements of each drawing in each style")
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    arrays = render(args.packages, args.variants, args.seed)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    np.savez(args.out, allow_pickle=False, **arrays)
    print(f"{len(arrays['pictures'])} pictures -> {args.out}")


if __name__ == "__main__":
    main()
