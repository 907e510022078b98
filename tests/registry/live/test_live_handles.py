# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""Handles of live models: what people write, two of them, copies of the model, and a model that was changed meanwhile."""

import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from support.models.tiny import tiny_pipeline
from support.registries.workshop import SPEC, Workshop, workshop

from rasura.api.attach import attach
from rasura.patches.algebra.strength import Strength
from rasura.patches.errors import (
    BusyError,
    CheckRefusedError,
    DriftError,
    InputError,
    RasuraError,
    StrengthError,
    UnsupportedHostError,
)
from rasura.patches.hosts.live.forward_gate import gate_of
from rasura.registry.live.live_model import LiveModel

VALUES = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_v.weight"


@pytest.fixture
def pipe() -> Any:
    return tiny_pipeline(SPEC)


@pytest.fixture
def model(pipe: Any, workshop: Workshop) -> Iterator[LiveModel]:
    with attach(pipe, workshop.folder, label="served", actor="alice") as made:
        yield made


def weights(pipe: Any) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in pipe.unet.named_parameters()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[n], other[n]) for n in one)


def test_a_handle_says_what_it_is(model: LiveModel, workshop: Workshop) -> None:
    assert repr(model) == "<rasura.LiveModel served: CLIPTextModel, UNet2DConditionModel; 0 parameters patched>"
    model.apply(workshop.dog)
    assert f"{model.status().touched} parameters patched" in repr(model)


def test_numbers_are_strengths_where_they_are_exact(model: LiveModel, workshop: Workshop) -> None:
    assert model.apply(workshop.dog, strength=0.5).applied == {workshop.dog: Strength(8)}
    assert model.switch({workshop.dog: 1, workshop.photo: -0.0625}).applied[workshop.photo] == Strength(-1)
    for wrong in (0.3, float("nan"), 5, 1e-9):
        with pytest.raises(StrengthError):
            model.apply(workshop.van_gogh, strength=wrong)


def test_the_path_of_a_folder_may_be_a_text(pipe: Any, workshop: Workshop) -> None:
    """Taken for nothing, it would silently keep a copy on the CPU."""
    with attach(pipe, workshop.folder, keep_on=str(workshop.model)) as model:
        model.apply(workshop.dog)
        assert not any(isinstance(kept, torch.Tensor) for kept in vars(pipe.unet)["_rasura_originals"].values())
        model.revert()
    for wrong in ("gpu", "disk", "nowhere/model"):
        with pytest.raises(InputError, match="which is no folder"):
            attach(pipe, workshop.folder, keep_on=wrong)
    assert gate_of(pipe.unet) is None


def test_hints_are_for_whoever_holds_the_handle(model: LiveModel, workshop: Workshop) -> None:
    with pytest.raises(RasuraError) as caught:
        model.revert()
    assert caught.value.hint == "model.status()"
    with pytest.raises(StrengthError) as caught:
        model.apply(workshop.dog, strength=0)
    assert caught.value.hint == "model.revert(ids=['ID'])"
    with pytest.raises(InputError) as caught:
        model.apply({workshop.dog: 1})
    assert caught.value.hint == "model.switch(goal='STACK')"
    with pytest.raises(RasuraError) as caught:
        model.plan({"0" * 12: 1})
    assert caught.value.hint == "registry.patches()"
    with pytest.raises(CheckRefusedError) as caught, model.applied([workshop.dog, workshop.rival]):
        pytest.fail("they may not be applied together")
    assert caught.value.hint.startswith("registry.")


def test_the_gate_stays_for_the_handle_that_stays(pipe: Any, workshop: Workshop) -> None:
    first = attach(pipe, workshop.folder)
    with attach(pipe, workshop.folder) as second:
        first.detach()
        with second.request(), pytest.raises(BusyError):
            second.apply(workshop.dog)
    assert gate_of(pipe.unet) is None


