"""Texts that are too long: refused with their line, or cut to a beginning that fits, and counted."""

from pathlib import Path

import pytest
from support.models.tiny import tiny_model

from rasura.patches.errors import ConceptError
from rasura.patches.models.text_encoders.text_encoder import TextEncoder
from rasura.patches.prompts.fit_prompts import fit_list
from rasura.patches.prompts.retain_set import RetainSet, load_held_out, load_retain_set

TEMPLATES = ("{}", "a photo of a {}")
LONG = "dog " * 90 + "cat"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    return TextEncoder.load(tiny_model(tmp_path_factory.mktemp("model") / "model"))


def write(folder: Path, text: str) -> Path:
    (folder / "r.txt").write_text(text)
    return folder / "r.txt"


def test_a_text_that_is_too_long_is_refused_with_its_line(tmp_path: Path, encoder: TextEncoder) -> None:
    path = write(tmp_path, f"# things\ndog\n{LONG}\n")
    for found in (load_retain_set(path), load_held_out(path)):
        with pytest.raises(ConceptError, match=r"^r\.txt, line 3: .* tokens: expected at most 77") as caught:
            fit_list(encoder, found, TEMPLATES)
        assert caught.value.hint == "--truncate"


def test_a_text_is_cut_to_the_longest_beginning_that_fits_in_every_template(
    tmp_path: Path, encoder: TextEncoder
) -> None:
    found = fit_list(encoder, load_retain_set(write(tmp_path, f"dog\n{LONG}\n"), truncate=True), TEMPLATES)
    assert (found.cut, len(found.concepts), found.concepts[0]) == (1, 2, "dog")
    cut = found.concepts[1]
    assert LONG.startswith(f"{cut} ")
    encoder.ids(f"a photo of a {cut}")
    with pytest.raises(ConceptError):
        encoder.ids(f"a photo of a {cut} dog")
    assert found.sha256 == RetainSet("any", found.concepts).sha256


def test_a_whole_prompt_is_cut_for_itself(tmp_path: Path, encoder: TextEncoder) -> None:
    path = write(tmp_path, f"{LONG}\n")
    inside = fit_list(encoder, load_retain_set(path, truncate=True), TEMPLATES)
    alone = fit_list(encoder, load_retain_set(f"{path}:prompt", truncate=True), TEMPLATES)
    assert len(alone.concepts[0]) > len(inside.concepts[0])


def test_texts_that_are_one_when_cut_are_kept_once(tmp_path: Path, encoder: TextEncoder) -> None:
    found = fit_list(encoder, load_retain_set(write(tmp_path, f"{LONG}\n{LONG} bird\n"), truncate=True), TEMPLATES)
    assert (len(found.concepts), found.cut, found.repeated) == (1, 2, 1)


def test_a_word_without_end_is_cut_inside(tmp_path: Path, encoder: TextEncoder) -> None:
    found = fit_list(encoder, load_retain_set(write(tmp_path, "猫" * 400 + "\n"), truncate=True), TEMPLATES)
    assert found.concepts[0] != "猫" * 400
    assert set(found.concepts[0]) == {"猫"}


def test_what_fits_stays_as_it_is(tmp_path: Path, encoder: TextEncoder) -> None:
    found = load_retain_set(write(tmp_path, "dog\ncat\n"), truncate=True)
    assert fit_list(encoder, found, TEMPLATES) is found
