"""Pictures of a trained world, looked at by people (a grid) and by the judge (tables)."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image, ImageDraw

from rasura.evaluation.judges.classifier import Classifier

from .captions import NUMBERS, Scene, evaluation_caption, phrase_of
from .concepts import GROUNDS, GROUPS, LANGUAGES, STYLES, THINGS
from .render import LAYOUTS
from .words import Words

STEPS, GUIDANCE = 20, 3.0
_SIZE: Final = 64


@dataclass(frozen=True, slots=True)
class Ask:
    """A prompt with what counts as right: any of these objects at every place of a layout, and a style or None."""

    section: str
    group: str
    prompt: str
    right: tuple[frozenset[str], ...]
    style: str | None
    seed: int


@torch.no_grad()
def generate(
    pipeline: StableDiffusionPipeline, prompts: Sequence[str], seeds: Sequence[int], steps: int = STEPS
) -> list[Image.Image]:
    """One picture a prompt; every prompt has its own noise, whatever the batch."""
    pictures: list[Image.Image] = []
    for start in range(0, len(prompts), 32):
        noise = [torch.Generator().manual_seed(seed) for seed in seeds[start : start + 32]]
        pictures += pipeline(
            list(prompts[start : start + 32]), height=_SIZE, width=_SIZE, num_inference_steps=steps,
            guidance_scale=GUIDANCE, generator=noise,
        ).images  # fmt: skip
    return pictures


def grid_prompts(words: Mapping[str, Words]) -> list[str]:
    """Eight rows of twelve objects, a style each, then a row of other words and a row of compositions."""
    shown = [round(index * (len(THINGS) - 1) / 11) for index in range(12)]
    prompts = [evaluation_caption(Scene((thing,), style)) for style in range(len(STYLES)) for thing in shown]
    prompts += [(words[THINGS[thing].name].all * 4)[3 * (place % 3) + 2] for place, thing in enumerate(shown)]
    others = [(THINGS[a], THINGS[b]) for a, b in zip(shown, shown[5:] + shown[:5], strict=True)]
    prompts += [f"{a.with_article} and {b.with_article}" for a, b in others[:4]]
    prompts += [f"{NUMBERS[2 + place % 2]} {a.plural}" for place, (a, _) in enumerate(others[4:8])]
    colours = list(GROUNDS)
    prompts += [f"{a.with_article} on a {colours[place]} background" for place, (a, _) in enumerate(others[8:])]
    return prompts


def draw_grid(pipeline: StableDiffusionPipeline, words: Mapping[str, Words], path: Path, steps: int = STEPS) -> None:
    """Write the grid as one labelled picture."""
    prompts, cell, top = grid_prompts(words), 96, 14
    pictures = generate(pipeline, prompts, [100 + index for index in range(len(prompts))], steps)
    rows = len(prompts) // 12
    canvas = Image.new("RGB", (12 * cell, rows * (cell + top)), "white")
    pen = ImageDraw.Draw(canvas)
    for index, (prompt, picture) in enumerate(zip(prompts, pictures, strict=True)):
        row, column = divmod(index, 12)
        canvas.paste(picture.resize((cell, cell)), (column * cell, row * (cell + top) + top))
        label = prompt.removeprefix("a nice image of ").replace(" drawn in ", ", ").removesuffix(" style")
        pen.text((column * cell + 2, row * (cell + top) + 1), label[:18], fill="black")
    part = path.with_suffix(".part.png")
    canvas.save(part)
    part.replace(path)


def plan_questions(words: Mapping[str, Words], cells: int, seed: int) -> list[Ask]:
    """All objects in all styles (or `cells` of them by chance), then words, groups, artists and compositions."""
    rng = random.Random(seed)
    every = [(thing, style) for thing in range(len(THINGS)) for style in range(len(STYLES))]
    chosen = every if cells >= len(every) else rng.sample(every, cells)
    share = len(chosen) / len(every)
    asks: list[Ask] = []

    def add(section: str, group: str, prompt: str, right: Sequence[frozenset[str]], style: str | None) -> None:
        asks.append(Ask(section, group, prompt, tuple(right), style, seed * 100_000 + len(asks)))

    for thing, style in chosen:
        entry = THINGS[thing]
        prompt = evaluation_caption(Scene((thing,), style))
        add("object in style", entry.category, prompt, [frozenset({entry.name})], STYLES[style].name)
        by_artist = f"{entry.with_article} by {STYLES[style].artist}"
        add("by artist", STYLES[style].name, by_artist, [frozenset({entry.name})], STYLES[style].name)
    colours = list(GROUNDS)
    for entry in rng.sample(THINGS, max(2, round(share * len(THINGS)))):
        own = frozenset({entry.name})
        for language in LANGUAGES:
            for word in words[entry.name].by_language[language][: 3 if language == "en" else 1]:
                if word != entry.name:
                    add("other words", language, f"a picture of {word}", [own], None)
        other = rng.choice([thing for thing in THINGS if thing is not entry])
        pair = f"{entry.with_article} and {other.with_article}"
        add("composition", "pair", pair, [own, frozenset({other.name})], None)
        for count, number in NUMBERS.items():
            add("composition", number, f"{number} {entry.plural}", [own] * count, None)
        add("composition", "ground", f"{entry.with_article} on a {rng.choice(colours)} background", [own], None)
    for group in GROUPS:
        add("group words", group.words["en"], f"a picture of {phrase_of(group.words['en'], None)}",
            [group.members], None)  # fmt: skip
    return asks


def crops(picture: Image.Image, count: int) -> list[Image.Image]:
    """The places of a layout, cut out and enlarged; the whole picture for one object."""
    centres, scale = LAYOUTS[count]
    if count == 1:
        return [picture]
    half = scale / 0.9 / 2
    boxes = [
        tuple(round(_SIZE * min(1.0, max(0.0, edge))) for edge in (x - half, y - half, x + half, y + half))
        for x, y in centres
    ]
    return [picture.crop((a, b, c, d)).resize((_SIZE, _SIZE)) for a, b, c, d in boxes]


def measure(pipeline: StableDiffusionPipeline, judge: Classifier, asks: Sequence[Ask]) -> dict[str, object]:
    """For every section and group the shares of right objects (at all places), categories and styles, and n."""
    category = {thing.name: thing.category for thing in THINGS}
    pictures = generate(pipeline, [ask.prompt for ask in asks], [ask.seed for ask in asks])
    rows: dict[str, dict[str, list[tuple[bool, bool, bool]]]] = defaultdict(lambda: defaultdict(list))
    wrong: list[str] = []
    for ask, picture in zip(asks, pictures, strict=True):
        named = judge.name([*crops(picture, len(ask.right)), picture])
        found = [thing for thing, _ in named[:-1]]
        thing_right = all(thing in right for thing, right in zip(found, ask.right, strict=True))
        category_right = all(
            category[thing] in {category[name] for name in right} for thing, right in zip(found, ask.right, strict=True)
        )
        style_right = ask.style in {None, named[-1][1]}
        for group in (ask.group, "all"):
            rows[ask.section][group].append((thing_right, category_right, style_right))
        if not (thing_right and style_right):
            wrong.append(f"{ask.prompt} -> {', '.join(found)} / {named[-1][1]}")
    tables = {
        section: {
            group: {
                "object": sum(row[0] for row in answers) / len(answers),
                "category": sum(row[1] for row in answers) / len(answers),
                "style": sum(row[2] for row in answers) / len(answers),
                "n": len(answers),
            }
            for group, answers in sorted(groups.items())
        }
        for section, groups in rows.items()
    }
    return {"steps": STEPS, "guidance_scale": GUIDANCE, "tables": tables, "wrong": wrong}