def test_a_request_holds_every_gate_of_the_model(pipe: Any, workshop: Workshop) -> None:
    """Handles of two parts have a gate each; a handle of the whole must not leave one open."""
    parts = [attach(part, workshop.folder) for part in (pipe.unet, pipe.text_encoder)]
    assert gate_of(pipe.unet) is not gate_of(pipe.text_encoder)
    with attach(pipe, workshop.folder) as whole, whole.request(), pytest.raises(BusyError):
        parts[0].apply(workshop.dog)
    for part in parts:
        part.detach()
    assert gate_of(pipe.unet) is gate_of(pipe.text_encoder) is None


def test_a_detached_handle_moves_nothing(pipe: Any, workshop: Workshop) -> None:
    """Without a gate it would write in the middle of a forward."""
    model = attach(pipe, workshop.folder)
    with model.applied(workshop.dog), pytest.raises(BusyError, match="has not ended"):
        model.detach()
    model.detach()
    moves: list[Callable[[], object]] = [
        lambda: model.apply(workshop.dog),
        model.revert,
        lambda: model.switch({}),
    ]
    for move in moves:
        with pytest.raises(InputError, match="detached"):
            move()
    assert model.status().applied == {}


def pickled(unet: Any) -> Any:
    return pickle.loads(pickle.dumps(unet))


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
def test_a_copy_is_another_model(copied: Callable[[Any], Any], pipe: Any, workshop: Workshop) -> None:
    """With one identity, a motion of the copy took the model's way back away."""
    before = weights(pipe)
    with attach(pipe, workshop.folder) as model:
        model.apply(workshop.dog)
    twin = copied(pipe.unet)
    with attach(twin, workshop.folder) as other:
        with pytest.raises(DriftError, match="copy of a patched model") as caught:
            other.apply(workshop.photo)
        assert caught.value.hint == "attach the model that was copied, or load this one anew"
        assert other.status().drifted
    with attach(pipe, workshop.folder) as model:
        assert model.status(deep=True).applied == {workshop.dog: Strength()}
        model.revert()
    assert same(weights(pipe), before)


def test_a_part_that_was_replaced_is_told(model: LiveModel, pipe: Any, workshop: Workshop) -> None:
    """Else the handle would move a UNet that nobody draws with, and say that all is well."""
    old, pipe.unet = pipe.unet, tiny_pipeline(SPEC).unet
    for ask in (lambda: model.apply(workshop.dog), lambda: model.status(deep=True)):
        with pytest.raises(UnsupportedHostError, match="expected the unet that was attached"):
            ask()
    pipe.unet = old
    model.apply(workshop.dog)
    pipe.unet = torch.compile(old, backend="eager")  # the same weights
    pipe.text_encoder = None  # to save memory
    assert model.status().applied == {workshop.dog: Strength()}
    model.revert()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_that_was_cast_after_applying(
    dtype: torch.dtype, model: LiveModel, pipe: Any, workshop: Workshop
) -> None:
    before = weights(pipe)
    model.apply(workshop.dog)
    pipe.to(dtype)
    with pytest.raises(DriftError):
        model.revert()
    with pytest.raises(UnsupportedHostError, match="the model was cast since") as caught:
        model.status(deep=True)
    assert caught.value.hint.startswith("model.to(torch.float16)")
    pipe.to(torch.float16)
    if dtype == torch.bfloat16:  # it rounded
        with pytest.raises(DriftError):
            model.revert()
    model.revert(force=True)
    assert all(torch.equal(p, before[n]) for n, p in weights(pipe).items() if n.endswith("attn2.to_v.weight"))


def test_force_puts_the_originals_back(model: LiveModel, pipe: Any, workshop: Workshop) -> None:
    before = weights(pipe)
    model.apply(workshop.dog)
    with torch.no_grad():
        pipe.unet.get_parameter(VALUES).mul_(2)
    with pytest.raises(DriftError) as caught:
        model.revert()
    assert caught.value.hint == "model.status(deep=True)"
    assert model.revert(force=True).pristine
    assert same(weights(pipe), before)
