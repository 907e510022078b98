"""A GPU gives the CPU's bits: composition of many patches, and live weights that go there and back."""

import pytest
import torch
from support.values import factories
from torch import nn

from rasura.patches._io.tensor_bytes import digest_tensor
from rasura.patches.algebra.compose import Term, compose, sum_increments
from rasura.patches.algebra.strength import Strength
from rasura.patches.errors import NotFiniteError
from rasura.patches.hosts.live.torch_host import TorchHost
from rasura.patches.types import Digest, ParamName

pytestmark = pytest.mark.gpu
GPU = torch.device("cuda")
SHAPES = ((320, 768), (640, 768), (1280, 768))  # Stable Diffusion 1.x
PATCHES = 200


def stack(d_out: int, d_in: int, count: int = PATCHES) -> list[Term]:
    """Patches of ranks 1 to 4 at every kind of strength, together below the bound."""
    strengths = [16, -16, 1, 64, -64, 7, 33]
    return [
        Term(factories.increment(seed, d_out, d_in, 1 + seed % 4, scale=0.02), Strength(strengths[seed % 7]))
        for seed in range(count)
    ]


@pytest.mark.parametrize("dtype", factories.DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_200_patches_have_the_cpus_digest(shape: tuple[int, int], dtype: torch.dtype) -> None:
    base, terms = factories.weights(1, *shape, dtype), stack(*shape)
    expected = digest_tensor(compose(base, terms))
    assert digest_tensor(compose(base.to(GPU), terms)) == expected
    assert digest_tensor(compose(base.to(GPU), terms[::-1])) == expected
    assert digest_tensor(compose(base, terms)) != digest_tensor(base)


@pytest.mark.parametrize("chunk", [1, 3, 64])
def test_sums_in_chunks_are_the_cpus_sum(chunk: int) -> None:
    terms = stack(320, 768, 50)
    expected, total = sum_increments(terms), torch.zeros(320, 768, dtype=torch.float64, device=GPU)
    for start in range(0, len(terms), chunk):
        part = terms[start : start + chunk]
        A = torch.cat([term.increment.A.double() for term in part]).to(GPU)
        B = torch.cat([term.increment.B.double() * term.strength.value for term in part], dim=1).to(GPU)
        total += B @ A
    assert torch.equal(total.cpu(), expected)


@pytest.mark.parametrize("tf32", [True, False])
def test_reduced_precision_modes_change_nothing(tf32: bool) -> None:
    """People turn TF32 on for speed; float64 must not care."""
    base, terms = factories.weights(2, 320, 768, torch.float16), stack(320, 768, 20)
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = tf32
    try:
        assert digest_tensor(compose(base.to(GPU), terms)) == digest_tensor(compose(base, terms))
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.parametrize("dtype", factories.DTYPES, ids=str)
def test_zeros_keep_their_signs(dtype: torch.dtype) -> None:
    base = torch.full((64, 64), -0.0, dtype=dtype)
    silent = [Term(factories.exact_increment([[0] * 64], [[-5]] * 64)) for _ in range(3)]
    for count in (1, 2, 3):
        assert factories.same_bits(compose(base.to(GPU), silent[:count]).cpu(), base)


@pytest.mark.parametrize("dtype", factories.DTYPES, ids=str)
def test_overflow_is_seen_on_the_gpu_too(dtype: torch.dtype) -> None:
    base = torch.full((4, 4), torch.finfo(dtype).max, dtype=dtype)
    loud = Term(factories.exact_increment([[2**22, 0, 0, 0]], [[2**24 - 1]] * 4), Strength(63))
    if dtype == torch.float16:
        with pytest.raises(NotFiniteError):
            compose(base.to(GPU), [loud])
    else:  # 252 is less than half a unit in the last place
        assert factories.same_bits(compose(base.to(GPU), [loud]).cpu(), compose(base, [loud]))


def modules(dtype: torch.dtype) -> nn.ModuleDict:
    found = nn.ModuleDict({str(i): nn.Linear(768, d_out, bias=False) for i, (d_out, _) in enumerate(SHAPES)})
    for i, (shape, module) in enumerate(zip(SHAPES, found.values(), strict=True)):
        module.weight = nn.Parameter(factories.weights(i, *shape, dtype))
    return found


NAMES = [ParamName(f"unet.{i}.weight") for i in range(len(SHAPES))]


def moved(host: TorchHost, count: int, device: torch.device) -> dict[ParamName, Digest]:
    """Digests after the host holds the first `count` patches, composed on that device."""
    originals = host.originals(NAMES)
    values = {
        name: compose(originals[name].to(device), stack(*shape, count))
        for name, shape in zip(NAMES, SHAPES, strict=True)
    }
    host.write(values, forget=() if count else NAMES)
    return host.digests(NAMES)


@pytest.mark.parametrize("keep_on", ["cpu", "device"])
@pytest.mark.parametrize("dtype", factories.DTYPES, ids=str)
def test_live_modules_go_there_and_back_with_the_cpus_digests(dtype: torch.dtype, keep_on: str) -> None:
    here = TorchHost({"unet": modules(dtype)}, "cpu")
    unet = modules(dtype).to(GPU)
    there = TorchHost({"unet": unet}, "gpu", keep_on="cpu" if keep_on == "cpu" else "device")
    addresses = [parameter.data_ptr() for parameter in unet.parameters()]
    pristine = there.digests(NAMES)
    assert pristine == here.digests(NAMES)
    for count in (1, 20, 5, 0, 20, 0):
        assert moved(there, count, GPU) == moved(here, count, torch.device("cpu"))
        assert (there.digests(NAMES) == pristine) == (count == 0)
    assert not there.kept()
    assert [parameter.data_ptr() for parameter in unet.parameters()] == addresses
