"""Between forwards, never in the middle of one: readers share a gate around the model, a writer has it alone.

A gate is kept on the modules themselves, so that every host over them finds it. Hooks around a module's forward enter
and leave it; a *request* enters once for a whole picture, so that all its steps see one set of weights. A writer waits
until everybody has left, and meanwhile nobody enters but those who are inside already.

A module that was compiled is hooked outside of what was compiled: the compiler sees nothing of the gate.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from torch import nn

from rasura.patches.errors import BusyError

__all__ = ["Gate", "Shared", "gate_of", "gated", "writing"]

_GATE: Final = "_rasura_gate"
_COMPILED: Final = "_compiled_call_impl"
_HANDLES: Final = threading.Lock()


class Gate:
    """A lock with many readers or one writer; a waiting writer goes first."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._inside: dict[int, int] = {}
        self._writer: int | None = None
        self._depth = 0
        self._waiting = 0
        self.handles = 0
        """How many `Shared` hold it."""
        self.undo: list[Callable[[], None]] = []
        """What takes it away from the modules."""

    def __deepcopy__(self, memo: object) -> Gate:
        """A copy of a gated module has the same hooks, and they the same gate."""
        return self

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Keep writers out for the length of the block."""
        self.enter()
        try:
            yield
        finally:
            self.leave()

    def enter(self) -> None:
        """Begin to read; waits for writers, unless this thread is inside already."""
        me = threading.get_ident()
        with self._condition:
            if me not in self._inside and self._writer != me:
                self._condition.wait_for(lambda: self._writer is None and self._waiting == 0)
            self._inside[me] = self._inside.get(me, 0) + 1

    def leave(self) -> None:
        """End what `enter` began; without it, nothing happens."""
        me = threading.get_ident()
        with self._condition:
            left = self._inside.get(me, 0) - 1
            if left > 0:
                self._inside[me] = left
            else:
                self._inside.pop(me, None)
                self._condition.notify_all()

    @contextmanager
    def writing(self, seconds: float | None = None) -> Iterator[None]:
        """Have the modules alone for the length of the block.

        Args:
            seconds: how long to wait for readers; None waits as long as they take.

        Raises:
            BusyError: this very thread is reading, which would wait for itself; or the readers took too long.
        """
        self._begin(seconds)
        try:
            yield
        finally:
            self._end()

    def _begin(self, seconds: float | None) -> None:
        me = threading.get_ident()
        with self._condition:
            if self._writer == me:
                self._depth += 1
                return
            if me in self._inside:
                raise BusyError(
                    "the model is computing in this very thread: expected to be called between forwards",
                    hint="apply and revert between denoising steps, or after the request",
                )
            self._waiting += 1
            try:
                free = self._condition.wait_for(lambda: self._writer is None and not self._inside, seconds)
            finally:
                self._waiting -= 1
                self._condition.notify_all()
            if not free:
                raise BusyError(
                    f"the model computed for longer than {seconds:g} s: nothing was changed", seconds=seconds
                )
            self._writer, self._depth = me, 1

    def _end(self) -> None:
        with self._condition:
            self._depth -= 1
            if self._depth == 0:
                self._writer = None
                self._condition.notify_all()


class Shared:
    """One handle's share in the gates of its modules; whoever leaves last takes them away."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        """Take part in the gates that are there, and put one around the modules that have none."""
        chosen = tuple(modules)
        with _HANDLES:
            bare = [module for module in chosen if gate_of(module) is None]
            if bare:
                gate = next((there for module in chosen if (there := gate_of(module)) is not None), Gate())
                gate.undo.append(gated(bare, gate))
            found = (gate_of(module) for module in chosen)
            self._gates = tuple({id(gate): gate for gate in found if gate is not None}.values())
            for gate in self._gates:
                gate.handles += 1
        self.left = False
        """Whether this handle left."""

    def leave(self) -> None:
        """Take part no more; the second time, nothing happens."""
        with _HANDLES:
            gates, self.left = () if self.left else self._gates, True
            for gate in gates:
                gate.handles -= 1
                while gate.handles == 0 and gate.undo:
                    gate.undo.pop()()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Keep writers out of all modules for the length of the block."""
        with ExitStack() as entered:
            for gate in self._gates:
                entered.enter_context(gate.reading())
            yield


def gate_of(module: nn.Module) -> Gate | None:
    """The gate that was put around a module, if there is one."""
    found = _inner(module).__dict__.get(_GATE)
    return found if isinstance(found, Gate) else None


@contextmanager
def writing(modules: Iterable[nn.Module], seconds: float | None = None) -> Iterator[None]:
    """Have all of these modules alone; those without a gate are the caller's business. See `Gate.writing`."""
    gates = {id(gate): gate for module in modules if (gate := gate_of(module)) is not None}
    with _all_of(list(gates.values()), seconds):
        yield


def gated(modules: Iterable[nn.Module], gate: Gate) -> Callable[[], None]:
    """Put a gate around the forwards of these modules.

    Returns:
        What takes it away again.
    """
    undo: list[Callable[[], None]] = []
    for module in modules:
        _inner(module).__dict__[_GATE] = gate
        undo.append(_around(module, gate))

    def away() -> None:
        while undo:
            undo.pop()()

    return away


@contextmanager
def _all_of(gates: list[Gate], seconds: float | None) -> Iterator[None]:
    if not gates:
        yield
        return
    with gates[0].writing(seconds), _all_of(gates[1:], seconds):
        yield


def _inner(module: nn.Module) -> nn.Module:
    inner = module.__dict__.get("_modules", {}).get("_orig_mod")
    return inner if isinstance(inner, nn.Module) else module


def _around(module: nn.Module, gate: Gate) -> Callable[[], None]:
    compiled: Callable[..., Any] | None = module.__dict__.get(_COMPILED)
    if compiled is not None:  # `module.compile()`: hooks would be compiled with it

        def call(*args: Any, **kwargs: Any) -> Any:
            with gate.reading():
                return compiled(*args, **kwargs)

        module.__dict__[_COMPILED] = call
        return lambda: _forget(module, {_COMPILED: compiled})
    # First, so that whatever another hook raises, what was entered is left and nothing else.
    before = module.register_forward_pre_hook(lambda *_: gate.enter(), prepend=True)
    after = module.register_forward_hook(lambda *_: gate.leave(), always_call=True)

    def remove() -> None:
        before.remove()
        after.remove()
        _forget(module, {})

    return remove


def _forget(module: nn.Module, back: dict[str, Any]) -> None:
    module.__dict__.update(back)
    _inner(module).__dict__.pop(_GATE, None)
