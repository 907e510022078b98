"""Choices of an eraser as texts, and the catalogue that they are chosen from."""

from dataclasses import dataclass, fields
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rasura.patches.erasers.catalogue import METHODS, eraser, load_method
from rasura.patches.erasers.closed_form.null_space import NullSpace
from rasura.patches.erasers.options import check_options, encode_options, option, options_of, with_options
from rasura.patches.errors import InputError


@dataclass(frozen=True, slots=True)
class Sample:
    name: ClassVar[str] = "sample"

    steps: int = option(3, "how many", low=1, high=10)
    rate: float = option(0.5, "how fast", low=0)
    exact: bool = option(default=True, text="whether")
    kind: str = option("a", "which", choices=("a", "b"))
    seed: int = option(0, "of the noise", low=0)

    def __post_init__(self) -> None:
        check_options(self)


@pytest.mark.parametrize(
    ("method", "settings", "needs"),
    [
        ("speed", {"gamma": "0.2"}, "adversarial!=0, got adversarial=0"),
        ("speed", {"lamb": "0.5", "iec": "no"}, "iec=yes, got iec=no"),
        ("speed", {"alpha": "2", "ipf": "no", "aug": "0"}, "ipf=yes or aug!=0, got ipf=no, aug=0"),
        ("rece", {"epochs": "0", "towards": "anchor"}, "epochs!=0, got epochs=0"),
        ("clip-null-space", {"lr": "0.1"}, "values=guided, got values=states"),
        ("all-but-one", {"slack": "0.1"}, "lagrangian=dual, got lagrangian=fixed"),
        ("sepme", {"export": "whole"}, "basis=full, got basis=compact"),
    ],
)
def test_a_choice_that_does_nothing_beside_the_others_is_refused(
    method: str, settings: dict[str, str], needs: str
) -> None:
    with pytest.raises(InputError, match=f"does nothing here: expected it with {needs}"):
        eraser(method, settings)


def test_what_a_choice_needs_is_a_choice_of_the_same_method() -> None:
    for name in METHODS:
        known = {f.name for f in fields(load_method(name))}
        for f in fields(load_method(name)):
            for condition in filter(None, str(f.metadata.get("needs", "")).split(" or ")):
                other, _, value = condition.partition("=")
                assert other.removesuffix("!") in known - {f.name}
                assert value


def test_options_are_listed_in_their_order_with_what_they_may_be() -> None:
    found = options_of(Sample)
    assert [(o.name, o.kind, o.default) for o in found] == [
        ("steps", "int", "3"),
        ("rate", "float", "0.5"),
        ("exact", "bool", "yes"),
        ("kind", "str", "a"),
        ("seed", "int", "0"),
    ]
    assert found[3].choices == ("a", "b")


@given(st.integers(1, 10), st.floats(0, 1e6), st.booleans(), st.sampled_from("ab"), st.integers(0, 99))
def test_what_is_written_reads_back(steps: int, rate: float, exact: bool, kind: str, seed: int) -> None:
    made = Sample(steps, float(f"{rate:g}"), exact, kind, seed)
    texts = encode_options(made)  # type: ignore[arg-type]
    assert "seed" not in texts
    assert with_options(Sample, {**texts, "seed": str(seed)}) == made


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"stps": "3"}, "no option 'stps': expected one of exact, kind, rate, seed, steps"),
        ({"steps": "0"}, "option steps: expected 1 to 10, got '0'"),
        ({"steps": "1.5"}, "option steps: expected a number"),
        ({"steps": "many"}, "option steps: expected a number"),
        ({"rate": "-1"}, "option rate: expected 0 to any, got '-1'"),
        ({"rate": "nan"}, "option rate: expected 0 to any"),
        ({"rate": "inf"}, "option rate: expected 0 to any"),
        ({"exact": "true"}, "option exact: expected yes or no"),
        ({"kind": "c"}, "option kind: expected a or b, got 'c'"),
    ],
)
def test_choices_are_refused_that_cannot_be(settings: dict[str, str], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        with_options(Sample, settings)
    assert caught.value.hint == "rasura methods sample"


def test_a_method_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(InputError, match="expected one of null-space") as caught:
        eraser("lobotomy", {})
    assert caught.value.hint == "rasura methods"


@pytest.mark.parametrize("name", METHODS)
def test_every_method_of_the_catalogue_is_an_eraser_with_explained_choices(name: str) -> None:
    found: Any = load_method(name)
    assert found.name == name
    assert METHODS[name].text.endswith(".")
    assert METHODS[name].source
    made = eraser(name, {})
    assert made == found()
    assert all(o.text for o in options_of(found))
    assert all(isinstance(getattr(made, f.name), bool | int | float | str) for f in fields(found))
    assert eraser(name, encode_options(made)) == made


def test_the_default_choices_of_the_default_method_are_written_as_they_were() -> None:
    """They stand in manifests: other texts would make other patches of the same request."""
    assert encode_options(NullSpace()) == {"ridge": "0.01", "energy": "0.9", "rank_limit": "32", "guard": "0.9999"}
