"""The stages of the results, each a table: methods, attacks, scenes, ablation, growth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from bench import FOLDER, REFERENCE, Bench, keep, numbers_of, refusal, tell
from scenarios import FIVE, OBJECT, SCENARIOS, Way, request_for
from ways import ABLATION, ATTACKED, GROWTH, SCENE_EXACT, SCENE_WAY, WAYS

from rasura.evaluation.attacks import attack
from rasura.evaluation.attacks.budget import AttackOptions
from rasura.evaluation.images.grid import Row, draw_grid, save_grid
from rasura.evaluation.images.painter import Shot
from rasura.evaluation.images.questions import Question
from rasura.evaluation.report.metrics import compute_frechet, measure_change
from rasura.evaluation.report.question_kinds import Erasures, make_default_questions, read_paraphrases
from rasura.evaluation.report.report import Compared
from rasura.patches.checks.check import Accepted, Member, check
from rasura.patches.erasers.request import EraseRequest
from rasura.patches.errors import RasuraError
from rasura.patches.format.patch import Patch
from rasura.patches.prompts.concept_prompts import prompts_of

SCENE_PROMPT = "a {} in cartoon style"


def methods(bench: Bench, only: Sequence[str] = ()) -> None:
    """Every method on every scenario."""
    rows = []
    for scenario, concepts in SCENARIOS.items():
        asked = _asked(bench, concepts)
        for way in WAYS:
            if (not only or way.label in only) and not (way.single and len(concepts) > 1):
                rows.append({"scenario": scenario, "way": way.label, **_row(bench, way, concepts, asked)})
                keep("methods", rows)
    _grid(bench)


def attacks(bench: Bench) -> None:
    """All attacks on every method's erasure of one object."""
    rows: list[dict[str, Any]] = []
    for way in (way for way in WAYS if way.label in ATTACKED):
        try:
            patches = bench.made(request_for(bench, way, OBJECT)).patches
        except RasuraError as error:
            rows.append({"way": way.label, "refused": refusal(error)})
            continue
        stage = attack.Bench(bench.model(patches), bench.judge, AttackOptions("all"), bench.cache, tell)
        found = attack.run_attacks(stage, _asked(bench, OBJECT))
        rows += [
            {
                "way": way.label,
                "attack": a.attack,
                "model": a.model,
                "n": a.tries,
                "found": a.successes,
                "prompt": a.prompt,
            }
            for a in found
        ]
        keep("attacks", rows)


def ablation(bench: Bench) -> None:
    """SPEED's parts, one after the other."""
    rows = []
    for scenario in ("one object", "five objects"):
        asked = _asked(bench, SCENARIOS[scenario])
        for way in ABLATION:
            rows.append({"scenario": scenario, "way": way.label, **_row(bench, way, SCENARIOS[scenario], asked)})
            keep("ablation", rows)


def growth(bench: Bench) -> None:
    """Preservation and time as the number of concepts grows."""
    rows = []
    things = [o for o in bench.subjects.objects if o not in bench.subjects.held_out]
    order = [things[(i * 7) % len(things)] for i in range(len(things))]
    for count in (1, 4, 8, 16):
        anchors = order[count:]
        concepts = {one: anchors[i % len(anchors)] for i, one in enumerate(order[:count])}
        asked = _asked(bench, concepts, most=3)
        for way in GROWTH:
            row = _row(bench, way, concepts, asked)
            if "refused" not in row:
                request = request_for(bench, way, concepts)
                row["leak"] = leak(bench, request, bench.made(request).patches)
            rows.append({"count": count, "way": way.label, **row})
            keep("growth", rows)


def scenes(bench: Bench) -> None:
    """Erase and restore, after the three scenes of SepME: what comes back, and what does not."""
    rows = []
    names = ("dog", "rose", "pizza", "car", "skull", "umbrella")
    for scene, steps in _scenes(bench, names).items():
        for step, (patches, label) in enumerate(steps):
            relations = check([Member(p) for p in patches]).relations if patches else ()
            one_sided = [
                [_name(patches, r.patch), _name(patches, r.other), r.value] for r in relations if r.check == "one-sided"
            ]
            pairs = [r.value for r in relations if r.check == "pair"]
            rows.append(
                {
                    "scene": scene,
                    "step": step,
                    "what": label,
                    "erased": [p.manifest.concept.text for p in patches],
                    "one_sided": one_sided,
                    "worst_pair": max(pairs, default=0.0),
                    "concepts": [_of(bench, patches, name) for name in (*names, bench.subjects.held_out[0])],
                }
            )
            keep("scenes", rows)


