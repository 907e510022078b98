"""Solving new concepts beside those that are erased already, and the older ones anew where the two disturb each other.

The attempts, in this order; the first that the composer accepts is taken:

(1) the new concepts alone, each off the targets of everything that is there; older patches stay as they are, but for
    those that become a concept which is to be erased now, and those of a method that solves all of its concepts at once
    (`joint`);
(2) with them the older ones that disturb or are disturbed, each by its own method and choices;
(3) everything, each holding less and less of the others (`GUARDS`), where the methods can.

What is solved by one recipe is solved together: a_i · c_j = δ_ij for any concepts i and j
(`rasura.patches.erasers.closed_form.null_space`). What has another recipe comes after it, off the targets of what was
made, as that was off the targets of the patches in whose place these come: a concept's targets are the same in both.
So each can be withdrawn and the others stay erased.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

from rasura.patches.algebra.strength import ONE
from rasura.patches.checks.check import check
from rasura.patches.checks.policy import Policy
from rasura.patches.checks.verdict import Accepted, CheckName
from rasura.patches.erasers.closed_form.joint.eraser import Joint
from rasura.patches.erasers.request import EraseRequest
from rasura.patches.erasers.request_for import request_for
from rasura.patches.errors import BoundExceededError, CheckRefusedError, ErasureRefusedError, RefusedError
from rasura.patches.format.member import Member
from rasura.patches.format.patch import Patch
from rasura.patches.models.text_encoders.plain_text import normal
from rasura.patches.prompts.concept_prompts import AUTO, Target
from rasura.patches.prompts.retain_set import RetainSet
from rasura.patches.solving.fit_request import fit_request
from rasura.patches.solving.from_manifest import request_prompts
from rasura.patches.solving.judge_erasure import choose_anchors
from rasura.patches.solving.moments import Moments
from rasura.patches.solving.solve import build_patches
from rasura.patches.types import SHORT, PatchId
from rasura.registry.erase.erase import find_guarded, judge_patches, name_retain, suggest_anchor
from rasura.registry.takedown.ground import Ground
from rasura.registry.takedown.solving.recipe import GUARDS, Recipe, make_recipe, read_recipe
from rasura.registry.takedown.solving.solution import Solution
from rasura.registry.takedown.solving.wording import Wording

if TYPE_CHECKING:
    Progress: TypeAlias = Callable[[str, int, int], None]

__all__ = ["Attempts"]


@dataclass(frozen=True, slots=True, eq=False)
class Attempts:
    """Everything that does not change from attempt to attempt.

    Attributes:
        wording: what is there, what goes and what is wanted, in prompts.
        policy: limits of the composer.
        progress: told what is going on.
        moments: of prompts that were encoded before.
    """

    wording: Wording
    policy: Policy
    progress: Progress
    moments: Moments
    recipes: Mapping[str, Recipe] = field(default_factory=dict)
    """How what is wanted is solved, by its concept in one spelling; what is not there: by `make_recipe`'s defaults."""
    chosen: dict[str, str] = field(default_factory=dict)
    """What `auto` became, by concept: the same in every attempt."""
    raised: tuple[str, ...] = ()
    """Concepts that are wanted, and whose patches are brought to strength 1 for it."""

    @property
    def _ground(self) -> Ground:
        return self.wording.ground

    def solve(self) -> Solution:
        """The first attempt that the composer accepts, if it erases what is wanted.

        Raises:
            CheckRefusedError: none of them; everything that stood in the way is named.
            ErasureRefusedError: an anchor that draws its target; those that would do are named.
            InputError: no template or anchor is left for a concept.
        """
        found = self._accepted()
        return replace(found, doubts=self._doubts(found))

    def _doubts(self, found: Solution) -> tuple[str, ...]:
        """What speaks against the erasing of what was made; of an older one that keeps its anchor it is only said."""
        before = {new: self._ground.patches[old].manifest.concept for new, old in found.replaced.items()}
        layers: dict[str, list[Patch]] = {}
        for patch in found.made:  # what layers make of a word depends on which they are
            layers.setdefault(patch.manifest.eraser.options["layers"], []).append(patch)
        doubts: list[str] = []
        for made in layers.values():
            manifests = [patch.manifest for patch in made]
            request = replace(request_prompts(manifests, found.words), anchors=self.wording.general(found.words))
            same = [m for m in manifests if m.patch_id in before and before[m.patch_id].anchor == m.concept.anchor]
            standing = [manifest.concept.text for manifest in same]
            try:
                said = judge_patches(self._ground.base, request, made, self.policy, self.progress, standing=standing)
            except ErasureRefusedError as error:
                self._suggest(error)
                raise
            doubts += [doubt for own in said for doubt in own]
        return tuple(doubts)

    def _anchored(self, request: EraseRequest) -> EraseRequest:
        """The request with an anchor that draws something else in place of every `auto`, chosen once."""
        if any(t.anchor == AUTO and t.concept not in self.chosen for t in request.targets):
            base = self._ground.base
            try:
                full = choose_anchors(base.host, base.encoder, request, self.policy)
            except ErasureRefusedError as error:
                self._suggest(error)
                raise
            self.chosen.update({target.concept: target.anchor for target in full.targets})
        targets = [replace(t, anchor=self.chosen[t.concept]) if t.anchor == AUTO else t for t in request.targets]
        return replace(request, targets=tuple(targets))

    def _suggest(self, error: ErasureRefusedError) -> None:
        suggest_anchor(error, f"rasura takedown {self._ground.place.option}", name_retain(self.wording.retain))

    def _accepted(self) -> Solution:
        """The first attempt that the composer accepts."""
        refused: list[str] = []
        tried: set[tuple[frozenset[PatchId], float]] = set()
        # Whatever becomes a concept that is erased would show it again, so it is solved anew in any case.
        drawn = {i: self._ground.patches[i].manifest for i in self.wording.staying}
        must = frozenset(i for i, manifest in drawn.items() if self.wording.becomes_erased(manifest))
        fixed = [i for i in must if not self._solvable(i) and self.wording.becomes_wanted(drawn[i])]
        if fixed:
            raise self._refusal([f"{self._name(i)} becomes a concept that is to be erased" for i in fixed])
        must = frozenset(i for i in must if self._solvable(i))  # others were put there so: this takedown need not wait
        must |= self._joined()
        found = self._attempt(must, GUARDS[0], refused, tried)
        if isinstance(found, Solution) and not isinstance(found.verdict, Accepted):
            touched = must | {i for i in self._disturbed(found) if self._solvable(i)}
            found = self._attempt(touched, GUARDS[0], refused, tried)
        everything = frozenset(i for i in self.wording.staying if self._solvable(i))
        loosens = any(recipe.loosens for recipe in self._groups(everything))
        for guard in GUARDS if loosens else GUARDS[:1]:
            if found is not None and isinstance(found.verdict, Accepted):
                return replace(found, refused=tuple(refused))
            found = self._attempt(everything, guard, refused, tried)
        if found is not None and isinstance(found.verdict, Accepted):
            return replace(found, refused=tuple(refused))
        raise self._refusal(refused)

    def _joined(self) -> frozenset[PatchId]:
        """Older patches of the methods that what is wanted is solved by, where these solve all of theirs at once."""
        wanted = {self.recipes.get(normal(item.concept)) or make_recipe() for item in self.wording.wanted}
        joint = {recipe for recipe in wanted if recipe.together}
        return frozenset(i for i in self.wording.staying if read_recipe(self._ground.patches[i].manifest) in joint)

    def _attempt(
        self, anew: frozenset[PatchId], guard: float, refused: list[str], tried: set[tuple[frozenset[PatchId], float]]
    ) -> Solution | None:
        """One attempt; None where the mathematics refuses, or where it was made before."""
        if (anew, guard) in tried:
            return None
        tried.add((anew, guard))
        many = f"{len(self.wording.wanted)} new and {len(anew)} older concepts, guard {guard:g}"
        try:
            found = self._solved(anew, guard)
        except (ErasureRefusedError, BoundExceededError) as error:
            if "anchors" in error.details:  # no general concept will do, in whatever attempt
                raise
            refused.append(f"{many}: {error.message}")
            return None
        if not isinstance(found.verdict, Accepted):
            said = [reason.text for reason in found.verdict.reasons]
            refused.append(f"{many}: {'; '.join(said[:3])}" + (f" and {len(said) - 3} more" if len(said) > 3 else ""))  # noqa: PLR2004
        return found

    def _solved(self, anew: frozenset[PatchId], guard: float) -> Solution:
        kept = {i: self._ground.patches[i] for i in self.wording.staying if i not in anew}
        made: list[Patch] = []
        words: RetainSet | None = None
        old = {normal(self._ground.patches[i].manifest.concept.text): i for i in sorted(anew | self.wording.gone)}
        waiting = {i: self._ground.patches[i] for i in sorted(anew)}
        for recipe, targets in self._groups(anew).items():
            for target in targets:  # what comes later is left alone as the patch that it takes the place of
                waiting.pop(old.get(normal(target.concept), PatchId("")), None)
            beside = {**kept, **{patch.patch_id: patch for patch in made}, **waiting}
            request = self._request(recipe.loosen(guard), targets, old)
            words = request.retain
            made += self._built(request, beside)
        replaced = {
            patch.patch_id: old[name]
            for patch in made
            if (name := normal(patch.manifest.concept.text)) in old and old[name] != patch.patch_id
        }
        strengths = {i: self._ground.strengths[i] for i in kept}
        strengths |= {patch.patch_id: ONE for patch in made}  # it is solved to erase at 1, whatever was there before
        patches = {**kept, **{patch.patch_id: patch for patch in made}}
        self.progress("checking", 0, 1)
        verdict = check([Member(patches[i], strengths[i]) for i in sorted(patches)], self.policy)
        self.progress("checking", 1, 1)
        return Solution(tuple(made), replaced, kept, words, verdict, guard)

    def _groups(self, anew: frozenset[PatchId]) -> dict[Recipe, list[Target]]:
        """What is to be solved, by recipe: that of what is wanted first, and in each the older concepts first."""
        wanted = [(self.recipes.get(normal(item.concept)) or make_recipe(), item) for item in self.wording.wanted]
        groups: dict[Recipe, list[Target]] = {recipe: [] for recipe, _ in wanted}
        for patch_id in sorted(anew):
            recipe = read_recipe(self._ground.patches[patch_id].manifest)
            assert recipe is not None, "only what can be solved again is solved anew"
            groups.setdefault(recipe, []).append(self.wording.target_again(patch_id))
        for recipe, item in wanted:
            groups[recipe].append(self.wording.target(item))
        return groups

    def _request(self, recipe: Recipe, targets: Sequence[Target], old: Mapping[str, PatchId]) -> EraseRequest:
        words, base = self.wording.words(self._all_solvable), self._ground.base
        request = replace(
            request_for(
                recipe.eraser,
                tuple(targets),
                words,
                layers=recipe.layers,
                tokens=recipe.tokens,
                rank_rule=str(recipe.rule),
                anchors=self.wording.general(words),
            ),
            # The same prompts in every attempt: they are encoded once.
            retained_in=self.wording.all_templates(self._all_solvable),
            unnamed=tuple(self.wording.erased),
            supersedes={t.concept: (old[name],) for t in targets if (name := normal(t.concept)) in old},
        )
        return self._anchored(fit_request(base.encoder, request))

    def _built(self, request: EraseRequest, beside: Mapping[PatchId, Patch]) -> tuple[Patch, ...]:
        base, full = self._ground.base, find_guarded(request, beside, self._ground.base)
        return build_patches(base.host, base.encoder, base.identity, full, self.progress, moments=self.moments)

    @property
    def _all_solvable(self) -> list[PatchId]:
        return [i for i in sorted(self.wording.staying) if self._solvable(i)]

    def _solvable(self, patch_id: PatchId) -> bool:
        """Whether a patch can be solved anew, by the method and choices that it tells of."""
        return read_recipe(self._ground.patches[patch_id].manifest) is not None

    def _disturbed(self, found: Solution) -> set[PatchId]:
        """The older patches that disturb what was made, or that it disturbs."""
        broken = [r for r in found.verdict.relations if not r.holds]
        named = {i for r in broken for i in (r.patch, r.other) if r.check is not CheckName.CAPACITY}
        return named & found.kept.keys()

    def _name(self, patch_id: PatchId) -> str:
        return f"{patch_id[:SHORT]} ({self._ground.patches[patch_id].manifest.concept.text})"

    def _refusal(self, refused: Sequence[str]) -> RefusedError:
        """Everything that stood in the way, once, and what may help."""
        fixed = [self._name(i) for i in self.wording.staying if not self._solvable(i)]
        more = f"; {', '.join(fixed)} cannot be solved anew here" if fixed else ""
        named = ", ".join([*(item.concept for item in self.wording.wanted), *self.raised]) or "the rest"
        exact = make_recipe().eraser.name
        softer = any(recipe.eraser.name != exact for recipe in self.recipes.values())
        method = f"; --method {exact}, which leaves others alone exactly" if softer else ""
        hint = f"rasura takedown --dry-run {self._ground.place.option} --retain FILE --templates FILE …"
        everything = self._groups(frozenset(self._all_solvable))
        if sum(map(len, everything.values())) > 1 and not any(recipe.together for recipe in everything):
            method += f"; all of them by --method {Joint.name}, where no concept takes room that another needs"
            hint = self._all_jointly()
        return CheckRefusedError(
            f"{named} cannot be erased beside what {self._ground.place.source} has: {'; '.join(refused)}{more}. What "
            "may help: a shorter retain list; fewer templates, and none that name another erased concept; an anchor "
            "that is farther away; one concept in place of two that nearly mean the same" + method,
            hint=hint,
            reasons=list(refused),
        )

    def _all_jointly(self) -> str:
        """The command that solves everything by the method for many concepts, in one motion."""
        standing = [self._ground.patches[i].manifest.concept.text for i in self._all_solvable]
        concepts = dict.fromkeys([*standing, *(item.concept for item in self.wording.wanted)])
        asked = " ".join(f"--concept {shlex.quote(concept)}" for concept in concepts)
        return f"rasura takedown --dry-run {self._ground.place.option} --method {Joint.name} {asked}"
