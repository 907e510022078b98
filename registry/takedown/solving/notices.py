"""What is worth saying of a plan, in plain words: strengths, anchors, templates, neighbours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from rasura.patches.algebra.strength import ONE, Strength
from rasura.patches.checks.kernels.disturbance import measure_disturbance
from rasura.patches.plain_numbers import say_number
from rasura.patches.prompts.retain_set import naming
from rasura.patches.types import SHORT, PatchId
from rasura.registry.takedown.ground import Ground
from rasura.registry.takedown.solving.planned import PlannedPatch
from rasura.registry.takedown.solving.recipe import GUARDS
from rasura.registry.takedown.solving.solution import Solution

__all__ = ["find_notices"]

NEAR: Final = 0.4
"""Share of a withdrawn patch's effect from which on a near one that stays may lose pictures (docs/composer.md)."""


def find_notices(
    ground: Ground,
    made: Sequence[PlannedPatch],
    after: Mapping[PatchId, Strength],
    withdrawn: Sequence[PatchId],
    solution: Solution,
) -> tuple[str, ...]:
    """Everything that is worth saying of a plan.

    Args:
        ground: what is there.
        made: what the plan registers.
        after: the set after it.
        withdrawn: patches that go, without one in their place.
        solution: what the plan is made of.
    """
    return (
        *_strengths(ground, made, after, solution),
        *_notices(ground, made, solution),
        *_lingering(ground, withdrawn, solution),
    )


def _strengths(
    ground: Ground, made: Sequence[PlannedPatch], after: Mapping[PatchId, Strength], solution: Solution
) -> Iterator[str]:
    """What comes to strength 1, at which it is erased, and what stays at another, at which it is not."""
    for item in made:
        before = item.supersedes and ground.strengths[item.supersedes]
        if before and before != ONE:
            yield f"{item.patch.manifest.concept.text}: strength {before} -> {ONE}, because it is solved anew"
    for patch_id in solution.kept:
        concept, before = ground.patches[patch_id].manifest.concept.text, ground.strengths[patch_id]
        if before != after[patch_id]:
            yield f"{concept}: strength {before} -> {after[patch_id]}, at which it is erased"
        elif before != ONE:
            yield f"{concept} stays at strength {before}: it is not erased"


def _notices(ground: Ground, made: Sequence[PlannedPatch], solution: Solution) -> list[str]:
    found = []
    if solution.words and solution.words.removed:
        found.append(f"not retained, because erased: {', '.join(dict.fromkeys(solution.words.removed))}")
    for item in made:
        concept, old = item.patch.manifest.concept, item.supersedes and ground.patches[item.supersedes].manifest.concept
        if item.wanted is not None and item.wanted.anchor != concept.anchor:
            found.append(f"{concept.text} becomes {concept.anchor}")
        if old and old.anchor != concept.anchor and item.wanted is None:
            now = naming(name for other in made if other.wanted for name in other.wanted.spoken)(old.anchor)
            said = "is to be erased" if now else "is erased"
            found.append(f"{concept.text} becomes {concept.anchor} now: {old.anchor} {said}")
        if old and len(old.templates) > len(concept.templates):
            named = len(old.templates) - len(concept.templates)
            found.append(f"{concept.text}: solved without {named} of its templates, which name what is erased")
    anew = [item.patch.manifest for item in made if item.supersedes and item.wanted is None]
    if anew:
        alike = len({item.patch.manifest.eraser.name for item in made}) == 1
        names = ", ".join(m.concept.text + ("" if alike else f" (by {m.eraser.name})") for m in anew)
        found.append(f"solved anew, so that none disturbs another: {names}")
    one_sided = [(item, p) for item in made for p in item.patch.manifest.protected.patches if p in solution.kept]
    for item, other in one_sided:
        mine, theirs = item.patch.manifest.concept.text, solution.kept[other].manifest.concept.text
        found.append(f"one-sided: {mine} leaves {theirs} alone, whose patch {other[:SHORT]} is older")
    for manifest in (item.patch.manifest for item in made if not item.patch.manifest.separable):
        leak = manifest.measured.get("leak_retained")
        much = "" if leak is None else f", moved by {say_number(float(leak))} of what the base makes of them"
        found.append(f"{manifest.concept.text} is not separable: retained prompts are measured, not proved{much}")
    if solution.guard != GUARDS[0]:
        found.append(f"room is short: each holds {solution.guard:g} of the others' energy instead of {GUARDS[0]:g}")
    return [*found, *solution.doubts]


def _lingering(ground: Ground, withdrawn: Sequence[PatchId], solution: Solution) -> Iterator[str]:
    """Concepts that come back only in part, because a near one stays erased."""
    staying = [*solution.kept.values(), *solution.made]
    for patch_id in withdrawn:
        old = ground.patches[patch_id]
        shares = {p.manifest.concept.text: measure_disturbance(p, old) or 0.0 for p in staying}
        near = {name: share for name, share in shares.items() if share > NEAR}
        if near:
            named = ", ".join(f"{name} ({share:.2f})" for name, share in near.items())
            back = old.manifest.concept.text
            yield f"{back} may not be as the base draws it: what stays near it does {named} of what its patch did"
