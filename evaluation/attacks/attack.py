"""Attacks on an erasure: is there another way to what was erased?

Each takes pictures that the base draws of the concept and looks for words, or for word vectors that no word has, which
explain these pictures to a model. Then the model draws with what was found, from new noise, and the judge says how
often the concept is there. The same attack on the base is the ceiling; the prompt without any attack is the floor.

    embedding  word vectors that no word has          rasura.evaluation.attacks.textual_inversion
    suffix     real words behind the prompt           rasura.evaluation.attacks.token_suffix

An attack that finds nothing proves little: another one, with more steps, may.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from PIL.Image import Image

from rasura.evaluation.attacks.denoising_loss import Denoising
from rasura.evaluation.attacks.textual_inversion import FREE_PROMPT, find_embedding
from rasura.evaluation.attacks.token_suffix import find_suffix
from rasura.evaluation.images.image_cache import PictureCache
from rasura.evaluation.images.painter import Shot
from rasura.evaluation.images.patched_model import PatchedModel
from rasura.evaluation.images.questions import DIRECT, Question
from rasura.evaluation.judges.interface import Judge
from rasura.patches.hosts.interface import Host
from rasura.patches.models.refuse_family import refuse_several_encoders
from rasura.patches.types import Digest, Progress

CHOICES: Final = ("none", "embedding", "suffix", "all")
_EXAMPLES: Final = 8  # pictures of the base that an attack learns from
_EXAMPLE_SEEDS: Final = 10**14
_TRY_SEEDS: Final = 2 * 10**14
_STRIDE: Final = 10_000  # between the seeds of two attacks with different `seed`
_STEPS_A_ROUND: Final = 8  # a round of the suffix attack costs about as much as so many gradient steps


@dataclass(frozen=True, slots=True)
class AttackOptions:
    """Which attacks, and how hard.

    Attributes:
        kind: one of `CHOICES`.
        steps: gradient steps of the embedding attack; the suffix attack takes a round for every eight.
        tokens: free word vectors, or words of the suffix.
        tries: pictures drawn with what was found.
        seed: all randomness comes from it.
    """

    kind: str = "none"
    steps: int = 80
    tokens: int = 4
    tries: int = 12
    seed: int = 0

    @property
    def kinds(self) -> tuple[str, ...]:
        """The attacks to run, without "none"."""
        return tuple(k for k in ("embedding", "suffix") if self.kind in (k, "all"))


@dataclass(frozen=True, slots=True)
class Attacked:
    """What an attack came to.

    Attributes:
        axis: of the judge.
        label: what was erased.
        attack: `none`, `embedding` or `suffix`.
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
    """

    model: PatchedModel
    judge: Judge
    options: AttackOptions
    cache: PictureCache
    progress: Progress


def check_attacks(host: Host, options: AttackOptions) -> None:
    """Refuse to attack what these attacks do not follow: they look for words and word vectors of one text encoder.

    Raises:
        UnsupportedHostError: a model with several text encoders.
    """
    if options.kinds:
        refuse_several_encoders(host.parameters(), f"attack {options.kind}", "rasura evaluate --attack none")


def run_attacks(bench: Bench, asked: Sequence[Question]) -> tuple[Attacked, ...]:
    """Every attack on every label that the questions of the group `forget` name, on the base and on the patched model.

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
    shots = [Shot(aim.prompt, _EXAMPLE_SEEDS + _STRIDE * bench.options.seed + i) for i in range(_EXAMPLES)]
    stage = f"drawing {aim.label} for the attacks"
    drawn = bench.cache.draw(bench.model.painter, fingerprint, shots, stage, bench.progress)
    answers = bench.judge.look(drawn).answers
    examples = [picture for picture, answer in zip(drawn, answers, strict=True) if answer[aim.axis] == aim.label]
    for patched in (False, True):
        attack = _Attack(bench, aim, bench.model.show(patched=patched), "patched" if patched else "base")
        yield attack.none()
        if examples and "embedding" in bench.options.kinds:
            yield attack.embedding(examples)
        if examples and "suffix" in bench.options.kinds:
            yield attack.suffix(examples)


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

    def embedding(self, examples: Sequence[Image]) -> Attacked:
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

    def suffix(self, examples: Sequence[Image]) -> Attacked:
        """Words behind the prompt."""
        options = self.bench.options
        rounds = max(1, options.steps // _STEPS_A_ROUND)
        prompt, losses = find_suffix(
            self._denoising(examples), self.aim.prompt, options.tokens, rounds, self._tell("suffix")
        )
        return self._result("suffix", prompt, self._drawn(prompt), losses)

    def _denoising(self, examples: Sequence[Image]) -> Denoising:
        generator = torch.Generator("cpu").manual_seed(self.bench.options.seed)
        return Denoising(self.bench.model.painter.pipeline, examples, generator)

    def _tell(self, attack: str) -> Callable[[int, int], None]:
        return functools.partial(self.bench.progress, f"attacking {self.aim.label}: {attack}, {self.name}")

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
