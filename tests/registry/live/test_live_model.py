# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""`rasura.attach`: patches on a model that serves, and never half of one in a picture."""

import copy
import functools
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from support.models.tiny import tiny_pipeline
from support.registries.workshop import SPEC, Workshop, workshop

import rasura
from rasura.api.attach import attach
from rasura.patches.algebra.stack import Stack
from rasura.patches.algebra.strength import Strength
from rasura.patches.errors import (
    AlreadyAppliedError,
    BaseMismatchError,
    BusyError,
    DriftError,
    InputError,
    NoRegistryError,
    NotFoundError,
    RasuraError,
    StrengthError,
    UnsupportedHostError,
)
from rasura.patches.hosts.live.forward_gate import gate_of
from rasura.registry.apply import operations
from rasura.registry.apply.receipt import Actor
from rasura.registry.live.live_model import LiveModel
from rasura.registry.stacks import edit

ALICE = Actor("alice")


@pytest.fixture(scope="module")
def loaded() -> Any:
    return tiny_pipeline(SPEC).to(torch.float32)


@pytest.fixture
def pipe(loaded: Any) -> Iterator[Any]:
    """One pipeline for all tests; each must give it back as it was."""
    before = {n: p.clone() for n, p in loaded.unet.named_parameters()}
    yield loaded
    for name, parameter in loaded.unet.named_parameters():
        assert torch.equal(parameter, before[name])
    assert gate_of(loaded.unet) is None


@pytest.fixture
def model(pipe: Any, workshop: Workshop) -> Iterator[LiveModel]:
    with attach(pipe, workshop.folder, label="served", actor="alice") as made:
        yield made
        if made.status().applied:
            made.revert()


def noise(pipe: Any) -> torch.Tensor:
    """What the UNet predicts for one latent and one embedding."""
    unet: Any = pipe.unet
    latent = torch.linspace(-1, 1, 4 * 16 * 16).reshape(1, 4, 16, 16)
    embedding = torch.linspace(-3, 3, 77 * unet.config.cross_attention_dim).reshape(1, 77, -1)
    with torch.no_grad():
        found: torch.Tensor = unet(latent, 10, encoder_hidden_states=embedding)[0]
    return found


def test_attach_is_the_packages_own_name_and_costs_nothing_until_it_is_used() -> None:
    assert rasura.attach is attach
    code = "import rasura, sys; sys.exit(any(m in sys.modules for m in ('torch', 'sqlalchemy')))"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=".").returncode == 0
    with pytest.raises(AttributeError, match="no attribute 'attached'"):
        _ = rasura.attached


def test_a_model_is_patched_and_comes_back_to_the_bit(model: LiveModel, pipe: Any, workshop: Workshop) -> None:
    before = noise(pipe)
    receipt = model.apply(workshop.dog[:12], reason="takedown 118")
    assert list(receipt.applied) == [workshop.dog]
    assert not torch.equal(noise(pipe), before)
    assert model.status(deep=True).drifted == ()
    model.apply([workshop.van_gogh], strength="0.5")
    assert model.status().applied == {workshop.dog: Strength(16), workshop.van_gogh: Strength(8)}
    model.revert(workshop.dog)
    assert model.revert().pristine
    assert torch.equal(noise(pipe), before)
    told = [(e.action, e.outcome, e.reason) for e in workshop.entries() if e.action.startswith("patch.a")]
    assert told[:2] == [("patch.apply", "begun", "takedown 118"), ("patch.apply", "done", "takedown 118")]


def test_the_digest_is_that_of_the_folder(model: LiveModel, workshop: Workshop) -> None:
    """The model of the folder is fp16; a live fp16 model has the same bytes, to the digest."""
    half = tiny_pipeline(SPEC).to(torch.float16)
    with attach(half, workshop.folder, label="half") as other, workshop.open() as registry:
        live = other.apply(workshop.all)
        disk = operations.apply(registry, workshop.host(), workshop.all, ALICE)
        assert live.after == disk.after
        other.revert()


