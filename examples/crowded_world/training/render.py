"""Emoji drawings from npm packages -> 64x64 pictures of scenes in eight styles.

Drawings are found by code point, not by name: the sets name the same emoji differently. One set of colour drawings is
kept for the judge's test alone. Placement comes before the style: a mosaic that is moved afterwards would no longer lie
on its grid.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from examples.reference_model.training.render import (
    GROUND,
    WORK_SIZE,
    Bytes,
    Colour,
    Floats,
    edges,
    load_svg,
    neon,
    over,
    pixel,
    rasterise,
    shrink,
    sketch,
)
from PIL import Image
from scipy import ndimage

from .captions import Scene
from .concepts import GROUNDS, STYLES, THINGS
from .words import Words

COLOUR_VENDORS: Final = ("noto", "fluent-emoji-flat")
INK_VENDOR: Final = "fluent-emoji-high-contrast"
TEST_VENDOR: Final = "noto-v1"  # never trained on: the judge's test
VENDORS: Final = (*COLOUR_VENDORS, INK_VENDOR, TEST_VENDOR)
PLACEMENTS = 3  # of each drawing in each style; more blur a small model

_GROUND: Final[dict[str, Colour]] = {
    **GROUND,
    "watercolor": (236, 224, 244),
    "blueprint": (26, 70, 150),
    "poster": (245, 150, 40),
}
# Where objects stand and how large they are, by how many there are: (x, y) of the centre as a share, then scale.
LAYOUTS: Final[dict[int, tuple[tuple[tuple[float, float], ...], float]]] = {
    1: (((0.5, 0.5),), 0.9),
    2: (((0.26, 0.5), (0.74, 0.5)), 0.47),
    3: (((0.5, 0.27), (0.26, 0.74), (0.74, 0.74)), 0.46),
}


class Drawings:
    """The drawings of all sets, rasterised once, by object and vendor."""

    def __init__(self, packages: Path, words: Mapping[str, Words]) -> None:
        self._packages = packages / "@iconify-json"
        self._words = words

    @cache  # noqa: B019 - lives as long as the program
    def get(self, thing: int, vendor: str) -> Image.Image | None:
        """A 256-pixel premultiplied picture, or None where the set lacks the emoji."""
        slug = self._slug(self._words[THINGS[thing].name].hexcodes[0], vendor)
        if slug is None:
            return None
        # Halved first: the transform alone samples every fourth pixel and leaves jagged lines.
        return rasterise(load_svg(self._packages, vendor, slug)).reduce(2)

    def _slug(self, hexcode: str, vendor: str) -> str | None:
        """The name of an emoji in a set; the old Noto set has no list of code points but the names of the new one."""
        code = hexcode.lower()
        known = _read(self._packages / ("noto" if vendor == TEST_VENDOR else vendor) / "chars.json")
        slug: str | None = known.get(code, known.get(code.replace("-fe0f", "")))
        if slug is None or vendor != TEST_VENDOR:
            return slug
        icons = _read(self._packages / vendor / "icons.json")
        return slug if slug in icons["icons"] or slug in icons.get("aliases", {}) else None


@cache
def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def compose(drawings: list[Image.Image], rng: np.random.Generator) -> Floats:
    """Drawings in the layout for their number, each a little shifted, scaled and turned: premultiplied, WORK_SIZE."""
    centres, scale = LAYOUTS[len(drawings)]
    canvas = np.zeros((WORK_SIZE, WORK_SIZE, 4), np.float32)
    for drawing, centre in zip(drawings, centres, strict=True):
        placed = _place(drawing, centre, scale, rng)
        canvas = placed + canvas * (1 - placed[..., 3:])
    return canvas


def _place(drawing: Image.Image, centre: tuple[float, float], scale: float, rng: np.random.Generator) -> Floats:
    size = scale * rng.uniform(0.95, 1.03)
    angle = np.deg2rad(rng.uniform(-4, 4))
    dx, dy = (np.asarray(centre) + rng.uniform(-0.025, 0.025, size=2) * scale) * WORK_SIZE
    factor = drawing.width / (WORK_SIZE * size)
    cos, sin, middle = np.cos(angle) * factor, np.sin(angle) * factor, drawing.width / 2
    matrix = (cos, -sin, middle - cos * dx + sin * dy, sin, cos, middle - sin * dx - cos * dy)
    # Small objects are reduced before they are placed, for the same reason as in Drawings.get.
    if scale < 0.6:
        drawing, matrix = drawing.reduce(2), tuple(value / 2 for value in matrix)
    placed = drawing.transform((WORK_SIZE, WORK_SIZE), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
    return np.asarray(placed, dtype=np.float32) / np.float32(255)


@cache
def _mottle() -> Floats:
    """The same uneven wash under every watercolour, in [-1, 1]."""
    noise = ndimage.gaussian_filter(np.random.default_rng(3).standard_normal((WORK_SIZE, WORK_SIZE)), 7.0)
    return np.asarray(noise / np.abs(noise).max(), np.float32)[..., None]


def watercolor(rgba: Floats) -> Floats:
    """Pale, running colours with dark rims on lilac paper."""
    wet = np.asarray(ndimage.gaussian_filter(rgba, (2.2, 2.2, 0)), np.float32)
    paper = np.asarray(_GROUND["watercolor"], np.float32) / 255
    rim = np.clip(4 * wet[..., 3:] * (1 - wet[..., 3:]), 0, 1)
    strength = 0.72 + 0.2 * _mottle() + 0.18 * rim
    return np.asarray(paper + strength * (over(wet, _GROUND["watercolor"]) - paper) - 0.12 * rim, np.float32)


def blueprint(rgba: Floats) -> Floats:
    """White lines on blue squared paper."""
    ground = np.ones((WORK_SIZE, WORK_SIZE, 3), np.float32) * (np.asarray(_GROUND["blueprint"], np.float32) / 255)
    step = WORK_SIZE // 8
    grid = (np.arange(WORK_SIZE) % step < 2).astype(np.float32)
    ground = ground + 0.22 * np.maximum(grid[:, None], grid[None, :])[..., None] * (1 - ground)
    line = edges(rgba)[..., None]
    return np.asarray(ground + line * (np.asarray((0.96, 0.98, 1.0), np.float32) - ground), np.float32)


def poster(rgba: Floats) -> Floats:
    """Three flat inks (navy, red, cream) by brightness, on orange."""
    inks = np.asarray([(28, 30, 78), (214, 52, 52), (252, 238, 208)], np.float32) / 255
    grey = over(rgba, (128, 128, 128)) @ np.asarray((0.3, 0.55, 0.15), np.float32)
    level = (grey > 0.36).astype(np.int64) + (grey > 0.68)
    ground = np.asarray(_GROUND["poster"], np.float32) / 255
    return np.asarray(inks[level] * rgba[..., 3:] + ground * (1 - rgba[..., 3:]), np.float32)


def draw(rgba: Floats, style: str, ground: Colour | None) -> Bytes:
    """A composed scene in one style, on the style's own ground or on a coloured one: a 64x64 picture."""
    plain = ground or _GROUND[style]
    match style:
        case "cartoon" | "ink":
            picture = over(rgba, plain)
        case "sketch":
            picture = sketch(rgba, plain)
        case "pixel":
            picture = pixel(rgba, plain)
        case _:
            picture = {"neon": neon, "watercolor": watercolor, "blueprint": blueprint, "poster": poster}[style](rgba)
    return shrink(picture)


