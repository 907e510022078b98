"""From concepts that are to come back to a plan that takes their patches out, and leaves the others covered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rasura.patches.checks.policy import Policy
from rasura.patches.models.text_encoders.plain_text import normal
from rasura.registry._storage.records.records import Draft
from rasura.registry.erase.encoded_prompts import open_moments
from rasura.registry.log.entries.outcome import log_failure
from rasura.registry.registry import Registry
from rasura.registry.takedown.coverage import check_covers, find_covered, find_covered_by
from rasura.registry.takedown.ground import Place, stand_on
from rasura.registry.takedown.named import find_meant
from rasura.registry.takedown.plan import Progress, TakedownPlan, accept_nothing, conclude_plan, find_strengths
from rasura.registry.takedown.solving.beside import Attempts
from rasura.registry.takedown.solving.recipe import GUARDS, read_recipe
from rasura.registry.takedown.solving.solution import Solution
from rasura.registry.takedown.solving.wording import Wording
from rasura.registry.trust.limits import merge_policies

__all__ = ["plan_withdrawal"]


def plan_withdrawal(
    registry: Registry,
    place: Place,
    named: Sequence[str],
    *,
    draft: Draft,
    progress: Progress,
    policy: Policy | None = None,
) -> TakedownPlan:
    """Take concepts back; what else is erased stays so, and what their patches covered gets patches of its own.

    Args:
        registry: which says what is there.
        place: the model or stack.
        named: concepts by any of their names, or identifiers of patches.
        draft: who asks and why; a refusal is logged with it.
        progress: told what is going on.
        policy: limits beside those of the registry's policy.

    Raises:
        NotFoundError: a concept that was never erased from this base; those that are erased are named.
        AmbiguousIdError: a name of several patches; the commands that tell them apart are named.
        RasuraError: whatever stands in the way; logged.
    """
    with log_failure(registry, replace(draft, details={"concepts": "; ".join(named)[:1000]})):
        ground = stand_on(registry, place, replace(draft, action="base.add"), progress)
        standing = find_covered(registry, ground)
        covers = {normal(cover.wanted.concept): cover.wanted.concept for cover in standing}
        uncovered = tuple(covers[name] for text in named if (name := normal(text)) in covers)
        own = [text for text in named if normal(text) not in covers]
        meant = [find_meant(registry, ground, text) for text in own]
        gone = list(dict.fromkeys(each.patch_id for each in meant if each.patch_id is not None))
        names = {normal(text) for text in named}
        orphans = tuple(w for w in find_covered_by(registry, ground, gone) if normal(w.concept) not in names)
        limits, moments = merge_policies(registry, policy), open_moments(registry, ground.base)
        # What a patch covered is erased as that was.
        known = {normal(c.wanted.concept): read_recipe(ground.patches[c.patch].manifest) for c in standing}
        recipes = {name: recipe for name, recipe in known.items() if recipe is not None}
        bench = Attempts(Wording(ground, frozenset(gone), orphans, None, ()), limits, progress, moments, recipes)
        solution = bench.solve() if gone else Solution((), {}, dict(ground.patches), None, accept_nothing(), GUARDS[0])
        left = [c for c in standing if normal(c.wanted.concept) not in names and c.patch not in gone]
        check_covers(ground, left, find_strengths(solution))
    said = tuple(dict.fromkeys(each.said for each in meant if each.said))
    return conclude_plan(ground, orphans, solution, withdrawn=tuple(gone), uncovered=uncovered, said=said)
