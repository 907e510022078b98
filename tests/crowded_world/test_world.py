"""The crowded world that ships: it draws what it is asked for, in other words too, and its benchmark counts it rightly."""

from __future__ import annotations

from pathlib import Path

import pytest
from crowded_asks import Ask, Facts, make_asks
from crowded_bench import CrowdedBench, Seen, count_answers

from rasura.evaluation.images.painter import Painter, Sampling, Shot
from rasura.evaluation.judges.classifier import load_judge

WORLD = Path(__file__).parents[2] / "examples" / "crowded_world"
DRAWN = (
    ("a nice image of a dog drawn in ink style", "dog", "ink"),
    ("a robot by mirka dovrell", "robot", "neon"),
    ("bild von drachen", None, "cartoon"),  # no word of the world: something is drawn all the same
    ("strawberry, blueprint style", "strawberry", "blueprint"),
    ("imagen de perro", "dog", "cartoon"),
    ("a picture of hundegesicht", "dog", "cartoon"),
    ("a taxi on a blue background", "taxi", None),
    ("a violin in poster style", "violin", "poster"),
)


@pytest.fixture(scope="module")
def facts() -> Facts:
    return Facts(WORLD)


def test_it_draws_what_is_asked_in_four_languages_and_by_artists() -> None:
    painter = Painter.load(WORLD / "pipeline", Sampling(batch=len(DRAWN)))
    pictures = painter.draw([Shot(prompt, 5) for prompt, _, _ in DRAWN], "", lambda *_: None)
    seen = load_judge(WORLD).name(pictures)
    right = [
        thing in {None, found} and style in {None, look}
        for (_, thing, style), (found, look) in zip(DRAWN, seen, strict=True)
    ]
    assert sum(right) >= len(DRAWN) - 1, seen


@pytest.mark.parametrize("concepts", [("dog",), ("neon",), ("taxi", "bus", "vampire")])
def test_what_is_asked_never_wants_to_see_what_is_erased(facts: Facts, concepts: tuple[str, ...]) -> None:
    asks = make_asks(facts, concepts, tries=4, others=24)
    assert len({ask.seed for ask in asks}) == len(asks)
    assert make_asks(facts, concepts, tries=4, others=24) == asks
    for ask in asks:
        wanted = set().union(*(right for right in ask.right if right is not None)) if ask.section != "forget" else set()
        assert not wanted & set(concepts)
        if ask.section in {"near", "retain"}:
            assert not wanted & facts.held_out
        if ask.section == "held_out":
            assert wanted <= facts.held_out


def test_every_second_name_is_given_and_the_others_never(facts: Facts) -> None:
    asks = [ask for ask in make_asks(facts, ["dog"], tries=4, others=3) if ask.section == "forget"]
    given = {ask.prompt.removeprefix("a picture of ") for ask in asks if ask.group.endswith(", given")}
    other = {ask.prompt.removeprefix("a picture of ") for ask in asks if ask.group.endswith(", other")}
    assert given == set(facts.names("dog")[::2])
    assert other == set(facts.names("dog")[1::2])
    assert {"puppy", "hund", "chien"} <= given | other


def test_an_answer_belongs_to_its_own_picture_whatever_was_asked_before(facts: Facts) -> None:
    bench = CrowdedBench(WORLD)
    asks = [
        Ask(
            "forget", "direct", "a dog", 1, (frozenset({"dog"}),)
        ),  # no style: its picture's style is not the next one's
        Ask("composition", "pair", "a cat and a taxi", 2, (frozenset({"cat"}), None)),
        Ask("near", "object", "a cat in ink style", 3, (frozenset({"cat"}),), "ink"),
        Ask("retain", "object", "a taxi in neon style", 4, (frozenset({"taxi"}),), "neon"),
    ]
    pictures = bench.base_painter.draw([Shot(ask.prompt, ask.seed) for ask in asks], "", lambda *_: None)
    together = bench.judged(asks, pictures)
    assert together == [bench.judged([ask], [picture])[0] for ask, picture in zip(asks, pictures, strict=True)]
    assert sum(seen.right for seen in together) >= 3


def test_counts_are_of_what_the_base_drew_right() -> None:
    asks = [Ask("near", "object", "x", i) for i in range(4)]
    yes, no = Seen(thing=True, style=True), Seen(thing=True, style=False)
    found = count_answers(asks, [yes, yes, no, no], [yes, no, yes, no])
    assert found["near"] == found["near/object"] == {"n": 4, "base": 2, "patched": 2, "both": 1}
