"""What a takedown or a withdrawal would do, before it does anything."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from rasura.patches.algebra.stack import Stack
from rasura.patches.algebra.strength import ONE, Strength
from rasura.patches.checks.policy import Policy
from rasura.patches.checks.verdict import Accepted, CheckName, Verdict
from rasura.patches.errors import RetainSetError
from rasura.patches.format.patch import Patch
from rasura.patches.models.text_encoders.plain_text import normal
from rasura.patches.obstacles import Obstacles
from rasura.patches.prompts.concept_prompts import AUTO
from rasura.patches.prompts.retain_set import RetainSet
from rasura.patches.types import SHORT, PatchId
from rasura.registry._storage.records.records import Draft
from rasura.registry.erase.encoded_prompts import open_moments
from rasura.registry.log.entries.outcome import log_failure
from rasura.registry.registry import Registry
from rasura.registry.takedown.asked import sort_out
from rasura.registry.takedown.coverage import Cover, check_covers, find_cover, find_covered
from rasura.registry.takedown.ground import Ground, Place, Sighted, sight, stand_on
from rasura.registry.takedown.solving.beside import Attempts
from rasura.registry.takedown.solving.notices import find_notices
from rasura.registry.takedown.solving.planned import PlannedPatch, Raised
from rasura.registry.takedown.solving.recipe import GUARDS, Recipe, encode_recipe, make_recipe
from rasura.registry.takedown.solving.solution import Solution
from rasura.registry.takedown.solving.wording import Wording
from rasura.registry.takedown.wanted import WantedConcept, check_anchors_stay, check_wanted
from rasura.registry.trust.checkpoint_age import require_checkpoint
from rasura.registry.trust.limits import merge_policies

__all__ = ["TakedownPlan", "look_ahead_of_takedown", "plan_takedown"]

Progress = Callable[[str, int, int], None]


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
        raised: concepts whose patches are there at another strength than 1, at which they erase them.
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
    raised: tuple[Raised, ...]
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

    def strength_before(self, patch_id: PatchId) -> Strength | None:
        """At which strength a patch of the set afterwards stands now, or the one whose place it takes; None: new."""
        old = {item.patch.patch_id: item.supersedes for item in self.made}.get(patch_id) or patch_id
        return self.ground.strengths.get(old)


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
        raised = tuple(Raised(item, i, ground.strengths[i]) for item, i in asked.raised.items())
        raised += tuple(
            Raised(cover.wanted, cover.patch, before)
            for cover in covers
            if (before := ground.strengths[cover.patch]) != ONE
        )
        at_one = ground.at_one(each.patch for each in raised)
        new = tuple(item for item in asked.new if item.concept not in covered)
        limits, moments = merge_policies(registry, policy), open_moments(registry, ground.base)
        wording = Wording(at_one, asked.changed, new, retain, templates)
        names = tuple(each.wanted.concept for each in raised)
        bench = Attempts(wording, limits, progress, moments, asked.recipes, raised=names)
        nothing = Solution((), {}, dict(ground.patches), None, accept_nothing(), GUARDS[0])
        solution = bench.solve() if new or raised else nothing
        check_covers(ground, (*standing, *covers), find_strengths(solution))
    return conclude_plan(ground, new, solution, covers=covers, already=asked.already, raised=raised)


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
    return {name: i[:SHORT] for i, m in manifests for name in (m.concept.text, *m.names)}


def _retype(wanted: Sequence[WantedConcept], recipe: Recipe | None) -> str:
    """The concepts as options, each with its anchor where one was chosen for any, and their names and method."""
    words = [("--concept", item.concept) for item in wanted]
    if any(item.anchor != AUTO for item in wanted):
        words += [("--anchor", item.anchor) for item in wanted]
    words += [("--also-called", f"{item.concept}={name}") for item in wanted for name in item.names]
    words += encode_recipe(recipe) if recipe else []
    return " ".join(f"{option} {shlex.quote(text)}" for option, text in words)


def find_strengths(solution: Solution) -> dict[str, tuple[Patch, Strength]]:
    """The patches that were made, each at the strength that it gets, by concept in one spelling."""
    return {normal(patch.manifest.concept.text): (patch, ONE) for patch in solution.made}


def conclude_plan(
    ground: Ground,
    new: tuple[WantedConcept, ...],
    solution: Solution,
    *,
    covers: tuple[Cover, ...] = (),
    already: Mapping[str, PatchId] | None = None,
    raised: tuple[Raised, ...] = (),
    withdrawn: tuple[PatchId, ...] = (),
    uncovered: tuple[str, ...] = (),
    said: tuple[str, ...] = (),
) -> TakedownPlan:
    """What the solution makes of the ground: the set after it, what is new and gone, and what is worth saying of it."""
    by_name = {normal(item.concept): item for item in (*new, *(each.wanted for each in raised))}
    made = tuple(
        PlannedPatch(
            patch,
            solution.words,
            solution.replaced.get(patch.patch_id),
            by_name.get(normal(patch.manifest.concept.text)),
        )
        for patch in sorted(solution.made, key=lambda patch: patch.manifest.concept.text)
    )
    strengths = ground.at_one(each.patch for each in raised).strengths
    after = {i: strengths[i] for i in solution.kept}
    after |= {patch.patch_id: strength for patch, strength in find_strengths(solution).values()}
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
        raised,
        uncovered,
        worst,
        (*said, *find_notices(ground, made, after, withdrawn, solution)),
    )


def accept_nothing() -> Verdict:
    """The verdict where nothing was to be solved."""
    return Accepted(())


def _asked(wanted: Sequence[WantedConcept]) -> dict[str, str]:
    return {"concepts": "; ".join(item.concept for item in wanted)[:1000]}
