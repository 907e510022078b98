"""Quantised layers carry a stack beside them: a function of the set, gone without a trace, and never a merged one."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.models.tiny_families import TinyFamily, short_family, tiny_family
from support.values import factories
from support.values.factories import strengths
from torch import nn
from torch.nn import functional

from rasura.patches._io.tensor_bytes import digest_tensor
from rasura.patches.algebra.compose import Layer, Term, compose, sum_increments
from rasura.patches.algebra.strength import ONE, Strength
from rasura.patches.errors import BaseMismatchError, BoundExceededError, UnsupportedHostError
from rasura.patches.format.manifest_parts import TensorIdentity
from rasura.patches.hosts.live.torch_host import TorchHost
from rasura.patches.hosts.quantised.side_branch import SideBranches
from rasura.patches.types import ParamName

KEYS = ParamName("unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight")
VALUES = ParamName("unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_v.weight")
FC2 = ParamName("text_encoder.text_model.encoder.layers.1.mlp.fc2.weight")


class Int8Params(nn.Parameter):
    """As bitsandbytes has them: a parameter of its own class, of codes."""


class Int8Linear(nn.Module):
    """A linear layer of 8-bit codes with one scale a row, interface and all as quantisation libraries make them."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        scale = layer.weight.detach().abs().amax(1, keepdim=True) / 127
        codes = (layer.weight.detach() / scale).round().to(torch.int8)
        self.weight = Int8Params(codes, requires_grad=False)
        self.register_buffer("scale", scale)
        self.bias = layer.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.weight.to(x.dtype) * self.get_buffer("scale").to(x.dtype)
        return functional.linear(x, weight, self.bias)


def quantise(family: TinyFamily) -> None:
    """All of attention's keys and values, and the text encoder's fc2."""
    for component in family.components.values():
        for key, module in list(component.named_modules()):
            if isinstance(module, nn.Linear) and key.endswith(("to_k", "to_v", "fc2")):
                parent, _, name = key.rpartition(".")
                setattr(component.get_submodule(parent), name, Int8Linear(module))


def identities(family: TinyFamily) -> list[TensorIdentity]:
    """Of the base, taken before it is quantised."""
    host = TorchHost(family.components, family.name)
    infos, digests = host.parameters(), host.digests(host.parameters())
    return [TensorIdentity(name, info.dtype, info.shape, digests[name]) for name, info in infos.items()]


def layers(*seeds: int, strength: Strength = ONE) -> list[Layer]:
    """Random increments of three layers, one term a seed."""
    shapes = {KEYS: (16, 32), VALUES: (16, 32), FC2: (32, 64)}
    return [
        Layer(name, tuple(Term(factories.increment(seed + i, *shape, rank=3, scale=0.5), strength) for seed in seeds))
        for i, (name, shape) in enumerate(shapes.items())
    ]


@pytest.fixture
def quantised() -> tuple[TinyFamily, SideBranches, list[TensorIdentity]]:
    return with_branches(tiny_family("SD 2.x"))


def with_branches(family: TinyFamily) -> tuple[TinyFamily, SideBranches, list[TensorIdentity]]:
    base = identities(family)
    quantise(family)
    return family, SideBranches(family.components, "quantised", base=base), base


Quantised = tuple[TinyFamily, SideBranches, list[TensorIdentity]]


def test_quantised_layers_are_found_and_never_written(quantised: Quantised) -> None:
    family, branches, _ = quantised
    found = branches.layers()
    assert found[KEYS].kind == "Int8Params of int8"
    assert found[KEYS].shape == (16, 32)
    assert len(found) == 16 + 2
    host = TorchHost(family.components, "plain")
    assert not found.keys() & host.parameters().keys()
    with pytest.raises(UnsupportedHostError, match="quantised one") as caught:
        host.write({KEYS: torch.ones(16, 32)})
    assert "(Int8Params of int8)" in caught.value.message
    assert "side_branch" in caught.value.hint


