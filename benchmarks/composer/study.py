"""Does the composer's number predict what pictures show? All ordered pairs of sixteen independent patches.

predicted   pair(p, q) = ‖Δ_p T_q‖ / ‖Δ_q T_q‖, and share(p, q) = ‖Δ_p T_q‖ / ‖W T_q‖, from stored data alone
alone       {p} applied: pictures of q against the base's; how many are still called q
both        {p, q} applied: pictures of q against those under {q}; how many are called q
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from bench import Bench, tell
from subjects import ANCHORS, NEAR, STYLES, Subject, independent, subjects, target_of

from rasura.evaluation.judges.interface import Sight
from rasura.evaluation.plots.figure import InterferenceData, draw_interference
from rasura.evaluation.report.metrics import measure_change
from rasura.evaluation.report.report import Compared
from rasura.patches.checks.kernels.capacity import Capacity
from rasura.patches.checks.kernels.footprint import Footprint
from rasura.patches.checks.kernels.interference import Interference, compute_cosines
from rasura.patches.checks.policy import DEFAULT_POLICY
from rasura.patches.format.manifest_parts import TEXT
from rasura.patches.format.patch import Patch
from rasura.patches.prompts.concept_prompts import align_columns
from rasura.patches.prompts.retain_set import naming

Drawn = tuple[list[Any], Sight]
"""Pictures and what the judge says of them."""


def study(bench: Bench) -> dict[str, Any]:
    """Every number of the study, as JSON values."""
    patches, shown = independent(bench), subjects(bench)
    base, alone = _alone(bench, patches, shown)
    both = _both(bench, patches, shown)
    rows = [
        {
            **predicted(patches[p.name], patches[q.name], p.name, q.name),
            "alone": against(q, base[q.name], alone[p.name][q.name]),
            "both": against(q, alone[q.name][q.name], both[p.name, q.name]),
        }
        for p in shown
        for q in shown
        if p is not q
    ]
    concepts = [
        {
            "concept": q.name,
            "anchor": ANCHORS[q.name],
            "residual": patches[q.name].manifest.measured["residual"],
            "leak_retained": patches[q.name].manifest.measured["leak_retained"],
            "rank": patches[q.name].manifest.measured["rank"],
            "erased": against(q, base[q.name], alone[q.name][q.name]),
        }
        for q in shown
    ]
    return {"concepts": concepts, "pairs": rows, "styles": _styles(bench, patches)}


def _styles(bench: Bench, patches: Mapping[str, Patch]) -> list[dict[str, Any]]:
    """pair(p, q) of an object on a style, by whether the style's templates name the object.

    A style's targets come from prompts that show it on some object; where that object is the erased one, the number
    counts what p does to its own concept.
    """
    found = []
    for q in STYLES:
        target, own = target_of(q), Footprint.of(patches[q]).kernels[TEXT]
        for p in (name for name in ANCHORS if name not in STYLES):
            names_p = naming([NEAR.get(p, p)])
            row: dict[str, Any] = {"p": p, "q": q}
            for what, wanted in (("named", True), ("unnamed", False)):
                templates = tuple(t for t in target.templates if names_p(t) is wanted)
                if templates:
                    columns, _ = align_columns(bench.encoder, target, templates, "tail")
                    moved = Footprint.of(patches[p]).kernels[TEXT] @ columns.numpy()
                    row[what] = float(np.linalg.norm(moved) / np.linalg.norm(own @ columns.numpy()))
            found.append(row)
    return found


def figure(bench: Bench, path: Path) -> None:
    """The interference figure of the study's patches."""
    patches = independent(bench)
    prints = [Footprint.of(patch) for patch in patches.values()]
    matrix = Interference(prints).matrix().numpy()
    room, angles = Capacity.of(list(patches.values())), compute_cosines(prints).numpy()
    draw_interference(InterferenceData(tuple(patches), matrix, DEFAULT_POLICY.pair, room, angles), path)


def predicted(p: Patch, q: Patch, name: str, other: str) -> dict[str, Any]:
    """What stored data say of p on q's targets."""
    one, disturbed = Footprint.of(p), Footprint.of(q)
    moved, own = one.on(disturbed), disturbed.effect()
    return {
        "p": name,
        "q": other,
        "pair": moved / own,
        "share": moved / float(q.manifest.measured["base_targets"]),
    }


def _alone(
    bench: Bench, patches: Mapping[str, Patch], shown: Sequence[Subject]
) -> tuple[dict[str, Drawn], dict[str, dict[str, Drawn]]]:
    base: dict[str, Drawn] = {}
    alone = {}
    for done, p in enumerate(shown, 1):
        tell("one patch applied", done, len(shown))
        before, alone[p.name] = drawn(bench, [patches[p.name]], shown)
        base = base or before
    return base, alone


def _both(bench: Bench, patches: Mapping[str, Patch], shown: Sequence[Subject]) -> dict[tuple[str, str], Drawn]:
    """Pictures of q under {p, q}, by p and q."""
    found = {}
    pairs = list(combinations(shown, 2))
    for done, (p, q) in enumerate(pairs, 1):
        tell("two patches applied", done, len(pairs))
        after = drawn(bench, [patches[p.name], patches[q.name]], (p, q))[1]
        found[p.name, q.name], found[q.name, p.name] = after[q.name], after[p.name]
    return found


def drawn(
    bench: Bench, patches: Sequence[Patch], shown: Sequence[Subject]
) -> tuple[dict[str, Drawn], dict[str, Drawn]]:
    """The pictures of some concepts with the base and with these patches, by concept."""
    return sides_of(bench.look(patches, [question for subject in shown for question in subject.questions]), shown)


def sides_of(compared: Compared, shown: Sequence[Subject]) -> tuple[dict[str, Drawn], dict[str, Drawn]]:
    """Before and after by concept, where the questions of these stand first and in this order."""
    before: dict[str, Drawn] = {}
    after: dict[str, Drawn] = {}
    start = 0
    for subject in shown:
        part = slice(start, start + len(subject.questions))
        start = part.stop
        for side, pictures, seen in (
            (before, compared.before, compared.seen_before),
            (after, compared.after, compared.seen_after),
        ):
            side[subject.name] = (list(pictures[part]), Sight(seen.answers[part], seen.features[part]))
    return before, after


def against(subject: Subject, before: Drawn, after: Drawn) -> dict[str, Any]:
    """How far pictures moved, and how many of them the judge calls by the concept's label, before and after."""
    change = measure_change(before[0], after[0])
    gap = np.linalg.norm(before[1].features - after[1].features, axis=1)
    size = np.linalg.norm(before[1].features, axis=1)
    rights = [[a[subject.axis] == subject.label for a in side[1].answers] for side in (before, after)]
    return {
        "n": change.n,
        "change": change.change,
        "ssim": change.ssim,
        "features": float((gap / size).mean()),
        "identical": change.identical,
        "before": sum(rights[0]),
        "after": sum(rights[1]),
        "kept": sum(b and a for b, a in zip(*rights, strict=True)),
        "called": [[a[subject.axis] for a in side[1].answers] for side in (before, after)],
    }