def test_for_the_length_of_a_block(model: LiveModel, pipe: Any, workshop: Workshop) -> None:
    before = noise(pipe)
    with model.applied(workshop.dog) as receipt:
        assert list(receipt.applied) == [workshop.dog]
        with pytest.raises(ZeroDivisionError), model.applied([workshop.photo], strength="-1"):
            _ = len(model.status().applied) / (len(model.status().applied) - 2)
        assert model.status().applied == {workshop.dog: Strength(16)}
    assert torch.equal(noise(pipe), before)
    with pytest.raises(NotFoundError), model.applied("beef" * 16):
        pass
    assert model.status().applied == {}


def test_switching_by_stack_by_patches_and_back(model: LiveModel, workshop: Workshop) -> None:
    with workshop.open() as registry:
        edit.create(registry, "brand", {workshop.dog: Strength(16), workshop.photo: Strength(8)}, ALICE)
    assert model.switch("brand").applied == {workshop.dog: Strength(16), workshop.photo: Strength(8)}
    assert model.switch({workshop.van_gogh: "1.25"}).applied == {workshop.van_gogh: Strength(20)}
    assert not model.switch({workshop.van_gogh: Strength(20)}).changed
    listed = [workshop.dog, f"{workshop.photo[:12]}=0.5"]
    assert model.plan(listed).plan.after == model.plan("brand").plan.after
    assert model.switch(listed).applied == {workshop.dog: Strength(16), workshop.photo: Strength(8)}
    assert model.switch({}).pristine


def test_a_plan_says_what_a_switch_would_do(model: LiveModel, workshop: Workshop) -> None:
    model.apply(workshop.dog)
    size = len(workshop.entries())
    planned = model.plan({workshop.photo: "1", workshop.dog: "0.5"})
    assert planned.plan.before.patches == {workshop.dog: Strength(16)}
    assert planned.plan.after.patches == {workshop.dog: Strength(8), workshop.photo: Strength(16)}
    assert planned.plan.parameters > 0
    assert len(workshop.entries()) == size
    receipt = model.switch({workshop.photo: "1", workshop.dog: "0.5"})
    assert (receipt.before, receipt.after) == (planned.plan.before.state, planned.plan.after.state)


def test_bad_calls_change_nothing(model: LiveModel, pipe: Any, workshop: Workshop) -> None:
    before = noise(pipe)
    calls: list[tuple[type[Exception], Callable[[], object]]] = [
        (InputError, lambda: model.apply([])),
        (NotFoundError, lambda: model.apply("dead")),
        (StrengthError, lambda: model.apply(workshop.dog, strength="0.3")),
        (StrengthError, lambda: model.apply(workshop.dog, strength="0")),
        (NotFoundError, lambda: model.switch("no-such-stack")),
    ]
    for error, call in calls:
        with pytest.raises(error):
            call()
    model.apply(workshop.dog)
    with pytest.raises(AlreadyAppliedError):
        model.apply(workshop.dog, strength="0.5")
    assert not model.apply(workshop.dog).changed
    model.revert()
    assert torch.equal(noise(pipe), before)


