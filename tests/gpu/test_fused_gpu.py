"""The fused kernel on a CUDA device: the CPU's bits, at hard values and for whole layers."""

import sys

import pytest
import torch
from support.values import factories, hard_sums

from rasura.patches._io import settings
from rasura.patches._io.settings import Settings
from rasura.patches._io.tensor_bytes import digest_tensors
from rasura.patches.algebra import fused_add
from rasura.patches.algebra.compose import Layer, Term, compose, compose_all
from rasura.patches.algebra.increment import Increment
from rasura.patches.algebra.strength import Strength
from rasura.patches.errors import NotFiniteError
from rasura.patches.types import ParamName

pytestmark = pytest.mark.gpu
KERNEL = "rasura.patches.algebra.fused_add_kernel"


@pytest.fixture(params=range(torch.cuda.device_count() or 1), ids=lambda index: f"cuda:{index}")
def gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """Each device, while the first one is the current one; the kernel is asked for."""
    monkeypatch.setattr(settings, "_CHOSEN", [Settings(fused="1")])
    monkeypatch.delitem(sys.modules, KERNEL, raising=False)  # whoever uses it imports it
    return torch.device("cuda", request.param)


@pytest.mark.parametrize("dtype", factories.DTYPES, ids=str)
def test_hard_values_have_the_cpus_bits(gpu: torch.device, dtype: torch.dtype) -> None:
    for name, base, sums, expected in hard_sums.cases(dtype):
        result, broken = torch.empty_like(base, device=gpu), torch.zeros(1, dtype=torch.int32, device=gpu)
        fused_add.add_round_store(result, base.to(gpu), sums.to(gpu), broken)
        assert hard_sums.wrong(result.cpu(), expected) == 0, name
        assert int(broken) == 1, "every NaN is among the bases"


@pytest.mark.parametrize("dtype", factories.DTYPES, ids=str)
def test_only_what_is_not_finite_is_called_so(gpu: torch.device, dtype: torch.dtype) -> None:
    for name, base, sums, expected in hard_sums.cases(dtype):
        good = expected.isfinite()
        result, broken = torch.empty_like(base[good], device=gpu), torch.zeros(1, dtype=torch.int32, device=gpu)
        fused_add.add_round_store(result, base[good].to(gpu), sums[good].to(gpu), broken)
        assert int(broken) == 0, name
        assert hard_sums.wrong(result.cpu(), expected[good]) == 0, name


@pytest.mark.parametrize("count", [1, 2, 1023, 1024, 1025, 3 * 1024 + 7])
@pytest.mark.parametrize("offset", [0, 1])
def test_lengths_and_addresses_of_every_kind(gpu: torch.device, count: int, offset: int) -> None:
    """Triton compiles another kernel for addresses and lengths that sixteen divides."""
    for dtype in factories.DTYPES:
        base, sums = factories.weights(1, 1, count + offset, dtype), factories.normal(2, 1, count + offset)
        expected = hard_sums.plain(base[:, offset:], sums[:, offset:])
        there, more, room = base.to(gpu), sums.to(gpu), torch.full((1, count + offset + 1), 7, dtype=dtype, device=gpu)
        result, broken = room[:, offset : offset + count], torch.zeros(1, dtype=torch.int32, device=gpu)
        fused_add.add_round_store(result, there[:, offset:], more[:, offset:], broken)
        assert factories.same_bits(result.cpu(), expected)
        assert (room[:, -1] == 7).all(), "nothing beyond the end is written"
        assert torch.equal(more.cpu(), sums), "sums are kept"


@pytest.mark.parametrize("dtype", factories.DTYPES, ids=str)
@pytest.mark.parametrize("turned", [False, True])
def test_whole_layers_have_the_cpus_digests(gpu: torch.device, dtype: torch.dtype, turned: bool) -> None:
    """Keys and values that share their detectors, bases that lie row by row and others."""
    shared, bases, layers = factories.increment(1, 4, 768, 8), {}, []
    for number, rows in enumerate((320, 640, 1280, 1280)):
        name, B = ParamName(f"unet.{number}.weight"), factories.increment(number, rows, 768, 8).B
        weights = factories.weights(number, rows, 768, dtype)
        bases[name] = weights.T.contiguous().T if turned else weights
        layers.append(Layer(name, (Term(Increment(shared.A, B), Strength(16)), Term(Increment(shared.A, B)))))
    found = compose_all({name: base.to(gpu) for name, base in bases.items()}, layers)
    assert digest_tensors(found) == digest_tensors(compose_all(bases, layers))
    assert (KERNEL in sys.modules) != turned
    assert {value.device for value in found.values()} == {gpu}


@pytest.mark.parametrize("at", [0, 63])
def test_overflow_is_refused(gpu: torch.device, at: int) -> None:
    base = factories.weights(1, 64, 64, torch.float16)
    base[at, at] = torch.finfo(torch.float16).max
    steps = [2**22 if column == at else 0 for column in range(64)]
    loud = Term(factories.exact_increment([steps], [[2**24 - 1]] * 64), Strength(63))
    with pytest.raises(NotFiniteError, match=r"not finite in torch\.float16"):
        compose(base.to(gpu), [loud])
    assert KERNEL in sys.modules
