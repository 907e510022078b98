"""Where a takedown stops, its hint is the command as it was typed, mended: typed, it works."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from support.commandline import Run, rasura
from support.registries.takedown_home import MODEL, make_home

LISTS = ("--retain", "retain.txt", "--templates", "objects.txt")

pytestmark = pytest.mark.usefixtures("encoded_once")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a registry, a key, a copy of the reference model, and lists."""
    return make_home(tmp_path_factory.mktemp("template") / "home")


@pytest.fixture
def home(template: Path, tmp_path: Path) -> Path:
    """A copy of it for one test."""
    return shutil.copytree(template, tmp_path / "home")


def refused(home: Path, *words: str) -> Run:
    run = rasura("takedown", "--model", "model", *words, "--yes", "--json", cwd=home)
    assert run.code != 0, run.out
    return run


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("concept,ancor\ndog,cat\n", "expected concept, anchor"),
        ("concept,anchor\n", "holds no request"),
        ("concept,anchor\ndog,cat\nDog,cat\n", "dog is named twice"),
        ("concept,templates\ndog,a b\n", "a b"),
        ("concept,received-at\ndog,soon\n", "expected a date"),
    ],
)
def test_a_flaw_of_a_request_file_is_tried_again_with_that_file(home: Path, text: str, said: str) -> None:
    (home / "mine.csv").write_text(text)
    run = refused(home, "--file", "mine.csv", *LISTS)
    assert said in run.envelope["error"]["message"]
    assert {"mine.csv", "--dry-run"} <= set(run.hint)
    assert "--yes" not in run.hint
    (home / "mine.csv").write_text("concept,anchor\ndog,cat\n")
    assert rasura(*run.hint, cwd=home).code == 0


@pytest.mark.parametrize(
    ("words", "left"),
    [
        ("--concept lion --concept Lion --anchor pig", {"lion": "pig"}),
        (
            "--concept lion --concept dog --concept LION --anchor pig --anchor cat --anchor pig",
            {"lion": "pig", "dog": "cat"},
        ),
        ("--concept lion --concept dog --also-called lion=Dog --anchor pig", {"lion": "pig", "dog": "pig"}),
        ("--concept lion --concept pig --anchor 'a pig' --anchor cat", {"pig": "cat"}),
    ],
)
def test_each_concept_is_typed_once(home: Path, words: str, left: dict[str, str]) -> None:
    run = rasura("takedown", "--model", "model", *shlex.split(words), *LISTS, "--dry-run", "--json", cwd=home)
    again = rasura(*run.hint, cwd=home)
    made = {item["concept"]: item["anchor"] for item in again.data["made"]}
    assert {concept: made[concept] for concept in left} == left
    assert len(made) == len({concept.lower() for concept in re.findall("--concept (\\w+)", words)})


def test_an_erasure_names_each_concept_once(home: Path) -> None:
    words = ("--base", "model", "--concept", "lion", "--concept", "Lion", "--anchor", "pig", *LISTS, "--json")
    run = rasura("erase", *words, cwd=home)
    assert "named twice" in run.envelope["error"]["message"]
    assert len(rasura(*run.hint, cwd=home).data["patches"]) == 1


def test_a_concept_without_room_is_shortened(home: Path) -> None:
    long = " ".join(["lion"] * 90)
    run = refused(home, "--concept", long, "--anchor", "pig", *LISTS)
    assert "tokens: expected at most" in run.envelope["error"]["message"]
    made = rasura(*run.hint, cwd=home).data["made"]
    assert [long.startswith(item["concept"]) for item in made] == [True]


def test_what_is_still_drawn_is_tried_with_another_anchor(home: Path) -> None:
    (home / "lenient.toml").write_text("[limits]\nalike = 1.0\n")
    assert rasura("policy", "set", "lenient.toml", cwd=home).code == 0
    judge = ("--judge", str(MODEL), "--pictures", "1")
    run = refused(home, "--concept", "dog", "--anchor", "animal", *LISTS, *judge)
    assert "still drawn after the takedown" in run.envelope["error"]["message"]
    assert run.hint[run.hint.index("--anchor") + 1] == "auto"
    assert rasura(*run.hint, cwd=home).data["done"] is True


def test_another_method_is_typed_with_all_that_was_asked_for(home: Path) -> None:
    run = refused(home, "--concept", "dog", "--anchor", "cat", *LISTS, "--method", "clip-null-space")
    assert run.hint[:4] == ["erase", "--base", "model", "--concept"]
    made = rasura(*run.hint, "--json", cwd=home).data["patches"]
    assert [(item["concept"], item["anchor"]) for item in made] == [("dog", "cat")]


def test_an_erasure_without_room_keeps_what_was_typed(home: Path) -> None:
    words = ("erase", "--base", "model", "--concept", "dog", "--anchor", "cat", *LISTS, "--protect", "all")
    run = rasura(*words, "--rank-rule", "relative:1e-12", "--json", cwd=home)
    assert "takes all" in run.envelope["error"]["message"], run.out
    assert set(words) <= set(run.hint)
    assert run.hint[run.hint.index("--rank-rule") + 1] != "relative:1e-12"
    again = rasura(*run.hint, "--json", cwd=home)
    assert again.code == 0 or again.hint != run.hint
