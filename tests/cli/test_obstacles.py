# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""All that stands in the way is named at once, before anything is computed, each with its next command."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from support.commandline import Run, rasura
from support.registries.workshop import ALICE, Workshop, workshop

from rasura import open as open_registry
from rasura.patches.errors import CheckRefusedError, InputError, NotFoundError, RasuraError, UntrustedKeyError
from rasura.patches.obstacles import Obstacles
from rasura.registry.apply.operations import apply


def errors(run: Run) -> list[dict[str, Any]]:
    """What was said to machines: the first, and the others."""
    first = dict(run.envelope["error"])
    others = first.pop("others")
    return [first, *others]


def codes(run: Run) -> list[str]:
    return [error["code"] for error in errors(run)]


def strict(workshop: Workshop) -> None:
    """A policy that wants reasons and evaluations."""
    (workshop.folder / "strict.toml").write_text("[require]\nreason = true\n[evaluation]\nrequired = true\n")
    assert rasura("policy", "set", "strict.toml", cwd=workshop.folder).code == 0


def distrust(workshop: Workshop) -> None:
    assert rasura("key", "revoke", "alice", "--yes", "--reason", "lost", cwd=workshop.folder).code == 0


def test_several_are_one_error_of_the_first_ones_type() -> None:
    obstacles = Obstacles()
    with obstacles.noting():
        raise UntrustedKeyError("a", hint="x")
    with obstacles.noting():
        inner = Obstacles()
        inner.add(InputError("b"))
        inner.add(NotFoundError("c"))
        inner.add(NotFoundError("c"))
        inner.refuse()
    with pytest.raises(UntrustedKeyError, match="a") as caught:
        obstacles.refuse()
    assert [(type(e), e.message, e.others) for e in caught.value.others] == [
        (InputError, "b", ()),
        (NotFoundError, "c", ()),
    ]
    assert caught.value.__notes__ == ["and: b", "and: c"]
    with pytest.raises(ZeroDivisionError), obstacles.noting():
        raise ZeroDivisionError
    Obstacles().refuse()


def test_apply_names_all_at_once(workshop: Workshop) -> None:
    strict(workshop)
    distrust(workshop)
    words = (
        "patch",
        "apply",
        workshop.dog[:12],
        "cta",
        "--model",
        "nowhere",
        "--strength",
        "0.3",
        "--policy",
        "no.toml",
    )
    with workshop.unchanged():
        run = rasura(*words, "--json", cwd=workshop.folder)
    assert codes(run) == ["input", "strength", "not_found", "not_found", "not_found", "revoked_key"]
    assert run.code == 1
    said = [error["message"] for error in errors(run)]
    for part, message in zip(("a reason", "0.3", "no.toml", "cta", "nowhere", workshop.dog[:12]), said, strict=True):
        assert part in message
    reason = errors(run)[0]["hint"]
    assert reason == f"rasura {' '.join(words)} --reason TEXT"
    assert all(error["hint"] for error in errors(run))
    people = rasura(*words, cwd=workshop.folder).err.splitlines()
    assert sum(line.startswith("error: ") for line in people) == 6
    assert people[-1] == "6 things stand in the way: nothing was done"


def test_what_the_weights_need_not_say_is_said_together(workshop: Workshop) -> None:
    """Missing evaluations beside what the composer refuses, and revoked keys of every patch."""
    strict(workshop)
    both = ("patch", "apply", workshop.dog, workshop.rival, "--model", "the model", "--reason", "t", "--json")
    run = rasura(*both, cwd=workshop.folder)
    assert (run.code, codes(run)) == (3, ["check_refused", "check_refused"])
    evaluated, checked = errors(run)
    assert evaluated["hint"].startswith("rasura evaluate --base tiny --patch ")
    assert "no evaluation" in evaluated["message"]
    assert "two versions of one concept" in checked["message"]
    with workshop.open() as registry, pytest.raises(CheckRefusedError) as caught:
        apply(registry, workshop.host(), [workshop.dog, workshop.rival], ALICE)
    assert len(caught.value.others) == 1
    with open_registry(workshop.folder) as registry, pytest.raises(CheckRefusedError) as typed:
        registry.apply(workshop.model, [workshop.dog, workshop.rival], reason="t")
    assert typed.value.hint.startswith("registry.evaluate(")
    assert [error.hint.startswith("registry.") for error in typed.value.others] == [True]
    distrust(workshop)
    run = rasura(*both, cwd=workshop.folder)
    assert (run.code, codes(run)) == (4, ["revoked_key", "revoked_key"])
    # In the order of their ids, which another processor makes others.
    messages = [error["message"] for error in errors(run)]
    assert [
        patch_id[:12] in said for patch_id, said in zip(sorted((workshop.dog, workshop.rival)), messages, strict=True)
    ] == [
        True,
        True,
    ]


