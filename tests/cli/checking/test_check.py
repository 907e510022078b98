# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""`rasura patch check`: what people and machines are told, what is drawn, and what is refused."""

from pathlib import Path

import pytest
from support.commandline import Run, rasura
from support.registries.workshop import Workshop, workshop


def check(workshop: Workshop, *arguments: str | Path) -> Run:
    return rasura("patch", "check", *arguments, cwd=workshop.folder)


def test_a_good_stack_is_accepted_with_its_numbers_and_its_room(workshop: Workshop) -> None:
    run = check(workshop, workshop.dog, workshop.van_gogh, "--json")
    data = run.data
    assert data["accepted"] is True
    assert data["reasons"] == data["rebase"] == []
    kinds = [relation["check"] for relation in data["relations"]]
    assert {"bound", "own", "pair", "stack", "residual", "capacity"} <= set(kinds)
    assert kinds.count("pair") == 2
    room = data["capacity"]
    assert room["width"] == 128
    assert room["invariants"] + room["retained"] + room["patches"] + room["free"] == room["width"]
    shown = check(workshop, workshop.dog, workshop.van_gogh)
    assert shown.out.splitlines()[-1] == "accepted"
    assert f"{room['free']} free" in shown.out


def test_rivals_are_two_versions_of_one_concept(workshop: Workshop) -> None:
    run = check(workshop, workshop.dog, workshop.rival)
    assert run.code == 3
    assert "two versions of one concept, 'dog'" in run.out
    assert check(workshop, workshop.dog, workshop.rival, "--json").envelope["ok"] is False


def test_a_stricter_policy_refuses_and_a_looser_one_changes_nothing(workshop: Workshop) -> None:
    (workshop.folder / "strict.toml").write_text("[limits]\nown = 0\npair = 0\n")
    (workshop.folder / "loose.toml").write_text("[limits]\nown = 10\npair = 10\nstack = 10\n")
    run = check(workshop, workshop.dog, workshop.photo, "--policy", "strict.toml", "--json")
    assert run.code == 3
    assert any(not r["holds"] for r in run.envelope["data"]["relations"])
    loose = check(workshop, workshop.dog, workshop.photo, "--policy", "loose.toml", "--json").data
    assert loose["relations"] == check(workshop, workshop.dog, workshop.photo, "--json").data["relations"]


def test_a_refused_pair_says_what_to_rebase(workshop: Workshop) -> None:
    (workshop.folder / "retain.txt").write_text("painting\ncat\na\nthe\n")
    options = ["--anchor", "cat", "--tokens", "last", "--rank-rule", "count:8", "--template", "{}", "--layers", "kv"]
    made = [
        rasura(
            "erase", "--base", "tiny", "--concept", name, "--retain", "retain.txt", *options, "--json",
            cwd=workshop.folder,
        ).data["patches"][0]["id"]
        for name in ("big tree", "tree")
    ]  # fmt: skip
    run = check(workshop, *made, "--json")
    assert run.code == 3
    data = run.envelope["data"]
    assert {move["patch"] for move in data["rebase"]} <= set(made)
    hints = {reason["hint"] for reason in data["reasons"]}
    assert all(hint.startswith("rasura patch rebase ") for hint in hints)
    people = check(workshop, *made).out
    assert "REFUSED" in people
    assert all(f"  {hint}" in people for hint in hints)


def test_taking_out_is_judged(workshop: Workshop) -> None:
    data = check(workshop, *workshop.all, "--revert", workshop.photo[:12], "--json").data
    assert data["accepted"] is True
    named = {relation["patch"] for relation in data["relations"]} | {r["other"] for r in data["relations"]}
    assert workshop.photo not in named  # of one request: nothing is lost and nothing left


def test_layers_and_angles_on_request(workshop: Workshop) -> None:
    data = check(workshop, workshop.dog, workshop.rival, "--layers", "--angles", "--json").envelope["data"]
    assert len(data["layers"]) == 2
    shares = data["layers"][0]["parameters"]
    assert len(shares) > 1
    pair = check(workshop, workshop.dog, workshop.van_gogh, "--layers", "--json").data
    total = {(p["patch"], p["other"]): sum(v * v for v in p["parameters"].values()) ** 0.5 for p in pair["layers"]}
    known = {(r["patch"], r["other"]): r["value"] for r in pair["relations"] if r["check"] == "pair"}
    assert total == pytest.approx(known, rel=1e-9)
    assert max(data["angles"][0]["cosines"]) > 0.8  # both look for the dog
    shown = check(workshop, workshop.dog, workshop.van_gogh, "--layers", "--angles").out
    assert "COSINES OF THE PRINCIPAL ANGLES" in shown
    assert "to_v.weight" in shown


@pytest.mark.parametrize(("name", "start"), [("map.png", b"\x89PNG"), ("map.svg", b"<?xml")])
def test_a_plot(workshop: Workshop, name: str, start: bytes) -> None:
    data = check(workshop, *workshop.all, "--plot", name, "--json").data
    assert data["plot"] == name
    assert (workshop.folder / name).read_bytes().startswith(start)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([], 2),
        (["dog", "dog"], 2),
        (["dog", "--plot", "map.gif"], 1),
        (["dog", "--plot", "no/such/folder/map.png"], 1),
        (["dog", "--policy", "none.toml"], 8),
        (["dog", "--policy", "broken.toml"], 1),
        (["dog", "--revert", "beef"], 8),
        (["--stack", "none"], 8),
    ],
)
def test_bad_input_is_refused_and_leaves_nothing(workshop: Workshop, arguments: list[str], code: int) -> None:
    (workshop.folder / "broken.toml").write_text("[limits\n")
    before = sorted(path.name for path in workshop.folder.iterdir())
    named = [workshop.dog if argument == "dog" else argument for argument in arguments]
    run = check(workshop, *named, "--json")
    assert run.code == code
    assert run.envelope["error"]["message"]
    assert sorted(path.name for path in workshop.folder.iterdir()) == before


def test_what_leaves_must_be_in_the_stack(workshop: Workshop) -> None:
    run = check(workshop, workshop.dog, "--revert", workshop.photo, "--json")
    assert run.code == 2
    assert "not among" in run.envelope["error"]["message"]
