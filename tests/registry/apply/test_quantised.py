# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""Quantised layers through `rasura.attach`: what is erased runs beside them, checked, logged and all or nothing."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.full import some
from support.models.quantising import KINDS, noise, plain, quantised, read_by_text
from support.models.tiny import TinySpec, tiny_model
from support.registries.workshop import ALICE, SPEC, Mortal, Workshop, silent, workshop
from torch import nn
from transformers import BitsAndBytesConfig, CLIPTextModel

from rasura.api.attach import attach
from rasura.patches.algebra.compose import layers_of, sum_increments
from rasura.patches.algebra.factors import BranchFactors
from rasura.patches.algebra.stack import Stack
from rasura.patches.algebra.strength import Strength
from rasura.patches.errors import (
    BaseMismatchError,
    BusyError,
    DriftError,
    NotFiniteError,
    NotFoundError,
    RasuraError,
    UnsupportedHostError,
)
from rasura.patches.hosts.live.torch_host import TorchHost
from rasura.patches.hosts.quantised.branch_factors import BranchHook
from rasura.patches.hosts.quantised.quantised_host import QuantisedHost
from rasura.patches.hosts.quantised.quantised_layers import digest_codes
from rasura.patches.types import ParamName
from rasura.registry._storage.records.records import Draft
from rasura.registry.apply import operations
from rasura.registry.apply.hosts import side_branches
from rasura.registry.erase.base_models import add_base
from rasura.registry.live.live_model import LiveModel
from rasura.registry.log.verify import verify_log
from rasura.registry.trust.verified_patch import load_verified

SIXTEENTH = Strength(1)


@pytest.fixture
def eight(workshop: Workshop) -> Any:
    return quantised("bitsandbytes-8", workshop.model)


@pytest.fixture
def model(eight: Any, workshop: Workshop) -> Iterator[LiveModel]:
    with attach(eight, workshop.folder, label="served", actor="alice", quantised_from="tiny") as made:
        yield made


def codes(pipe: Any) -> dict[str, str]:
    return {name: digest_codes(ParamName(name), layer) for name, layer in read_by_text(pipe.unet).items()}


def hooks(pipe: Any) -> list[BranchHook]:
    found = (hook for module in pipe.unet.modules() for hook in module._forward_hooks.values())
    return [hook for hook in found if isinstance(hook, BranchHook)]


def first(pipe: Any) -> tuple[ParamName, Any]:
    """One of the layers that every patch touches."""
    name, layer = min(read_by_text(pipe.unet).items())
    return ParamName(f"unet.{name}.weight"), layer


# --- Real libraries ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_near_the_merged_model_and_back_to_the_bit(kind: str, workshop: Workshop) -> None:
    """Patched, it is at most three times as far from the merged model as unpatched from the plain one."""
    pristine = plain()
    untouched = noise(pristine)
    with attach(pristine, workshop.folder) as merged:
        merged.apply(workshop.all)
        wanted = noise(pristine)
    pipe = quantised(kind, workshop.model)
    before, present = noise(pipe), codes(pipe)
    with attach(pipe, workshop.folder, quantised_from="tiny") as model:
        planned = model.plan(dict.fromkeys(workshop.all, "1"))
        receipt = model.apply(workshop.all)
        after = noise(pipe)
        assert (receipt.parameters, receipt.beside, receipt.after) == (8, 8, planned.plan.after.state)
        shallow, deep = model.status(), model.status(deep=True)
        assert shallow.drifted == deep.drifted == ()
        assert set(shallow.beside) == set(planned.beside) == {f"unet.{name}.weight" for name in present}
        assert float((after - wanted).norm()) <= 3 * float((before - untouched).norm())
        assert float((after - before).norm()) > 0.5 * float((wanted - untouched).norm())
        assert codes(pipe) == present
        assert model.revert().pristine
    assert torch.equal(noise(pipe), before)
    assert codes(pipe) == present
    assert hooks(pipe) == []
    assert not any(name.startswith("_rasura") for name in vars(pipe.unet))
    with workshop.open() as registry:
        verify_log(registry)


@pytest.mark.parametrize("kind", some(["bitsandbytes-8", "torchao"], list(KINDS)))
def test_order_and_history_do_not_show(kind: str, workshop: Workshop) -> None:
    pipe = quantised(kind, workshop.model)
    before = noise(pipe)
    with attach(pipe, workshop.folder, quantised_from="tiny") as model:
        once = model.apply(workshop.all)
        seen = noise(pipe)
        model.switch({workshop.photo: "-0.5"})
        model.apply(workshop.van_gogh)
        model.revert(workshop.photo)
        model.apply([workshop.photo, workshop.dog])
        assert torch.equal(noise(pipe), seen)
        with workshop.open() as registry:
            (record,) = registry.hosts()
        assert record.state == once.after
        model.revert()
    assert torch.equal(noise(pipe), before)


