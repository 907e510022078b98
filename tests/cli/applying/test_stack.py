# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""`rasura stack`, `policy`, `plan` and `patch switch` as they are typed: output, exit codes, and what is refused."""

import json
from pathlib import Path

import pytest
from support.commandline import Run, rasura
from support.registries.workshop import Workshop, workshop

MODEL = ("--model", "the model")


@pytest.fixture
def made(workshop: Workshop) -> Workshop:
    """With a stack of two patches."""
    typed(workshop, "stack", "create", "brand", workshop.dog[:10], f"{workshop.photo[:10]}=0.5")
    return workshop


def typed(shop: Workshop, *arguments: str | Path, code: int = 0) -> Run:
    run = rasura(*arguments, cwd=shop.folder)
    assert run.code == code, run.out + run.err
    return run


def data(shop: Workshop, *arguments: str | Path, changed: bool) -> dict[str, object]:
    run = rasura(*arguments, "--json", cwd=shop.folder)
    assert run.envelope["changed"] is changed, arguments
    return run.data


def test_a_stack_from_the_command_line(made: Workshop) -> None:
    short = made.dog[:12]
    assert typed(made, "stack", "list").out.splitlines()[1].split()[:4] == ["brand", "tiny", "2", "0"]
    shown = typed(made, "stack", "show", "brand").out
    assert f"{short}  dog      1" in shown
    assert "verdict  accepted (" in shown
    added = data(made, "stack", "add", "brand", made.van_gogh, changed=True)
    assert added["patches"] == {made.dog: "1", made.photo: "0.5", made.van_gogh: "1"}
    data(made, "stack", "add", "brand", made.van_gogh, changed=False)
    data(made, "stack", "update", "brand", changed=False)
    assert "up to date" in typed(made, "stack", "update", "brand").out
    assert typed(made, "stack", "remove", "brand", made.van_gogh[:9]).out == "stack brand has 2 patches\n"
    typed(made, "stack", "add", "brand", made.rival, code=7)
    assert typed(made, "stack", "add", "brand", made.rival, "--replace").out == "stack brand has 2 patches\n"
    assert data(made, "stack", "delete", "brand", changed=True)["name"] == "brand"
    typed(made, "stack", "show", "brand", code=8)


def test_a_refused_stack_and_one_that_cannot_be_judged_are_shown(made: Workshop) -> None:
    typed(made, "stack", "create", "bad", made.rival, made.van_gogh)
    assert "verdict  refused: patch" in typed(made, "stack", "show", "bad").out
    verdict = data(made, "stack", "show", "bad", changed=False)["verdict"]
    assert isinstance(verdict, dict)
    assert (verdict["accepted"], len(verdict["reasons"]) > 0) == (False, True)
    typed(made, "stack", "lock", "bad", code=3)
    assert not (made.folder / "rasura.lock").exists()
    typed(made, "key", "revoke", "alice", "--yes")
    said = typed(made, "stack", "show", "brand").out
    assert f"cannot be judged: patch {made.photo[:12]}: the patch is signed by key 'alice', which was revoked" in said


def test_what_differs(made: Workshop) -> None:
    typed(made, "stack", "create", "other", made.dog, f"{made.van_gogh}=-2")
    typed(made, "stack", "lock", "brand", "-o", "brand.lock")
    told = typed(made, "stack", "diff", "brand", "other")
    rows = [line.split() for line in told.out.splitlines()[1:]]
    assert rows == [["-", made.photo[:12], "photo", "0.5"], ["+", made.van_gogh[:12], "van", "gogh", "-2"]]
    typed(made, "stack", "diff", "brand", "other", "--exit-code", code=1)
    assert "the same" in typed(made, "stack", "diff", "brand", "brand.lock", "--exit-code").out
    typed(made, "patch", "switch", "brand", *MODEL)
    assert "the same" in typed(made, "stack", "diff", "./brand.lock", "@the model", "--exit-code").out
    typed(made, "stack", "add", "brand", f"{made.photo}=1", "--replace")
    assert "0.5 -> 1" in typed(made, "stack", "diff", "@the model", "brand").out
    found = data(made, "stack", "diff", "@the model", "brand", changed=False)
    assert found["changed"] == {made.photo: {"before": "0.5", "after": "1"}}
    typed(made, "stack", "diff", "brand", "nobody", code=8)
    typed(made, "stack", "diff", "brand", "no.lock", code=8)
    typed(made, "stack", "diff", "brand", "@nowhere", code=8)


def test_a_lock_is_written_checked_and_never_over_something_else(made: Workshop) -> None:
    lock = made.folder / "rasura.lock"
    data(made, "stack", "lock", "brand", changed=True)
    first = lock.read_bytes()
    typed(made, "stack", "lock", "brand")
    assert lock.read_bytes() == first
    data(made, "stack", "lock", "brand", "--check", changed=False)
    typed(made, "stack", "remove", "brand", made.dog)
    assert "is only in the lock" in typed(made, "stack", "lock", "brand", "--check", code=7).err
    lock.write_text("my notes")
    typed(made, "stack", "lock", "brand", code=7)
    assert lock.read_text() == "my notes"
    typed(made, "stack", "lock", "brand", "--check", code=4)
    typed(made, "stack", "lock", "brand", "-o", "no/where.lock", code=1)


