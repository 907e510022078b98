# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""What a concept is called besides, on the command line."""

import pytest
from support.commandline import rasura
from support.registries.workshop import Workshop, workshop

from rasura.patches.types import PatchId
from rasura.registry.trust.verified_patch import manifest_of

ERASE = ("erase", "--base", "tiny", "--concept", "of", "--anchor", "cat", "--retain", "keep.txt")


def test_names_are_read_and_kept_out_of_the_retain_set(workshop: Workshop) -> None:
    (workshop.folder / "keep.txt").write_text("the\npainting\nphoto frame\n")
    (workshop.folder / "names.txt").write_text("photo\ntree\n")
    more = ("--also-called", "of=a=b", "--names", "names.txt", "--json")
    found = rasura(*ERASE, *more, cwd=workshop.folder)
    assert found.code == 0, found.err
    assert found.data["removed_from_retain"] == ["photo frame"]
    (made,) = found.data["patches"]
    manifest = manifest_of(workshop.open(), PatchId(made["id"]))
    assert manifest.names == ("a=b", "photo", "tree")
    assert manifest.eraser.options["names"] == "a=b|photo|tree"
    again = rasura(*ERASE, "--also-called", "tree", "--also-called", "photo", "--also-called", "of=a=b", "--json",
                   cwd=workshop.folder)  # fmt: skip
    assert [(p["id"], p["new"]) for p in again.data["patches"]] == [(made["id"], False)]


def test_a_certificate_covers_every_name(workshop: Workshop) -> None:
    (workshop.folder / "keep.txt").write_text("the\npainting\n")
    (made,) = rasura(*ERASE, "--also-called", "photo", "--json", cwd=workshop.folder).data["patches"]
    shown = rasura("patch", "show", made["id"], "--certify", "--json", cwd=workshop.folder).data["certified"]
    (found,) = shown["certificates"]
    assert found["words"] == ["of", "photo"]
    assert found["mixtures"] is not None
    assert shown["missing"] == []


def test_show_says_what_else_a_concept_is_called(workshop: Workshop) -> None:
    (workshop.folder / "keep.txt").write_text("the\npainting\n")
    called = ("--also-called", "tree", "--also-called", "photo")
    (made,) = rasura(*ERASE, *called, "--json", cwd=workshop.folder).data["patches"]
    lines = rasura("patch", "show", made["id"], cwd=workshop.folder).out.splitlines()
    assert [" ".join(line.split()) for line in lines[1:4]] == ["concept of", "also called photo, tree", "becomes cat"]
    assert "also called" not in rasura("patch", "show", workshop.dog, cwd=workshop.folder).out


@pytest.mark.parametrize("name", ["", " ", "of="])
def test_an_empty_name_is_refused_as_one(workshop: Workshop, name: str) -> None:
    (workshop.folder / "keep.txt").write_text("the\npainting\n")
    refused = rasura(*ERASE, "--also-called", name, cwd=workshop.folder)
    assert refused.code == 1
    assert "a name of 'of' is empty: expected a word or phrase" in refused.err
    assert refused.err.splitlines()[-1].endswith("--also-called NAME")
    assert "--concept of" in refused.err


def test_several_concepts_have_names_of_their_own(workshop: Workshop) -> None:
    (workshop.folder / "keep.txt").write_text("the\npainting\n")
    two = (*ERASE, "--concept", "tree")
    refused = rasura(*two, "--also-called", "photo", cwd=workshop.folder)
    assert refused.code == 2
    assert "--also-called photo: expected CONCEPT=NAME with one of of, tree" in refused.err
    files = rasura(*two, "--names", "keep.txt", cwd=workshop.folder)
    assert "2 concepts and 1 files of names: expected one each" in files.err


@pytest.mark.parametrize("method", ["sepme", "all-but-one", "clip-null-space"])
def test_a_method_that_reads_the_concept_alone_refuses_names(workshop: Workshop, method: str) -> None:
    (workshop.folder / "keep.txt").write_text("the\n")
    refused = rasura(*ERASE, "--method", method, "--also-called", "photo", cwd=workshop.folder)
    assert refused.code == 1
    assert f"method {method} reads 'of' alone: expected no other names of it, got photo" in refused.err
    assert "--method span" in refused.err
