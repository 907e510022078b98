"""The switch of the fused kernel, and what its hard values can tell. The kernel itself: tests/interop, tests/gpu."""

import importlib.util

import numpy as np
import pytest
import torch
from support.values import factories, hard_sums

from rasura.patches._io import settings
from rasura.patches._io.settings import Settings
from rasura.patches.algebra import fused_add
from rasura.patches.algebra.compose import Term, compose
from rasura.patches.errors import InputError

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize("said", [None, "", "0"])
def test_nobody_gets_it_who_did_not_ask(monkeypatch: pytest.MonkeyPatch, said: str | None) -> None:
    monkeypatch.setattr(settings, "_CHOSEN", [Settings.read({} if said is None else {fused_add.SWITCH: said})])
    assert not fused_add.is_wanted(CUDA)
    assert not fused_add.is_wanted(CPU)


def test_a_cpu_takes_the_plain_steps_to_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    base, terms = factories.weights(1, 30, 20, torch.float16), [Term(factories.increment(1, 30, 20, 2))]
    plain = compose(base, terms)
    monkeypatch.setattr(settings, "_CHOSEN", [Settings(fused="1")])
    assert not fused_add.is_wanted(CPU)
    assert factories.same_bits(compose(base, terms), plain)


@pytest.mark.parametrize("said", ["true", "yes", "2", " 1"])
def test_other_words_are_refused_and_not_taken_for_no(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    monkeypatch.setattr(settings, "_CHOSEN", [Settings(fused=said)])
    for device in (CPU, CUDA):
        with pytest.raises(InputError, match="expected 1, 0 or nothing"):
            fused_add.is_wanted(device)


@pytest.mark.skipif(
    torch.version.cuda is not None and importlib.util.find_spec("triton") is not None, reason="it can run here"
)
def test_asking_for_what_cannot_run_is_refused_and_not_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "_CHOSEN", [Settings(fused="1")])
    with pytest.raises(InputError, match=fused_add.SWITCH):
        fused_add.is_wanted(CUDA)


def test_the_hard_sums_tell_one_rounding_from_two() -> None:
    """Numpy goes from float64 to float16 in one rounding, as some compilers would: other bits than by float32."""
    seen = {}
    for name, base, sums, expected in hard_sums.cases(torch.float16):
        with np.errstate(all="ignore"):
            once = torch.from_numpy((sums.numpy() + base.numpy()).astype(np.float16))
        seen[name] = hard_sums.wrong(once, expected)
    assert seen["above ties, seen by float64 alone"] > 10_000
    assert seen["ties"] == seen["quarters"] == 0


@pytest.mark.parametrize("dtype", factories.DTYPES, ids=str)
def test_the_hard_sums_are_where_cutting_off_and_flushing_show(dtype: torch.dtype) -> None:
    cases = {name: (base, sums, expected) for name, base, sums, expected in hard_sums.cases(dtype)}
    base, _, expected = cases["ties"]
    assert hard_sums.wrong(base, expected) > 10_000, "ties go both ways"
    base, _, expected = cases["minus zero"]
    good = ~base.isnan()
    assert hard_sums.wrong(base[good], expected[good]) == 0, "a sum of zero leaves the bits, subnormals too"
    assert not cases["beyond float16"][2].isfinite().all()


def test_only_what_lies_row_by_row_goes_through_the_kernel() -> None:
    straight = torch.zeros(4, 6)
    assert fused_add.fits(straight, straight)
    assert not fused_add.fits(straight, torch.zeros(6, 4).T)
    assert not fused_add.fits(torch.zeros(4, 12)[:, ::2], straight)
