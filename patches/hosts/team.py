"""The processes that hold one model together, and how the first of them has the others do something.

    first     ask(method, …) ──► every other process runs the method on its part ──► answers, by rank
              finish(outcome) ──► every other process returns the same, or raises the same error

The messages go over a gloo group of their own, from the first process to each other and back, never in a ring: whoever
dies is missed by the first process alone, which can still tell the living. The group has the time limit of the default
process group, and after that, or when a connection breaks, a wait ends with `ProcessGroupError`.

Messages are pickled. The processes of a group run one program and trust each other.
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, TypeAlias

import torch
from torch import distributed

from rasura.patches.errors import HostError, ProcessGroupError, RasuraError, UnsupportedHostError

__all__ = ["Done", "Failed", "Outcome", "Task", "Team"]


@dataclass(frozen=True, slots=True)
class Task:
    """What a process is to do with its part."""

    method: str
    arguments: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a task, or of a whole call."""

    value: Any


@dataclass(frozen=True, slots=True)
class Failed:
    """Why nothing came of it."""

    error: RasuraError


Outcome: TypeAlias = Done | Failed

_PROCESSES: Final = 2  # fewer are no group
_LOST: Final = "load the model anew in every process, and attach it there"


class Team:
    """One process's end of the conversation."""

    def __init__(self, ranks: Sequence[int]) -> None:
        """Join the others; every process of `ranks` does so at the same time.

        Raises:
            UnsupportedHostError: torch was built without gloo.
            ProcessGroupError: another one did not come.
        """
        if not distributed.is_gloo_available():
            raise UnsupportedHostError("expected torch with gloo, by which the processes talk, got one without")
        self.ranks = tuple(sorted(ranks))
        self.rank = distributed.get_rank()
        self.limit = _limit()
        self.lock = threading.RLock()
        """One call of this process at a time."""
        self._broken = ""
        try:
            self._group = distributed.new_group(
                list(self.ranks), backend="gloo", timeout=self.limit, use_local_synchronization=True
            )
        except RuntimeError as error:
            raise self._lost(f"ranks {list(self.ranks)}", error) from None

    @property
    def leads(self) -> bool:
        """Whether this is the process that asks."""
        return self.rank == self.ranks[0]

    def ensure_whole(self) -> None:
        """Refuse to begin anything after a process was lost.

        Raises:
            ProcessGroupError: saying which.
        """
        if self._broken:
            raise ProcessGroupError(f"{self._broken}; nothing was changed", hint=_LOST)

    def send(self, rank: int, message: object) -> None:
        """Send to one process.

        Raises:
            ProcessGroupError: it is gone, or did not take it in time.
        """
        data = torch.frombuffer(bytearray(pickle.dumps(message)), dtype=torch.uint8)
        try:
            distributed.send(torch.tensor([data.numel()]), dst=rank, group=self._group)
            distributed.send(data, dst=rank, group=self._group)
        except RuntimeError as error:
            raise self._lost(f"rank {rank}", error) from None

    def receive(self, rank: int) -> Any:
        """The next message of one process.

        Raises:
            ProcessGroupError: it is gone, or said nothing in time.
        """
        try:
            distributed.recv(size := torch.tensor([0]), src=rank, group=self._group)
            distributed.recv(data := torch.empty(int(size), dtype=torch.uint8), src=rank, group=self._group)
        except RuntimeError as error:
            raise self._lost(f"rank {rank}", error) from None
        return pickle.loads(data.numpy().tobytes())  # noqa: S301  # see the module

    def ask(self, part: object, method: str, each: Sequence[tuple[Any, ...]]) -> list[Outcome]:
        """Have every process run a method on its part; a process that is gone has failed.

        Args:
            part: this process's own.
            method: its name.
            each: arguments by rank, in the order of `ranks`.
        """
        sent = [self._try(lambda r=r, a=a: self.send(r, Task(method, a))) for r, a in self._others(each)]
        outcomes = [run(part, Task(method, each[0]))]
        for rank, before in zip(self.ranks[1:], sent, strict=True):
            outcomes.append(before if isinstance(before, Failed) else self._answer(rank))
        return outcomes

    def finish(self, outcome: Outcome) -> None:
        """Tell all who still live what came of the call."""
        for rank in self.ranks[1:]:
            self._try(lambda rank=rank: self.send(rank, outcome))

    def heard(self) -> list[Outcome]:
        """One message of every other process."""
        return [self._try(lambda rank=rank: self.receive(rank)) for rank in self.ranks[1:]]

    def _others(self, each: Sequence[tuple[Any, ...]]) -> list[tuple[int, tuple[Any, ...]]]:
        return list(zip(self.ranks, each, strict=True))[1:]

    def _answer(self, rank: int) -> Outcome:
        heard = self._try(lambda: self.receive(rank))
        if isinstance(heard, Failed):
            return heard
        answer: Outcome = heard.value
        if isinstance(answer, Failed):
            answer.error.args = (message := f"rank {rank}: {answer.error.message}",)
            answer.error.message = message
        return answer

    def _try(self, act: Callable[[], object]) -> Outcome:
        try:
            return Done(act())
        except ProcessGroupError as error:
            return Failed(error)

    def _lost(self, who: str, error: Exception) -> ProcessGroupError:
        why = str(error).splitlines()[0].rpartition("] ")[2]
        self._broken = self._broken or f"expected {who} to take part, got: {why}"
        return ProcessGroupError(f"expected {who} to take part, got: {why}", hint=_LOST)


def run(part: object, task: Task) -> Outcome:
    """Do a task; whatever goes wrong is an outcome, too, so that everybody hears of it."""
    try:
        return Done(getattr(part, task.method)(*task.arguments))
    except RasuraError as error:
        return Failed(error)
    except Exception as error:  # noqa: BLE001  # torch's own, out of memory among them
        return Failed(HostError(f"expected to {task.method} parameters, got {type(error).__name__}: {error}"))


def _limit() -> timedelta:
    """That of the default process group, which torch keeps in a private place."""
    found: timedelta = distributed.distributed_c10d.default_pg_timeout
    group: Any = distributed.group.WORLD
    try:
        found = group._get_backend(group._device_types[0]).options._timeout  # noqa: SLF001
    except (AttributeError, IndexError, RuntimeError):
        return found
    return found