def test_switch_names_all_at_once(workshop: Workshop) -> None:
    strict(workshop)
    words = ("patch", "switch", "brand", "--model", "nowhere", "--policy", "no.toml", "--yes", "--json")
    with workshop.unchanged():
        run = rasura(*words, cwd=workshop.folder)
    assert codes(run) == ["input", "not_found", "not_found", "not_found"]
    made = rasura("stack", "create", "brand", workshop.dog, "--reason", "t", cwd=workshop.folder)
    assert made.code == 0
    distrust(workshop)
    run = rasura(*words, cwd=workshop.folder)
    assert codes(run) == ["input", "not_found", "not_found", "revoked_key"]


def test_erase_names_all_at_once(workshop: Workshop) -> None:
    strict(workshop)
    distrust(workshop)
    words = ["erase", "--base", "tyni", "--concept", "dog", "--retain", "none.txt", "--held-out", "gone.txt"]
    words += ["--templates", "away.txt", "--protect", "cta", "--protect", workshop.photo[:12], "--set", "nonsense=1"]
    with workshop.unchanged():
        run = rasura(*words, "--json", cwd=workshop.folder)
    said = " | ".join(error["message"] for error in errors(run))
    parts = (
        "a reason",
        "away.txt",
        "nonsense",
        "none.txt",
        "gone.txt",
        "cta",
        "no key to sign",
        "tyni",
        workshop.photo[:12],
    )
    assert [part for part in parts if part not in said] == []
    assert len(errors(run)) == len(parts)
    assert "held-out file gone.txt" in said
    (workshop.folder / "retain.txt").write_text("cat\n")
    erase = ("erase", "--base", "tyni", "--concept", "dog", "--retain", "retain.txt", "--reason", "t", "--json")
    with workshop.unchanged("failed not_found"):  # what could be asked for is logged
        run = rasura(*erase, cwd=workshop.folder)
    assert codes(run) == ["not_found", "not_found"]


def test_takedown_names_all_at_once(workshop: Workshop) -> None:
    strict(workshop)
    distrust(workshop)
    words = ("takedown", "--model", "nowhere", "--concept", "dog", "--retain", "none.txt", "--policy", "no.toml")
    with workshop.unchanged():
        run = rasura(*words, "--judge", "onnx:eye.onnx", "--yes", "--json", cwd=workshop.folder)
    said = " | ".join(error["message"] for error in errors(run))
    parts = ("a reason", "none.txt", "no.toml", "no key to sign", "eye.onnx", "nowhere")
    assert [part for part in parts if part not in said] == []
    assert len(errors(run)) == len(parts)
    bare = ("takedown", "--model", "the model", "--concept", "dog", "--yes", "--json")
    run = rasura(*bare, cwd=workshop.folder)
    assert [error["message"].split(":")[0] for error in errors(run)] == [
        "the policy in force asks for a reason",
        "this registry holds no key to sign with",
        "nothing is erased on @the model yet, so that no retain list is known",
    ]
    gone = ("withdraw", "dog", "--model", "nowhere", "--policy", "no.toml", "--yes", "--json")
    assert codes(rasura(*gone, cwd=workshop.folder)) == ["input", "not_found", "not_found"]


def test_a_base_that_nobody_registered_is_said_with_what_else_is_missing(workshop: Workshop, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    rasura("init", cwd=home)
    rasura("key", "export", "alice", "-o", home / "alice.pem", cwd=workshop.folder)
    rasura("key", "trust", "alice.pem", cwd=home)
    rasura("patch", "export", *workshop.all[:2], "-o", home / "all", cwd=workshop.folder)
    assert rasura("patch", "add", *sorted((home / "all").iterdir()), cwd=home).code == 0
    model = shutil.copytree(workshop.model, home / "model")
    run = rasura("patch", "apply", workshop.dog, workshop.van_gogh, "--model", model, "--json", cwd=home)
    (error,) = errors(run)
    assert (run.code, error["hint"]) == (8, f"rasura base add {model}")
    assert workshop.dog[:12] in error["message"]
    assert workshop.van_gogh[:12] in error["message"]


def test_an_option_alone_becomes_the_whole_command(workshop: Workshop) -> None:
    rasura("key", "new", "bob", cwd=workshop.folder)
    (workshop.folder / "retain.txt").write_text("cat\n")
    words = ("erase", "--base", "tiny", "--concept", "a dog", "--retain", "retain.txt")
    run = rasura(*words, "--json", cwd=workshop.folder)
    assert run.envelope["error"]["hint"].startswith(
        "rasura erase --base tiny --concept 'a dog' --retain retain.txt --key alice"
    )


def test_every_retired_patch_is_named(workshop: Workshop) -> None:
    two = workshop.dog, workshop.photo
    assert rasura("patch", "retire", *two, cwd=workshop.folder).code == 0
    run = rasura("patch", "apply", *two, "--model", "the model", "--json", cwd=workshop.folder)
    assert run.code == 7
    assert all(patch_id[:12] in run.envelope["error"]["message"] for patch_id in two)
    back = run.envelope["error"]["hint"].split()[1:]
    assert rasura(*back, cwd=workshop.folder).code == 0


def test_root() -> None:
    assert RasuraError("x").others == ()