def test_the_policy_from_the_command_line(made: Workshop) -> None:
    shown = data(made, "policy", "show", changed=False)
    assert (shown["default"], shown["set_at"]) == (True, None)
    typed(made, "policy", "show", "-o", "policy.toml")
    typed(made, "policy", "show", "-o", "policy.toml", code=7)
    file = made.folder / "policy.toml"
    assert typed(made, "policy", "show").out == file.read_text()
    file.write_text(file.read_text().replace("pair = 0.05", "pair = 1e-12"))
    assert data(made, "policy", "set", "policy.toml", "--reason", "review 9", changed=True)["limits"]
    data(made, "policy", "set", "policy.toml", changed=False)
    assert "pair = 1e-12" in typed(made, "policy", "show").out
    typed(made, "patch", "switch", "brand", *MODEL, code=3)
    typed(made, "plan", "--stack", "brand", *MODEL, code=3)
    file.write_text("[limits]\nfoo = 1\n")
    typed(made, "policy", "set", "policy.toml", code=1)
    typed(made, "policy", "set", "nothing.toml", code=8)
    assert made.entries()[-2].reason == "review 9"


def test_a_policy_for_one_command(made: Workshop) -> None:
    (made.folder / "strict.toml").write_text("[limits]\npair = 1e-12\n")
    (made.folder / "loose.toml").write_text("[limits]\npair = 99.0\nstack = 99.0\nown = 99.0\n")
    strict, loose = ("--policy", "strict.toml"), ("--policy", "loose.toml")
    typed(made, "plan", "--stack", "brand", *MODEL, *strict, code=3)
    typed(made, "patch", "switch", "brand", *MODEL, *strict, code=3)
    typed(made, "patch", "apply", made.dog, made.photo, *MODEL, *strict, code=3)
    typed(made, "patch", "apply", made.dog, made.rival, *MODEL, *loose, code=3)
    typed(made, "patch", "apply", made.dog, made.photo, *MODEL, *loose)
    typed(made, "patch", "switch", "brand", *MODEL, "--policy", "nothing.toml", code=8)


def test_a_plan_is_made_carried_out_and_then_stale(made: Workshop) -> None:
    with made.unchanged():
        told = typed(made, "plan", "--stack", "brand", *MODEL, "-o", "plan.json")
    assert "bytes to write" in told.out
    typed(made, "plan", "--stack", "brand", *MODEL, "--detailed-exitcode", code=10)
    found = rasura("plan", "--stack", "brand", *MODEL, "--json", cwd=made.folder).data
    assert (found["changes"], found["accepted"]) == (2, True)
    done = data(made, "patch", "apply", "plan.json", "--reason", "ticket 9", changed=True)
    assert (done["before"], done["after"]) == (found["before"], found["after"])
    stale = typed(made, "patch", "apply", "./plan.json", code=7)
    assert stale.err.splitlines()[-1].startswith("hint: rasura plan --stack brand --model ")
    typed(made, "plan", "--stack", "brand", *MODEL, "--detailed-exitcode")
    assert "nothing to change" in typed(made, "plan", "--stack", "brand", *MODEL).out
    for extra in (("--model", "the model"), ("--strength", "1"), ("--out", "x"), ("--policy", "x"), (made.dog,)):
        typed(made, "patch", "apply", "plan.json", *extra, code=2)
    typed(made, "patch", "apply", made.dog, code=2)
    typed(made, "patch", "apply", "no.json", code=8)
    (made.folder / "plan.json").write_text(json.dumps({"format": "rasura-plan/1"}))
    typed(made, "patch", "apply", "plan.json", code=4)
    typed(made, "plan", "--stack", "brand", *MODEL, "-o", "plan.json", code=7)


def test_switching_from_the_command_line(made: Workshop) -> None:
    switched = data(made, "patch", "switch", "brand", *MODEL, changed=True)
    assert switched["applied"] == {made.dog: "1", made.photo: "0.5"}
    assert "nothing to change" in typed(made, "patch", "switch", "brand", *MODEL).out
    typed(made, "stack", "lock", "brand")
    copied = data(made, "patch", "switch", "rasura.lock", *MODEL, "--out", "copy", changed=True)
    assert (copied["applied"], copied["after"]) == (switched["applied"], switched["after"])
    assert typed(made, "stack", "list").out.splitlines()[1].split()[3] == "2"
    assert "applied to" in typed(made, "stack", "show", "brand").out
    typed(made, "stack", "create", "nothing")
    assert data(made, "patch", "switch", "nothing", *MODEL, "--yes", changed=True)["pristine"] is True
    typed(made, "patch", "switch", "nobody", *MODEL, code=8)
    typed(made, "audit", "verify")


@pytest.mark.parametrize("name", ["deadbeef", "a/b", "x.lock", "@x", "", "-x"])
def test_names_that_are_none(workshop: Workshop, name: str) -> None:
    with workshop.unchanged():
        typed(workshop, "stack", "create", "--", name, code=1)