def test_the_readmes_example_runs(pipe: Any, workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(rasura.__file__).parent / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    with workshop.open() as registry:
        edit.create(registry, "brand", {workshop.photo: Strength(16)}, ALICE)
    monkeypatch.chdir(workshop.folder)
    names: dict[str, Any] = {"pipe": pipe, "ids": [workshop.dog], "prompt": "a dog"}
    exec(code.replace("num_inference_steps=20", "num_inference_steps=1"), names)
    names["model"].detach()
    assert names["image"].size > (0, 0)
    told = [(e.action, e.outcome, len(e.patches)) for e in workshop.entries() if e.outcome == "done"]
    assert told == [("patch.apply", "done", 1), ("patch.switch", "done", 2), ("patch.revert", "done", 1)]


def test_a_server_follows_its_stack_as_the_page_says(
    pipe: Any, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a takedown does to a stack, a live model has after one call, and keeps where nothing changed."""
    page = (Path(rasura.__file__).parent / "docs" / "takedowns.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    first, then = Stack({workshop.dog: Strength(16)}), Stack({workshop.dog: Strength(16), workshop.photo: Strength(16)})
    with workshop.open() as registry:
        edit.create(registry, "prod", first, ALICE)
    monkeypatch.chdir(workshop.folder)
    names: dict[str, Any] = {"pipe": pipe}
    exec(code, names)
    assert dict(names["model"].status().applied) == dict(first)
    assert names["follow"]("nothing new") is False
    with workshop.open() as registry:
        edit.set_members(registry, "prod", then, ALICE, expected=first)
    assert names["follow"]("takedown 118") is True
    assert dict(names["model"].status().applied) == dict(then)
    names["model"].revert()
    names["model"].detach()


def test_what_is_no_model_and_no_registry(pipe: Any, workshop: Workshop, tmp_path: Any) -> None:
    with pytest.raises(UnsupportedHostError):
        attach(object(), workshop.folder)
    with pytest.raises(NoRegistryError):
        attach(pipe, tmp_path / "nowhere")


def test_from_inside_a_forward_nothing_is_written(model: LiveModel, pipe: Any, workshop: Workshop) -> None:
    """A hook of the model's own that calls back: refused, not a deadlock, and the forward goes on."""
    said: list[BaseException] = []

    def meddle(*_: object) -> None:
        try:
            model.apply(workshop.dog)
        except BusyError as error:
            said.append(error)

    handle = pipe.unet.mid_block.register_forward_hook(meddle)
    noise(pipe)
    handle.remove()
    assert len(said) == 1
    assert model.status().applied == {}
    assert [e.outcome for e in workshop.entries()][-1] in {"failed", "refused"}


def test_pictures_are_of_one_set_while_another_thread_swaps(model: LiveModel, pipe: Any, workshop: Workshop) -> None:
    """Forwards during swaps give one of the two predictions to the bit; two in one request give the same one."""
    plain = noise(pipe)
    model.apply(workshop.all)
    patched = noise(pipe)
    model.revert()
    stop, seen = threading.Event(), []

    def serve() -> None:
        while not stop.is_set():
            with model.request():
                seen.append((noise(pipe), noise(pipe)))

    threads = [threading.Thread(target=serve, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(4):
        model.apply(workshop.all)
        model.revert()
    stop.set()
    for thread in threads:
        thread.join(60)
    assert all(torch.equal(one, two) for one, two in seen)
    assert all(torch.equal(one, plain) or torch.equal(one, patched) for one, _ in seen)


@pytest.mark.parametrize("leaves", [0, 1])
def test_two_handles_share_a_gate_and_either_may_go_first(leaves: int, pipe: Any, workshop: Workshop) -> None:
    handles = [attach(pipe, workshop.folder), attach(pipe, workshop.folder)]
    with handles[1].request(), pytest.raises(BusyError):
        handles[0].apply(workshop.dog)
    handles[leaves].detach()
    stays = handles[1 - leaves]
    before = noise(pipe)
    with stays.request():
        mover = threading.Thread(target=stays.apply, args=(workshop.dog,), daemon=True)
        mover.start()
        mover.join(2)
        assert mover.is_alive()  # it waits, although the other handle is gone
        assert torch.equal(noise(pipe), before)
    mover.join(60)
    stays.revert()
    stays.detach()
    stays.detach()


def test_inside_a_request_one_may_look_but_not_move(model: LiveModel, pipe: Any, workshop: Workshop) -> None:
    """Another thread waits to write, with its turn taken: whoever waited for that turn here would wait for ever."""
    other = attach(pipe, workshop.folder)
    for waiting in (model, other):
        with model.request():
            mover = threading.Thread(target=waiting.apply, args=(workshop.dog,), daemon=True)
            mover.start()
            mover.join(2)
            assert mover.is_alive()
            assert (model.status().applied, model.status().drifted) == (Stack(), ())
            assert model.plan({workshop.photo: "1"}).plan.parameters > 0
            for handle in (model, other):
                with pytest.raises(BusyError):
                    handle.apply(workshop.photo)
                with pytest.raises(BusyError), handle.applied(workshop.photo):
                    pass
        mover.join(60)
        assert model.status().applied == {workshop.dog: Strength(16)}
        model.revert()
    other.detach()


def test_a_handle_on_the_whole_after_handles_on_its_parts(pipe: Any, workshop: Workshop) -> None:
    """Each part has a gate of its own then, and a request of the whole is inside of both."""
    parts = [attach(part, workshop.folder) for part in (pipe.text_encoder, pipe.unet)]
    whole = attach(pipe, workshop.folder)
    assert gate_of(pipe.text_encoder) is not gate_of(pipe.unet)
    with whole.request():
        mover = threading.Thread(target=parts[1].apply, args=(workshop.dog,), daemon=True)
        mover.start()
        mover.join(1)
        assert mover.is_alive()
    mover.join(60)
    parts[1].revert()
    for handle in (*parts, whole):
        handle.detach()


def together(*works: Callable[[], object]) -> list[BaseException]:
    """All of these in threads of their own, to the end; what they raised."""
    raised: list[BaseException] = []

    def run(work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  # whatever it is, the test shall see it
            raised.append(error)

    threads = [threading.Thread(target=run, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads)
    return raised


def test_many_threads_and_several_handles_leave_one_set(pipe: Any, workshop: Workshop) -> None:
    sets: list[dict[str, Strength | str]] = [{}, {workshop.dog: "1"}, {workshop.photo: "1", workshop.van_gogh: "0.5"}]
    handles = [attach(pipe, workshop.folder, actor=f"actor {number}") for number in range(3)]
    pictures = []
    for wanted in sets:
        handles[0].switch(wanted)
        pictures.append(noise(pipe))

    def move(number: int) -> None:
        for step in range(4):
            handles[number].switch(sets[(number + step) % 3])

    def draw() -> None:
        for number in range(12):
            with handles[number % 3].request():
                one, two = noise(pipe), noise(pipe)
            assert torch.equal(one, two)
            assert any(torch.equal(one, picture) for picture in pictures)

    assert together(*(functools.partial(move, number) for number in range(3)), draw, draw) == []
    assert (handles[0].status(deep=True).drifted, handles[0].status().interrupted) == ((), None)
    for handle in handles:
        handle.switch({})
        handle.detach()


# Changes of the pipeline under a handle.


def test_a_module_that_was_replaced_is_not_written(workshop: Workshop) -> None:
    """What is written to the old one lasts, its digest is right, and the pipeline draws with another."""
    pipe = tiny_pipeline(SPEC).to(torch.float32)
    with attach(pipe, workshop.folder) as model:
        old, before = pipe.unet, noise(pipe)
        pipe.unet = copy.deepcopy(old)
        old.mid_block.attentions[0].transformer_blocks[0].attn2.to_k.weight.data.zero_()  # a naive write
        assert torch.equal(noise(pipe), before)
        for call in (lambda: model.apply(workshop.dog), lambda: model.status(deep=True)):
            with pytest.raises(UnsupportedHostError, match="expected the unet that was attached") as caught:
                call()
            assert "attach" in caught.value.hint
        pipe.unet = None
        with pytest.raises(UnsupportedHostError, match="expected the unet that was attached"):
            model.apply(workshop.dog)


def test_a_module_that_was_compiled_after_attaching_is_the_same(workshop: Workshop) -> None:
    pipe = tiny_pipeline(SPEC).to(torch.float32)
    with attach(pipe, workshop.folder) as model:
        before = noise(pipe)
        pipe.unet = torch.compile(pipe.unet, backend="eager")
        assert torch.equal(noise(pipe), before)
        with model.applied(workshop.dog):
            assert not torch.equal(noise(pipe), before)
        assert torch.equal(noise(pipe), before)


def test_weights_loaded_over_a_patch_do_not_get_the_old_originals(workshop: Workshop) -> None:
    """Going back to what was kept would be a mixture of two models."""
    pipe = tiny_pipeline(SPEC).to(torch.float32)
    with attach(pipe, workshop.folder) as model:
        model.apply(workshop.dog)
        other = {key: tensor + 1 for key, tensor in pipe.unet.state_dict().items()}
        pipe.unet.load_state_dict(other)
        assert vars(pipe.unet)["_rasura_originals"]  # still those of the first
        motions: list[Callable[[], object]] = [
            model.revert,
            lambda: model.apply(workshop.photo),
            lambda: model.switch({}),
        ]
        for call in motions:
            with pytest.raises(DriftError):
                call()
        assert model.status().drifted != ()
        assert all(torch.equal(tensor, other[key]) for key, tensor in pipe.unet.state_dict().items())


def test_a_lone_unet_is_a_model(pipe: Any, workshop: Workshop) -> None:
    with attach(pipe.unet, workshop.folder) as model, model.applied(workshop.dog):
        assert model.status().touched > 0


def test_compiled_models_are_swapped_without_compiling_again(workshop: Workshop) -> None:
    pipe = tiny_pipeline(SPEC).to(torch.float32)
    eager = noise(pipe)
    pipe.unet = torch.compile(pipe.unet, backend="eager")
    with attach(pipe, workshop.folder) as model:
        assert torch.equal(noise(pipe), eager)
        with torch._dynamo.config.patch(error_on_recompile=True):
            with model.applied(workshop.all):
                assert not torch.equal(noise(pipe), eager)
            assert torch.equal(noise(pipe), eager)


@pytest.mark.parametrize("where", ["cpu", "pinned", "device", "folder"])
def test_wherever_the_originals_are_the_way_back_is_exact(where: str, workshop: Workshop) -> None:
    pipe = tiny_pipeline(SPEC)  # fp16, as the folder is
    before = {n: p.clone() for n, p in pipe.unet.named_parameters()}
    keep_on: Any = workshop.model if where == "folder" else where
    with attach(pipe, workshop.folder, keep_on=keep_on) as model:
        model.apply(workshop.dog)
        kept = vars(pipe.unet)["_rasura_originals"]
        assert all(isinstance(original, torch.Tensor) == (where != "folder") for original in kept.values())
        model.apply([workshop.van_gogh])
        assert model.status(deep=True).drifted == ()
        model.revert()
    assert all(torch.equal(p, before[n]) for n, p in pipe.unet.named_parameters())
    assert "_rasura_originals" not in vars(pipe.unet)


def test_a_folder_with_other_bits_is_no_way_back(workshop: Workshop) -> None:
    """A model that was cast has other bits than its file: going back would not be exact, so nothing is applied."""
    pipe = tiny_pipeline(SPEC).to(torch.float32)
    before = {n: p.clone() for n, p in pipe.unet.named_parameters()}
    with attach(pipe, workshop.folder, keep_on=workshop.model) as model:
        with pytest.raises(BaseMismatchError, match="to go back to"):
            model.apply(workshop.dog)
        assert model.status().applied == {}
    assert all(torch.equal(p, before[n]) for n, p in pipe.unet.named_parameters())


def test_a_folder_that_changed_meanwhile_is_not_believed(workshop: Workshop) -> None:
    pipe = tiny_pipeline(SPEC)
    with attach(pipe, workshop.folder, keep_on=workshop.model) as model:
        model.apply(workshop.dog)
        file = workshop.model / "unet" / "diffusion_pytorch_model.safetensors"
        good = file.read_bytes()
        name = min(vars(pipe.unet)["_rasura_originals"])
        tensors = load(good)
        tensors[name.removeprefix("unet.")] *= 2
        file.write_bytes(save(tensors, {"format": "pt"}))
        patched = {n: p.clone() for n, p in pipe.unet.named_parameters()}
        with pytest.raises(RasuraError, match=r"not the original any more|changed"):
            model.revert()
        assert all(torch.equal(p, patched[n]) for n, p in pipe.unet.named_parameters())
        file.write_bytes(good)
        model.revert()
