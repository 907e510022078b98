"""What a takedown or a withdrawal would do, before it does anything."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from rasura.patches.algebra.stack import Stack
from rasura.patches.algebra.strength import ONE, Strength
from rasura.patches.checks.kernels.disturbance import measure_disturbance
from rasura.patches.checks.policy import Policy
from rasura.patches.checks.verdict import Accepted, CheckName, Verdict
from rasura.patches.errors import RetainSetError
from rasura.patches.format.patch import Patch
from rasura.patches.models.text_encoders.plain_text import normal
from rasura.patches.obstacles import Obstacles
from rasura.patches.plain_numbers import say_number
from rasura.patches.prompts.concept_prompts import AUTO
from rasura.patches.prompts.retain_set import RetainSet, naming
from rasura.patches.types import SHORT, PatchId
from rasura.registry._storage.records.records import Draft
from rasura.registry.erase.encoded_prompts import open_moments
from rasura.registry.log.entries.outcome import log_failure
from rasura.registry.registry import Registry
from rasura.registry.takedown.asked import sort_out
from rasura.registry.takedown.coverage import Cover, check_covers, find_cover, find_covered
from rasura.registry.takedown.ground import Ground, Place, Sighted, sight, stand_on
from rasura.registry.takedown.solving.beside import Attempts
from rasura.registry.takedown.solving.recipe import GUARDS, Recipe, encode_recipe, make_recipe
from rasura.registry.takedown.solving.solution import Solution
from rasura.registry.takedown.solving.wording import Wording
from rasura.registry.takedown.wanted import WantedConcept, check_anchors_stay, check_wanted
from rasura.registry.trust.checkpoint_age import require_checkpoint
from rasura.registry.trust.limits import merge_policies

__all__ = ["PlannedPatch", "TakedownPlan", "look_ahead_of_takedown", "plan_takedown"]

NEAR: Final = 0.4
"""Share of a withdrawn patch's effect from which on a near one that stays may lose pictures (docs/composer.md)."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class PlannedPatch:
    """A patch that the plan would register.

    Attributes:
        patch: the patch, not yet signed.
        words: what it retains.
        supersedes: the older patch whose place it takes.
        wanted: what was asked for; None for an older concept that was solved anew.
    """

    patch: Patch
    words: RetainSet | None
    supersedes: PatchId | None
    wanted: WantedConcept | None


@dataclass(frozen=True, slots=True, eq=False)
class TakedownPlan:
    """One motion, and what it gains and loses.

    Attributes:
        ground: what is there.
        after: what is there afterwards.
        made: what is registered for it.
        withdrawn: patches that go, without one in their place.
        covered: concepts that a patch which is there erases already, so that they need none of their own.
        already: concepts that are erased already, and by which patch.
        uncovered: concepts that were covered and are withdrawn.
        worst: the largest number of each kind of check, with its limit.
        notices: what was left out, solved anew, is one-sided, or speaks against its erasing, in plain words.
    """

    ground: Ground
    after: Stack
    made: tuple[PlannedPatch, ...]
    withdrawn: tuple[PatchId, ...]
    covered: tuple[Cover, ...]
    already: Mapping[str, PatchId]
    uncovered: tuple[str, ...]
    worst: Mapping[CheckName, tuple[float, float]]
    notices: tuple[str, ...]

    @property
    def changes(self) -> bool:
        """Whether anything would change."""
        return self.after != self.ground.strengths or bool(self.covered or self.uncovered)

    @property
    def patches(self) -> dict[PatchId, Patch]:
        """Every patch of the set afterwards, by the names of their concepts."""
        made = {item.patch.patch_id: item.patch for item in self.made}
        found = {i: made[i] if i in made else self.ground.patches[i] for i in self.after}
        return dict(sorted(found.items(), key=lambda item: (item[1].manifest.concept.text, item[0])))


def plan_takedown(
    registry: Registry,
    place: Place,
    wanted: Sequence[WantedConcept],
    *,
    retain: RetainSet | None,
    templates: tuple[str, ...],
    draft: Draft,
    progress: Progress,
    policy: Policy | None = None,
    recipe: Recipe | None = None,
) -> TakedownPlan:
    """Solve concepts beside what is erased already; nothing is written but, for a base seen first, its record.

    Args:
        registry: which says what is there.
        place: the model or stack.
        wanted: what to take down.
        retain: what to keep; None takes what the patches that are there keep.
        templates: prompts with one `{}`; empty takes those of the patches that are there.
        draft: who asks and why; a refusal is logged with it.
        progress: told what is going on.
        policy: limits beside those of the registry's policy.
        recipe: by which method, with which choices; None: `null-space` with its own, and what is there as it was.

    Raises:
        ErasureRefusedError: an anchor that draws its target; those that would do are named, and it is logged.
        RasuraError: whatever stands in the way, all of it at once; logged.
    """
    with log_failure(registry, replace(draft, details=_asked(wanted))):
        obstacles = Obstacles()
        seen = look_ahead_of_takedown(registry, place, wanted, obstacles, retain=retain is not None, recipe=recipe)
        obstacles.refuse()
        ground = stand_on(registry, place, replace(draft, action="base.add"), progress, seen)
        standing = find_covered(registry, ground)
        check_anchors_stay(wanted, {n: f"the patch of {c.by}" for c in standing for n in c.wanted.spoken})
        asked = sort_out(ground, standing, wanted, recipe)
        fresh = [item for item in asked.new if ground.erasing(item.concept) is None]
        covers = tuple(cover for item in fresh if (cover := find_cover(ground, item)) is not None)
        covered = {cover.wanted.concept for cover in covers}
        new = tuple(item for item in asked.new if item.concept not in covered)
        limits, moments = merge_policies(registry, policy), open_moments(registry, ground.base)
        wording = Wording(ground, asked.changed, new, retain, templates)
        bench = Attempts(wording, limits, progress, moments, asked.recipes)
        solution = bench.solve() if new else Solution((), {}, dict(ground.patches), None, accept_nothing(), GUARDS[0])
        check_covers(ground, (*standing, *covers), find_strengths(ground, solution))
    return conclude_plan(ground, new, solution, covers=covers, already=asked.already)


