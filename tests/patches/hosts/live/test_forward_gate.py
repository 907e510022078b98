"""A gate around a model: never a write in the middle of a forward, whatever is compiled, copied or raised."""

import copy
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from rasura.patches.errors import BusyError
from rasura.patches.hosts.live.forward_gate import (
    Gate,
    computing_gate,
    gate_of,
    gates_of,
    put_gate,
    reading,
    turn,
    writing,
)

TICK = 0.02


class Slow(nn.Module):
    """A forward that reads its weight twice, with time in between: a write in the middle would show."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, seconds: float) -> tuple[float, float]:
        first = float(self.weight.detach())
        time.sleep(seconds)
        return first, float(self.weight.detach())


class Affine(nn.Module):
    """Of our own: the compiler skips torch's layers where they stand alone."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight


def start(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_a_write_waits_for_the_forward_and_the_next_forward_for_the_write() -> None:
    model = Slow()
    seen: list[tuple[float, float]] = []
    away = put_gate([model], Gate())

    def serve() -> None:
        seen.extend(model(TICK) for _ in range(20))

    readers = [start(serve) for _ in range(2)]
    for value in range(1, 15):
        with writing([model]), torch.no_grad():
            model.weight.fill_(value)
            time.sleep(TICK / 10)
            model.weight.fill_(-value)
        time.sleep(TICK)
    for reader in readers:
        reader.join(30)
    assert len(seen) == 40
    assert all(first == second <= 0 for first, second in seen)
    assert len({first for first, _ in seen}) > 2
    away()
    assert gate_of(model) is None
    assert not model._forward_hooks
    assert not model._forward_pre_hooks


def test_without_the_gate_a_write_in_the_middle_is_possible() -> None:
    model = Slow()
    seen: list[tuple[float, float]] = []
    reader = start(lambda: seen.append(model(10 * TICK)))
    time.sleep(2 * TICK)
    with writing([model]), torch.no_grad():
        model.weight.fill_(1)
    reader.join(10)
    assert seen == [(0.0, 1.0)]


def test_a_waiting_writer_goes_before_new_readers_and_those_inside_may_enter_again() -> None:
    gate, order = Gate(), []
    inside, go = threading.Event(), threading.Event()

    def request() -> None:
        with gate.reading():
            inside.set()
            go.wait(10)
            with gate.reading():  # the next step of a request that has begun
                order.append("step")

    def write() -> None:
        with gate.writing():
            order.append("write")

    def late() -> None:
        with gate.reading():
            order.append("late")

    first = start(request)
    inside.wait(10)
    writer = start(write)
    time.sleep(2 * TICK)
    newcomer = start(late)
    time.sleep(2 * TICK)
    assert order == []
    go.set()
    for thread in (first, writer, newcomer):
        thread.join(10)
    assert order == ["step", "write", "late"]


def test_a_gate_stays_until_its_last_user_has_gone() -> None:
    model, gate = Slow(), Gate()
    first, second = put_gate([model], gate), put_gate([model], Gate())
    assert gate_of(model) is gate  # the second asked for another one and shares the first
    first()
    first()
    assert gate_of(model) is gate
    seen: list[tuple[float, float]] = []
    reader = start(lambda: seen.append(model(10 * TICK)))
    time.sleep(2 * TICK)
    with writing([model]), torch.no_grad():
        model.weight.fill_(1)
    reader.join(10)
    assert seen == [(0.0, 0.0)]
    second()
    assert gate_of(model) is None
    assert not model._forward_hooks


def test_a_writer_of_two_models_does_not_wait_for_a_reader_who_waits_for_him() -> None:
    """Taking one gate after the other, either order would do that: the reader has the first and wants the second."""
    one, two = Slow(), Slow()
    put_gate([one], Gate())
    put_gate([two], Gate())
    for models in ([one, two], [two, one]):
        wrote = threading.Event()

        def write(models: list[Slow] = models, wrote: threading.Event = wrote) -> None:
            with writing(models):
                wrote.set()

        with reading(gates_of([one])):
            writer = start(write)
            time.sleep(2 * TICK)
            assert two(0) == (0.0, 0.0)  # goes before the writer, who waits for `one`
            assert not wrote.is_set()
        assert wrote.wait(10)
        writer.join(10)


def test_who_is_inside_a_gate_never_waits_for_a_lock_whose_holder_may_wait_for_him() -> None:
    model, lock, held = Slow(), threading.RLock(), threading.Event()
    put_gate([model], Gate())

    def move() -> None:
        with turn(lock):
            held.set()
            with writing([model]):
                pass

    with reading(gates_of([model])):
        assert computing_gate(gates_of([model]))
        with turn(lock), turn(lock):  # nobody has it
            pass
        mover = start(move)
        held.wait(10)
        with pytest.raises(BusyError, match="may be waiting for this one"), turn(lock):
            pass
    mover.join(10)
    assert not mover.is_alive()
    assert not computing_gate(gates_of([model]))
    with turn(lock):
        pass


def test_writing_from_inside_a_forward_is_refused_and_not_a_deadlock() -> None:
    gate = Gate()
    with gate.reading(), pytest.raises(BusyError, match="in this very thread"), gate.writing():
        pass
    with gate.writing(), gate.writing(), gate.reading():  # a writer may compute with what it wrote
        pass
    with gate.writing():
        pass


def test_a_writer_may_give_up_and_leaves_no_trace() -> None:
    gate, inside, go = Gate(), threading.Event(), threading.Event()

    def hold() -> None:
        with gate.reading():
            inside.set()
            go.wait(10)

    holder = start(hold)
    inside.wait(10)
    with pytest.raises(BusyError, match="nothing was changed"), gate.writing(seconds=TICK):
        pass
    passing = start(lambda: [gate.enter(), gate.leave()])  # type: ignore[func-returns-value]
    passing.join(10)
    assert not passing.is_alive()
    go.set()
    holder.join(10)
    with gate.writing(seconds=10):
        pass


def test_a_forward_that_raises_leaves_the_gate() -> None:
    class Broken(nn.Module):
        def forward(self) -> None:
            message = "broken"
            raise ValueError(message)

    model = Broken()
    put_gate([model], Gate())
    with pytest.raises(ValueError, match="broken"):
        model()
    with writing([model]):
        pass


def test_a_hook_that_raises_before_the_forward_leaves_the_gate() -> None:
    model, gate = Slow(), Gate()
    put_gate([model], gate)

    def refuse(*_: object) -> None:
        message = "refused"
        raise ValueError(message)

    model.register_forward_pre_hook(refuse)
    with gate.reading():
        with pytest.raises(ValueError, match="refused"):
            model(0)
        with pytest.raises(BusyError), gate.writing():  # the request is still inside
            pass


@pytest.mark.parametrize("way", ["wrapper", "in place"])
def test_compiled_modules_are_gated_outside_of_what_is_compiled(way: str) -> None:
    model = Affine()
    outer: nn.Module = model
    if way == "wrapper":
        wrapped: Any = torch.compile(model, backend="eager", fullgraph=True)
        outer = wrapped
    else:
        outer.compile(backend="eager", fullgraph=True)
    gate = Gate()
    away = put_gate([outer], gate)
    assert gate_of(outer) is gate
    assert gate_of(model) is gate
    x = torch.ones(1, 3)
    before = outer(x).detach()
    held, checked = threading.Event(), threading.Event()

    def write() -> None:
        with writing([outer]):
            held.set()
            checked.wait(10)
            with torch.no_grad():
                model.weight.zero_()

    writer = start(write)
    held.wait(10)
    done: list[torch.Tensor] = []
    reader = start(lambda: done.append(outer(x).detach()))
    time.sleep(2 * TICK)
    assert done == []
    checked.set()
    writer.join(10)
    reader.join(10)
    assert float(before.abs().sum()) > 0
    assert float(done[0].abs().sum()) == 0
    away()
    assert gate_of(model) is None


def test_a_deep_copy_of_a_gated_module_works() -> None:
    model = Slow()
    put_gate([model], Gate())
    twin = copy.deepcopy(model)
    assert twin(0) == (0.0, 0.0)
    with writing([twin]):
        pass
