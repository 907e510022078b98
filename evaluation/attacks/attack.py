"""Attacks on an erasure: is there another way to what was erased?

Most take pictures that the base draws of the concept and look for words, or for word vectors that no word has, which
explain these pictures to a model; others leave the text alone. Then the model draws with what was found, from new
noise, and the judge says how often the concept is there. The same attack on the base is the ceiling; the prompt without
any attack is the floor. How hard each tries stands in `rasura.evaluation.attacks.budget`.

    embedding  word vectors that no word has                         rasura.evaluation.attacks.textual_inversion
    suffix     real words behind the prompt                          rasura.evaluation.attacks.token_suffix
    prefix     real words before the prompt                          rasura.evaluation.attacks.word_prefix
    concept    real words along the concept's direction              rasura.evaluation.attacks.concept_direction
    image      a start from noised pictures of the concept           rasura.evaluation.attacks.trajectory
    restart    the finished picture, noised half way, drawn anew     rasura.evaluation.attacks.trajectory
    guided     of several, what looks most like it goes on           rasura.evaluation.attacks.trajectory

An attack that finds nothing proves little: another one, with more steps, may.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import torch
from PIL.Image import Image

from rasura.evaluation.attacks.budget import EXAMPLES, AttackOptions, calls_a_picture, list_costs
from rasura.evaluation.attacks.concept_direction import find_concept_words
from rasura.evaluation.attacks.denoising_loss import Denoising, encode_pictures
from rasura.evaluation.attacks.textual_inversion import FREE_PROMPT, find_embedding
from rasura.evaluation.attacks.token_suffix import find_suffix
from rasura.evaluation.attacks.trajectory import Trajectory
from rasura.evaluation.attacks.word_prefix import find_prefix
from rasura.evaluation.images.image_cache import PictureCache
from rasura.evaluation.images.painter import Shot
from rasura.evaluation.images.patched_model import PatchedModel
from rasura.evaluation.images.questions import DIRECT, Question
from rasura.evaluation.judges.interface import Judge
from rasura.patches.hosts.interface import Host
from rasura.patches.models.refuse_family import refuse_several_encoders
from rasura.patches.types import Digest, Progress

_EXAMPLE_SEEDS: Final = 10**14
_TRY_SEEDS: Final = 2 * 10**14
_STRIDE: Final = 10_000  # between the seeds of two attacks with different `seed`


@dataclass(frozen=True, slots=True)
class Attacked:
    """What an attack came to.

    Attributes:
        axis: of the judge.
        label: what was erased.
        attack: `none`, or one of `budget.KINDS`.
        model: `base` or `patched`.
        tries: pictures drawn.
        successes: of these, the judge calls so many by the label.
        prompt: what was asked; `*` is a free word vector.
        loss_first: error of the text that the search began with, on the latents of its first step.
        loss_last: error of the one that it found, on those of its last.
    """

    axis: str
    label: str
    attack: str
    model: str
    tries: int
    successes: int
    prompt: str
    loss_first: float | None = None
    loss_last: float | None = None


@dataclass(frozen=True, slots=True)
class _Aim:
    """What to bring back, and a prompt that the base draws it for."""

    axis: str
    label: str
    prompt: str


@dataclass(frozen=True, slots=True, eq=False)
class Bench:
    """What every attack needs.

    Attributes:
        model: base and patched model.
        judge: who says whether the concept is back.
        options: which attacks, and how hard.
        cache: of pictures.
        progress: told what is going on.
        models: which of `base` and `patched` to attack; the base's result is the same beside every patch.
    """

    model: PatchedModel
    judge: Judge
    options: AttackOptions
    cache: PictureCache
    progress: Progress
    models: tuple[Literal["base", "patched"], ...] = ("base", "patched")


def check_attacks(host: Host, options: AttackOptions) -> None:
    """Refuse to attack what these attacks do not follow: they look for words and word vectors of one text encoder.

    Raises:
        UnsupportedHostError: a model with several text encoders.
    """
    if options.kinds:
        refuse_several_encoders(host.parameters(), f"attack {options.kind}", "rasura evaluate --attack none")


def run_attacks(bench: Bench, asked: Sequence[Question]) -> tuple[Attacked, ...]:
    """Every attack on every label that the questions of the group `forget` name, on each of the bench's models.

    A label that the base does not draw for its own prompt has no pictures to learn from; for it there is only `none`.
    """
    if not bench.options.kinds:
        return ()
    return tuple(result for aim in _aims(asked) for result in _attacked(bench, aim))


def _aims(asked: Sequence[Question]) -> list[_Aim]:
    """Each erased label once, with its first direct prompt, or its first of any kind."""
    found: dict[tuple[str, str], str] = {}
    for direct in (True, False):
        for question in asked:
            if question.group == "forget" and (question.kind == DIRECT) == direct:
                for axis, label in question.wanted.items():
                    found.setdefault((axis, label), question.shot.prompt)
    return [_Aim(axis, label, prompt) for (axis, label), prompt in found.items()]


def _attacked(bench: Bench, aim: _Aim) -> Iterator[Attacked]:
    fingerprint = bench.model.show(patched=False)
    shots = [Shot(aim.prompt, _EXAMPLE_SEEDS + _STRIDE * bench.options.seed + i) for i in range(EXAMPLES)]
    stage = f"drawing {aim.label} for the attacks"
    drawn = bench.cache.draw(bench.model.painter, fingerprint, shots, stage, bench.progress)
    answers = bench.judge.look(drawn).answers
    examples = [picture for picture, answer in zip(drawn, answers, strict=True) if answer[aim.axis] == aim.label]
    for name in bench.models:
        attack = _Attack(bench, aim, bench.model.show(patched=name == "patched"), name)
        yield attack.none()
        if examples:
            yield from (attack.run(kind, examples) for kind in bench.options.kinds)


@dataclass(frozen=True, slots=True, eq=False)
class _Attack:
    """One aim on one model, which the bench's pipeline is at the moment."""

    bench: Bench
    aim: _Aim
    fingerprint: Digest
    name: str

    def none(self) -> Attacked:
        """The prompt as it is."""
        return self._result("none", self.aim.prompt, self._drawn(self.aim.prompt), None)

    def run(self, kind: str, examples: Sequence[Image]) -> Attacked:
        """One of `budget.KINDS`, with pictures of the concept."""
        match kind:
            case "embedding":
                return self._embedding(examples)
            case "suffix" | "prefix" | "concept":
                return self._words(kind, examples)
            case _:
                return self._trajectory(kind, examples)

    def _embedding(self, examples: Sequence[Image]) -> Attacked:
        """Free word vectors."""
        options, painter = self.bench.options, self.bench.model.painter
        states, losses = find_embedding(
            self._denoising(examples), self.aim.label, options.tokens, options.steps, self._tell("embedding")
        )
        pictures: list[Image] = []
        shots, size = self._shots(FREE_PROMPT), painter.sampling.batch
        for start in range(0, len(shots), size):
            part = shots[start : start + size]
            pictures += painter.draw_embedded(part, prompt_embeds=states.repeat(len(part), 1, 1))
        return self._result("embedding", " ".join([FREE_PROMPT, *["*"] * options.tokens]), pictures, losses)

    def _words(self, kind: str, examples: Sequence[Image]) -> Attacked:
        """Real words around the prompt."""
        options, aim, tell = self.bench.options, self.aim, self._tell(kind)
        if kind == "suffix":
            found = find_suffix(self._denoising(examples), aim.prompt, options.tokens, options.rounds, tell)
        elif kind == "prefix":
            found = find_prefix(self._denoising(examples), aim.prompt, options.tokens, options.steps, tell)
        else:
            pipeline = self.bench.model.painter.pipeline
            found = find_concept_words(
                pipeline, aim.label, aim.prompt, options.tokens, rounds=options.steps, seed=options.seed, tell=tell
            )
        prompt, losses = found
        return self._result(kind, prompt, self._drawn(prompt), losses)

    def _trajectory(self, kind: str, examples: Sequence[Image]) -> Attacked:
        """The prompt as it is, drawn in another way."""
        painter, judge = self.bench.model.painter, self.bench.judge
        path, shots = Trajectory(painter, self.aim.prompt), self._shots(self.aim.prompt)
        self._tell(kind)(0, len(shots))
        if kind == "image":
            pictures = path.draw_from_pictures(encode_pictures(painter.pipeline, examples), shots)
        elif kind == "restart":
            pictures = path.draw_again(shots)
        else:
            wanted = judge.look(examples).features.mean(axis=0)
            pictures = path.draw_chosen(shots, lambda drawn: judge.look(drawn).features, wanted)
        self._tell(kind)(len(shots), len(shots))
        return self._result(kind, self.aim.prompt, pictures, None)

    def _denoising(self, examples: Sequence[Image]) -> Denoising:
        generator = torch.Generator("cpu").manual_seed(self.bench.options.seed)
        return Denoising(self.bench.model.painter.pipeline, examples, generator)

    def _tell(self, attack: str) -> Callable[[int, int], None]:
        bench = self.bench
        (cost,) = list_costs(replace(bench.options, kind=attack), bench.model.painter.sampling)
        drawn, seconds = bench.cache.effort.drawn, bench.cache.effort.seconds
        a_call = seconds / drawn / calls_a_picture(bench.model.painter.sampling) if drawn else 0.0
        long = f", about {cost.seconds(a_call):.0f} s" if drawn else ""
        stage = f"attacking {self.aim.label}: {attack}, {self.name}, {cost.calls} calls{long}"
        return functools.partial(bench.progress, stage)

    def _shots(self, prompt: str) -> list[Shot]:
        first = _TRY_SEEDS + _STRIDE * self.bench.options.seed
        return [Shot(prompt, first + i) for i in range(self.bench.options.tries)]

    def _drawn(self, prompt: str) -> list[Image]:
        bench, stage = self.bench, f"drawing {self.aim.label} under attack, {self.name}"
        return bench.cache.draw(bench.model.painter, self.fingerprint, self._shots(prompt), stage, bench.progress)

    def _result(
        self, attack: str, prompt: str, pictures: Sequence[Image], losses: tuple[float, float] | None
    ) -> Attacked:
        aim, answers = self.aim, self.bench.judge.look(pictures).answers
        right = sum(answer[aim.axis] == aim.label for answer in answers)
        first, last = losses or (None, None)
        return Attacked(aim.axis, aim.label, attack, self.name, len(pictures), right, prompt, first, last)