def test_attach_replace_and_detach(quantised: Quantised) -> None:
    family, branches, base = quantised
    codes = {key: digest_tensor(tensor) for key, tensor in family.components["unet"].state_dict().items()}
    before = family.draw()
    one = branches.replace(layers(1), base)
    assert {name: branch.rank for name, branch in one.items()} == {KEYS: 3, VALUES: 3, FC2: 3}
    first = family.draw()
    both = branches.replace(layers(1, 50), base)
    second = family.draw()
    assert branches.attached() == both != one
    assert both[KEYS].rank == 6
    assert branches.replace(layers(1), base) == one
    assert torch.equal(family.draw(), first)  # replaced, not added
    assert len({digest_tensor(each) for each in (before, first, second)}) == 3
    assert branches.replace(()) == branches.attached() == {}
    assert torch.equal(family.draw(), before)
    assert not any(module._forward_hooks for part in family.components.values() for module in part.modules())
    assert {key: digest_tensor(t) for key, t in family.components["unet"].state_dict().items()} == codes


@pytest.mark.parametrize("dtype", factories.DTYPES)
def test_the_branch_is_the_increment(dtype: torch.dtype) -> None:
    """Against the exact ΔW, in the layer's compute dtype."""
    layer = Int8Linear(nn.Linear(32, 16, bias=False))
    unet = nn.ModuleDict({"to_k": layer})
    name = ParamName("unet.to_k.weight")
    terms = tuple(Term(factories.increment(seed, 16, 32, rank=4), Strength(5 * seed)) for seed in (1, 2, -3))
    identity = TensorIdentity(name, "F32", (16, 32), factories.sha256(b"base"))
    given = factories.normal(9, 2, 7, 32).to(dtype)
    before = layer(given)
    branches = SideBranches({"unet": unet}, "one", base=[identity])
    branches.replace([Layer(name, terms)], [identity])
    expected = functional.linear(given.double(), sum_increments(terms))
    error = (layer(given).double() - before.double() - expected).abs().max()
    assert layer(given).dtype == dtype
    assert error <= 8 * torch.finfo(dtype).eps * before.double().abs().max().clamp(min=1)
    assert torch.equal(layer(x=given), layer(given))  # also by keyword
    branches.replace(())
    assert torch.equal(layer(given), before)


@given(
    st.lists(st.tuples(st.integers(0, 9), strengths), min_size=1, max_size=5, unique_by=lambda pair: pair[0]),
    st.randoms(),
)
def test_what_is_attached_is_a_function_of_the_set(stack: Sequence[tuple[int, Strength]], random: Any) -> None:
    layer = Int8Linear(nn.Linear(24, 8))
    name = ParamName("unet.to_v.weight")
    identity = TensorIdentity(name, "F16", (8, 24), factories.sha256(b"base"))
    branches = SideBranches({"unet": nn.ModuleDict({"to_v": layer})}, "one", base=[identity])
    terms = [Term(factories.increment(seed, 8, 24, rank=2), strength) for seed, strength in stack]
    given = factories.normal(3, 5, 24).float()
    pristine = layer(given)
    there = branches.replace([Layer(name, tuple(terms))], [identity])
    seen = layer(given)
    random.shuffle(terms)
    for cut in range(len(terms), 0, -1):  # by way of every smaller set
        branches.replace([Layer(name, tuple(terms[:cut]))], [identity])
    assert branches.replace([Layer(name, tuple(terms))], [identity]) == there
    assert torch.equal(layer(given), seen)
    branches.replace(())
    assert torch.equal(layer(given), pristine)


def test_eight_bit_floats_with_layerwise_casting() -> None:
    """Near to what merging before the cast gives, though no weight is touched."""
    family, merged = tiny_family("SD 2.x"), tiny_family("SD 2.x")
    base = identities(family)
    stack = [layer for layer in layers(1) if layer.name != FC2]
    host = TorchHost(merged.components, "merged")
    host.write({layer.name: compose(host.read([layer.name])[layer.name], layer.terms) for layer in stack})
    unets: list[Any] = [each.components["unet"] for each in (family, merged)]
    for unet in unets:
        unet.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    before = family.draw()
    branches = SideBranches(family.components, "fp8", base=base)
    assert branches.layers()[KEYS].kind == "Parameter of float8_e4m3fn"
    branches.replace(stack, base)
    after = family.draw()
    assert float((after - merged.draw()).norm()) < 0.2 * float((after - before).norm())
    branches.replace(())
    assert torch.equal(family.draw(), before)


# --- Refused ----------------------------------------------------------------------------------------------------------