@pytest.mark.parametrize("kind", some(["bitsandbytes-8", "bitsandbytes-4"], list(KINDS)))
def test_a_first_forward_after_the_motion_is_no_drift(kind: str, workshop: Workshop) -> None:
    """Scales are moved and codes repacked then, by bitsandbytes."""
    pipe = quantised(kind, workshop.model)
    with attach(pipe, workshop.folder, quantised_from="tiny") as model:
        model.apply(workshop.dog)
        noise(pipe)
        assert model.status().drifted == model.status(deep=True).drifted == ()
        model.revert()


@pytest.mark.parametrize("kind", ["bitsandbytes-4", "float8"])
def test_merging_into_the_codes_would_lose_the_increment(kind: str, workshop: Workshop) -> None:
    """Without an error: more than half of what was to be added is rounded away, and taking it back leaves other codes."""
    pipe = quantised(kind, workshop.model)
    with workshop.open() as registry:
        increments = load_verified(registry, workshop.dog).tensors.increments
    stack = {layer.name: layer.terms for layer in layers_of([(increments, SIXTEENTH)])}
    name, layer = first(pipe)
    values, requantised = _codec(kind, layer)
    added = sum_increments(stack[name]).float()
    merged = requantised(values + added)
    assert float((merged - values - added).norm()) > 0.5 * float(added.norm())
    assert not torch.equal(requantised(merged - added), values)
    given = torch.randn(5, layer.in_features, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), attach(pipe, workshop.folder, quantised_from="tiny") as model:
        before = layer(given)
        with model.applied(workshop.dog, strength="0.0625"):
            error = layer(given) - before - given @ added.T
        assert float(error.norm()) < 1e-3 * float((given @ added.T).norm())
        assert torch.equal(layer(given), before)


