# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""A hint is the next command with what was typed in it: typed, it works."""

import pytest
from support.commandline import Run, rasura
from support.registries.workshop import Workshop, workshop

from rasura import open as open_registry
from rasura.patches.errors import InputError


def refused(shop: Workshop, *words: str) -> Run:
    """What was refused, with what `--json` says of it."""
    run = rasura(*words, "--json", cwd=shop.folder)
    assert run.code != 0, run.out
    return run


@pytest.mark.parametrize(
    ("typed", "becomes"),
    [("0.1", "0.125"), ("nan", "1"), ("0", "1"), ("9", "1"), ("0.001", "0.0625"), ("-0.001", "-0.0625"), ("", "1")],
)
def test_a_strength_of_a_stack(workshop: Workshop, typed: str, becomes: str) -> None:
    first, second = f"{workshop.dog[:12]}={typed}", f"{workshop.photo[:12]}=0.33"
    run = refused(workshop, "stack", "create", "s", first, second)
    mended = [f"{workshop.dog[:12]}={becomes}", f"{workshop.photo[:12]}=0.3125"]
    assert run.hint == ["stack", "create", "--json", "s", *mended]
    assert rasura(*run.hint, cwd=workshop.folder).data["patches"] == {workshop.dog: becomes, workshop.photo: "0.3125"}
    again = refused(workshop, "stack", "add", "s", f"{workshop.dog[:12]}={typed}", "--replace")
    assert rasura(*again.hint, cwd=workshop.folder).code == 0


def test_strength_0_takes_out_what_is_in_the_stack(workshop: Workshop) -> None:
    assert rasura("stack", "create", "s", *workshop.all, cwd=workshop.folder).code == 0
    run = refused(workshop, "stack", "add", "s", f"{workshop.dog[:12]}=0", "--replace")
    assert run.hint == ["stack", "remove", "s", workshop.dog[:12]]
    left = rasura(*run.hint, "--json", cwd=workshop.folder).data["patches"]
    assert left == {workshop.photo: "1", workshop.van_gogh: "1"}


def test_a_strength_of_an_export(workshop: Workshop) -> None:
    run = refused(
        workshop, "patch", "export", workshop.dog[:12], "--strength", "0.1", "--format", "kohya", "-o", "x.safetensors"
    )
    assert rasura(*run.hint, cwd=workshop.folder).code == 0
    assert (workshop.folder / "x.safetensors").exists()


def test_a_patch_that_protects_itself_is_rebased_beside_others(workshop: Workshop) -> None:
    dog, photo = workshop.dog[:12], workshop.photo[:12]
    with workshop.unchanged():
        run = refused(workshop, "patch", "rebase", dog, "--protect", dog, "--protect", photo)
    assert (run.code, run.envelope["error"]["code"]) == (1, "input")
    assert run.hint == ["patch", "rebase", "--json", dog, "--protect", photo]
    assert rasura(*run.hint, cwd=workshop.folder).code == 0
    with open_registry(workshop.folder) as registry, pytest.raises(InputError, match="alone by itself"):
        registry.rebase(workshop.dog, protect=workshop.dog)


def test_a_patch_in_use_is_taken_from_where_it_is(workshop: Workshop) -> None:
    assert rasura("stack", "create", "s", workshop.photo, cwd=workshop.folder).code == 0
    assert rasura("patch", "apply", workshop.photo, "--model", "the model", cwd=workshop.folder).code == 0
    first = refused(workshop, "patch", "retire", "photo")
    assert first.hint == ["patch", "revert", workshop.photo[:12], "--model", str(workshop.model)]
    assert rasura(*first.hint, "--json", cwd=workshop.folder).data["pristine"] is True
    second = refused(workshop, "patch", "retire", "photo")
    assert second.hint == ["stack", "remove", "s", workshop.photo[:12]]
    assert rasura(*second.hint, cwd=workshop.folder).code == 0
    assert rasura("patch", "retire", "photo", cwd=workshop.folder).code == 0
