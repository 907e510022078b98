"""What is erased by several names is found by any of them: to be withdrawn, and in the list."""

import json
import shutil
from pathlib import Path

import pytest
from support.commandline import Run, rasura

import rasura as product

MODEL = Path(__file__).resolve().parents[3] / "examples" / "reference_model"
RETAIN = "pig\nfrog\npenguin\nrose\nsunflower\ncactus\nairplane\numbrella\ncartoon\nink\npixel\n"

pytestmark = pytest.mark.usefixtures("encoded_once")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model on which a dog is erased that is also called puppy and hound, and a car; nothing below changes it."""
    folder = tmp_path_factory.mktemp("template") / "home"
    shutil.copytree(MODEL / "pipeline", folder / "model")
    (folder / "retain.txt").write_text(RETAIN)
    (folder / "objects.txt").write_text("{}\na {}\n")
    rasura("init", cwd=folder)
    rasura("key", "new", "alice", cwd=folder)
    how = ("--retain", "retain.txt", "--templates", "objects.txt", "--yes")
    names = ("--concept", "dog", "--anchor", "cat", "--also-called", "puppy", "--also-called", "hound")
    assert rasura("takedown", "--model", "model", *names, *how, cwd=folder).code == 0
    car = ("--concept", "car", "--anchor", "airplane")
    assert rasura("takedown", "--model", "model", *car, *how, cwd=folder).code == 0
    return folder


@pytest.fixture
def copy(home: Path, tmp_path: Path) -> Path:
    """A copy of it for one test."""
    found = shutil.copytree(home, tmp_path / "home")
    assert rasura("doctor", "--json", cwd=found).code in {0, 6}
    return found


def withdraw(home: Path, *words: str) -> Run:
    return rasura("withdraw", *words, "--model", "model", "--yes", "--json", cwd=home)


def test_a_takedown_is_withdrawn_by_another_name(home: Path) -> None:
    plan = withdraw(home, "Puppy", "--dry-run")
    assert plan.code == 0, plan.envelope
    shown = json.loads(rasura("patch", "list", "--concept", "dog", "--current", "--json", cwd=home).out)
    assert plan.data["withdrawn"] == [shown["data"]["patches"][0]["id"]]
    assert plan.data["notices"][0] == "Puppy is another name of dog"
    both = withdraw(home, "dog", "hound", "puppy", "--dry-run")
    assert both.data["withdrawn"] == plan.data["withdrawn"]
    missing = withdraw(home, "poodle", "--dry-run")
    assert missing.code == 8
    assert "expected one of what is, dog (also called hound, puppy), car" in missing.envelope["error"]["message"] or (
        "expected one of what is, car, dog (also called hound, puppy)" in missing.envelope["error"]["message"]
    )


def test_the_list_knows_other_names_and_says_so(home: Path) -> None:
    found = rasura("patch", "list", "--concept", "PUPPY", "--json", cwd=home)
    assert {(p["concepts"][0], tuple(p["names"])) for p in found.data["patches"]} == {("dog", ("hound", "puppy"))}
    told = rasura("patch", "list", "--concept", "puppy", "--current", cwd=home).out.splitlines()
    assert told[0] == "puppy is another name of dog"
    assert "ALSO CALLED" in told[1]
    assert "hound, puppy" in told[2]
    by_concept = rasura("patch", "list", "--concept", "dog", cwd=home).out
    assert "another name" not in by_concept
    assert "no patches like that" in rasura("patch", "list", "--concept", "poodle", cwd=home).out
    with product.open(home) as registry:
        assert registry.patches(concept="puppy") == registry.patches(concept="dog")
        assert registry.patches(concept="car")
        assert registry.patches(concept="poodle") == ()


def test_a_name_of_several_is_told_with_the_commands(copy: Path) -> None:
    request = ("--retain", "retain.txt", "--templates", "objects.txt", "--json")
    made = rasura(
        "erase", "--base", "model", "--concept", "frog", "--anchor", "pig", "--also-called", "puppy",
        "--protect", "all", *request, cwd=copy,
    )  # fmt: skip
    assert made.code == 0, made.envelope
    told = rasura("patch", "list", "--concept", "puppy", cwd=copy).out.splitlines()
    assert told[:3] == [
        "puppy is another name of dog and of frog",
        "only these: rasura patch list --concept dog",
        "only these: rasura patch list --concept frog",
    ]
    dog = rasura("patch", "list", "--concept", "dog", "--current", "--json", cwd=copy).data["patches"][0]["id"]
    frog = made.data["patches"][0]["id"]
    created = rasura("stack", "create", "both", dog, frog, "--json", cwd=copy)
    assert created.code == 0, created.envelope
    run = rasura("withdraw", "puppy", "--stack", "both", "--yes", "--json", cwd=copy)
    assert run.code == 8
    assert "'puppy' stands for several patches on both" in run.envelope["error"]["message"]
    commands = [f"rasura withdraw {i[:12]} --stack both" for i in (dog, frog)]
    assert sorted(run.envelope["error"]["hint"].split(" or ")) == sorted(commands)


def test_what_undoes_a_name_asks_first(tmp_path: Path) -> None:
    """The set before it erases the dog, too, but no puppy."""
    shutil.copytree(MODEL / "pipeline", tmp_path / "model")
    (tmp_path / "retain.txt").write_text(RETAIN)
    rasura("init", cwd=tmp_path)
    rasura("key", "new", "alice", cwd=tmp_path)
    words = ("takedown", "--model", "model", "--concept", "dog", "--anchor", "frog", "--yes", "--json")
    first = rasura(*words, "--retain", "retain.txt", cwd=tmp_path)
    assert first.code == 0, first.out
    more = rasura(*words, "--also-called", "puppy", cwd=tmp_path)
    assert more.envelope["changed"], more.out
    applied = rasura("patch", "status", "--model", "model", "--json", cwd=tmp_path).data["applied"]
    asked = rasura("undo", "--model", "model", cwd=tmp_path)
    assert asked.code == 2, asked.out
    assert "this brings back: puppy; nobody can be asked here" in asked.err
    assert rasura("patch", "status", "--model", "model", "--json", cwd=tmp_path).data["applied"] == applied
    assert rasura("undo", "--model", "model", "--yes", cwd=tmp_path).code == 0