def _codec(kind: str, layer: Any) -> tuple[torch.Tensor, Callable[[torch.Tensor], torch.Tensor]]:
    """What the codes stand for, and what becomes of other values in the same code."""
    if kind == "float8":
        return layer.weight.detach().float(), lambda values: values.to(torch.float8_e4m3fn).float()
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    def through(values: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = dequantize_4bit(*quantize_4bit(values, quant_type="nf4"))
        return found

    return dequantize_4bit(layer.weight.data, layer.weight.quant_state).float(), through


def test_an_eight_bit_text_encoder_beside_a_plain_unet(workshop: Workshop) -> None:
    """Prompts are read by what was quantised from the base, as somebody says; the UNet is merged."""
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")

    pipe = plain()
    pipe.text_encoder = CLIPTextModel.from_pretrained(
        workshop.model / "text_encoder",
        quantization_config=BitsAndBytesConfig(load_in_8bit=True),  # type: ignore[no-untyped-call]
        dtype=torch.float16,
        device_map="cpu",
    )
    with attach(pipe, workshop.folder) as mute, pytest.raises(UnsupportedHostError, match="is quantised"):
        mute.apply(workshop.dog)
    with attach(pipe, workshop.folder, quantised_from="tiny") as model:
        receipt = model.apply(workshop.dog)
        assert (receipt.parameters, receipt.beside) == (8, 0)
        model.revert()


# --- Both ways at once ------------------------------------------------------------------------------------------------


def test_plain_layers_of_the_same_model_are_merged_to_the_bit(workshop: Workshop) -> None:
    pristine, pipe = plain(), quantised("bitsandbytes-8", workshop.model, which="to_k")
    before = noise(pipe)
    with attach(pristine, workshop.folder) as merged, attach(pipe, workshop.folder, quantised_from="tiny") as model:
        merged.apply(workshop.all)
        receipt = model.apply(workshop.all)
        assert (receipt.parameters, receipt.beside) == (8, 4)
        assert set(model.status().beside) == {f"unet.{n}.weight" for n in read_by_text(pipe.unet, "to_k")}
        for name, layer in read_by_text(pipe.unet, "to_v").items():
            assert torch.equal(layer.weight, pristine.unet.get_submodule(name).weight)
        assert model.status(deep=True).drifted == ()
        model.revert()
    assert torch.equal(noise(pipe), before)
    details = [dict(entry.details) for entry in workshop.entries() if entry.outcome == "done"][-2]
    assert (details["parameters"], details["beside"]) == (8, 4)
    with workshop.open() as registry:
        assert details["quantised_from"] == registry.base("tiny").digest


def test_when_the_merging_fails_nothing_runs_beside(workshop: Workshop) -> None:
    """The plain layers' way back is not there; by then the branches are attached."""
    pipe = quantised("bitsandbytes-8", workshop.model, which="to_k")
    before, there = noise(pipe), {n: p.clone() for n, p in pipe.unet.named_parameters()}
    with attach(pipe, workshop.folder, keep_on=workshop.model, quantised_from="tiny") as model:
        with pytest.raises(BaseMismatchError, match="to go back to"):
            model.apply(workshop.dog)
        assert (model.status().applied, model.status().beside) == (Stack(), ())
    assert hooks(pipe) == []
    assert torch.equal(noise(pipe), before)
    assert all(torch.equal(p, there[n]) for n, p in pipe.unet.named_parameters())
    assert [entry.outcome for entry in workshop.entries()[-2:]] == ["begun", "failed"]


def test_a_failed_exchange_leaves_the_old_branches_at_their_place(
    workshop: Workshop, model: LiveModel, eight: Any
) -> None:
    model.apply(workshop.dog)
    name, layer = first(eight)
    layer.register_forward_hook(lambda _, __, output: output * 2)  # the order of hooks shows
    seen, order = noise(eight), list(layer._forward_hooks)
    host = model.host
    assert isinstance(host, QuantisedHost)
    other: Any = BranchFactors(torch.ones(1, layer.in_features), torch.ones(layer.out_features, 1))
    state = host.digests([name])
    norm = ParamName("unet.conv_norm_out.weight")
    spoilt = {norm: torch.full_like(host.read([norm])[norm], torch.nan)}
    with pytest.raises(NotFiniteError), host.exchanging({name: other}):
        host.write(spoilt)
    with pytest.raises(ZeroDivisionError), host.exchanging({name: None}):
        _ = 1 / 0
    assert (host.digests([name]), list(layer._forward_hooks)) == (state, order)
    assert torch.equal(noise(eight), seen)
    model.revert()


def test_an_interrupted_motion_is_settled(workshop: Workshop, eight: Any) -> None:
    before = noise(eight)
    with workshop.open() as registry:
        base = side_branches.find_quantised_base(registry, "tiny")
    host = QuantisedHost.told(eight, "served", base=base)
    with Mortal.open(workshop.folder) as registry, pytest.raises(KeyboardInterrupt):
        operations.apply(registry, host, [workshop.dog], ALICE)
    with attach(eight, workshop.folder, label="served", quantised_from="tiny") as model:
        assert model.status().interrupted is not None
        assert model.status().applied == {workshop.dog: Strength(16)}
        model.revert()
    assert torch.equal(noise(eight), before)


# --- The word of which base it was ------------------------------------------------------------------------------------


def test_without_a_word_of_the_base_patches_are_refused_and_taken_out(workshop: Workshop, eight: Any) -> None:
    before = noise(eight)
    with attach(eight, workshop.folder) as mute:
        for call in (lambda: mute.apply(workshop.dog), lambda: mute.plan({workshop.dog: "1"})):
            with pytest.raises(UnsupportedHostError, match="expected to be told which base was quantised") as caught:
                call()
            assert "quantised_from=" in caught.value.hint
        assert mute.status().applied == {}
    assert torch.equal(noise(eight), before)
    with attach(eight, workshop.folder, quantised_from="tiny") as model:
        model.apply(workshop.all)
    with attach(eight, workshop.folder) as mute:
        assert set(mute.status().applied) == set(workshop.all)
        assert len(mute.status(deep=True).beside) == 8
        assert mute.revert().pristine
    assert torch.equal(noise(eight), before)


def test_a_base_that_is_not_here(workshop: Workshop, eight: Any) -> None:
    with pytest.raises(NotFoundError, match="quantised_from") as caught:
        attach(eight, workshop.folder, quantised_from="no-such-base")
    assert "quantised_from=" in caught.value.hint
    assert "registry.bases()" in caught.value.hint
    assert hooks(eight) == []


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (replace(SPEC, seed=5), "made for other weights"),
        (TinySpec(dtype="float16", size="small"), "another base was quantised"),
    ],
)
def test_another_base(spec: TinySpec, message: str, workshop: Workshop, eight: Any, tmp_path: Path) -> None:
    before = noise(eight)
    with workshop.open() as registry:
        add_base(
            registry, tiny_model(tmp_path / "other", spec), "other", Draft("alice", "", "base.add", "success"), silent
        )
    with attach(eight, workshop.folder, quantised_from="other") as model:
        with pytest.raises(BaseMismatchError, match=message) as caught:
            model.apply(workshop.dog)
        assert "quantised_from=" in caught.value.hint
        assert model.status().applied == {}
    assert workshop.entries()[-1].error == "base_mismatch"
    assert hooks(eight) == []
    assert torch.equal(noise(eight), before)


