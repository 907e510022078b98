"""Attacks: the loss is the one that the model was trained with, the search lowers it, and the seed decides all."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from support.models.tiny import tiny_model

from rasura.commands.checking.evaluate import evaluate
from rasura.evaluation.attacks.budget import CHOICES, KINDS, AttackOptions, list_costs
from rasura.evaluation.attacks.concept_direction import find_concept_words
from rasura.evaluation.attacks.denoising_loss import (
    Denoising,
    SlottedPrompt,
    encode_pictures,
    estimate_clean,
    states_of_ids,
    states_of_vectors,
)
from rasura.evaluation.attacks.textual_inversion import find_embedding
from rasura.evaluation.attacks.token_suffix import find_suffix, typeable
from rasura.evaluation.attacks.trajectory import Trajectory
from rasura.evaluation.attacks.word_prefix import find_prefix
from rasura.evaluation.images.painter import Painter, Sampling, Shot
from rasura.evaluation.judges.classifier import Classifier, load_judge
from rasura.patches.errors import InputError, UnsupportedHostError
from rasura.patches.models.text_encoders.text_encoder import TextEncoder
from rasura.patches.prompts.concept_prompts import Target, align_columns

PROMPT = "a nice image of a dog drawn in cartoon style"
REFERENCE = Path(__file__).parents[3] / "examples" / "reference_model"


@pytest.fixture(scope="module")
def painter(tmp_path_factory: pytest.TempPathFactory) -> Painter:
    folder = tiny_model(tmp_path_factory.mktemp("model") / "model")
    return Painter.load(folder, Sampling(steps=2, batch=2))


@pytest.fixture(scope="module")
def examples(painter: Painter) -> list[Image.Image]:
    return painter.draw_batch([Shot("a dog", 1), Shot("a dog", 2)])


def denoising(painter: Painter, examples: list[Image.Image], seed: int = 0) -> Denoising:
    return Denoising(painter.pipeline, examples, torch.Generator("cpu").manual_seed(seed))


def silent(done: int, total: int) -> None:
    pass


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_the_goal_is_what_the_scheduler_says_that_the_model_predicts(
    painter: Painter, examples: list[Image.Image], kind: str
) -> None:
    """Noisy latents and goal belong together: the goal gives the clean latents back."""
    scheduler = painter.pipeline.scheduler
    try:
        scheduler.register_to_config(prediction_type=kind)
        bench = denoising(painter, examples)
    finally:
        scheduler.register_to_config(prediction_type="epsilon")
    noised = bench.noised(6)
    share = bench._scheduler.alphas_cumprod[noised.times].reshape(-1, 1, 1, 1)
    match kind:
        case "epsilon":
            clean = (noised.noisy - (1 - share).sqrt() * noised.goal) / share.sqrt()
        case "v_prediction":
            clean = share.sqrt() * noised.noisy - (1 - share).sqrt() * noised.goal
        case _:
            clean = noised.goal
    gaps = (clean[:, None] - bench._latents[None]).abs().amax(dim=(2, 3, 4)).amin(dim=1)
    assert float(gaps.max()) < 1e-2
    assert (noised.times * 6 // 1000).tolist() == list(range(6))


def test_a_scheduler_of_another_kind_is_refused(painter: Painter, examples: list[Image.Image]) -> None:
    bench = denoising(painter, examples)
    bench._scheduler.register_to_config(prediction_type="flow_prediction")
    with pytest.raises(UnsupportedHostError, match="flow_prediction"):
        bench.noised(2)


def test_latents_are_decoded_to_the_pictures_that_they_came_from() -> None:
    if not (REFERENCE / "pipeline").exists():
        pytest.skip("the source distribution leaves the model out")
    painter = Painter.load(REFERENCE / "pipeline", Sampling(steps=6, batch=1))
    picture = painter.draw_batch([Shot("a dog in cartoon style", 3)])[0]
    vae, latents = painter.pipeline.vae, denoising(painter, [picture])._latents
    with torch.no_grad():
        unit = vae.decode(latents / vae.config.scaling_factor).sample[0]
    seen = ((unit + 1) * 127.5).clamp(0, 255).permute(1, 2, 0)
    told = torch.from_numpy(np.asarray(picture).copy())
    assert float((seen - told).abs().mean()) < 6


def test_losses_of_several_texts_are_those_of_each(painter: Painter, examples: list[Image.Image]) -> None:
    bench = denoising(painter, examples)
    noised = bench.noised(3)
    states = painter.pipeline.encode_prompt(["dog", "cat"], "cpu", 1, do_classifier_free_guidance=False)[0]
    with torch.no_grad():
        both = bench.losses(states, noised)
        each = torch.cat([bench.losses(one[None], noised) for one in states])
    torch.testing.assert_close(both, each, rtol=1e-4, atol=1e-5)
    assert both[0] != both[1]


def test_the_vectors_of_words_are_those_words(painter: Painter) -> None:
    pipeline = painter.pipeline
    prompt = SlottedPrompt.of(pipeline.tokenizer, "a photo of", 2)
    words = torch.tensor(pipeline.tokenizer("van gogh")["input_ids"][1:-1])
    vectors = pipeline.text_encoder.get_input_embeddings().weight[words]
    told = pipeline.encode_prompt("a photo of van gogh", "cpu", 1, do_classifier_free_guidance=False)[0]
    torch.testing.assert_close(states_of_vectors(pipeline, prompt, vectors), told, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(states_of_ids(pipeline, prompt.with_tokens(words[None])), told, rtol=1e-5, atol=1e-6)
    assert not pipeline.text_encoder.get_input_embeddings()._forward_hooks


def test_a_prompt_that_is_too_long_makes_room_for_its_slots(painter: Painter) -> None:
    prompt = SlottedPrompt.of(painter.pipeline.tokenizer, "dog " * 90, 4)
    assert len(prompt.ids) == 77
    assert (prompt.slots, int(prompt.ids[76])) == (range(72, 76), painter.pipeline.tokenizer.eos_token_id)


def test_the_embedding_attack_lowers_the_loss_and_follows_its_seed(
    painter: Painter, examples: list[Image.Image]
) -> None:
    def found(seed: int, steps: int) -> torch.Tensor:
        return find_embedding(denoising(painter, examples, seed), "dog", 3, steps, silent)[0]

    one, same, other, early = found(0, 8), found(0, 8), found(1, 8), found(0, 1)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    bench = denoising(painter, examples, 7)
    noised = bench.noised(32)
    with torch.no_grad():
        assert float(bench.losses(one, noised)) < float(bench.losses(early, noised))


def test_the_suffix_attack_never_gets_worse_and_can_be_typed(painter: Painter, examples: list[Image.Image]) -> None:
    pipeline = painter.pipeline
    reports: list[tuple[int, int]] = []
    prompt, (first, last) = find_suffix(
        denoising(painter, examples), "a dog", 3, 4, lambda done, total: reports.append((done, total))
    )
    assert last < first
    assert prompt.startswith("a dog ")
    assert reports == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]
    assert find_suffix(denoising(painter, examples), "a dog", 3, 4, silent) == (prompt, (first, last))
    bench = denoising(painter, examples)
    noised = bench.noised(4)  # what the search compared on: the first thing that its generator gives
    typed = pipeline.encode_prompt(prompt, "cpu", 1, do_classifier_free_guidance=False)[0]
    with torch.no_grad():
        assert float(bench.losses(typed, noised)) == pytest.approx(last, rel=1e-5)


def test_tokens_that_can_be_typed_are_read_as_themselves(painter: Painter) -> None:
    tokenizer = painter.pipeline.tokenizer
    found = typeable(tokenizer).tolist()
    words = {tokenizer.decode([i]).strip() for i in found}
    assert {"dog", "gogh", "a", "z", "7"} <= words
    assert not {tokenizer.bos_token_id, tokenizer.eos_token_id} & set(found)
    for i in found:
        assert tokenizer(f"a {tokenizer.decode([i]).strip()} z")["input_ids"][2:-2] == [i]


def test_options_name_their_attacks() -> None:
    assert [AttackOptions(kind).kinds for kind in ("none", "suffix", "all")] == [(), ("suffix",), KINDS]
    option = next(o for o in evaluate.params if o.name == "attack")
    assert isinstance(option.type, click.Choice)
    assert tuple(option.type.choices) == CHOICES


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kind": "sufix"}, "expected one of none, embedding, suffix"),
        ({"steps": 0}, "an attack of 0 steps: expected 1 to 100,000"),
        ({"tokens": 77}, "an attack of 77 tokens: expected 1 to 32"),
        ({"tries": -1}, "an attack of -1 tries"),
    ],
)
def test_an_attack_that_cannot_be_made_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        AttackOptions(**options)


def test_the_stated_cost_is_what_the_denoiser_is_called(painter: Painter, examples: list[Image.Image]) -> None:
    """Counted at the denoiser, in pictures; what is not counted is the encoding of the examples, which calls none."""
    options = AttackOptions("all", steps=8, tokens=2, tries=3)
    calls = 0

    def count(_module: object, inputs: tuple[torch.Tensor, ...], _kwargs: object) -> None:
        nonlocal calls
        calls += len(inputs[0])

    handle = painter.pipeline.unet.register_forward_pre_hook(count, with_kwargs=True)
    try:
        for cost in list_costs(options, painter.sampling):
            calls = 0
            shots = [Shot("a dog", seed) for seed in range(3)]
            match cost.attack:
                case "embedding":
                    find_embedding(denoising(painter, examples), "dog", 2, 8, silent)
                case "suffix":
                    find_suffix(denoising(painter, examples), "a dog", 2, options.rounds, silent)
                case "prefix":
                    find_prefix(denoising(painter, examples), "a dog", 2, 8, silent)
                case "concept":
                    find_concept_words(painter.pipeline, "dog", "a dog", 2, rounds=8, seed=0, tell=silent)
                case "image":
                    latents = encode_pictures(painter.pipeline, examples)
                    Trajectory(painter, "a dog").draw_from_pictures(latents, shots)
                case "restart":
                    Trajectory(painter, "a dog").draw_again(shots)
                case _:
                    Trajectory(painter, "a dog").draw_chosen(shots, grey, np.zeros(1))
            if cost.attack in ("embedding", "suffix", "prefix", "concept"):
                painter.draw(shots, "", lambda *_: None)
            assert calls == cost.calls, cost.attack
    finally:
        handle.remove()


def grey(pictures: Sequence[Image.Image]) -> npt.NDArray[np.float64]:
    return np.array([[float(np.asarray(picture).mean())] for picture in pictures])


def test_a_prompt_with_free_words_before_it(painter: Painter) -> None:
    tokenizer = painter.pipeline.tokenizer
    words = torch.tensor(tokenizer("van gogh")["input_ids"][1:-1])
    prompt = SlottedPrompt.before(tokenizer, "a photo", 2)
    assert (
        prompt.with_tokens(words[None])[0].tolist() == tokenizer("van gogh a photo", padding="max_length")["input_ids"]
    )
    long = SlottedPrompt.before(tokenizer, "dog " * 90, 4)
    assert len(long.ids) == 77
    assert (long.slots, int(long.ids[76])) == (range(1, 5), tokenizer.eos_token_id)


def test_the_prefix_attack_keeps_its_best_and_can_be_typed(painter: Painter, examples: list[Image.Image]) -> None:
    pipeline = painter.pipeline
    prompt, (first, last) = find_prefix(denoising(painter, examples), "a dog", 3, 12, silent)
    assert last < first
    assert prompt.endswith(" a dog")
    assert find_prefix(denoising(painter, examples), "a dog", 3, 12, silent) == (prompt, (first, last))
    noised = (bench := denoising(painter, examples)).noised(4)
    typed = pipeline.encode_prompt(prompt, "cpu", 1, do_classifier_free_guidance=False)[0]
    with torch.no_grad():
        assert float(bench.losses(typed, noised)) == pytest.approx(last, rel=1e-5)


def test_the_concept_attack_calls_no_denoiser_and_comes_nearer_to_the_concept(painter: Painter) -> None:
    def broken(*_: object) -> None:
        raise AssertionError("the denoiser was called")

    pipeline = painter.pipeline
    handle = pipeline.unet.register_forward_pre_hook(broken)
    try:
        found = [
            find_concept_words(pipeline, "dog", "a photo of a dog", 3, rounds=10, seed=seed, tell=silent)
            for seed in (0, 0, 1)
        ]
    finally:
        handle.remove()
    prompt, (first, last) = found[0]
    assert last < first
    assert prompt.startswith("a photo of a ")
    assert found[0] == found[1] != found[2]


def test_pictures_drawn_on_the_way_follow_their_seeds(painter: Painter, examples: list[Image.Image]) -> None:
    path, latents = Trajectory(painter, "a dog"), encode_pictures(painter.pipeline, examples)
    one, other = [Shot("a dog", 1)], [Shot("a dog", 2)]
    ways = (
        lambda shots: path.draw_from_pictures(latents, shots),
        path.draw_again,
        lambda shots: path.draw_chosen(shots, grey, np.zeros(1)),
    )
    for draw in ways:
        first, again = (np.asarray(draw(one)[0]) for _ in range(2))
        assert np.array_equal(first, again)
        assert not np.array_equal(first, np.asarray(draw(other)[0]))


def test_an_estimate_of_clean_latents_gives_back_what_was_noised(painter: Painter) -> None:
    scheduler = painter.pipeline.scheduler
    clean, noise = (torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    time = torch.tensor(600)
    share = scheduler.alphas_cumprod[600]
    noisy = share.sqrt() * clean + (1 - share).sqrt() * noise
    goals = {"epsilon": noise, "v_prediction": share.sqrt() * noise - (1 - share).sqrt() * clean, "sample": clean}
    try:
        for kind, goal in goals.items():
            scheduler.register_to_config(prediction_type=kind)
            torch.testing.assert_close(estimate_clean(scheduler, noisy, goal, time), clean, rtol=1e-4, atol=1e-4)
        scheduler.register_to_config(prediction_type="flow_prediction")
        with pytest.raises(UnsupportedHostError, match="flow_prediction"):
            estimate_clean(scheduler, noisy, noise, time)
    finally:
        scheduler.register_to_config(prediction_type="epsilon")


class Weakened:
    """The reference model with an erasure of one prompt in its value layers, at a strength that can be chosen.

    Everything from the word on is taken to a cat's embeddings, W(A - C)C⁺: at half the strength this model draws no
    dog for the prompt any more, at 0.4 it still does.
    """

    def __init__(self) -> None:
        if not (REFERENCE / "pipeline").exists():
            pytest.skip("the source distribution leaves the model out")
        self.painter = Painter.load(REFERENCE / "pipeline", Sampling(steps=10, batch=4))
        self.judge = load_judge(REFERENCE)
        self.dogs = self.painter.draw_batch([Shot(PROMPT, seed) for seed in range(4)])
        encoder = TextEncoder.load(REFERENCE / "pipeline")
        C, A = align_columns(encoder, Target("dog", "cat"), (PROMPT.replace("dog", "{}"),), "tail")
        moved = ((A - C) @ torch.linalg.pinv(C, rtol=1e-3)).float()
        names = dict(self.painter.pipeline.unet.named_parameters())
        self.layers = [(W, W.detach().clone()) for name, W in names.items() if name.endswith("attn2.to_v.weight")]
        self.changes = [base @ moved for _, base in self.layers]

    def erase(self, strength: float) -> None:
        with torch.no_grad():
            for (W, base), change in zip(self.layers, self.changes, strict=True):
                W.copy_(base + strength * change)


@pytest.fixture(scope="module")
def weakened() -> Weakened:
    return Weakened()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_each_attack_brings_a_dog_back_from_a_weak_erasure(weakened: Weakened, kind: str) -> None:
    """The strongest three bring it back where the prompt draws none; the others only from what the erasure left."""
    painter, judge, dogs = weakened.painter, weakened.judge, weakened.dogs
    shots = [Shot(PROMPT, seed) for seed in range(90, 94)]
    hidden = kind in ("embedding", "suffix", "image")
    weakened.erase(0.5 if hidden else 0.4)
    assert not hidden or not count_dogs(judge, painter.draw_batch(shots))
    path = Trajectory(painter, PROMPT)
    match kind:
        case "embedding":
            states, _ = find_embedding(denoising(painter, dogs), "dog", 4, 30, silent)
            drawn = painter.draw_embedded(shots, prompt_embeds=states.repeat(4, 1, 1))
        case "suffix":
            prompt, _ = find_suffix(denoising(painter, dogs), PROMPT, 4, 6, silent)
            drawn = painter.draw_batch([Shot(prompt, shot.seed) for shot in shots])
        case "prefix":
            prompt, _ = find_prefix(denoising(painter, dogs), PROMPT, 4, 30, silent)
            drawn = painter.draw_batch([Shot(prompt, shot.seed) for shot in shots])
        case "concept":
            prompt, _ = find_concept_words(painter.pipeline, "dog", PROMPT, 4, rounds=30, seed=0, tell=silent)
            drawn = painter.draw_batch([Shot(prompt, shot.seed) for shot in shots])
        case "image":
            drawn = path.draw_from_pictures(encode_pictures(painter.pipeline, dogs), shots)
        case "restart":
            drawn = path.draw_again(shots)
        case _:
            wanted = judge.look(dogs).features.mean(axis=0)
            drawn = path.draw_chosen(shots, lambda pictures: judge.look(pictures).features, wanted)
    assert count_dogs(judge, drawn) >= 1


def count_dogs(judge: Classifier, pictures: Sequence[Image.Image]) -> int:
    return [thing for thing, _ in judge.name(pictures)].count("dog")


@pytest.mark.slow
def test_free_vectors_find_what_a_real_model_draws() -> None:
    """The base itself draws a dog for vectors that were found from pictures of dogs, starting from a cat."""
    if not (REFERENCE / "pipeline").exists():
        pytest.skip("the source distribution leaves the model out")
    painter, judge = Painter.load(REFERENCE / "pipeline", Sampling(steps=10, batch=4)), load_judge(REFERENCE)
    dogs = painter.draw_batch([Shot("a nice image of a dog drawn in cartoon style", seed) for seed in range(4)])
    states, (first, last) = find_embedding(denoising(painter, dogs), "cat", 2, 40, silent)
    shots = [Shot("", seed) for seed in range(90, 94)]
    drawn = painter.draw_embedded(shots, prompt_embeds=states.repeat(4, 1, 1))
    assert last < first
    assert [thing for thing, _ in judge.name(drawn)].count("dog") >= 3