def _scenes(bench: Bench, names: Sequence[str]) -> Mapping[str, list[tuple[tuple[Patch, ...], str]]]:
    """Scenes 1 and 2 erase c0…c5 in one request; scene 3 erases in three requests, each protecting the older."""
    together = _made(bench, names, ())
    by = dict(zip(names, together, strict=True))

    def without(*restored: int) -> tuple[Patch, ...]:
        return tuple(by[name] for i, name in enumerate(names) if i not in restored)

    first = dict(zip((0, 2, 4), _made(bench, [names[i] for i in (0, 2, 4)], ()), strict=True))
    second = dict(zip((1, 3), _made(bench, [names[i] for i in (1, 3)], tuple(first.values())), strict=True))
    third = {5: _made(bench, [names[5]], (*first.values(), *second.values()))[0]}
    older = first | second | third
    exact = _made(bench, names[:4], (), SCENE_EXACT)

    def active(*chosen: int) -> tuple[Patch, ...]:
        return tuple(older[i] for i in chosen)

    return {
        "1": [
            (without(), "erase c0–c5 together"),
            (without(0, 1), "restore c0, c1"),
            (without(0, 1, 2), "restore c2"),
        ],
        "2": [
            (without(), "erase c0–c5 together"),
            (without(3, 4), "restore c3, c4"),
            (without(3, 4, 5), "restore c5"),
        ],
        "3": [
            (active(0, 2, 4), "erase c0, c2, c4"),
            (active(4), "restore c0, c2"),
            (active(4, 1, 3), "erase c1, c3, protecting c0, c2, c4"),
            (active(4, 3), "restore c1"),
            (active(4, 3, 5), "erase c5, protecting the five"),
        ],
        "1, exact": [
            (exact, "erase c0–c3 together, `tolerance=0`"),
            (exact[2:], "restore c0, c1"),
            (exact[3:], "restore c2"),
        ],
    }


def _made(bench: Bench, names: Sequence[str], protected: Sequence[Patch], way: Way = SCENE_WAY) -> tuple[Patch, ...]:
    request = request_for(bench, way, dict.fromkeys(names, ""))
    # As in the paper: no retain set, and one prompt a concept, the one that is drawn and protected.
    targets = tuple(replace(target, templates=(SCENE_PROMPT,)) for target in request.targets)
    request = replace(request, targets=targets, retain=None)
    concepts = {p.patch_id: p.manifest.concept for p in protected}
    request = replace(
        request,
        guarded={p.patch_id: p.tensors.targets for p in protected},
        guarded_prompts={i: prompts_of(c.text, c.templates) for i, c in concepts.items()},
    )
    return bench.made(request).patches


def _of(bench: Bench, patches: Sequence[Patch], name: str) -> dict[str, Any]:
    """One concept under a set of patches: in the very prompts that were protected, and in prompts that were not."""
    protected = [
        Question("forget", Shot(SCENE_PROMPT.replace("{}", name), 300 + i), {"object": name}) for i in range(8)
    ]
    others = [
        Question("forget", Shot(bench.subjects.prompt(name, s, i), 400 + i), {"object": name})
        for i, s in enumerate(s for s in bench.subjects.styles if s != "neon")
    ]
    if not patches:
        return {"concept": name}
    compared = bench.look(patches, [*protected, *others], wide=True)
    n = len(protected)
    found: dict[str, Any] = {"concept": name}
    for kind, part in (("protected", slice(0, n)), ("unseen", slice(n, None))):
        before, after = compared.before[part], compared.after[part]
        change = measure_change(before, after)
        distance = compute_frechet(compared.seen_before.features[part], compared.seen_after.features[part])
        found[kind] = {
            "n": len(before),
            "base": sum(a["object"] == name for a in compared.seen_before.answers[part]),
            "patched": sum(a["object"] == name for a in compared.seen_after.answers[part]),
            "identical": change.identical,
            "change": change.change,
            "ssim": change.ssim,
            "frechet": distance.distance if distance else None,
        }
    return found


