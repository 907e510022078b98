"""A model that is sharded over processes as one host: the first process asks, every process writes its own shard.

Every process makes a `ShardedHost` of its part, and calls are collective: all processes call `together` with the same
question. In the first one it runs the given function, which uses the host as any other; the others do what the
first one's host asks of their shards, until it is through, and return or raise the same.

No process needs the whole model. A digest is of a whole parameter, which is put together in the first process's CPU
memory, one at a time; new values are cut there and each process gets its own shard alone, keeps its own shard's
original alone, and reads back what it wrote.

A write has two phases: all processes put their shards; if one of them cannot, all put back what was there; else all let
go of what they would have needed for that. Whoever loses the first process in between puts back, too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Self, TypeVar

import torch

from rasura.patches._io.tensor_bytes import Storable, as_tensor
from rasura.patches.errors import ConflictError, HostError, RasuraError, UnsupportedHostError
from rasura.patches.hosts.interface import Host, ParameterInfo
from rasura.patches.hosts.live.forward_gate import writing
from rasura.patches.hosts.live.originals import KeepOn
from rasura.patches.hosts.sharded.gather import Whole, cut_shard
from rasura.patches.hosts.sharded.process_team import Answer, Failed, Outcome, Team, TeamTask, run
from rasura.patches.hosts.sharded.shard import Shards, list_mesh_ranks, reshard
from rasura.patches.types import Digest, ParamName

__all__ = ["ShardedHost"]

_T = TypeVar("_T")


class ShardedHost(Host):
    """Shards in many processes; `rasura.patches.hosts.interface.Host` says what its methods promise, in the first."""

    def __init__(self, shards: Shards, team: Team) -> None:
        """Use `of`."""
        self.modules = shards.modules
        self._shards = shards
        self._team = team
        self._whole = Whole(shards, team)

    @classmethod
    def of(cls, model: object, label: str = "", *, keep_on: KeepOn = "cpu") -> Self:
        """This process's part of a sharded pipeline or module; every process does so at the same time.

        Raises:
            UnsupportedHostError: neither of these, no shards, or originals that shall lie in a folder.
            ProcessGroupError: another process did not come.
        """
        shards = Shards.of(model, label, keep_on=keep_on)
        with writing(shards.modules):
            reshard(shards.modules)
        ranks = list_mesh_ranks(shards.modules)
        if not ranks:
            raise UnsupportedHostError(
                f"{shards.location}: expected parameters that are sharded over processes, got none that is a DTensor",
                hint="call fully_shard(module), or distribute its parameters over a device mesh",
            )
        if isinstance(keep_on, Path):
            raise UnsupportedHostError(
                f"{shards.location}: expected to keep each process's shards in memory, got the folder {keep_on}",
                hint="keep_on='cpu'",
            )
        return cls(shards, Team(ranks))

    def together(self, question: object, act: Callable[[], _T]) -> _T:
        """Run a function in the first process and serve it in the others; all return its value or raise its error.

        Args:
            question: what is asked; the same in every process.
            act: uses this host; called in the first process alone.

        Raises:
            ConflictError: the processes were asked for different things; nothing was changed.
            ProcessGroupError: one of them died or did not come.
            RasuraError: what `act` raised.
        """
        with self._team.lock:
            self._team.ensure_whole()
            outcome = self._lead(question, act) if self._team.leads else self._follow(question)
        if isinstance(outcome, Failed):
            raise outcome.error
        value: _T = outcome.value
        return value

    def _lead(self, question: object, act: Callable[[], object]) -> Outcome:
        outcome: Outcome = Failed(HostError("the first process gave up: nothing was changed"))
        try:
            outcome = _agreed(question, self._team) or Answer(act())
        except RasuraError as error:
            outcome = Failed(error)
        except Exception as error:
            outcome = Failed(HostError(f"rank {self._team.rank}: got {type(error).__name__}: {error}"))
            raise
        finally:
            self._team.finish(outcome)
        return outcome

    def _follow(self, question: object) -> Outcome:
        leader = self._team.ranks[0]
        try:
            self._team.send(leader, question)
            while isinstance(message := self._team.receive(leader), TeamTask):
                self._team.send(leader, run(self._shards, message))
        except RasuraError:
            raise
        except BaseException as error:
            self._team.hang_up(f"rank {self._team.rank} was stopped by {type(error).__name__}")
            raise
        finally:  # also where the first process is gone
            self._shards.undo()
            self._shards.release()
        outcome: Outcome = message
        return outcome

    @property
    def location(self) -> str:
        """The label."""
        return self._shards.location

    @property
    def host_id(self) -> str:
        """As the first process's modules carry it."""
        return self._shards.host_id

    @property
    def lasting(self) -> bool:
        """No: it ends with the processes."""
        return False

    def known_as(self, host_id: str) -> None:
        """See `Host`."""
        self._shards.known_as(host_id)

    def alone(self) -> AbstractContextManager[object]:
        """See `Host`; of the first process. The others do nothing else until it is through."""
        return self._shards.alone()

    def kept(self) -> frozenset[ParamName]:
        """See `Host`; of all processes."""
        return self._whole.described()[1]

    def parameters(self) -> Mapping[ParamName, ParameterInfo]:
        """See `Host`; whole shapes.

        Raises:
            UnsupportedHostError: the processes hold different parameters.
        """
        return self._whole.described()[0]

    def read(self, names: Iterable[ParamName]) -> dict[ParamName, torch.Tensor]:
        """The present values, whole: copies on the CPU."""
        return self._whole.tensors(names, original=False)

    def originals(self, names: Iterable[ParamName]) -> dict[ParamName, torch.Tensor]:
        """The values before anything was written, whole: copies on the CPU."""
        return self._whole.tensors(names, original=True)

    def digests(self, names: Iterable[ParamName]) -> dict[ParamName, Digest]:
        """SHA-256 of the present values' raw bytes, as of a model that is not sharded."""
        return self._whole.digests(names, original=False)

    def original_digests(self, names: Iterable[ParamName]) -> dict[ParamName, Digest]:
        """SHA-256 of the raw bytes before anything was written."""
        return self._whole.digests(names, original=True)

    def ensure_writable(self, names: Iterable[ParamName]) -> None:
        """Refuse now what `write` would have to refuse in any process."""
        with self._whole.held():
            self._whole.ask("ensure_writable", list(names))

    def write(self, tensors: Mapping[ParamName, Storable], *, forget: Collection[ParamName] = ()) -> None:
        """Write all of these values in all processes, or none in any; see `Host.write`.

        Raises:
            ProcessGroupError: a process was lost; the living have what they had before.
        """
        whole, dropped, values = self._whole, sorted(forget), {name: as_tensor(v) for name, v in tensors.items()}
        with whole.held():
            whole.check(values)
            whole.ask("ensure_writable", list(tensors))
            places = whole.places(tensors)
            try:
                for name, tensor in values.items():
                    whole.ask_each("stage", [(name, cut_shard(tensor, box)) for box in places[name]])
                whole.ask("put", dropped)
            except BaseException:
                whole.ask_living("undo")
                raise
            whole.ask_living("settle", dropped)  # of a process that is lost now, the next call tells


def _agreed(question: object, team: Team) -> Failed | None:
    """Whether all processes were asked for the same."""
    for rank, heard in zip(team.ranks[1:], team.heard(), strict=True):
        if isinstance(heard, Failed):
            return heard
        if heard.value != question:
            return Failed(
                ConflictError(
                    f"rank {team.rank} was asked for {question}, rank {rank} for {heard.value}: expected the same of "
                    "every process of a sharded model; nothing was changed",
                    hint="make the same calls in the same order in every process",
                )
            )
    return None
