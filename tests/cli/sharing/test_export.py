# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""`rasura patch export` as it is typed: the signed folder, the unsigned file, and what is refused."""

import hashlib
from pathlib import Path

import pytest
from safetensors import safe_open
from support.commandline import Run, rasura
from support.registries.workshop import Workshop, workshop

from rasura import open as rasura_open


def typed(shop: Workshop, *arguments: str | Path, code: int = 0) -> Run:
    run = rasura("patch", "export", *arguments, cwd=shop.folder)
    assert run.code == code, run.out + run.err
    return run


def kohya(shop: Workshop, *arguments: str, output: str = "out.safetensors", code: int = 0) -> Run:
    return typed(shop, *arguments, "-o", output, "--format", "kohya", "--json", code=code)


def test_a_file_says_that_it_is_not_signed(workshop: Workshop) -> None:
    run = typed(workshop, workshop.dog, "-o", "dog.safetensors", "--format", "kohya")
    assert run.out.startswith("wrote dog.safetensors: 1 patch, 8 modules of rank ")
    assert "signed: no: this format cannot carry a signature" in run.out
    with safe_open(workshop.folder / "dog.safetensors", framework="pt") as file:
        assert workshop.dog in file.metadata()["rasura.patches"]
        assert len(file.keys()) == 24


def test_several_patches_and_a_stack_are_one_file(workshop: Workshop) -> None:
    assert rasura("stack", "create", "brand", workshop.dog, f"{workshop.photo}=0.5", cwd=workshop.folder).code == 0
    by_name = kohya(workshop, "--stack", "brand", output="a.safetensors").data
    by_id = kohya(workshop, f"{workshop.photo[:12]}=0.5", workshop.dog[:12], output="b.safetensors").data
    assert by_name["patches"] == by_id["patches"] == {workshop.dog: "1", workshop.photo: "0.5"}
    assert (by_name["signed"], by_name["modules"]) == (False, 8)
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
    rasura("key", "revoke", "alice", "--yes", cwd=workshop.folder)
    assert kohya(workshop, workshop.dog, code=4).envelope["error"]["code"] == "revoked_key"
    assert not (workshop.folder / "out.safetensors").exists()


def test_several_patches_are_a_folder_each_and_come_back_in_one_command(workshop: Workshop, tmp_path: Path) -> None:
    """Exported together, taken in elsewhere together: all, or none."""
    done = typed(workshop, *workshop.all, "-o", "all", "--json").data
    folders = {patch_id: workshop.folder / place for patch_id, place in done["patches"].items()}
    assert sorted(folders) == sorted(workshop.all)
    assert folders[workshop.van_gogh].name == f"van-gogh-{workshop.van_gogh[:12]}"
    typed(workshop, workshop.dog, "-o", "dog")
    same = [p.read_bytes() for p in sorted((workshop.folder / "dog").iterdir())]
    assert [p.read_bytes() for p in sorted(folders[workshop.dog].iterdir())] == same
    typed(workshop, workshop.dog, "--each", "-o", "one")
    assert [p.name for p in (workshop.folder / "one").iterdir()] == [f"dog-{workshop.dog[:12]}"]

    home = tmp_path / "home"
    home.mkdir()
    assert rasura("init", cwd=home).code == 0
    rasura("key", "export", "alice", "-o", home / "alice.pem", cwd=workshop.folder)
    add = ("patch", "add", *folders.values())
    refused = rasura(*add, "--json", cwd=home)
    assert (refused.code, refused.envelope["error"]["code"]) == (4, "untrusted_key")
    assert [other["code"] for other in refused.envelope["error"]["others"]] == ["untrusted_key"] * 2
    said = rasura(*add, cwd=home).err
    assert all(f"error: {folder}: " in said for folder in folders.values())
    assert "3 things stand in the way: nothing was done" in said

    assert rasura("key", "trust", "alice.pem", cwd=home).code == 0
    weights = folders[workshop.photo] / "basis.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert rasura(*add, cwd=home).code == 4
    assert rasura("patch", "list", "--json", cwd=home).data["patches"] == []
    weights.write_bytes(whole)
    dry = rasura(*add, "--dry-run", "--json", cwd=home)
    assert ([p["new"] for p in dry.data["patches"]], dry.envelope["changed"]) == ([True] * 3, False)
    assert rasura("patch", "list", "--json", cwd=home).data["patches"] == []
    assert [p["id"] for p in rasura(*add, "--json", cwd=home).data["patches"]] == list(folders)
    with rasura_open(home) as registry:
        assert sorted(p.patch_id for p in registry.patches()) == sorted(workshop.all)
        assert registry.add_patches(folders.values()) == tuple((p, False) for p in folders)
        registry.export(workshop.all[:1], home / "again")
    assert [p.name for p in (home / "again").iterdir()] == [f"dog-{workshop.dog[:12]}"]


def test_kohya_files_of_several(workshop: Workshop) -> None:
    done = kohya(workshop, workshop.dog, f"{workshop.photo}=0.5", "--each", output="files").data
    names = {patch_id: (workshop.folder / place).name for patch_id, place in done["files"].items()}
    assert names[workshop.photo] == f"photo-{workshop.photo[:12]}.safetensors"
    kohya(workshop, f"{workshop.photo}=0.5", output="alone.safetensors")
    alone = (workshop.folder / "alone.safetensors").read_bytes()
    assert (workshop.folder / "files" / names[workshop.photo]).read_bytes() == alone
    again = kohya(workshop, workshop.dog, "--each", output="files", code=7)
    assert again.envelope["error"]["code"] == "exists"


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("abcd", "--stack", "brand"),
        ("--stack", "brand", "--strength", "0.5", "--format", "kohya"),
        ("abcd=1", "ef01"),
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
