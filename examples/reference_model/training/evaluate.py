r"""Measure an exported model with its judge, on prompts of a template that was never trained, and draw a labelled grid.

::

    python -m examples.reference_model.training.evaluate --model examples/reference_model \
        --seeds 4 --report work/report.json
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image, ImageDraw, ImageFont

from rasura.evaluation.judges.classifier import Classifier, load_judge

from .vocabulary import BARE_TEMPLATES, DRAWN, EVALUATION_TEMPLATES, STYLES, SUPERCLASSES, THINGS, fill

STEPS, GUIDANCE = 20, 3.0
SUPERCLASS_OF = {thing.name: thing.superclass for thing in THINGS}


@dataclass(frozen=True)
class Question:
    """A prompt with what the judge should name; an empty style means any, a superclass means any member."""

    prompt: str
    noun: str
    style: str
    seed: int


@dataclass(frozen=True)
class Answer:
    """What the judge named for a question."""

    question: Question
    thing: str
    style: str

    @property
    def thing_right(self) -> bool:
        """Right object, or a member of the right superclass."""
        return self.question.noun in {self.thing, SUPERCLASS_OF[self.thing]}

    @property
    def style_right(self) -> bool:
        """Right style, or none was asked for."""
        return self.question.style in {"", self.style}


def load_pipeline(folder: Path) -> StableDiffusionPipeline:
    """The stock pipeline in float32 on the CPU."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@torch.no_grad()
def generate(pipeline: StableDiffusionPipeline, questions: list[Question], batch: int = 26) -> list[Image.Image]:
    """Pictures; every question has its own noise, whatever the batch."""
    pictures: list[Image.Image] = []
    for start in range(0, len(questions), batch):
        part = questions[start : start + batch]
        noise = [torch.Generator().manual_seed(question.seed) for question in part]
        pictures += pipeline(
            [question.prompt for question in part],
            height=64,
            width=64,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            generator=noise,
        ).images
    return pictures


def styled_questions(seeds: int, template: str) -> list[Question]:
    """Every object in every style."""
    return [
        Question(fill(template, thing.name, style), thing.name, style, 1000 * seed + 7 * i + j)
        for seed in range(seeds)
        for j, style in enumerate(STYLES)
        for i, thing in enumerate(DRAWN)
    ]


def other_questions(seeds: int) -> tuple[list[Question], list[Question]]:
    """Superclasses in every style, and bare objects."""
    template = EVALUATION_TEMPLATES[0]
    groups = [
        Question(fill(template, noun, style), noun, style, 500_000 + seed)
        for seed in range(seeds)
        for noun in SUPERCLASSES
        for style in STYLES
    ]
    bare = [
        Question(fill(BARE_TEMPLATES[1], thing.name), thing.name, "", 600_000 + seed)
        for seed in range(seeds)
        for thing in DRAWN
    ]
    return groups, bare


def ask(judge: Classifier, questions: list[Question], pictures: list[Image.Image]) -> list[Answer]:
    """The judge's answers."""
    named = judge.name(pictures)
    return [Answer(question, *pair) for question, pair in zip(questions, named, strict=True)]


def share(flags: Iterable[bool]) -> float:
    """Share of true values."""
    return round(float(np.mean(list(flags))), 4)


def summarise(answers: list[Answer]) -> dict[str, object]:
    """Overall, per style and per object accuracies, and what each failure became."""
    by_style: dict[str, list[Answer]] = defaultdict(list)
    by_noun: dict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        by_style[answer.question.style or "any"].append(answer)
        by_noun[answer.question.noun].append(answer)

    def table(groups: dict[str, list[Answer]]) -> dict[str, dict[str, float]]:
        return {
            name: {
                "object": share(a.thing_right for a in group),
                "style": share(a.style_right for a in group),
                "n": len(group),
            }
            for name, group in groups.items()
        }

    wrong = [
        f"{a.question.noun}/{a.question.style} -> {a.thing}/{a.style}"
        for a in answers
        if not (a.thing_right and a.style_right)
    ]
    return {
        "n": len(answers),
        "object": share(a.thing_right for a in answers),
        "style": share(a.style_right for a in answers),
        "per_style": table(by_style),
        "per_object": table(by_noun),
        "wrong": wrong,
    }


def grid(pictures: list[Image.Image], path: Path) -> None:
    """Objects across, styles down, in two bands so that the file stays readable; pictures in styled_questions order."""
    half, zoom, left, top = (len(DRAWN) + 1) // 2, 2, 84, 28
    cell = 64 * zoom
    canvas = Image.new("RGB", (left + half * cell, 2 * (top + len(STYLES) * cell)), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=20)
    for i, thing in enumerate(DRAWN):
        band, column = divmod(i, half)
        y0 = band * (top + len(STYLES) * cell)
        pen.text((left + column * cell + 4, y0 + 3), thing.name, fill="black", font=font)
        for j, style in enumerate(STYLES):
            picture = pictures[j * len(DRAWN) + i].resize((cell, cell), Image.Resampling.NEAREST)
            canvas.paste(picture, (left + column * cell, y0 + top + j * cell))
            pen.text((4, y0 + top + j * cell + cell // 2 - 12), style, fill="black", font=font)
    canvas.quantize(256).save(path, optimize=True)  # a third of the size, no visible difference


def measure(model: Path, seeds: int, template: str, *, samples: Path | None, only_styled: bool) -> dict[str, object]:
    """The whole evaluation."""
    pipeline, judge = load_pipeline(model / "pipeline"), load_judge(model)
    questions = styled_questions(seeds, template)
    pictures = generate(pipeline, questions)
    if samples is not None:
        grid(pictures[: len(DRAWN) * len(STYLES)], samples)
    report: dict[str, object] = {"template": template, "steps": STEPS, "guidance_scale": GUIDANCE}
    report["styled"] = summarise(ask(judge, questions, pictures))
    if not only_styled:
        for name, asked in zip(("superclass", "bare"), other_questions(seeds), strict=True):
            report[name] = summarise(ask(judge, asked, generate(pipeline, asked)))
    return report


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="an exported folder")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--template", type=int, default=0, help="which evaluation template")
    parser.add_argument("--only-styled", action="store_true")
    parser.add_argument("--samples", type=Path, help="grid picture to write")
    parser.add_argument("--report", type=Path, help="JSON to write")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    template = EVALUATION_TEMPLATES[args.template]
    report = measure(args.model, args.seeds, template, samples=args.samples, only_styled=args.only_styled)
    text = json.dumps(report, indent=2)
    if args.report:
        args.report.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
