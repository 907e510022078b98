# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""`rasura patch export` as it is typed: the signed folder, the unsigned file, and what is refused."""

import hashlib
from pathlib import Path

import pytest
from safetensors import safe_open
from support.commandline import Run, rasura
from support.registries.workshop import Workshop, workshop


def typed(shop: Workshop, *arguments: str | Path, code: int = 0) -> Run:
    run = rasura("patch", "export", *arguments, cwd=shop.folder)
    assert run.code == code, run.out + run.err
    return run


def kohya(shop: Workshop, *arguments: str, output: str = "out.safetensors", code: int = 0) -> Run:
    return typed(shop, *arguments, "-o", output, "--format", "kohya", "--json", code=code)


def test_a_file_says_that_it_is_not_signed(workshop: Workshop) -> None:
    run = typed(workshop, workshop.dog, "-o", "dog.safetensors", "--format", "kohya")
    assert run.out.startswith("wrote dog.safetensors: 1 patch, 20 modules of rank ")
    assert "signed: no: this format cannot carry a signature" in run.out
    with safe_open(workshop.folder / "dog.safetensors", framework="pt") as file:
        assert workshop.dog in file.metadata()["rasura.patches"]
        assert len(file.keys()) == 60


def test_several_patches_and_a_stack_are_one_file(workshop: Workshop) -> None:
    assert rasura("stack", "create", "brand", workshop.dog, f"{workshop.photo}=0.5", cwd=workshop.folder).code == 0
    by_name = kohya(workshop, "--stack", "brand", output="a.safetensors").data
    by_id = kohya(workshop, f"{workshop.photo[:12]}=0.5", workshop.dog[:12], output="b.safetensors").data
    assert by_name["patches"] == by_id["patches"] == {workshop.dog: "1", workshop.photo: "0.5"}
    assert (by_name["signed"], by_name["modules"]) == (False, 20)
    assert by_name["sha256"] == by_id["sha256"]
    data = (workshop.folder / "a.safetensors").read_bytes()
    assert hashlib.sha256(data).hexdigest() == by_name["sha256"]
    both = kohya(workshop, workshop.photo, f"{workshop.dog}=1", "--strength", "0.5", output="c.safetensors").data
    assert both["sha256"] == by_name["sha256"]


def test_nothing_is_overwritten(workshop: Workshop) -> None:
    (workshop.folder / "out.safetensors").write_text("mine")
    assert kohya(workshop, workshop.dog, code=7).envelope["error"]["code"] == "exists"
    assert (workshop.folder / "out.safetensors").read_text() == "mine"


def test_what_may_not_be_applied_is_not_exported_either(workshop: Workshop) -> None:
    assert kohya(workshop, workshop.dog, workshop.rival, code=3).envelope["error"]["code"] == "check_refused"
    rasura("key", "revoke", "alice", cwd=workshop.folder)
    assert kohya(workshop, workshop.dog, code=4).envelope["error"]["code"] == "revoked_key"
    assert not (workshop.folder / "out.safetensors").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("abcd", "--stack", "brand"),
        ("--stack", "brand", "--strength", "0.5", "--format", "kohya"),
        ("abcd", "ef01"),
        ("abcd", "--strength", "0.5"),
        ("abcd=0.5",),
        ("--stack", "brand"),
        ("abcd", "--format", "comfy"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(workshop: Workshop, arguments: tuple[str, ...]) -> None:
    typed(workshop, *arguments, "-o", "out", code=2)
    assert not (workshop.folder / "out").exists()


@pytest.mark.parametrize("strength", ["0", "0.3", "5"])
def test_a_strength_off_the_grid_is_refused(workshop: Workshop, strength: str) -> None:
    assert kohya(workshop, workshop.dog, "--strength", strength, code=1).envelope["error"]["code"] == "strength"
