"""Four ways to erase the same eight concepts: independently, together, protecting each other, one after the other.

independent   a request for each; none knows of another
together      one request for all: `rasura erase --concept … --concept …`
protecting    a request for each, `--protect` with the targets of all others, which must exist before
one by one    each on the weights that the one before left behind, forward and backward; such patches are of different
              bases, so the composer refuses them as a stack: here they are added to the first base all the same
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch
from bench import CACHE, Bench, refusal, tell
from stages import leak
from study import against, predicted, sides_of
from subjects import RETAINED, independent, request_of, subjects

from rasura.evaluation.evaluate import draw_and_judge
from rasura.evaluation.images.grid import Row, draw_grid, save_grid
from rasura.evaluation.images.painter import Shot
from rasura.evaluation.images.patched_model import EvaluatedPatch, PatchedModel
from rasura.evaluation.images.questions import Answer, Question, labels
from rasura.evaluation.report.report import Compared, summarise
from rasura.patches.algebra.compose import compose, layers_of
from rasura.patches.algebra.strength import ONE
from rasura.patches.checks.check import check
from rasura.patches.checks.verdict import Accepted
from rasura.patches.errors import RasuraError
from rasura.patches.format.member import Member
from rasura.patches.format.patch import Patch, read_folder, write_folder
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.models.base_identity import identify
from rasura.patches.solving.solve import build_patches
from rasura.patches.types import Digest

SETS: Final[Mapping[str, tuple[str, ...]]] = {
    "with a near pair": ("dog", "cat", "lion", "car", "red car", "bus", "rose", "skull"),
    "without": ("dog", "cat", "lion", "car", "apple", "bus", "rose", "skull"),
}
"""Eight concepts each. Car and red car are nearly one to the text encoder; car and skull disturb each other by half."""

Made = Mapping[str, Patch]


def together(bench: Bench) -> list[dict[str, Any]]:
    """A row for each set and way."""
    rows: list[dict[str, Any]] = []
    for title, names in SETS.items():
        for way, make in WAYS.items():
            tell(f"{title}: {way}", len(rows), len(SETS) * len(WAYS))
            try:
                row = _row(bench, make(bench, names))
            except RasuraError as error:
                row = {"refused": refusal(error)}
            rows.append({"set": title, "concepts": names, "way": way, **row})
    return rows


def back_grid(bench: Bench, path: Path) -> None:
    """The first picture of each concept: base, all erased, and with its own patch alone taken out again."""
    names = SETS["without"]
    shown = [subject for subject in subjects(bench) if subject.name in names]
    shown.sort(key=lambda subject: names.index(subject.name))
    rows: list[Row] = []
    for way in ("independent", "together", "one by one"):
        made = WAYS[way](bench, names)
        asked = [subject.questions[0] for subject in shown]
        applied = _look(bench, list(made.values()), asked)
        if not rows:
            rows.append(_grid_row("base", applied.before, applied.seen_before.answers))
        rows.append(_grid_row(f"{way}:\nall eight erased", applied.after, applied.seen_after.answers))
        out = [_look(bench, [p for n, p in made.items() if n != s.name], s.questions) for s in shown]
        pictures, answers = [c.after[0] for c in out], [c.seen_after.answers[0] for c in out]
        rows.append(_grid_row(f"{way}: its own\npatch taken out", pictures, answers))
    save_grid(path, draw_grid("Erased together with seven others, and taken out again: the same noise.", names, rows))


def _grid_row(label: str, pictures: Sequence[Any], answers: Sequence[Answer]) -> Row:
    return Row(label, pictures, [answer["object"] for answer in answers])


def _independent(bench: Bench, names: Sequence[str]) -> Made:
    made = independent(bench)
    return {name: made[name] for name in names}


def _together(bench: Bench, names: Sequence[str]) -> Made:
    return dict(zip(names, bench.made(request_of(names)).patches, strict=True))


def _protecting(bench: Bench, names: Sequence[str]) -> Made:
    """Each protects the targets of all others, which the independent patches hold."""
    alone = _independent(bench, names)
    found = {}
    for name in names:
        others = {p.patch_id: p.tensors.targets for other, p in alone.items() if other != name}
        found[name] = bench.made(replace(request_of([name]), guarded=others)).patches[0]
    return found


def _forward(bench: Bench, names: Sequence[str]) -> Made:
    """Each on the weights that all before it left behind."""
    made: dict[str, Patch] = {}
    for name in names:
        made[name] = _next(bench, name, list(made.values())) if made else _independent(bench, [name])[name]
    return made


def _reversed(bench: Bench, names: Sequence[str]) -> Made:
    made = _forward(bench, names[::-1])
    return {name: made[name] for name in names}


def _next(bench: Bench, name: str, before: Sequence[Patch]) -> Patch:
    """The patch of a concept on the weights that others left behind."""
    known = hashlib.sha256("".join([name, *(p.patch_id for p in before)]).encode()).hexdigest()[:24]
    kept = CACHE / "sequential" / known
    if not kept.exists():
        folder = _edited(bench, before)
        host = CheckpointHost.open(folder)
        identity = identify(host, bench.encoder.tokenizer_state())
        patch = build_patches(host, bench.encoder, identity, request_of([name]), tell)[0]
        write_folder(kept, patch.files())
        shutil.rmtree(folder)
    return Patch.from_files(read_folder(kept))


def _edited(bench: Bench, patches: Sequence[Patch]) -> Path:
    """A folder of its own with these patches written into the weights, as another tool would leave them."""
    from safetensors.torch import load_file, save_file

    folder = CACHE / "edited"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(bench.host.folder, folder)
    (file,) = (folder / "unet").glob("*.safetensors")
    weights = load_file(file)
    layers = layers_of((patch.tensors.increments, ONE) for patch in patches)
    originals = bench.host.originals([layer.name for layer in layers])
    for layer in layers:
        key = str(layer.name).removeprefix("unet.")
        assert torch.equal(weights[key], originals[layer.name])
        weights[key] = compose(originals[layer.name], layer.terms)
    save_file(weights, file, metadata={"format": "pt"})
    return folder


WAYS: Final[Mapping[str, Callable[[Bench, Sequence[str]], Made]]] = {
    "independent": _independent,
    "together": _together,
    "protecting each other": _protecting,
    "one by one": _forward,
    "one by one, reversed": _reversed,
}


def _row(bench: Bench, made: Made) -> dict[str, Any]:
    verdict = check([Member(patch) for patch in made.values()])
    return {
        "verdict": type(verdict).__name__,
        "reason": "" if isinstance(verdict, Accepted) else verdict.reasons[0].text,
        "pairs": [predicted(made[p], made[q], p, q) for p in made for q in made if p != q],
        "leak": leak(bench, request_of(list(made)), list(made.values())),
        "residual": _residuals(bench, made),
        **_pictures(bench, made),
    }


def _residuals(bench: Bench, made: Made) -> dict[str, dict[str, float]]:
    """‖(W + Δ) T_q − W A_q‖ / ‖W (T_q − A_q)‖ of each concept, with its own patch alone and with all."""
    names = sorted({name for patch in made.values() for name in patch.tensors.increments})
    weights = {name: weight.double() for name, weight in bench.host.originals(names).items()}
    found = {}
    for concept, patch in made.items():
        T, A = patch.tensors.targets.T, patch.tensors.anchors.T
        missed = {}
        for what, patches in (("alone", [patch]), ("all", list(made.values()))):
            left = asked = 0.0
            for name, W in weights.items():
                delta = torch.stack([p.tensors.increments[name].dense() for p in patches]).sum(0)
                left += float((W @ (T - A) + delta @ T).square().sum())
                asked += float((W @ (T - A)).square().sum())
            missed[what] = (left / asked) ** 0.5
        found[concept] = missed
    return found


def _pictures(bench: Bench, made: Made) -> dict[str, Any]:
    shown = [subject for subject in subjects(bench) if subject.name in made]
    forget = [question for subject in shown for question in subject.questions]
    compared = _look(bench, list(made.values()), [*forget, *_others(bench, made)])
    before, after = sides_of(compared, shown)
    back = []
    for done, subject in enumerate(shown):
        tell("one patch taken out", done, len(shown))
        rest = [patch for name, patch in made.items() if name != subject.name]
        base, drawn = sides_of(_look(bench, rest, subject.questions), [subject])
        back.append({"concept": subject.name, **against(subject, base[subject.name], drawn[subject.name])})
    erased = [{"concept": s.name, **against(s, before[s.name], after[s.name])} for s in shown]
    return {"summary": summarise(compared), "counts": _counts(compared), "erased": erased, "back": back}


def _others(bench: Bench, erased: Made) -> list[Question]:
    """Retained objects in two styles each, and objects that no list names in three."""
    drawn: list[str] = [o for o in RETAINED if o in bench.subjects.objects]
    nobody = [o for o in bench.subjects.objects if o not in RETAINED and o not in erased]
    styles = ("cartoon", "ink", "pixel")
    asked = [("retain", o, styles[(i + r) % 3]) for i, o in enumerate(drawn) for r in range(2)]
    asked += [("held_out", o, style) for o in nobody for style in styles]
    return [
        Question(group, Shot(bench.subjects.prompt(o, style, i), 2000 + i), labels(o, style))
        for i, (group, o, style) in enumerate(asked)
    ]


def _counts(compared: Compared) -> dict[str, int]:
    groups = [question.group for question in compared.asked]
    return {group: groups.count(group) for group in dict.fromkeys(groups)}


def _look(bench: Bench, patches: Sequence[Patch], asked: Sequence[Question]) -> Compared:
    """As `bench.look`, also of patches that were made on other bases: their increments are added to the first."""
    stack = [EvaluatedPatch(patch, ONE) for patch in patches]
    one = bench.model([_independent(bench, ["dog"])["dog"]])
    added = hashlib.sha256(b"added to the base" + "".join(sorted(p.patch_id for p in patches)).encode())
    prints = (one.fingerprints[0], Digest(added.hexdigest()))
    return draw_and_judge(PatchedModel(one.painter, bench.host, stack, prints), bench.judge, asked, bench.cache, tell)
