"""The main job on a small real model: erase, check, apply, look, revert, prove.

(1) a fresh registry, a fresh key, a copy of the model, registered as a base;
(2) one object and one style erased: two signed patches;
(3) the check;
(4) pictures and classifier answers before;
(5) both patches applied to the copy, the same pictures after;
(6) one patch reverted, then the other; every file has its first digest again;
(7) the log verified.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from PIL.Image import Image

from rasura.evaluation.images.grid import Row, draw_grid, save_grid
from rasura.evaluation.images.painter import Painter, Shot
from rasura.evaluation.images.questions import Answer, Question, Score, Subjects, labels, questions, scores
from rasura.evaluation.judges.classifier import load_judge
from rasura.evaluation.judges.interface import Judge
from rasura.patches.checks.check import Member, Verdict, check
from rasura.patches.erasers.request import EraseRequest
from rasura.patches.errors import ExistsError, NotFoundError
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.hosts.disk.new_copy import copy_model
from rasura.patches.prompts.concept_prompts import Target
from rasura.patches.prompts.retain_set import load_retain_set
from rasura.patches.types import PatchId, Progress
from rasura.registry._storage.records.records import Draft
from rasura.registry.apply import operations
from rasura.registry.apply.receipt import Actor
from rasura.registry.erase.base_models import add_base
from rasura.registry.erase.erase import Erased, erase
from rasura.registry.log.verify import verify_log
from rasura.registry.registry import Registry
from rasura.registry.trust.keys.key_files import make_key

THING: Final = "dog"
THING_ANCHOR: Final = "cat"
"""Not the superclass: a model that draws dogs for `an animal` too cannot lose them to it (docs/lab-log.md)."""

STYLE: Final = "neon"
STYLE_ANCHOR: Final = "cartoon"
GRID: Final = "before_after.png"


@dataclass(frozen=True, slots=True, eq=False)
class DemoReport:
    """What the demo did and found.

    Attributes:
        folder: where everything lies: the model's copy, the registry, the picture.
        patches: the two patches.
        verdict: the composer's.
        scores: classifier accuracy before and after.
        restored: whether every file of the model has its first SHA-256 again.
        files: how many files that are.
        entries: size of the verified log.
        picture: the grid.
    """

    folder: Path
    patches: tuple[Erased, ...]
    verdict: Verdict
    scores: tuple[Score, ...]
    restored: bool
    files: int
    entries: int
    picture: Path


@dataclass(frozen=True, slots=True, eq=False)
class _Stage:
    """What the steps share."""

    registry: Registry
    model: Path
    painter: Painter
    judge: Judge
    subjects: Subjects
    actor: Actor
    progress: Progress

    def look(self, asked: Sequence[Question], label: str) -> tuple[list[Image], list[Answer]]:
        """Draw from the folder as it is now, and ask the judge."""
        self.painter.reload(self.model)
        pictures = self.painter.draw([question.shot for question in asked], f"drawing {label}", self.progress)
        return pictures, self.judge.look(pictures).answers


def run_demo(source: Path, folder: Path, actor: Actor, progress: Progress) -> DemoReport:
    """Run the demo on a reference model.

    Args:
        source: folder with `pipeline/`, `classifier.*`, `concepts.json`, `retain.txt` and `templates_*.txt`.
        folder: a new folder for everything that is made.
        actor: who and why, for the log.
        progress: told what is going on.

    Raises:
        NotFoundError: the reference model is not there.
        ExistsError: the folder holds something already.
    """
    _check_folders(source, folder)
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / "model"
    copy_model(source / "pipeline", model)  # (1)
    first = digest_files(model)
    with Registry.create(folder, actor=actor.name, reason=actor.reason) as registry:
        make_key(registry, "demo", Draft(actor.name, actor.reason, "key.add", "success"))
        add_base(registry, model, "reference", Draft(actor.name, actor.reason, "base.add", "success"), progress)
        subjects = Subjects.load(source / "concepts.json")
        made = _erased(registry, source, subjects, actor, progress)  # (2)
        verdict = check([Member(item.patch) for item in made])  # (3)
        stage = _Stage(registry, model, Painter.load(model), load_judge(source), subjects, actor, progress)
        found = _before_and_after(stage, [item.patch.patch_id for item in made], folder / GRID)  # (4), (5), (6)
        return DemoReport(
            folder,
            made,
            verdict,
            found,
            digest_files(model) == first,
            len(first),
            verify_log(registry).size,  # (7)
            folder / GRID,
        )


def digest_files(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, by relative path."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                found[str(path.relative_to(folder))] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _check_folders(source: Path, folder: Path) -> None:
    if not (source / "pipeline" / "model_index.json").is_file():
        raise NotFoundError(
            f"{source} holds no reference model: expected pipeline/ and classifier.safetensors",
            hint="git clone the repository, or rasura demo --model DIR",
        )
    if folder.exists() and any(folder.iterdir()):
        raise ExistsError(f"{folder} is not empty", hint=f"rm -r {folder}, or rasura demo --out DIR")


def _erased(
    registry: Registry, source: Path, subjects: Subjects, actor: Actor, progress: Progress
) -> tuple[Erased, ...]:
    """One request, so that each patch leaves the other's targets alone; each concept in prompts of its own."""
    targets = (
        Target(THING, THING_ANCHOR, load_retain_set(source / "templates_objects.txt").concepts),
        Target(STYLE, STYLE_ANCHOR, load_retain_set(source / "templates_styles.txt").concepts),
    )
    request = EraseRequest(
        targets,
        load_retain_set(source / "retain.txt").without(target.concept for target in targets),
        held_out=subjects.held_out,
    )
    draft = Draft(actor.name, actor.reason, "patch.erase", "success")
    return erase(registry, "reference", request, key=None, protect=(), draft=draft, progress=progress)


