"""The tables, words, captions and the resumable loop of the crowded world; the whole chain where its packages lie."""

from __future__ import annotations

import importlib.util
import json
import os
import random
from pathlib import Path

import pytest
import torch
from examples.crowded_world.training.captions import Said, Scene, sample_caption
from examples.crowded_world.training.concepts import CATEGORIES, GROUPS, HELD_OUT, STYLES, THINGS
from examples.crowded_world.training.course import Course, Dice, learn
from examples.crowded_world.training.shipped import write_beside
from examples.crowded_world.training.words import Annotations, Entry, Words, choose_words, is_plain, tidy
from torch import Tensor, nn

from rasura.evaluation.images.questions import Subjects
from rasura.evaluation.report.question_kinds import read_paraphrases
from rasura.patches.prompts.retain_set import load_retain_set

NAMES = {thing.name: index for index, thing in enumerate(THINGS)}
WORDS = {
    name: Words(("0",), {"en": (name, f"{name}ling"), "de": (f"{name}e",), "es": (f"{name}o",), "fr": ()})
    for name in NAMES
}


def test_the_world_is_as_crowded_as_promised() -> None:
    assert len(THINGS) == len(NAMES) >= 120
    assert len(CATEGORIES) >= 10
    assert len(STYLES) >= 8
    assert len({style.artist for style in STYLES}) == len(STYLES)
    for category in CATEGORIES:
        assert sum(thing.category == category for thing in THINGS) >= 4


def test_groups_and_held_out_objects_exist() -> None:
    assert set(HELD_OUT) <= set(NAMES)
    for group in GROUPS:
        assert group.members <= set(NAMES)
        assert len(group.members) >= 2


@pytest.mark.parametrize(
    ("name", "article", "plural"),
    [
        ("dog", "a dog", "dogs"),
        ("apple", "an apple", "apples"),
        ("wolf", "a wolf", "wolves"),
        ("ladybug", "a ladybug", "ladybugs"),
        ("grapes", "grapes", "grapes"),
        ("fairy", "a fairy", "fairies"),
        ("monkey", "a monkey", "monkeys"),
    ],
)
def test_english_forms(name: str, article: str, plural: str) -> None:
    thing = THINGS[NAMES[name]]
    assert (thing.with_article, thing.plural) == (article, plural)


SCENES = (
    Scene((NAMES["dog"],), 2),
    Scene((NAMES["dog"],), 0),
    Scene((NAMES["cat"],), 4, ground=1),
    Scene((NAMES["wolf"],), 6, count=3),
    Scene((NAMES["taxi"], NAMES["bus"]), 5),
)


@pytest.mark.parametrize("scene", SCENES)
def test_every_caption_is_true_of_its_scene(scene: Scene) -> None:
    rng = random.Random(1)
    for _ in range(400):
        caption = sample_caption(scene, WORDS, rng)
        assert caption.said.is_true_of(scene), caption


@pytest.mark.parametrize(
    ("said", "scene"),
    [
        (Said("cat"), SCENES[0]),
        (Said("fruit"), SCENES[0]),
        (Said("dog", style="ink"), SCENES[0]),
        (Said("cat"), SCENES[2]),
        (Said("cat", ground="red"), SCENES[2]),
        (Said("wolf"), SCENES[3]),
        (Said("wolf", count=2), SCENES[3]),
        (Said("taxi"), SCENES[4]),
        (Said("bus", "taxi"), SCENES[4]),
        (Said("dog", "cat"), SCENES[0]),
    ],
)
def test_a_wrong_caption_is_not_true(said: Said, scene: Scene) -> None:
    assert not said.is_true_of(scene)


@pytest.mark.parametrize(
    ("said", "scene"),
    [
        (Said(), SCENES[0]),
        (Said("pet"), SCENES[0]),
        (Said("animal", style="neon"), SCENES[0]),
        (Said("wolf", count=3), SCENES[3]),
        (Said("taxi", "bus"), SCENES[4]),
    ],
)
def test_a_looser_caption_is_true(said: Said, scene: Scene) -> None:
    assert said.is_true_of(scene)


