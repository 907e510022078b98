# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""Lists on the command line: what was read is said before it is solved, and what was not measured has no number."""

import pytest
from support.commandline import rasura
from support.registries.workshop import Workshop, workshop

from rasura.patches.types import PatchId
from rasura.registry.trust.verified_patch import manifest_of

ERASE = ("erase", "--base", "tiny", "--concept", "of", "--anchor", "cat")


def test_what_was_read_is_said(workshop: Workshop) -> None:
    (workshop.folder / "keep.csv").write_text("id,text\n1,the\n2,painting\n3,\n4,the\n5,photo of\n")
    run = rasura(*ERASE, "--retain", "keep.csv:text", cwd=workshop.folder)
    assert run.code == 0, run.err
    assert (
        "retain: keep.csv (CSV), column text: 5 rows, 2 concepts kept, 1 empty, 1 repeated, 1 removed because they "
        "name a target; first 'the', last 'painting'\n"
    ) in run.err
    again = rasura(*ERASE, "--retain", "keep.csv", "--retain-column", "text", "--json", cwd=workshop.folder)
    (read,) = again.data["read"]
    assert read == {
        "list": "retain", "file": "keep.csv", "format": "CSV", "columns": ["text"], "whole_prompts": False, "rows": 5,
        "comments": 0, "blank": 1, "kept": 2, "repeated": 1, "removed": 1, "cut": 0, "first": "the", "last": "painting",
    }  # fmt: skip
    assert "retain:" not in again.err


def test_a_table_is_refused_with_its_columns(workshop: Workshop) -> None:
    (workshop.folder / "keep.csv").write_text("id,text\n1,the\n")
    for option, said in (
        ("--retain", "retain file"),
        ("--held-out", "held-out file"),
        ("--anchors", "file of anchors"),
    ):
        more = () if option == "--retain" else ("--retain", "keep.csv:text")
        run = rasura(*ERASE, *more, option, "keep.csv", cwd=workshop.folder)
        assert run.code == 1
        assert f"error: {said} keep.csv has no column" in run.err
        assert "its columns are 'id', 'text'\n" in run.err
        hint = next(line for line in run.err.splitlines() if line.startswith("hint: "))
        assert hint.startswith("hint: rasura erase --base tiny --concept of ")
        assert hint.endswith(f" {option} keep.csv:COLUMN")


def test_a_missing_file_is_called_what_it_is_for(workshop: Workshop) -> None:
    (workshop.folder / "keep.txt").write_text("the\n")
    run = rasura(*ERASE, "--retain", "keep.txt", "--held-out", "nope", cwd=workshop.folder)
    said, hint = run.err.splitlines()[-2:]
    assert (run.code, said) == (8, "error: held-out file nope does not exist")
    assert hint.startswith("hint: rasura erase --base ")
    assert hint.endswith(" --held-out FILE")
    assert "--held-out nope" not in hint


@pytest.mark.parametrize("line", ["a photo of dogs", "the"])
def test_a_leak_over_no_prompts_has_no_number(workshop: Workshop, line: str) -> None:
    (workshop.folder / "keep.txt").write_text("the\npainting\n")
    (workshop.folder / "others.txt").write_text(f"{line}\n")
    erase = (*ERASE, "--retain", "keep.txt", "--held-out", "others.txt")
    run = rasura(*erase, cwd=workshop.folder)
    assert run.code == 0, run.err
    said = "leak held out: not measured, because every text of others.txt names a target or is retained"
    assert said in run.out
    assert run.out.splitlines()[-1].split()[-2] == "-"
    (made,) = rasura(*erase, "--json", cwd=workshop.folder).data["patches"]
    assert "leak_retained" in made["measured"]
    assert "leak_held_out" not in made["measured"]
    with workshop.open() as registry:
        assert "leak_held_out" not in manifest_of(registry, PatchId(made["id"])).measured


def test_texts_that_are_cut_are_counted_in_the_manifest(workshop: Workshop) -> None:
    (workshop.folder / "keep.txt").write_text("the\n" + "painting " * 100 + "\n")
    erase = (*ERASE[:-1], "landscape", "--retain", "keep.txt:prompt", "--json")  # a cat draws what "of" draws
    refused = rasura(*erase, cwd=workshop.folder).envelope["error"]
    assert refused["message"].startswith("keep.txt, line 2: ")
    assert (
        refused["hint"]
        == "rasura erase --base tiny --concept of --anchor landscape --retain keep.txt:prompt --truncate"
    )
    data = rasura(*erase, "--truncate", cwd=workshop.folder).data
    (made,) = data["patches"]
    assert data["read"][0]["cut"] == 1
    with workshop.open() as registry:
        retain = manifest_of(registry, PatchId(made["id"])).protected.retain
        assert retain is not None
        assert (retain.count, retain.cut, retain.templates) == (2, 1, ("{}",))
        assert registry.blobs.read(retain.sha256, limit=10_000).decode().startswith("the\npainting painting")
    again = rasura("patch", "rebase", made["id"], "--json", cwd=workshop.folder)
    with workshop.open() as registry:
        (anew,) = again.data["patches"]
        assert manifest_of(registry, PatchId(anew["id"])).protected.retain == retain