def test_a_plain_model_has_a_plain_host(workshop: Workshop) -> None:
    with attach(plain(), workshop.folder, quantised_from="tiny") as model:
        assert type(model.host) is TorchHost
        receipt = model.apply(workshop.dog)
        assert (receipt.beside, model.status().beside) == (0, ())
        model.revert()
    assert all("beside" not in entry.details for entry in workshop.entries())


# --- Changed by others ------------------------------------------------------------------------------------------------


def _remove_hook(pipe: Any) -> None:
    hooks(pipe)[0].remove()


def _change_factor(pipe: Any) -> None:
    factors = hooks(pipe)[0].factors
    assert factors is not None
    factors.B[0, 0] += 1


def _change_code(pipe: Any) -> None:
    noise(pipe)  # which moves the codes into the layer's state
    first(pipe)[1].weight.data[0, 0] ^= 1


def _change_scale(pipe: Any) -> None:
    noise(pipe)
    first(pipe)[1].state.SCB[0] *= 1.5


@pytest.mark.parametrize("meddle", [_remove_hook, _change_factor, _change_code, _change_scale])
def test_drift_is_seen(meddle: Callable[[Any], None], workshop: Workshop, model: LiveModel, eight: Any) -> None:
    model.apply(workshop.dog)
    assert model.status().drifted == model.status(deep=True).drifted == ()
    meddle(eight)
    assert len(model.status().drifted) == 8
    assert first(eight)[0] in model.status(deep=True).drifted
    with pytest.raises(DriftError):
        model.apply(workshop.photo)


def test_branches_of_strangers_are_drift(workshop: Workshop, model: LiveModel, eight: Any) -> None:
    name, layer = first(eight)
    host = model.host
    assert isinstance(host, QuantisedHost)
    with host.exchanging({name: BranchFactors(torch.ones(1, layer.in_features), torch.ones(layer.out_features, 1))}):
        pass
    assert model.status().drifted == (name,)
    with pytest.raises(DriftError, match="did not apply"):
        model.apply(workshop.dog)


# --- Between forwards -------------------------------------------------------------------------------------------------


def test_from_inside_a_forward_nothing_is_attached(workshop: Workshop, model: LiveModel, eight: Any) -> None:
    said: list[BaseException] = []

    def meddle(*_: object) -> None:
        try:
            model.apply(workshop.dog)
        except BusyError as error:
            said.append(error)

    handle = eight.unet.mid_block.register_forward_hook(meddle)
    noise(eight)
    handle.remove()
    assert len(said) == 1
    assert hooks(eight) == []
    assert model.status().applied == {}


def test_a_layer_that_is_just_being_cast_is_still_quantised(workshop: Workshop) -> None:
    """Layerwise casting widens a layer for the length of its forward; whoever looks then sees the same thing."""
    pipe = quantised("float8", workshop.model)
    name, layer = first(pipe)
    seen = []
    with attach(pipe, workshop.folder, quantised_from="tiny") as model:
        model.apply(workshop.dog)
        forward = layer.forward

        def look(*args: Any, **kwargs: Any) -> Any:
            layer.to(torch.float32)
            seen.append(model.status())
            return forward(*args, **kwargs)

        layer.forward = look
        noise(pipe)
        layer.forward = forward
        assert [(found.drifted, name in found.beside) for found in seen] == [((), True)]
        model.revert()


def test_compiled_models_see_the_branches_come_and_go(workshop: Workshop) -> None:
    """Dynamo does not look for new hooks, so its code is thrown away."""
    pipe = quantised("torchao", workshop.model)
    eager = noise(pipe)
    pipe.unet = torch.compile(pipe.unet, backend="eager")
    try:
        with attach(pipe, workshop.folder, quantised_from="tiny") as model:
            assert torch.equal(noise(pipe), eager)
            with model.applied(workshop.all):
                patched = noise(pipe)
                assert not torch.equal(patched, eager)
                assert torch.equal(patched, noise(_bare(pipe)))
            assert torch.equal(noise(pipe), eager)
    finally:
        torch._dynamo.reset()


def _bare(pipe: Any) -> Any:
    bare = copy.copy(pipe)
    bare.unet = pipe.unet._orig_mod
    return bare
