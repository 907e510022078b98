"""A patch erases at strength 1; a takedown finds patches at other strengths and brings what is wanted to 1."""

import shutil
from pathlib import Path

import pytest
from support.commandline import Run, rasura
from support.registries.takedown_home import MODEL, make_home

from rasura.registry.registry import Registry

pytestmark = pytest.mark.usefixtures("encoded_once")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a registry, a model, and patches of the dog and the car that were solved beside each other."""
    folder = make_home(tmp_path_factory.mktemp("template") / "home")
    words = ("--concept", "dog", "--anchor", "frog", "--concept", "car", "--anchor", "airplane")
    made = takedown(folder, *words, "--retain", "retain.txt", "--templates", "objects.txt", "--json")
    assert made.code == 0, made.err
    back = rasura("withdraw", "dog", "car", "--model", "model", "--yes", cwd=folder)
    assert back.code == 0, back.err  # a copy of a model with patches could not be told from it
    return folder


@pytest.fixture
def home(template: Path, tmp_path: Path) -> Path:
    """A copy of it for one test."""
    return shutil.copytree(template, tmp_path / "home")


def takedown(home: Path, *words: str) -> Run:
    place = () if "--stack" in words else ("--model", "model")
    return rasura("takedown", *place, *words, "--reason", "c", "--yes", cwd=home)


def applied(home: Path) -> dict[str, str]:
    """What status finds by hashing: concept and strength."""
    found = rasura("patch", "status", "--model", "model", "--json", cwd=home).data["applied"]
    with Registry.open(home) as registry:
        return {registry.patch(i).concepts[0]: strength for i, strength in found.items()}


def find_patch(home: Path, concept: str) -> str:
    with Registry.open(home) as registry:
        return next(record.patch_id for record in registry.patches() if concept in record.concepts)


def set_strength(home: Path, dog: str, car: str = "1") -> None:
    """Switch the model to a stack of both patches at these strengths, past what the policy says of them."""
    members = (f"{find_patch(home, 'dog')}={dog}", f"{find_patch(home, 'car')}={car}")
    assert rasura("stack", "create", "other", *members, cwd=home).code == 0
    run = rasura("patch", "switch", "other", "--model", "model", "--reason", "x", "--yes", cwd=home)
    assert run.code == 0, run.err
    assert applied(home) == {"dog": dog, "car": car}


@pytest.mark.parametrize("strength", ["-1", "0.0625", "4"])
def test_what_stands_at_another_strength_is_brought_to_one(home: Path, strength: str) -> None:
    set_strength(home, strength)
    run = takedown(home, "--concept", "dog", "--anchor", "frog")
    assert run.code == 0, run.err
    assert "already" not in run.out
    assert f"dog: strength {strength} -> 1" in run.out
    assert applied(home) == {"dog": "1", "car": "1"}
    # Now it is erased, and asked again nothing happens.
    again = takedown(home, "--concept", "dog", "--anchor", "frog")
    assert "dog is erased already" in again.out
    assert "nothing to do" in again.out
    assert rasura("audit", "verify", cwd=home).code == 0


def test_a_plan_names_strengths_for_people_and_machines(home: Path) -> None:
    set_strength(home, "-1")
    plan = rasura("takedown", "--model", "model", "--concept", "dog", "--dry-run", "--json", cwd=home).data
    assert (plan["already"], plan["changes"]) == ({}, True)
    assert [(each["concept"], each["strength_before"]) for each in plan["raised"]] == [("dog", "-1")]
    told = {each["concept"]: (each["before"], each["after"]) for each in plan["strengths"]}
    assert told == {"dog": ("-1", "1"), "car": ("1", "1")}
    assert applied(home) == {"dog": "-1", "car": "1"}


def test_another_anchor_in_place_of_what_stood_at_another_strength_stands_at_one(home: Path) -> None:
    set_strength(home, "-1")
    run = takedown(home, "--concept", "dog", "--anchor", "penguin", "--templates", "objects.txt")
    assert run.code == 0, run.err
    assert "dog: strength -1 -> 1, because it is solved anew" in run.out
    assert applied(home) == {"dog": "1", "car": "1"}


def test_what_is_not_asked_for_keeps_its_strength_and_is_told(home: Path) -> None:
    dog, car = find_patch(home, "dog"), find_patch(home, "car")
    assert rasura("stack", "create", "s1", f"{dog}=0.5", car, cwd=home).code == 0
    run = takedown(home, "--stack", "s1", "--concept", "red car")
    assert run.code == 0, run.err
    assert "red car is erased already, with car" in run.out
    assert "dog stays at strength 0.5: it is not erased" in run.out
    shown = rasura("stack", "show", "s1", "--json", cwd=home).data
    assert shown["patches"] == {dog: "0.5", car: "1"}
    assert "0.5" in rasura("stack", "show", "s1", cwd=home).out


def test_what_covers_at_another_strength_is_brought_to_one(home: Path) -> None:
    dog, car = find_patch(home, "dog"), find_patch(home, "car")
    assert rasura("stack", "create", "s1", dog, f"{car}=-1", cwd=home).code == 0
    run = takedown(home, "--stack", "s1", "--concept", "red car")
    assert run.code == 0, run.err
    assert "car: strength -1 -> 1" in run.out
    assert "-1 -> 1" in next(line for line in run.out.splitlines() if line.startswith(car[:8]))
    assert rasura("stack", "show", "s1", "--json", cwd=home).data["patches"] == {dog: "1", car: "1"}


def test_a_case_holds_the_takedown_that_brought_its_concept_to_one(home: Path) -> None:
    set_strength(home, "-1")
    (home / "requests.csv").write_text("concept,anchor,ticket\ndog,frog,T-1\n")
    assert rasura("case", "open", "T-1", "--deadline", "48h", cwd=home).code == 0
    assert takedown(home, "--file", "requests.csv").code == 0
    with Registry.open(home) as registry:
        motions = [e for e in registry.entries(newest=False) if e.action == "patch.switch"]
    assert [entry.details.get("case") for entry in motions[-2:]] == ["T-1", "T-1"]
    assert rasura("case", "show", "T-1", "--json", cwd=home).data["acted_entry"] is not None


def test_a_judge_may_see_what_stands_at_another_strength_and_was_not_asked_for(home: Path) -> None:
    set_strength(home, "-1")
    judge = ("--judge", str(MODEL), "--pictures", "1")
    asked = ("--concept", "red car", *judge, "--yes", "--json")
    run = rasura("takedown", "--model", "model", *asked, cwd=home)
    assert run.code == 0, run.err
    seen = {each["concept"]: (each["after"], each["erased"]) for each in run.data["seen"]}
    assert seen["dog"] == (1, False)
    assert seen["car"] == (0, True)