def test_without_a_word_of_the_base_nothing_is_attached(quantised: Quantised) -> None:
    family, _, base = quantised
    with pytest.raises(UnsupportedHostError, match="expected to be told which base was quantised") as caught:
        SideBranches(family.components, "mute", base=None).replace(layers(1), base)
    assert "base=" in caught.value.hint
    SideBranches(family.components, "mute", base=None).replace(())  # going back needs no base


def test_patches_of_another_base_are_refused(quantised: Quantised) -> None:
    family, branches, base = quantised
    branches.replace(layers(1), base)
    there, picture = branches.attached(), family.draw()
    other = [replace(each, sha256=factories.sha256(b"other")) if each.name == VALUES else each for each in base]
    for computed_on in (other, [each for each in base if each.name != VALUES]):
        with pytest.raises(BaseMismatchError, match="made for other weights") as caught:
            branches.replace(layers(2), computed_on)
        assert caught.value.details["parameter"] == VALUES
    assert branches.attached() == there
    assert torch.equal(family.draw(), picture)


def test_refused_sets_change_nothing(quantised: Quantised) -> None:
    family, branches, base = quantised
    there = branches.replace(layers(1), base)
    plain, ghost = ParamName(KEYS.replace("to_k", "to_q")), ParamName("unet.ghost.weight")
    large = Term(factories.exact_increment([[2**22] + [0] * 31] * 2, [[2**23, 2**23]] * 16), Strength(64))
    told = SideBranches(family.components, "told", base=[*base, replace(base[0], name=ghost)])
    refusals: list[tuple[str, tuple[Term, ...], type[Exception], str]] = [
        (plain, layers(1)[0].terms, UnsupportedHostError, "a plain one, which is merged"),
        (
            ghost,
            layers(1)[0].terms,
            UnsupportedHostError,
            "expected a quantised linear layer unet.ghost.weight, got none",
        ),
        (KEYS, layers(1)[2].terms, BaseMismatchError, r"expected shape \[32, 64\], got \[16, 32\]"),
        (KEYS, (large,), BoundExceededError, "expected less than 256"),
    ]
    for name, terms, error, message in refusals:
        with pytest.raises(error, match=message):
            told.replace([*layers(2)[1:], Layer(ParamName(name), terms)], [*base, replace(base[0], name=ghost)])
    assert told.attached() == there


def test_a_layer_that_is_named_twice_has_one_branch(quantised: Quantised) -> None:
    _, branches, base = quantised
    assert branches.replace([*layers(1), *layers(50)], base) == branches.replace(layers(1, 50), base)


def test_fused_layers_are_refused() -> None:
    """The hook would sit on a layer that nobody calls."""
    family = tiny_family("SD 2.x")
    base = identities(family)
    unet: Any = family.components["unet"]
    unet.fuse_qkv_projections()
    quantise(family)
    with pytest.raises(UnsupportedHostError, match="to_kv is a fused copy"):
        SideBranches(family.components, "fused", base=base).replace(layers(1), base)


# --- Around it --------------------------------------------------------------------------------------------------------


def test_a_second_object_and_a_deep_copy_find_what_is_attached(quantised: Quantised) -> None:
    family, branches, base = quantised
    before = family.draw()
    there = branches.replace(layers(1), base)
    assert SideBranches(family.components, "again", base=None).attached() == there
    twin = TinyFamily("twin", copy.deepcopy(family.components), family.inputs)
    others = SideBranches(twin.components, "twin", base=None)
    assert others.attached() == there
    assert torch.equal(twin.draw(), family.draw())
    others.replace(())
    assert torch.equal(twin.draw(), before)
    assert branches.attached() == there


def test_compiled_code_does_not_miss_the_hook() -> None:
    """Dynamo does not look for new hooks: without being told, it would go on with the code of before."""
    family, branches, base = with_branches(short_family())
    unet: Any = torch.compile(family.components["unet"], backend="eager")
    compiled = TinyFamily("compiled", {"unet": unet}, family.inputs)
    before = compiled.draw()
    branches.replace(layers(1), base)
    after = compiled.draw()
    assert not torch.equal(after, before)
    assert torch.equal(after, TinyFamily("eager", {"unet": family.components["unet"]}, family.inputs).draw())
    branches.replace(())
    assert torch.equal(compiled.draw(), before)
    torch._dynamo.reset()
