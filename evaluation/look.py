"""A quick look before a model is moved: does the set of a takedown still show what it erases?

A few pictures of each concept, from the base and from the set that is planned, from the same noise; a judge says what
they show. A few concepts that are kept are drawn, too: the nearest to what is newly erased, and some of the rest.
It is no evaluation (`rasura.evaluation.evaluate`): it asks about few concepts, with few seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rasura.evaluation.images.painter import Sampling, Shot
from rasura.evaluation.images.patched_model import EvaluatedPatch, PatchedModel
from rasura.evaluation.images.questions import Answer, Question
from rasura.evaluation.judges.interface import CLIP, TEMPLATE, Judge
from rasura.evaluation.judges.open_judge import open_judge
from rasura.patches.algebra.strength import ONE
from rasura.patches.errors import CheckRefusedError, InputError, NotFoundError
from rasura.patches.models.text_encoders.plain_text import normal
from rasura.patches.prompts.concept_prompts import prompts_of
from rasura.patches.prompts.nearest_concepts import find_nearest_protected
from rasura.patches.types import Progress
from rasura.registry.takedown.plan import TakedownPlan

__all__ = ["MOST", "Seen", "check_judge", "look_at_plan", "require_unseen"]

MOST: Final = 0.25
"""Share of a concept's pictures that may still show it: one of four, because judges err."""
_FIRST_SEED: Final = 40_000
_KEPT: Final = 32
"""Words of the retain list among which a CLIP judge chooses, besides."""
_NEAREST, _OTHERS = 2, 2
"""How many kept concepts are drawn: the nearest to what is newly erased, and further ones, spread over the list."""
_KEPT_PICTURES: Final = 2
"""Of each of them, at most."""
_KEPT_SHARE: Final = 0.5
"""Share of what the base showed of a kept concept that must still be seen."""
_LOST: Final = 0.5
"""Share of the kept concepts that were looked at which may be lost."""
_PLAIN: Final[Mapping[str, str]] = {"style": "a picture in {} style"}
"""By axis, how a kept concept is asked for; any other: `a picture of a {}`."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a judge saw of one concept.

    Attributes:
        concept: its name.
        n: pictures, each drawn twice; 0 where the judge knows no label of this name.
        before: how many of the base's showed it.
        after: how many of the planned set's.
        erased: whether the planned set erases it; otherwise it is withdrawn, and may be seen again, or kept.
        kept: whether it is one of those that are kept.
    """

    concept: str
    n: int
    before: int
    after: int
    erased: bool
    kept: bool = False

    @property
    def holds(self) -> bool:
        """Whether it is seen no more often than allowed, or was not looked at; if it is kept, whether it still is."""
        if self.kept:
            return self.after >= _KEPT_SHARE * self.before
        return not self.erased or self.n == 0 or self.after <= MOST * self.n


def check_judge(judge_ref: str) -> None:
    """Refuse a judge that is not there, before minutes are spent on what it shall look at.

    Raises:
        NotFoundError, FormatError, InputError: see `rasura.evaluation.judges.open_judge.open_judge`.
    """
    if not judge_ref.startswith(CLIP):
        open_judge(judge_ref, ())
    elif not (folder := Path(judge_ref.removeprefix(CLIP))).is_dir():
        raise NotFoundError(f"judge {folder} is no folder: expected a CLIP model", hint="rasura evaluate --judge DIR")