def vendors_of(style: int) -> tuple[str, ...]:
    """The sets that the generator learns a style from."""
    return (INK_VENDOR,) if STYLES[style].name == "ink" else COLOUR_VENDORS


def plan_scenes(pairs: int, things: int, rng: random.Random) -> Iterator[tuple[Scene, str]]:
    """The scenes to draw, each with its vendor: all single objects; grounds, numbers and pairs by chance."""
    styles, grounded = range(len(STYLES)), [i for i, style in enumerate(STYLES) if style.grounded]
    for thing in range(things):
        for style in styles:
            for vendor in vendors_of(style):
                for _ in range(PLACEMENTS):
                    yield Scene((thing,), style), vendor
        for ground in range(len(GROUNDS)):
            for style in rng.sample(grounded, 2):
                yield Scene((thing,), style, ground=ground), rng.choice(vendors_of(style))
        for count in (2, 3):
            for style in rng.sample(styles, 3):
                yield Scene((thing,), style, count), rng.choice(vendors_of(style))
    for _ in range(pairs):
        first, second = rng.sample(range(things), 2)
        style = rng.choice(styles)
        yield Scene((first, second), style), rng.choice(vendors_of(style))


def plan_test(things: int) -> Iterator[tuple[Scene, str]]:
    """Every object of the set that nothing is trained on, in every style but ink, which it cannot give."""
    for thing in range(things):
        for style, entry in enumerate(STYLES):
            if entry.name != "ink":
                yield Scene((thing,), style), TEST_VENDOR


def plan_fresh(things: int) -> Iterator[tuple[Scene, str]]:
    """One new placement of every drawing of a single object that is trained on."""
    for thing in range(things):
        for style in range(len(STYLES)):
            for vendor in vendors_of(style):
                yield Scene((thing,), style), vendor


@dataclass(frozen=True, slots=True)
class Pictures:
    """Rendered scenes: pixels [n, 64, 64, 3] with the scene and the vendor of each."""

    pixels: Bytes
    scenes: list[Scene]
    vendors: list[str]

    def save(self, path: Path) -> None:
        """Write one .npz; scenes as rows of (first, second or -1, style, count, ground or -1)."""
        rows = [
            (s.things[0], s.things[1] if len(s.things) > 1 else -1, s.style, s.count,
             -1 if s.ground is None else s.ground)
            for s in self.scenes
        ]  # fmt: skip
        part = path.with_suffix(".part.npz")
        vendor = np.asarray([VENDORS.index(name) for name in self.vendors], np.int64)
        np.savez(part, pixels=self.pixels, scenes=np.asarray(rows, np.int64), vendors=vendor)
        part.replace(path)

    @classmethod
    def load(cls, path: Path) -> Pictures:
        """Read what save wrote."""
        with np.load(path) as arrays:
            rows: npt.NDArray[np.int64] = arrays["scenes"]
            scenes = [
                Scene((a,) if b < 0 else (a, b), style, count, None if ground < 0 else ground)
                for a, b, style, count, ground in rows.tolist()
            ]
            return cls(arrays["pixels"], scenes, [VENDORS[index] for index in arrays["vendors"].tolist()])


def render(drawings: Drawings, plan: Iterator[tuple[Scene, str]], seed: int) -> Pictures:
    """Draw every scene of a plan that its vendor has drawings for."""
    rng = np.random.default_rng(seed)
    pixels: list[Bytes] = []
    scenes: list[Scene] = []
    vendors: list[str] = []
    colours = list(GROUNDS.values())
    for scene, vendor in plan:
        found = [drawings.get(thing, vendor) for thing in scene.things * scene.count]
        known = [drawing for drawing in found if drawing is not None]
        if len(known) < len(found):
            continue
        ground = None if scene.ground is None else colours[scene.ground]
        pixels.append(draw(compose(known, rng), STYLES[scene.style].name, ground))
        scenes.append(scene)
        vendors.append(vendor)
    return Pictures(np.stack(pixels), scenes, vendors)