def look_ahead_of_takedown(
    registry: Registry,
    place: Place,
    wanted: Sequence[WantedConcept],
    obstacles: Obstacles,
    *,
    retain: bool,
    recipe: Recipe | None = None,
) -> Sighted | None:
    """Note all that stands in the way of a takedown and can be seen before the base is opened; nothing is written.

    Args:
        registry: which says what is there.
        place: the model or stack.
        wanted: what to take down; none where it could not be read.
        obstacles: gets what is found.
        retain: whether a retain list was given.
        recipe: by which method and choices; None: `null-space`.
    """
    method = (recipe or make_recipe()).eraser
    with obstacles.noting():
        check_wanted(wanted)
    with obstacles.noting():
        require_checkpoint(registry, registry.policy())
    seen = sight(registry, place, obstacles)
    if seen is not None:
        with obstacles.noting():
            check_anchors_stay(wanted, _list_erased(seen))
    if seen is not None and not seen.goal.patches and not retain and wanted and method.defaults.needs_retain:
        obstacles.add(
            RetainSetError(
                f"nothing is erased on {place.source} yet, so that no retain list is known: expected one",
                hint=f"rasura takedown {place.option} {_retype(wanted, recipe)} --retain FILE",
            )
        )
    return seen


def _list_erased(seen: Sighted) -> dict[str, str]:
    """Every name of what is erased there, with the patch that does it."""
    manifests = [(member.patch_id, member.patch.manifest) for member in seen.loaded.stack]
    return {name: f"{i[:SHORT]}" for i, m in manifests for name in (m.concept.text, *m.names)}


def _retype(wanted: Sequence[WantedConcept], recipe: Recipe | None) -> str:
    """The concepts as options, each with its anchor where one was chosen for any, and their names and method."""
    words = [("--concept", item.concept) for item in wanted]
    if any(item.anchor != AUTO for item in wanted):
        words += [("--anchor", item.anchor) for item in wanted]
    words += [("--also-called", f"{item.concept}={name}") for item in wanted for name in item.names]
    words += encode_recipe(recipe) if recipe else []
    return " ".join(f"{option} {shlex.quote(text)}" for option, text in words)


def find_strengths(ground: Ground, solution: Solution) -> dict[str, tuple[Patch, Strength]]:
    """The patches that were made, each at the strength that it gets, by concept in one spelling."""
    old = ((patch, solution.replaced.get(patch.patch_id)) for patch in solution.made)
    return {normal(p.manifest.concept.text): (p, ground.strengths[i] if i else ONE) for p, i in old}


def conclude_plan(
    ground: Ground,
    new: tuple[WantedConcept, ...],
    solution: Solution,
    *,
    covers: tuple[Cover, ...] = (),
    already: Mapping[str, PatchId] | None = None,
    withdrawn: tuple[PatchId, ...] = (),
    uncovered: tuple[str, ...] = (),
    said: tuple[str, ...] = (),
) -> TakedownPlan:
    """What the solution makes of the ground: the set after it, what is new and gone, and what is worth saying of it."""
    by_name = {normal(item.concept): item for item in new}
    made = tuple(
        PlannedPatch(
            patch,
            solution.words,
            solution.replaced.get(patch.patch_id),
            by_name.get(normal(patch.manifest.concept.text)),
        )
        for patch in sorted(solution.made, key=lambda patch: patch.manifest.concept.text)
    )
    after = {i: ground.strengths[i] for i in solution.kept}
    after |= {patch.patch_id: strength for patch, strength in find_strengths(ground, solution).values()}
    worst: dict[CheckName, tuple[float, float]] = {}
    for relation in solution.verdict.relations:
        if relation.value >= worst.get(relation.check, (-1.0, 0.0))[0]:
            worst[relation.check] = relation.value, relation.limit
    return TakedownPlan(
        ground,
        Stack(after),
        made,
        withdrawn,
        covers,
        already or {},
        uncovered,
        worst,
        (*said, *_notices(ground, made, solution), *_lingering(ground, withdrawn, solution)),
    )


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


def accept_nothing() -> Verdict:
    """The verdict where nothing was to be solved."""
    return Accepted(())


def _asked(wanted: Sequence[WantedConcept]) -> dict[str, str]:
    return {"concepts": "; ".join(item.concept for item in wanted)[:1000]}
