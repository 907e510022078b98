"""Takedowns by a named method, of concepts with other names, beside patches of other methods."""

import json
import shutil
from pathlib import Path

import pytest
from support.commandline import Run, rasura
from support.registries.takedown_home import MODEL, make_home

from rasura.registry.registry import Registry

RETAIN = "pig\nfrog\npenguin\nrose\nsunflower\ncactus\nairplane\numbrella\ncartoon\nink\npixel\n"
SPAN = ("--method", "span", "--set", "words=8", "--set", "rounds=1")

pytestmark = pytest.mark.usefixtures("encoded_once")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a registry, a key, a copy of the reference model, and lists."""
    objects = "{}\na {}\na picture of a {}\n"
    return make_home(tmp_path_factory.mktemp("template") / "home", retain=RETAIN, objects=objects)


@pytest.fixture
def home(template: Path, tmp_path: Path) -> Path:
    """A copy of it for one test."""
    return shutil.copytree(template, tmp_path / "home")


def takedown(home: Path, concept: str, anchor: str, *words: str) -> Run:
    lists = ("--retain", "retain.txt", "--templates", "objects.txt", "--yes", "--json")
    return rasura("takedown", "--model", "model", "--concept", concept, "--anchor", anchor, *lists, *words, cwd=home)


def methods(home: Path) -> dict[str, tuple[str, tuple[str, ...]]]:
    """What is applied: the method and the other names of each concept."""
    applied = rasura("patch", "status", "--model", "model", "--json", cwd=home).data["applied"]
    found = {}
    for patch_id in applied:
        shown = json.loads(rasura("patch", "export", patch_id, "-o", f"x-{patch_id}", "--json", cwd=home).out)
        del shown
        manifest = json.loads((home / f"x-{patch_id}" / "manifest.json").read_text())
        options = manifest["eraser"]["options"]
        names = tuple(filter(None, options.get("names", "").split("|")))
        found[manifest["concept"]["text"]] = (f"{manifest['eraser']['name']} {options.get('words', '')}".strip(), names)
    return found


def test_each_patch_is_solved_anew_by_its_own_method(home: Path) -> None:
    dog = takedown(home, "dog", "cat", *SPAN, "--also-called", "puppy", "--also-called", "Dog=hound")
    assert dog.code == 0, dog.err
    (made,) = dog.data["made"]
    assert (made["method"], made["names"]) == ("span", ["hound", "puppy"])

    car = takedown(home, "car", "airplane")
    assert car.code == 0, car.envelope
    assert any("solved anew, so that none disturbs another: dog (by span)" in said for said in car.data["notices"])
    assert methods(home) == {"dog": ("span 8", ("hound", "puppy")), "car": ("null-space", ())}

    frog = takedown(home, "frog", "pig", *SPAN)
    assert frog.code == 0, frog.envelope
    assert methods(home).keys() == {"dog", "car", "frog"}
    assert methods(home)["dog"] == ("span 8", ("hound", "puppy"))

    back = rasura("withdraw", "dog", "--model", "model", "--yes", "--json", cwd=home)
    assert back.code == 0, back.envelope
    assert methods(home) == {"car": ("null-space", ()), "frog": ("span 8", ())}
    assert rasura("withdraw", "car", "frog", "--model", "model", "--yes", "--json", cwd=home).data["pristine"] is True


def test_a_soft_patch_is_no_obstacle_for_what_comes_after_it(home: Path) -> None:
    shutil.copy(MODEL / "retain.txt", home / "retain.txt")
    shutil.copy(MODEL / "templates_objects.txt", home / "objects.txt")
    assert takedown(home, "dog", "cat", "--method", "uce").code == 0
    run = takedown(home, "car", "airplane")
    assert run.code == 0, run.envelope
    assert {name: method for name, (method, _) in methods(home).items()} == {"dog": "uce", "car": "null-space"}


def test_further_names_and_another_method_take_the_place_of_what_is_there(home: Path) -> None:
    first = takedown(home, "dog", "cat").data["made"][0]["id"]
    named = takedown(home, "dog", "auto", "--also-called", "puppy").data["made"]
    assert [(m["supersedes"], m["anchor"], m["names"], m["method"]) for m in named] == [
        (first, "cat", ["puppy"], "null-space")
    ]
    other = takedown(home, "dog", "cat", "--method", "uce").data["made"]
    assert [(m["supersedes"], m["names"], m["method"]) for m in other] == [(named[0]["id"], ["puppy"], "uce")]
    again = takedown(home, "dog", "cat", "--method", "uce", "--also-called", "Puppy")
    assert (again.envelope["changed"], again.data["already"]) == (False, {"dog": other[0]["id"]})


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (
            ("--method", "sepme"),
            1,
            "method sepme cannot be taken down with: expected one of null-space, span, joint, speed",
        ),
        (("--method", "clip-null-space"), 1, "method clip-null-space cannot be taken down with"),
        (("--method", "nul-space"), 1, "no method is called"),
        (("--set", "rigde=1"), 1, "has no option 'rigde'"),
        (("--set", "ridge"), 2, "--set ridge: expected NAME=VALUE"),
        (("--rank-rule", "none"), 1, "rank rule 'none' is not understood"),
        (("--also-called", "bird=puppy"), 2, "'bird' is none of the concepts; expected dog=puppy, or"),
        (("--also-called", "cat"), 2, "'cat' is named as 'dog' and as its anchor"),
    ],
)
def test_what_cannot_be_done_so_is_said_before_anything_is_solved(
    home: Path, words: tuple[str, ...], code: int, said: str
) -> None:
    run = takedown(home, "dog", "cat", *words)
    assert run.code == code
    assert said in run.envelope["error"]["message"]


def test_a_name_that_holds_a_sign_is_given_with_its_concept(home: Path) -> None:
    run = takedown(home, "dog", "cat", "--also-called", "dog=a=b", "--dry-run")
    assert run.data["made"][0]["names"] == ["a=b"]


def test_a_word_belongs_to_one_concept(home: Path) -> None:
    takedown(home, "dog", "cat", "--also-called", "puppy")
    run = takedown(home, "frog", "pig", "--also-called", "Puppy")
    assert run.code == 1
    assert "frog is to be called Puppy, too, which patch" in run.envelope["error"]["message"]
    assert run.envelope["error"]["hint"] == "rasura withdraw dog --model model"
    covered = takedown(home, "puppy", "auto")
    assert [(c["concept"], c["concept_of"]) for c in covered.data["covered"]] == [("puppy", "dog")]


def test_names_in_a_file_of_requests_and_of_names(home: Path) -> None:
    (home / "requests.csv").write_text("concept,anchor,names\ndog,cat,puppy | Auto\nfrog,pig,\n")
    words = ("--retain", "retain.txt", "--templates", "objects.txt", "--dry-run", "--json")
    run = rasura("takedown", "--model", "model", "--file", "requests.csv", *words, cwd=home)
    assert {m["concept"]: m["names"] for m in run.data["made"]} == {"dog": ["Auto", "puppy"], "frog": []}
    (home / "dog.txt").write_text("puppy\nhound\n")
    run = takedown(home, "dog", "cat", "--names", "dog.txt", "--dry-run")
    assert run.data["made"][0]["names"] == ["hound", "puppy"]


def test_choices_of_the_default_method_are_kept_when_it_is_solved_anew(home: Path) -> None:
    takedown(home, "dog", "cat", "--set", "ridge=0.02", "--tokens", "subject")
    run = takedown(home, "car", "airplane", "--method", "span", "--set", "words=8", "--set", "rounds=1")
    assert run.code == 0, run.envelope
    with Registry.open(home) as registry:
        made = {record.concepts[0]: record.patch_id for record in registry.patches()}
    shown = rasura("patch", "export", made["dog"], "-o", "x", cwd=home)
    assert shown.code == 0
    manifest = json.loads((home / "x" / "manifest.json").read_text())
    assert (manifest["eraser"]["options"]["ridge"], manifest["concept"]["tokens"]) == ("0.02", "subject")
    assert len(manifest["supersedes"]) == int(any(m["concept"] == "dog" for m in run.data["made"]))