def labelled() -> Annotations:
    """Every label that the tables name, with keywords that test the rules on the dog."""
    labels = list(dict.fromkeys(label for thing in THINGS for label in thing.labels))
    rows = {str(index): Entry(tidy(label), ("shared by all",)) for index, label in enumerate(labels)}
    dog = str(labels.index("dog"))
    rows[dog] = Entry("dog", ("puppy", "animal", "red", "x", "no. 1", "cat", "both"))
    wolf = str(labels.index("wolf"))
    rows[wolf] = Entry("wolf", ("both",))
    return dict.fromkeys(("en", "de", "es", "fr"), rows)


def test_a_word_belongs_to_one_object_and_means_nothing_else() -> None:
    words = choose_words(labelled())
    assert words["dog"].by_language["en"] == ("dog", "dog face", "puppy")
    assert words["wolf"].by_language["en"] == ("wolf",)
    everything = [word for entry in words.values() for word in entry.all]
    assert len(everything) == len(set(everything))


def test_plain_words() -> None:
    assert tidy("L’Ours ") == "l'ours"
    assert is_plain("tête de chien")
    assert not any(map(is_plain, ("x", "no. 1", "a-b-c-d-e", "3d")))


def test_a_killed_course_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    def train(folder: Path, stops: tuple[int, ...]) -> Tensor:
        for stop in stops:
            torch.manual_seed(0)
            module = nn.Linear(3, 1)

            def loss(dice: Dice, module: nn.Linear = module, stop: int = stop, done: list[int] = []) -> Tensor:  # noqa: B006
                done.append(1)
                if len(done) > stop:
                    raise KeyboardInterrupt
                out: Tensor = module(torch.randn(4, 3, generator=dice.noise)).square().mean()
                return out

            course = Course(12, 0.05, warmup=2, average=0.9, seconds_between_checkpoints=0.0)
            try:
                learn(module, loss, course, folder / "state.pt")
            except KeyboardInterrupt:
                continue
        return module.weight.detach().clone()

    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    torch.testing.assert_close(train(tmp_path / "a", (99,)), train(tmp_path / "b", (5, 3, 99)), rtol=0, atol=0)


def test_the_rate_is_constant_and_falls_at_the_end() -> None:
    course = Course(1000, 1.0, warmup=10, cooldown=0.2)
    assert [course.rate_at(step) for step in (0, 10, 800)] == pytest.approx([0.1, 1.0, 1.0])
    assert course.rate_at(900) == pytest.approx(0.5)
    assert course.rate_at(999) == pytest.approx(0.02)


PACKAGES = Path(os.environ.get("TRAINING_PACKAGES", "missing"))


@pytest.mark.slow
@pytest.mark.skipif(
    not (PACKAGES / "emojibase-data").exists() or importlib.util.find_spec("resvg_py") is None,
    reason="set TRAINING_PACKAGES to the node_modules of the training's Makefile, and install .[train]",
)
def test_the_whole_chain_runs(tmp_path: Path) -> None:
    from examples.crowded_world.training.train import STAGES, run
    from examples.crowded_world.training.world import TINY, World

    world = World(PACKAGES, tmp_path, TINY, torch.device("cpu"))
    run(world, list(STAGES))
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert set(report["tables"]) == {"object in style", "by artist", "other words", "composition", "group words"}
    size = sum(path.stat().st_size for path in (tmp_path / "model").rglob("*.safetensors"))
    assert 20e6 < size < 60e6


def test_what_lies_beside_the_weights_is_read_by_evaluate_and_erase(tmp_path: Path) -> None:
    words = {name: Words(("0",), {**WORDS[name].by_language, "fr": ("quelque chose",)}) for name in NAMES}
    write_beside(tmp_path, words)
    subjects = Subjects.load(tmp_path / "concepts.json")
    assert subjects.prompt("ladybug", "ink") == "a nice image of a ladybug drawn in ink style"
    assert subjects.superclass["taxi"] == "vehicle"
    paraphrases = read_paraphrases(tmp_path / "paraphrases.json")
    assert paraphrases["dog"] == ("a picture of quelque chose",)  # "dogling" and "doge" say "dog"
    assert set(paraphrases) == set(NAMES)
    kept = load_retain_set(tmp_path / "retain.txt").concepts
    assert not set(kept) & {*HELD_OUT, "poster"}
    for name in ("templates_objects", "templates_styles"):
        assert all("{}" in line for line in load_retain_set(tmp_path / f"{name}.txt").concepts)
