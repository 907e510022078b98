"""Between forwards, never in the middle of one: readers share a gate around the model, a writer has it alone.

A gate is kept on the modules themselves, so that every host over them finds it. Hooks around a module's forward enter
and leave it; a *request* enters once for a whole picture, so that all its steps see one set of weights. A writer waits
until everybody has left, and meanwhile nobody enters but those who are inside already, of this gate or of another: the
writer may be waiting for them. It takes all gates of a model at once, and holds no lock while it waits.

A module that was compiled is hooked outside of what was compiled: the compiler sees nothing of the gate.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

from torch import nn

from rasura.patches.errors import BusyError

__all__ = ["Gate", "computing_gate", "gate_of", "gates_of", "put_gate", "reading", "turn", "writing"]

_AROUND: Final = "_rasura_gate"
_COMPILED: Final = "_compiled_call_impl"
_CHANGED: Final = threading.Condition()
"""One for all gates: whoever wants several at once waits for all of them."""
_ENTERED: Final[dict[int, int]] = {}
"""How many gates each thread is inside of."""


class ReentrantLock(Protocol):
    """What `threading.RLock` makes."""

    def acquire(self, blocking: bool = ...) -> bool:
        """Take it."""

    def release(self) -> None:
        """Give it back."""


class Gate:
    """A lock with many readers or one writer; a waiting writer goes first."""

    def __init__(self) -> None:
        self.inside: dict[int, int] = {}
        """How often each thread that reads has entered."""
        self.writer: int | None = None
        """The thread that has the modules alone."""
        self.depth = 0
        """How often it has begun to."""
        self.waiting = 0
        """How many writers wait."""

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
        with _CHANGED:
            if me not in self.inside:
                if self.writer != me:  # whoever writes may run the model meanwhile: he would wait for himself
                    # A waiting writer goes first, or a model that always computes would never be written. Whoever is
                    # inside of any gate passes all the same: the writer may be waiting for him.
                    _CHANGED.wait_for(lambda: self.writer is None and (self.waiting == 0 or me in _ENTERED))
                _ENTERED[me] = _ENTERED.get(me, 0) + 1
            self.inside[me] = self.inside.get(me, 0) + 1

    def leave(self) -> None:
        """End what `enter` began; without it, nothing happens."""
        me = threading.get_ident()
        with _CHANGED:
            if me not in self.inside:  # the hook behind a forward runs also where the one before it raised
                return
            # Only the outermost of several blocks lets writers in.
            self.inside[me] -= 1
            if self.inside[me] == 0:
                del self.inside[me]
                _ENTERED[me] -= 1
                if _ENTERED[me] == 0:
                    del _ENTERED[me]
                _CHANGED.notify_all()

    @contextmanager
    def writing(self, seconds: float | None = None) -> Iterator[None]:
        """Have the modules alone for the length of the block.

        Args:
            seconds: how long to wait for readers; None waits as long as they take.

        Raises:
            BusyError: this very thread is reading, which would wait for itself; or the readers took too long.
        """
        with _all_of([self], seconds):
            yield


@dataclass(frozen=True, slots=True)
class _Around:
    """What lies around one module."""

    gate: Gate
    users: list[object]
    """Whoever wants it there; with the last one it goes."""
    remove: Callable[[], None]


def computing_gate(gates: Iterable[Gate]) -> bool:
    """Whether this thread is inside of one of these gates."""
    with _CHANGED:
        return any(threading.get_ident() in gate.inside for gate in gates)


@contextmanager
def turn(lock: ReentrantLock) -> Iterator[None]:
    """Hold a lock whose holders may be waiting at a gate.

    Raises:
        BusyError: somebody has it, and this thread is inside of a gate, for which he may be waiting.
    """
    with _CHANGED:
        inside = threading.get_ident() in _ENTERED
    # From inside of a gate this could wait for ever: the holder may be waiting at that very gate.
    if not lock.acquire(blocking=not inside):
        raise BusyError(
            "another thread is changing a model, and may be waiting for this one: expected to be called between "
            "forwards",
            hint="apply and revert between denoising steps, or after the request",
        )
    try:
        yield
    finally:
        lock.release()


def gate_of(module: nn.Module) -> Gate | None:
    """The gate that was put around a module, if there is one."""
    # Not by `getattr`: some classes answer unknown names from elsewhere.
    found = _inner(module).__dict__.get(_AROUND)
    return found.gate if isinstance(found, _Around) else None


def gates_of(modules: Iterable[nn.Module]) -> list[Gate]:
    """The gates around these modules, each once."""
    found = {id(gate): gate for module in modules if (gate := gate_of(module)) is not None}
    return list(found.values())


@contextmanager
def reading(gates: Iterable[Gate]) -> Iterator[None]:
    """Be inside of all of these gates for the length of the block."""
    with ExitStack() as inside:
        for gate in gates:
            inside.enter_context(gate.reading())
        yield


@contextmanager
def writing(modules: Iterable[nn.Module], seconds: float | None = None) -> Iterator[None]:
    """Have all of these modules alone; those without a gate are the caller's business. See `Gate.writing`."""
    with _all_of(gates_of(modules), seconds):
        yield


