# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""Retain sets come back from the store, or from the file that they came from."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.registries.workshop import Workshop, workshop

from rasura.patches.errors import DigestMismatchError, NotFoundError, RetainSetError
from rasura.patches.format.protected_spec import RetainSpec
from rasura.patches.prompts.retain_set import RetainSet
from rasura.registry.registry import Registry
from rasura.registry.trust.retain_words import find_retained
from rasura.registry.trust.verified_patch import manifest_of

WORDS = ("painting", "cat", "a", "the")


def spec_of(registry: Registry, workshop: Workshop) -> RetainSpec:
    spec = manifest_of(registry, workshop.rival).protected.retain
    assert spec is not None
    return spec


def test_erasing_keeps_the_words(workshop: Workshop) -> None:
    with workshop.open() as registry:
        spec = spec_of(registry, workshop)
        assert registry.blobs.read(spec.sha256) == b"painting\ncat\na\nthe\n"
        found = find_retained(registry, spec)
    assert (found.source, found.concepts, found.sha256) == ("retain.txt", WORDS, spec.sha256)


def test_without_the_words_the_file_does_as_well(workshop: Workshop, tmp_path: Path) -> None:
    file = tmp_path / "again.txt"
    with workshop.open() as registry:
        spec = spec_of(registry, workshop)
        registry.blobs.path(spec.sha256).unlink()
        with pytest.raises(NotFoundError, match=r"retain\.txt \(4 concepts") as caught:
            find_retained(registry, spec)
        assert caught.value.hint == "--retain FILE"
        file.write_text("painting\n# a comment\ncat\na\nthe\n")
        assert find_retained(registry, spec, file) == RetainSet("retain.txt", WORDS)
        file.write_text("painting\na dog\ncat\na\nthe\n")
        with pytest.raises(DigestMismatchError, match="is not the retain set"):
            find_retained(registry, spec, file)
        assert find_retained(registry, spec, file, names=["dog"]).concepts == WORDS
        file.write_text("a dog\n")
        with pytest.raises(DigestMismatchError, match="got 1 with"):
            find_retained(registry, spec, file, names=["dog"])
        with pytest.raises(NotFoundError, match="does not exist"):
            find_retained(registry, spec, tmp_path / "none.txt")


def test_a_changed_blob_is_no_retain_set(workshop: Workshop) -> None:
    with workshop.open() as registry:
        spec = spec_of(registry, workshop)
        path = registry.blobs.path(spec.sha256)
        path.chmod(0o644)
        path.write_bytes(b"painting\ncat\na\nthem\n")
        with pytest.raises(DigestMismatchError):
            find_retained(registry, spec)


def test_whole_prompts_stay_whole(workshop: Workshop) -> None:
    with workshop.open() as registry:
        spec = replace(spec_of(registry, workshop), templates=("{}",))
        assert find_retained(registry, spec).whole


@given(st.lists(st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), min_size=1), unique=True))
def test_the_digest_is_of_the_text(concepts: list[str]) -> None:
    found = RetainSet("x", tuple(concepts))
    assert found.sha256 == hashlib.sha256(found.text.encode()).hexdigest()
    assert found.text.split("\n")[:-1] == concepts