def _name(patches: Sequence[Patch], patch_id: str) -> str:
    return next(p.manifest.concept.text for p in patches if p.patch_id == patch_id)


def _asked(bench: Bench, concepts: Mapping[str, str], *, most: int = 0) -> tuple[Question, ...]:
    """The harness's own questions; at most so many of each kind about each label, fewer where many are erased."""
    erased = Erasures.of(bench.subjects, concepts)
    found = make_default_questions(bench.subjects, erased, read_paraphrases(REFERENCE / "paraphrases.json"))
    most = most or (12 if len(concepts) == 1 else 4)
    seen: Counter[tuple[str, ...]] = Counter()
    chosen = []
    for question in found:
        key = (question.group, question.kind, *question.wanted.values())
        seen[key[:3]] += 1
        if seen[key[:3]] <= most:
            chosen.append(question)
    return tuple(chosen)


def _row(bench: Bench, way: Way, concepts: Mapping[str, str], asked: Sequence[Question]) -> dict[str, Any]:
    try:
        made = bench.made(request_for(bench, way, concepts))
    except RasuraError as error:
        return {"refused": refusal(error)}
    compared = bench.look(made.patches, asked)
    measured = [patch.manifest.measured for patch in made.patches]
    return {
        "seconds": made.seconds,
        "bytes": sum(len(p.files()["pytorch_lora_weights.safetensors"]) for p in made.patches),
        "rank": [m.get("rank") for m in measured],
        "accepted": isinstance(check([Member(p) for p in made.patches]), Accepted),
        "separable": all(p.manifest.separable for p in made.patches),
        "leak_retained": [m.get("leak_retained") for m in measured],
        "leak_held_out": [m.get("leak_held_out") for m in measured],
        "residual": [m.get("residual") for m in measured],
        **numbers_of(compared),
    }


def leak(bench: Bench, request: EraseRequest, patches: Sequence[Patch]) -> dict[str, float]:
    """‖ΣΔ R‖ / ‖W R‖ of all patches together, on retained and held-out prompts."""
    from rasura.patches.algebra.protected_subspace import Moment

    names = sorted({name for p in patches for name in p.tensors.increments})
    weights = bench.host.originals(names)
    found = {}
    for group, prompts in (("retained", request.retained_prompts()), ("held_out", request.prompts(request.held_out))):
        moment = Moment(bench.encoder.width)
        for hidden in bench.encoder.encode(prompts):
            moment.add(hidden)
        changed = present = 0.0
        for name in names:
            delta = torch.stack([p.tensors.increments[name].dense() for p in patches]).sum(0)
            W = weights[name].double()
            changed += float(torch.trace(delta @ moment.mean @ delta.T))
            present += float(torch.trace(W @ moment.mean @ W.T))
        found[group] = (max(changed, 0.0) / present) ** 0.5
    return found


def _grid(bench: Bench) -> None:
    """Base and every method on the same noise: what five erased objects become, and what stays."""
    shown = [*FIVE, "cat", "apple", "guitar"]
    styles = [s for s in bench.subjects.styles if s != "neon"]
    asked = [
        Question("shown", Shot(bench.subjects.prompt(o, styles[i % len(styles)]), 700 + i), {"object": o})
        for i, o in enumerate(shown)
    ]
    rows: list[Row] = []
    for way in WAYS:
        try:
            compared = bench.look(bench.made(request_for(bench, way, FIVE)).patches, asked)
        except RasuraError:
            continue
        if not rows:
            rows.append(Row("base", compared.before, _captions(compared, patched=False)))
        rows.append(Row(way.label.replace(", ", ",\n"), compared.after, _captions(compared, patched=True)))
    heads = [f"{'erased: ' if o in FIVE else ''}{o}" for o in shown]
    save_grid(FOLDER / "methods.png", draw_grid("Five objects erased: the same noise in every row.", heads, rows))


def _captions(compared: Compared, *, patched: bool) -> list[str]:
    seen = compared.seen_after if patched else compared.seen_before
    return [answer["object"] for answer in seen.answers]


STAGES = {"methods": methods, "ablation": ablation, "growth": growth, "scenes": scenes, "attacks": attacks}
