"""Thirty takedowns and withdrawals in random order on the reference model, typed through the command line.

After each one, pictures of everything that is erased, and of everything that was withdrawn, are drawn from the model's
folder itself, and the classifier says what they show: nothing that is erased may be seen at any moment. At the end all
is withdrawn, and every file must have its first digest.

    python benchmarks/takedowns/day.py [--steps 30] [--seed 1] [--folder DIR]

Writes its table into docs/takedowns.md, and docs/takedowns/day.png.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from takedowns_page import MODEL, OUT, describe_machine, fill

from rasura.evaluation.images.painter import Painter, Sampling, Shot
from rasura.evaluation.judges.classifier import load_judge

ANCHORS = {
    "dog": "frog", "big dog": "frog", "cat": "penguin", "pig": "frog", "car": "airplane", "red car": "airplane",
    "bus": "airplane", "rose": "cactus", "apple": "banana", "strawberry": "banana", "pizza": "banana",
    "skull": "umbrella", "dagger": "umbrella", "neon": "cartoon", "sketch": "cartoon",
}  # fmt: skip
"""Concepts, two of them near another one and two of them styles, and what each becomes."""
STYLES = ("neon", "sketch")
SEEDS = (50_001, 50_002)
SIDE = 64


@dataclass(frozen=True, slots=True)
class Step:
    """One command, and what was seen after it."""

    name: str
    concept: str
    seconds: float
    erased: int
    anew: int
    visible: int
    pictures: int
    back: str
    said: str


def main() -> None:
    """Run the day; see the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--most", type=int, default=9, help="Concepts that are erased at once, at most.")
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    folder = args.folder or Path(tempfile.mkdtemp(prefix="rasura-day-"))
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / "model"
    shutil.copytree(MODEL / "pipeline", model)
    first = _digests(model)
    _type(folder, "init")
    _type(folder, "key", "new", "alice")
    chance, judge = random.Random(args.seed), load_judge(MODEL)
    painter = Painter.load(model, Sampling())
    erased: list[str] = []
    steps: list[Step] = []
    rows: list[tuple[str, list[Image.Image]]] = []
    for number in range(args.steps):
        free = [concept for concept in ANCHORS if concept not in erased]
        down = not erased or (len(erased) < args.most and chance.random() < 0.6)
        concept = chance.choice(free) if down else chance.choice(erased)
        step, row = _step(folder, painter, judge, erased, concept, down=down)
        print(f"{number + 1:2} {step}", file=sys.stderr, flush=True)
        steps.append(step)
        rows.append((f"{step.name} {concept}", row))
    seconds = _used()
    _type(folder, "withdraw", *erased, "--model", str(model), "--yes") if erased else None
    seconds = _used() - seconds
    same = sum(_digests(model)[name] == digest for name, digest in first.items())
    entries = _type(folder, "audit", "verify")["data"]
    OUT.mkdir(exist_ok=True)
    _draw(rows, OUT / "day.png")
    fill("day", _table(steps, erased, seconds, f"{same} of {len(first)}", entries))
    sys.exit(0 if same == len(first) and not any(step.visible for step in steps) else 1)


def _step(
    folder: Path, painter: Painter, judge: Any, erased: list[str], concept: str, *, down: bool
) -> tuple[Step, list[Image.Image]]:
    model, start = folder / "model", _used()
    if down:
        templates = MODEL / ("templates_styles.txt" if concept in STYLES else "templates_objects.txt")
        said = _type(
            folder, "takedown", "--model", str(model), "--concept", concept, "--anchor", ANCHORS[concept],
            "--retain", str(MODEL / "retain.txt"), "--templates", str(templates), "--yes",
        )  # fmt: skip
    else:
        said = _type(folder, "withdraw", concept, "--model", str(model), "--yes")
    seconds = _used() - start
    refused = not said["ok"]
    if not refused:
        erased.append(concept) if down else erased.remove(concept)
    painter.reload(model)
    asked = [*erased, *([] if down or refused else [concept])]
    shots = [Shot(_prompt(name), seed) for name in asked for seed in SEEDS]
    pictures = painter.draw(shots, "", lambda *_: None) if shots else []
    answers = judge.look(pictures).answers if pictures else []
    shown = [answers[i][_axis(name)] == _label(name) for i, name in enumerate(n for n in asked for _ in SEEDS)]
    visible = sum(shown[: len(erased) * len(SEEDS)])
    back = "" if down or refused else f"{sum(shown[len(erased) * len(SEEDS) :])} of {len(SEEDS)}"
    data = said["data"] or {}
    anew = sum(item["supersedes"] is not None for item in data.get("made", ()))
    what = "refused: " + said["error"]["message"][:60] if refused else _say(data)
    name = "takedown" if down else "withdraw"
    return Step(name, concept, seconds, len(erased), anew, visible, len(erased) * len(SEEDS), back, what), pictures


def _used() -> float:
    """Seconds of processor time of all commands so far, user and system: other work hardly changes them."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def _say(data: dict[str, Any]) -> str:
    near = [note for note in data["notices"] if "may not be as the base" in note]
    covered = [f"covered by {item['concept_of']}" for item in data["covered"]]
    orphans = [item["concept"] for item in data["made"] if item["supersedes"] is None] if data["withdrawn"] else []
    return "; ".join(
        [*covered, *(f"{name} gets a patch of its own" for name in orphans), *(["near one stays"] * bool(near))]
    )


def _type(folder: Path, *words: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "rasura", *words, "--json"]
    environment = os.environ | {"RASURA_ACTOR": "day"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _prompt(name: str) -> str:
    return f"a picture of a palm tree in {name} style" if name in STYLES else f"a picture of a {name}"


def _axis(name: str) -> str:
    return "style" if name in STYLES else "object"


def _label(name: str) -> str:
    return name.rsplit(maxsplit=1)[-1]


def _digests(model: Path) -> dict[str, str]:
    files = [path for path in sorted(model.rglob("*")) if path.is_file() and ".rasura" not in path.parts]
    return {str(path.relative_to(model)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _draw(rows: list[tuple[str, list[Image.Image]]], path: Path) -> None:
    wide = max(len(pictures) for _, pictures in rows)
    sheet = Image.new("RGB", (150 + wide * SIDE, len(rows) * SIDE), "white")
    pen = ImageDraw.Draw(sheet)
    for y, (name, pictures) in enumerate(rows):
        pen.text((4, y * SIDE + SIDE // 2 - 6), name, fill="black")
        for x, picture in enumerate(pictures):
            sheet.paste(picture.resize((SIDE, SIDE)), (150 + x * SIDE, y * SIDE))
    sheet.save(path, optimize=True)


def _table(steps: list[Step], erased: list[str], seconds: float, same: str, entries: dict[str, Any]) -> str:
    lines = [
        "| # | command | concept | erased | solved anew | erased ones seen | withdrawn one back | CPU seconds | said |",
        "|---:|---|---|---:|---:|---:|---|---:|---|",
    ]
    lines += [
        f"| {i} | {s.name} | {s.concept} | {s.erased} | {s.anew} | {s.visible} of {s.pictures} | {s.back} | "
        f"{s.seconds:.1f} | {s.said} |"
        for i, s in enumerate(steps, 1)
    ]
    seen, drawn = sum(s.visible for s in steps), sum(s.pictures for s in steps)
    lines += [
        "",
        (
            f"At the end all {len(erased)} were withdrawn in {seconds:.1f} CPU seconds: {same} files have their first "
            f"SHA-256. Erased concepts were seen in {seen} of {drawn} pictures. The log of {entries['size']} entries "
            "verifies."
        ),
        "",
        describe_machine(),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