def put_gate(modules: Iterable[nn.Module], gate: Gate) -> Callable[[], None]:
    """Put a gate around the forwards of these modules; one that has a gate already keeps that.

    Returns:
        What takes it away again, if nobody else wants it there.
    """
    mine = object()
    inner = [_joined(module, gate, mine) for module in modules]

    def away() -> None:
        while inner:  # called again, it finds nothing left to do
            _left(inner.pop(), mine)

    return away


def _joined(module: nn.Module, gate: Gate, user: object) -> nn.Module:
    inner = _inner(module)
    if gate_of(module) is None:
        inner.__dict__[_AROUND] = _Around(gate, [], _around(module, gate))
    inner.__dict__[_AROUND].users.append(user)
    return inner


def _left(inner: nn.Module, user: object) -> None:
    around: _Around = inner.__dict__[_AROUND]
    around.users.remove(user)
    if not around.users:
        del inner.__dict__[_AROUND]
        around.remove()


@contextmanager
def _all_of(gates: Sequence[Gate], seconds: float | None) -> Iterator[None]:
    _begin(gates, seconds)
    try:
        yield
    finally:
        _end(gates)


def _begin(gates: Sequence[Gate], seconds: float | None) -> None:
    me = threading.get_ident()
    with _CHANGED:
        wanted = [gate for gate in gates if gate.writer != me]  # a writer that begins again has these already
        if any(me in gate.inside for gate in wanted):
            raise BusyError(
                "the model is computing in this very thread: expected to be called between forwards",
                hint="apply and revert between denoising steps, or after the request",
            )
        if not _wait(wanted, seconds):
            raise BusyError(f"the model computed for longer than {seconds:g} s: nothing was changed", seconds=seconds)
        for gate in gates:
            gate.writer, gate.depth = me, gate.depth + 1


def _wait(gates: Sequence[Gate], seconds: float | None) -> bool:
    """Wait until nobody reads or writes any of them; meanwhile nobody begins to."""
    for gate in gates:
        gate.waiting += 1  # from here on nobody new enters
    try:
        return _CHANGED.wait_for(lambda: all(g.writer is None and not g.inside for g in gates), seconds)
    finally:
        for gate in gates:
            # Those that stood back for this writer look again, also where it gave up.
            gate.waiting -= 1
        _CHANGED.notify_all()


def _end(gates: Sequence[Gate]) -> None:
    with _CHANGED:
        for gate in gates:
            gate.depth -= 1
            if gate.depth == 0:
                gate.writer = None
        _CHANGED.notify_all()


def _inner(module: nn.Module) -> nn.Module:
    # `torch.compile(module)` keeps the module under this name
    inner = module.__dict__.get("_modules", {}).get("_orig_mod")
    return inner if isinstance(inner, nn.Module) else module


def _around(module: nn.Module, gate: Gate) -> Callable[[], None]:
    compiled: Callable[..., Any] | None = module.__dict__.get(_COMPILED)
    if compiled is not None:  # `module.compile()`: hooks would be compiled with it

        def call(*args: Any, **kwargs: Any) -> Any:
            with gate.reading():
                return compiled(*args, **kwargs)

        module.__dict__[_COMPILED] = call
        return lambda: module.__dict__.update({_COMPILED: compiled})
    # First, so that whatever another hook raises, what was entered is left and nothing else.
    before = module.register_forward_pre_hook(lambda *_: gate.enter(), prepend=True)
    after = module.register_forward_hook(lambda *_: gate.leave(), always_call=True)

    def remove() -> None:
        before.remove()
        after.remove()

    return remove