def _before_and_after(stage: _Stage, patch_ids: Sequence[PatchId], picture: Path) -> tuple[Score, ...]:
    asked = (*_examples(stage.subjects), *questions(stage.subjects, THING, STYLE))
    shown = len(_examples(stage.subjects))
    states = [("before", *stage.look(asked, "before"))]
    operations.apply(stage.registry, CheckpointHost.open(stage.model), patch_ids, stage.actor)
    states.append(("both patches applied", *stage.look(asked, "after")))
    operations.revert(stage.registry, CheckpointHost.open(stage.model), [patch_ids[1]], stage.actor)
    states.append((f"{STYLE!r} reverted,\n{THING!r} still erased", *stage.look(asked[:shown], "one reverted")))
    operations.revert(stage.registry, CheckpointHost.open(stage.model), None, stage.actor)
    states.append(("both reverted", *stage.look(asked[:shown], "both reverted")))
    rows = [
        Row(label, pictures[:shown], [_caption(answer) for answer in answers[:shown]])
        for label, pictures, answers in states
    ]
    heads = [_caption(question.wanted) for question in asked[:shown]]
    title = f"Erasing the object {THING!r} and the style {STYLE!r}: the same noise in every row. Below: the classifier."
    save_grid(picture, draw_grid(title, heads, rows))
    (_, _, before), (_, _, after) = states[0], states[1]
    return tuple(scores(asked[shown:], before[shown:], after[shown:]))


def _caption(labels: Answer) -> str:
    return ", ".join(labels.values())


def _examples(subjects: Subjects) -> tuple[Question, ...]:
    """What the grid shows: targets, near relatives, retained and held-out concepts."""
    other = subjects.held_out
    wanted = (
        (THING, "cartoon"),
        (THING, "ink"),
        (THING, STYLE),
        ("cat", STYLE),
        ("cat", "cartoon"),
        ("rose", "sketch"),
        ("car", "pixel"),
        (other[0], "cartoon"),
        (other[1], "ink"),
    )
    return tuple(
        Question("shown", Shot(subjects.prompt(thing, style), 10_000 + i), labels(thing, style))
        for i, (thing, style) in enumerate(wanted)
    )
