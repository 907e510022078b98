# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""`--certify`: recomputed from the base, with what was not looked at."""

import sqlite3
from contextlib import closing

import pytest
from support.commandline import rasura
from support.registries.workshop import Workshop, workshop

import rasura as front_door
from rasura.commands._shared.certified_views import list_certified
from rasura.patches.checks.kernels.certificate import Certificate, LayerShare, Mixtures
from rasura.patches.errors import ConceptError, InputError
from rasura.patches.types import ParamName, PatchId
from rasura.registry.erase.certify import Certified


def test_show_names_the_set_and_what_it_does_not_cover(workshop: Workshop) -> None:
    run = rasura("patch", "show", workshop.dog, "--certify", "--also", "hound", "--ball", "0.5", cwd=workshop.folder)
    assert "'dog', 'hound'" in run.out
    assert "in mixtures of them" in run.out
    assert "within 0.5 of these" in run.out
    assert "not covered" in run.out
    data = rasura("patch", "show", workshop.dog, "--certify", "--json", cwd=workshop.folder).data
    (found,) = data["certified"]["certificates"]
    assert found["patch"] == workshop.dog
    assert found["words"] == ["dog"]
    assert found["mixtures"]["attained"] <= found["mixtures"]["bound"]
    assert data["certified"]["missing"] == []
    assert "certified" not in rasura("patch", "show", workshop.dog, "--json", cwd=workshop.folder).data


def test_a_set_without_certify_is_refused(workshop: Workshop) -> None:
    for option in (["--also", "hound"], ["--ball", "1"]):
        run = rasura("patch", "show", workshop.dog, *option, cwd=workshop.folder)
        assert run.code == 2
        assert "add --certify" in run.err
    run = rasura("patch", "show", workshop.dog, "--certify", "--ball", "-1", cwd=workshop.folder)
    assert run.code == 1
    assert "expected a finite number, 0 or more" in run.err


@pytest.mark.parametrize("word", ["", "cat", "dog " * 80])
def test_another_word_that_will_not_do_is_refused_with_the_option_that_gave_it(workshop: Workshop, word: str) -> None:
    run = rasura("patch", "show", workshop.dog, "--certify", "--also", word, cwd=workshop.folder)
    assert run.code == 1
    assert run.err.splitlines()[-1] == f"hint: rasura patch show {workshop.dog} --certify --also TEXT"


def test_a_ball_beyond_all_numbers_has_no_bound(workshop: Workshop) -> None:
    run = rasura("patch", "show", workshop.dog, "--certify", "--ball", "1e308", "--json", cwd=workshop.folder)
    assert "Infinity" not in run.out
    assert run.data["certified"]["certificates"][0]["mixtures"]["ball"] == {"bound": None, "radius": 1e308}


def test_check_certifies_each_concept_under_the_whole_stack(workshop: Workshop) -> None:
    both = rasura("patch", "check", workshop.dog, workshop.van_gogh, "--certify", "--json", cwd=workshop.folder).data
    certificates = both["certified"]["certificates"]
    assert [each["patch"] for each in certificates] == [workshop.dog, workshop.van_gogh]
    shown = rasura("patch", "check", workshop.dog, workshop.van_gogh, "--certify", cwd=workshop.folder).out
    assert f"{workshop.van_gogh[:12]} at most" in shown
    assert shown.splitlines()[-1] == "accepted"


def test_python_gives_the_same_and_says_what_is_not_at_hand(workshop: Workshop) -> None:
    shown = rasura("patch", "show", workshop.dog, "--certify", "--json", cwd=workshop.folder).data["certified"]
    with front_door.open(workshop.folder) as registry:
        found = registry.certify([workshop.dog])
        assert found.certificates[0].span == shown["certificates"][0]["span"]
        with pytest.raises(InputError, match="expected one patch"):
            registry.certify([workshop.dog, workshop.van_gogh], also=["hound"])
        assert registry.certify([workshop.dog], also="hound").certificates[0].words == ("dog", "hound")
        with pytest.raises(ConceptError, match="is empty"):
            registry.certify([workshop.dog], also=[""])
    with closing(sqlite3.connect(workshop.folder / ".rasura" / "registry.db")) as connection, connection:
        connection.execute("UPDATE base SET source = '/nowhere'")
    with front_door.open(workshop.folder) as registry:
        gone = registry.certify([workshop.dog])
    assert gone.certificates == ()
    assert gone.missing == ("the base's weights are not at hand: no share is certified",)


def test_what_is_said_is_rounded_so_that_it_holds() -> None:
    mixed = Mixtures(0.5, 0.54661, 0.74999, 28.0, None, None)
    layers = (LayerShare(ParamName("a"), 0.2, 0.5, 0.6),)
    one = Certificate(PatchId("0" * 64), "text", ("dog",), 8, 0.12341, 1, 7, mixed, layers)
    said = " ".join(text for _, text in list_certified(Certified((one,), ())))
    assert "at most 0.124 of the response in the span of 8 columns of 'dog' (1 direction, 7 left out" in said
    assert "at most 0.547 in mixtures" in said
    assert "nothing within 0.749 of these (0.0267 of the way" in said