def look_at_plan(plan: TakedownPlan, judge_ref: str, *, n: int, progress: Progress) -> tuple[Seen, ...]:
    """Draw what the plan erases or withdraws, n pictures of each concept, and a few of what it keeps, and ask a judge.

    Args:
        plan: what would be done.
        judge_ref: as for `rasura evaluate --judge`.
        n: pictures of each concept.
        progress: told what is going on.

    Raises:
        InputError: no pictures are asked for.
        NotFoundError, FormatError: no such judge, or one that cannot be read.
        UnsupportedHostError: no pipeline that can draw.
    """
    if n < 1:
        raise InputError(f"expected at least one picture of each concept, got {n}", hint="--pictures 4")
    judge = open_judge(judge_ref, _choices(plan) if judge_ref.startswith(CLIP) else ())
    asked = _list_asked(plan, judge, n)
    shots = [shot for each in asked for shot in each.shots]
    base = plan.ground.base
    stack = [EvaluatedPatch(patch, plan.after[i]) for i, patch in plan.patches.items()]
    # Nothing left is the base: then its pictures are both.
    model = PatchedModel.load(base.host, base.identity, stack or _any(plan), Sampling())
    answers = []
    for patched, stage in ((False, "drawing the base"), (bool(stack), "drawing what is planned")):
        model.show(patched=patched)
        answers.append(judge.look(model.painter.draw(shots, stage, progress)).answers if shots else [])
    seen, place = [], 0
    for each in asked:
        end = place + len(each.shots)
        counts = [each.count(side[place:end]) for side in answers]
        seen.append(Seen(each.concept, len(each.shots), counts[0], counts[1], each.erased, each.kept))
        place = end
    return tuple(seen)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A concept that the judge is asked about.

    Attributes:
        concept: its name.
        label: the axis and the label that mean it; None where the judge knows none: then nothing is drawn.
        shots: what is drawn of it, by the base and by the planned set.
        erased: whether the planned set erases it.
        kept: whether it is one of those that are kept.
    """

    concept: str
    label: tuple[str, str] | None
    shots: tuple[Shot, ...]
    erased: bool = False
    kept: bool = False

    def count(self, answers: Sequence[Answer]) -> int:
        """How many of the answers to these shots, of one model, say that it is seen."""
        return 0 if self.label is None else sum(answer[self.label[0]] == self.label[1] for answer in answers)


def _list_asked(plan: TakedownPlan, judge: Judge, n: int) -> list[_Asked]:
    """What is erased, what comes back, and some of what is kept; n pictures of each, of what is kept fewer."""
    ground = plan.ground.patches
    # What stands at another strength than 1 is not erased, and may be seen.
    at = plan.patches.items()
    told = [(p.manifest.concept.text, p.manifest.concept.templates, plan.after[i] == ONE) for i, p in at]
    told += [(cover.wanted.concept, ground[cover.patch].manifest.concept.templates, True) for cover in plan.covered]
    back = [ground[patch_id].manifest.concept for patch_id in plan.withdrawn]
    told += [(concept.text, concept.templates, False) for concept in back]
    asked = []
    for concept, templates, erased in told:
        label = _axis(judge, concept)
        asked.append(_Asked(concept, label, _shots(concept, templates, n if label else 0), erased))
    for concept, label in _kept(plan, judge):
        shots = _shots(concept, (_PLAIN.get(label[0], TEMPLATE),), min(n, _KEPT_PICTURES))
        asked.append(_Asked(concept, label, shots, kept=True))
    return asked


def require_unseen(seen: Sequence[Seen]) -> None:
    """Refuse a plan that leaves a concept visible, or takes more than half of the kept ones that were looked at.

    Raises:
        CheckRefusedError: naming all of them.
    """
    shown = [s for s in seen if not s.holds and not s.kept]
    if shown:
        named = "; ".join(f"{s.concept} in {s.after} of {s.n} pictures (the base: {s.before})" for s in shown)
        raise CheckRefusedError(
            f"still drawn after the takedown: {named}, expected at most {MOST:.0%}; another anchor may help",
            hint="rasura takedown --anchor TEXT",
            seen={s.concept: s.after for s in shown},
        )
    drawn = [s for s in seen if s.kept and s.before]
    lost = [s for s in drawn if not s.holds]
    if len(lost) > max(1, _LOST * len(drawn)):  # one lost neighbour is said, and stops nothing
        named = "; ".join(f"{s.concept} in {s.after} of {s.n} pictures (the base: {s.before})" for s in lost)
        raise CheckRefusedError(
            f"no longer drawn after the takedown, though they are kept: {named}; expected at least {1 - _LOST:.0%} of "
            f"the {len(drawn)} that were looked at; another method or anchor may help",
            hint="rasura methods",
            seen={s.concept: s.after for s in lost},
        )


def _choices(plan: TakedownPlan) -> list[Question]:
    """What a CLIP judge, which knows no labels of its own, chooses from: concepts, what they become, what is kept."""
    concepts = [patch.manifest.concept for patch in (*plan.patches.values(), *plan.ground.patches.values())]
    words = next((made.words.concepts for made in plan.made if made.words and not made.words.whole), ())
    named = [name for c in concepts for name in (c.text, c.anchor) if name]
    named += [*(cover.wanted.concept for cover in plan.covered), *words[:_KEPT]]
    return [Question("shown", Shot("", 0), {"concept": name}) for name in dict.fromkeys(named)]


def _kept(plan: TakedownPlan, judge: Judge) -> list[tuple[str, tuple[str, str]]]:
    """Some of what is kept and has a label: the nearest to what is newly erased, then others spread over the list."""
    words = _retained(plan)
    known = {word: axis for word in words if (axis := _axis(judge, word)) is not None}
    chosen: dict[str, None] = {}
    for made in plan.made:
        if made.wanted is not None and len(chosen) < _NEAREST and known:
            near = find_nearest_protected(plan.ground.base.encoder, made.wanted.concept, list(known), {}, _NEAREST)
            chosen |= dict.fromkeys([each.name for each in near][: _NEAREST - len(chosen)])
    rest = [word for word in known if word not in chosen]
    step = max(1, len(rest) // _OTHERS)
    return [(word, known[word]) for word in (*chosen, *rest[::step][:_OTHERS])]


def _retained(plan: TakedownPlan) -> tuple[str, ...]:
    """The words that the plan keeps, as far as they are known; whole prompts are none."""
    sets = [made.words for made in plan.made if made.words]
    if not sets:
        for patch_id in plan.ground.patches:
            with suppress(NotFoundError):
                sets += [words] if (words := plan.ground.words(patch_id)) else []
    return next((words.concepts for words in sets if not words.whole), ())


def _axis(judge: Judge, concept: str) -> tuple[str, str] | None:
    """The axis and the label that mean the concept."""
    for axis, labels in judge.labels.items():
        for label in labels:
            if normal(label) == normal(concept):
                return axis, label
    return None


def _shots(concept: str, templates: Sequence[str], n: int) -> tuple[Shot, ...]:
    """Prompts of the concept, the longest templates first: a word alone is not how people ask."""
    chosen = sorted(templates, key=lambda t: (-len(t), t))
    return tuple(Shot(prompts_of(concept, [chosen[i % len(chosen)]])[0], _FIRST_SEED + i) for i in range(n))


def _any(plan: TakedownPlan) -> list[EvaluatedPatch]:
    return [EvaluatedPatch(plan.ground.patches[i], plan.ground.strengths[i]) for i in plan.withdrawn]
