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
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeAlias

import torch
from torch import distributed

from rasura.patches.errors import HostError, ProcessGroupError, RasuraError, UnsupportedHostError

__all__ = ["Answer", "Failed", "Outcome", "Team", "TeamTask"]


@dataclass(frozen=True, slots=True)
class TeamTask:
    """What a process is to do with its part."""

    method: str
    arguments: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a task, or of a whole call."""

    value: Any


@dataclass(frozen=True, slots=True)
class Failed:
    """Why nothing came of it."""

    error: RasuraError


Outcome: TypeAlias = Answer | Failed

_TAG: Final = 0
_joins: Final[dict[tuple[int, ...], int]] = {}
"""How many groups of these ranks there were; each has a name of its own in torch's store."""
_LOST: Final = "load the model anew in every process, and attach it there"


class Team:
    """One process's end of the conversation."""

    def __init__(self, ranks: Iterable[int], limit: timedelta | None = None) -> None:
        """Join the others; every process of `ranks` does so at the same time.

        Args:
            ranks: all of them, in the default process group.
            limit: how long to wait for one of them; None: as long as the default process group does.

        Raises:
            UnsupportedHostError: torch was built without gloo.
            ProcessGroupError: another one did not come.
        """
        if not distributed.is_gloo_available():
            raise UnsupportedHostError("expected torch with gloo, by which the processes talk, got one without")
        self.ranks = tuple(sorted(ranks))
        self.rank = distributed.get_rank()
        self.limit = limit or _limit()
        self.lock = threading.RLock()
        """One call of this process at a time."""
        self._broken = ""
        self._group: Any = None
        try:
            self._group = self._joined()
        except RuntimeError as error:
            raise self._lost(f"ranks {list(self.ranks)}", _cause(error)) from None

    def _joined(self) -> Any:
        """A gloo group that is in no list of torch's, so that one process can leave it and all can make another."""
        number = _joins[self.ranks] = _joins.get(self.ranks, 0) + 1
        torch_own: Any = distributed  # it exports more than it lists
        common = torch_own.distributed_c10d._get_default_store()  # noqa: SLF001  # there is no public way to it
        store = torch_own.PrefixStore(f"rasura/{'-'.join(map(str, self.ranks))}/{number}", common)
        return torch_own.ProcessGroupGloo(store, self.ranks.index(self.rank), len(self.ranks), self.limit)

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
        with self._talking(rank):
            data = torch.frombuffer(bytearray(pickle.dumps(message)), dtype=torch.uint8)
            place = self.ranks.index(rank)
            self._group.send([torch.tensor([data.numel()])], place, _TAG).wait()
            self._group.send([data], place, _TAG).wait()

    def receive(self, rank: int) -> Any:
        """The next message of one process.

        Raises:
            ProcessGroupError: it is gone, or said nothing in time.
        """
        with self._talking(rank):
            place = self.ranks.index(rank)
            self._group.recv([size := torch.tensor([0])], place, _TAG).wait()
            self._group.recv([data := torch.empty(int(size), dtype=torch.uint8)], place, _TAG).wait()
            return pickle.loads(data.numpy().tobytes())  # noqa: S301  # see the module
        raise AssertionError

    def ask(self, part: object, method: str, each: Sequence[tuple[Any, ...]]) -> list[Outcome]:
        """Have every process run a method on its part; a process that is gone has failed.

        Args:
            part: this process's own.
            method: its name.
            each: arguments by rank, in the order of `ranks`.
        """
        tasks = [TeamTask(method, arguments) for arguments in each]
        with self._in_step():
            sent = [self._try(self.send, rank, task) for rank, task in zip(self.ranks[1:], tasks[1:], strict=True)]
            mine = run(part, tasks[0])
            pairs = zip(self.ranks[1:], sent, strict=True)
            return [mine, *(before if isinstance(before, Failed) else self._answer(rank) for rank, before in pairs)]
        raise AssertionError

    def finish(self, outcome: Outcome) -> None:
        """Tell all who still live what came of the call."""
        for rank in self.ranks[1:]:
            self._try(self.send, rank, outcome)

    def heard(self) -> list[Outcome]:
        """One message of every other process."""
        return [self._try(self.receive, rank) for rank in self.ranks[1:]]

    def hang_up(self, why: str) -> None:
        """Talk no more: the others notice that the connection is gone, and nobody takes one answer for another."""
        self._broken = self._broken or why
        self._group = None  # which closes its connections

    def _answer(self, rank: int) -> Outcome:
        heard = self._try(self.receive, rank)
        if isinstance(heard, Failed):
            return heard
        answer: Outcome = heard.value
        if isinstance(answer, Failed):
            answer.error.message = f"rank {rank}: {answer.error.message}"
            answer.error.args = (answer.error.message,)
        return answer

    def _try(self, act: Callable[..., object], *arguments: object) -> Outcome:
        try:
            return Answer(act(*arguments))
        except ProcessGroupError as error:
            return Failed(error)

    @contextmanager
    def _talking(self, rank: int) -> Iterator[None]:
        who = f"rank {rank}"
        if self._group is None:
            raise self._lost(who, self._broken)
        with self._in_step():
            try:
                yield
            except RuntimeError as error:
                raise self._lost(who, _cause(error)) from None

    @contextmanager
    def _in_step(self) -> Iterator[None]:
        """Hang up if anything else than a lost process ends the block, as Ctrl-C does: answers would be taken amiss."""
        try:
            yield
        except ProcessGroupError:
            raise
        except BaseException as error:
            self.hang_up(f"rank {self.rank} was stopped by {type(error).__name__}")
            raise

    def _lost(self, who: str, why: str) -> ProcessGroupError:
        message = f"expected {who} to take part, got: {why}"
        self._broken = self._broken or message
        return ProcessGroupError(message, hint=_LOST)


def run(part: object, task: TeamTask) -> Outcome:
    """Do a task; whatever goes wrong is an outcome, too, so that everybody hears of it."""
    try:
        return Answer(getattr(part, task.method)(*task.arguments))
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


def _cause(error: Exception) -> str:
    """Gloo's first sentence, without the place in its sources."""
    text = str(error).partition(". This is")[0].splitlines()[0]
    return text.partition("] ")[2] if text.startswith("[") else text
