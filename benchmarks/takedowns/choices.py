"""Good and bad choices of an anchor, of templates and of a retain list, in pictures: docs/takedowns/choices.png."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from takedowns_page import MODEL, OUT, describe_machine, fill

from rasura.evaluation.images.painter import Painter, Sampling, Shot
from rasura.evaluation.judges.classifier import load_judge

STYLES = ("cartoon", "ink", "sketch", "pixel")
OTHERS = ("pig", "sunflower", "car", "lion", "mushroom")
SEED = 60_001
SIDE = 72
LEFT = 210


@dataclass(frozen=True, slots=True)
class Choice:
    """One way to erase the dog."""

    name: str
    anchor: str
    retain: str
    templates: str


ALL, OBJECTS = str(MODEL / "retain.txt"), str(MODEL / "templates_objects.txt")
CHOICES = (
    Choice("cat, the lists of this page", "cat", ALL, OBJECTS),
    Choice("anchor: animal", "animal", ALL, OBJECTS),
    Choice("template: {} alone", "cat", ALL, "../bare.txt"),
    Choice("retain list: food alone", "cat", "../one.txt", OBJECTS),
)


def main() -> None:
    """Draw every choice beside the base."""
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="rasura-choices-"))
    (folder / "bare.txt").write_text("{}\n")
    (folder / "one.txt").write_text("food\n")
    judge, painter = load_judge(MODEL), Painter.load(MODEL / "pipeline", Sampling())
    dogs = [Shot(f"a picture of a dog in {style} style", SEED + i) for i, style in enumerate(STYLES)]
    rest = [Shot(f"a picture of a {name} in cartoon style", SEED + 10 + i) for i, name in enumerate(OTHERS)]
    rows: list[tuple[str, list[Image.Image]]] = []
    lines = [
        "| dog becomes | dogs seen | others as they should be | leak held out | residual |",
        "|---|---:|---:|---:|---:|",
    ]
    for choice in (None, *CHOICES):
        model = folder / f"choice{len(rows)}" / "model"
        shutil.copytree(MODEL / "pipeline", model)
        leak, residual = ("", "") if choice is None else _takedown(model, choice)
        painter.reload(model)
        pictures = painter.draw([*dogs, *rest], "", lambda *_: None)
        answers = [answer["object"] for answer in judge.look(pictures).answers]
        seen = sum(answer == "dog" for answer in answers[: len(dogs)])
        right = sum(a == b for a, b in zip(answers[len(dogs) :], OTHERS, strict=True))
        name = "the base" if choice is None else choice.name
        rows.append((name, pictures))
        lines.append(f"| {name} | {seen} of {len(dogs)} | {right} of {len(OTHERS)} | {leak} | {residual} |")
    OUT.mkdir(exist_ok=True)
    _draw(rows, OUT / "choices.png")
    fill("choices", "\n".join([*lines, "", describe_machine()]))


def _takedown(model: Path, choice: Choice) -> tuple[str, str]:
    """Do it; what it leaks on what nobody named, and how far from the anchor it stays."""
    # The bad choices are made on purpose.
    (model.parent / "lenient.toml").write_text("[limits]\nalike = 1.0\n", encoding="utf-8")
    for words in (
        ["init"],
        ["key", "new", "alice"],
        ["policy", "set", "lenient.toml"],
        ["takedown", "--model", "model", "--concept", "dog", "--anchor", choice.anchor, "--yes",
         "--retain", choice.retain, "--templates", choice.templates],
    ):  # fmt: skip
        command = [sys.executable, "-m", "rasura", *words, "--json"]
        done = subprocess.run(command, cwd=model.parent, capture_output=True, text=True, check=False)
    measured = json.loads(done.stdout)["data"]["made"][0]["measured"]
    return measured["leak_held_out"], measured["residual"]


def _draw(rows: list[tuple[str, list[Image.Image]]], path: Path) -> None:
    wide = max(len(pictures) for _, pictures in rows)
    sheet = Image.new("RGB", (LEFT + wide * SIDE, len(rows) * SIDE), "white")
    pen = ImageDraw.Draw(sheet)
    for y, (name, pictures) in enumerate(rows):
        pen.text((4, y * SIDE + SIDE // 2 - 6), name, fill="black")
        for x, picture in enumerate(pictures):
            sheet.paste(picture.resize((SIDE, SIDE)), (LEFT + x * SIDE, y * SIDE))
    sheet.save(path, optimize=True)


if __name__ == "__main__":
    main()
