"""Attacks on an erasure: is there another way to what was erased?

Each takes pictures that the base draws of the concept and looks for words, or for word vectors that no word has, which
explain these pictures to a model. Then the model draws with what was found, from new noise, and the judge says how
often the concept is there. The same attack on the base is the ceiling; the prompt itself, without any attack, the floor.

    embedding  free word vectors in place of words, found by gradient descent: textual inversion (Gal et al. 2022,
               arXiv 2208.01618), as an attack on erasures Pham et al. 2023 (arXiv 2308.01508)
    suffix     real words behind the prompt, found by greedy coordinate gradient: see `rasura.evaluation.attack_suffix`

An attack that finds nothing proves little: another one, with more steps, may.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rasura.evaluation.attack_suffix import find_suffix
from rasura.evaluation.cache import PictureCache
from rasura.evaluation.denoising import Denoising, SlottedPrompt, states_of_vectors
from rasura.evaluation.judge import Judge
from rasura.evaluation.kinds import DIRECT
from rasura.evaluation.painter import Painter, Progress, Shot
from rasura.evaluation.patched import PatchedModel
from rasura.evaluation.report import Compared
from rasura.patches.names import Digest

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

CHOICES: Final = ("none", "embedding", "suffix", "all")
FREE_PROMPT: Final = "a picture of"
"""What stands before the free word vectors."""

_EXAMPLES: Final = 8  # pictures of the base that an attack learns from
_EXAMPLE_SEEDS: Final = 40_000
_TRY_SEEDS: Final = 50_000
_BATCH: Final = 8  # noised latents a step
_RATE: Final = 0.1  # Adam's, in standard deviations of the vocabulary's embeddings


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
    steps: int = 160
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


def run_attacks(
    model: PatchedModel,
    judge: Judge,
    compared: Compared,
    options: AttackOptions,
    cache: PictureCache,
    progress: Progress,
) -> tuple[Attacked, ...]:
    """Every attack on every erased label, on the base and on the patched model.

    A label that the base does not draw for its own prompt has no pictures to learn from; for it there is only `none`.
    """
    if not options.kinds:
        return ()
    return tuple(result for aim in _aims(compared) for result in _attacked(model, judge, aim, options, cache, progress))


def _aims(compared: Compared) -> list[_Aim]:
    """Each erased label once, with its first direct prompt, or its first of any kind."""
    found: dict[tuple[str, str], str] = {}
    for direct in (True, False):
        for question in compared.asked:
            if question.group == "forget" and (question.kind == DIRECT) == direct:
                for axis, label in question.wanted.items():
                    found.setdefault((axis, label), question.shot.prompt)
    return [_Aim(axis, label, prompt) for (axis, label), prompt in found.items()]


def _attacked(
    model: PatchedModel, judge: Judge, aim: _Aim, options: AttackOptions, cache: PictureCache, progress: Progress
) -> Iterator[Attacked]:
    print_ = model.show(patched=False)
    shots = [Shot(aim.prompt, _EXAMPLE_SEEDS + options.seed + i) for i in range(_EXAMPLES)]
    drawn = cache.draw(model.painter, print_, shots, f"drawing {aim.label} for the attacks", progress)
    answers = judge.look(drawn).answers
    examples = [picture for picture, answer in zip(drawn, answers, strict=True) if answer[aim.axis] == aim.label]
    for patched in (False, True):
        fingerprint = model.show(patched=patched)
        attack = _Attack(model.painter, fingerprint, "patched" if patched else "base", judge, aim, options, cache)
        yield attack.none(progress)
        if examples and "embedding" in options.kinds:
            yield attack.embedding(examples, progress)
        if examples and "suffix" in options.kinds:
            yield attack.suffix(examples, progress)


@dataclass(frozen=True, slots=True, eq=False)
class _Attack:
    """One aim on one model."""

    painter: Painter
    fingerprint: Digest
    name: str
    judge: Judge
    aim: _Aim
    options: AttackOptions
    cache: PictureCache

    def none(self, progress: Progress) -> Attacked:
        """The prompt as it is."""
        return self._result("none", self.aim.prompt, self._drawn(self.aim.prompt, progress), None)

    def embedding(self, examples: Sequence[Image], progress: Progress) -> Attacked:
        """Free word vectors."""
        import torch

        stage = f"attacking {self.aim.label}: embedding, {self.name}"
        states, losses = find_embedding(self.painter, examples, self.aim.label, self.options, stage, progress)
        pictures: list[Image] = []
        shots, size = self._shots(FREE_PROMPT), self.painter.sampling.batch
        for start in range(0, len(shots), size):
            part = shots[start : start + size]
            with torch.no_grad():
                pictures += self.painter.draw_embedded(part, prompt_embeds=states.repeat(len(part), 1, 1))
        return self._result("embedding", " ".join([FREE_PROMPT, *["*"] * self.options.tokens]), pictures, losses)

    def suffix(self, examples: Sequence[Image], progress: Progress) -> Attacked:
        """Words behind the prompt."""
        stage = f"attacking {self.aim.label}: suffix, {self.name}"
        denoising = Denoising(self.painter.pipeline, examples, _generator(self.options.seed))
        rounds = max(1, self.options.steps // 8)
        prompt, losses = find_suffix(denoising, self.aim.prompt, self.options.tokens, rounds, stage, progress)
        return self._result("suffix", prompt, self._drawn(prompt, progress), losses)

    def _shots(self, prompt: str) -> list[Shot]:
        return [Shot(prompt, _TRY_SEEDS + self.options.seed + i) for i in range(self.options.tries)]

    def _drawn(self, prompt: str, progress: Progress) -> list[Image]:
        stage = f"drawing {self.aim.label} under attack, {self.name}"
        return self.cache.draw(self.painter, self.fingerprint, self._shots(prompt), stage, progress)

    def _result(
        self, attack: str, prompt: str, pictures: Sequence[Image], losses: tuple[float, float] | None
    ) -> Attacked:
        right = sum(answer[self.aim.axis] == self.aim.label for answer in self.judge.look(pictures).answers)
        first, last = losses or (None, None)
        return Attacked(self.aim.axis, self.aim.label, attack, self.name, len(pictures), right, prompt, first, last)


def find_embedding(
    painter: Painter, examples: Sequence[Image], label: str, options: AttackOptions, stage: str, progress: Progress
) -> tuple[torch.Tensor, tuple[float, float]]:
    """Word vectors that make a model draw the examples.

    They start from the concept's own words, as far as there is room, and from the mean of the vocabulary.

    Returns:
        The states [1, length, d] of the prompt with the vectors, and the first and the last loss.
    """
    import torch

    generator = _generator(options.seed)
    pipeline = painter.pipeline
    denoising = Denoising(pipeline, examples, generator)
    prompt = SlottedPrompt.of(pipeline.tokenizer, FREE_PROMPT, options.tokens)
    known = pipeline.text_encoder.get_input_embeddings().weight.detach()
    vectors = known.mean(dim=0).repeat(options.tokens, 1)
    own = pipeline.tokenizer(label)["input_ids"][1:-1][: options.tokens]
    vectors[: len(own)] = known[own]
    vectors.requires_grad_()
    optimiser = torch.optim.Adam([vectors], lr=_RATE * float(known.std()))
    losses = []
    for step in range(options.steps):
        progress(stage, step, options.steps)
        optimiser.zero_grad()
        loss = denoising.losses(states_of_vectors(pipeline, prompt, vectors), denoising.noised(_BATCH)).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(float(loss.detach()))
    progress(stage, options.steps, options.steps)
    with torch.no_grad():
        return states_of_vectors(pipeline, prompt, vectors), (losses[0], losses[-1])


def _generator(seed: int) -> torch.Generator:
    import torch

    return torch.Generator("cpu").manual_seed(seed)
