# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""A hint is the next command with what was typed in it: typed, it works."""

import pytest
from support.commandline import Run, rasura
from support.registries.workshop import Workshop, workshop


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
