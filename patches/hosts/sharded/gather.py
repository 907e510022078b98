"""Whole parameters of a sharded model, put together in the first process from what all processes answer.

Boxes that are not the same have no element in common and together are the whole; those that are the same, as in
replicas, hold the same bits. Both are checked each time, so nothing is made up, and replicas that went apart are found.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch

from rasura.patches._io.tensor_bytes import digest_tensor, dtype_name, encode_raw_bytes, torch_dtype
from rasura.patches.errors import BusyError, DriftError, ProcessGroupError, UnsupportedHostError
from rasura.patches.hosts.interface import ParameterInfo
from rasura.patches.hosts.sharded.process_team import Answer, Failed, Team
from rasura.patches.hosts.sharded.shard import Box, Shards
from rasura.patches.types import Digest, ParamName

__all__ = ["Whole", "cut_shard"]

_PATIENCE: Final = 0.25
"""Seconds that all processes wait at once for forwards to end before they let them go on and try again. A forward is
collective, too: one that waits for another process's forward ends only if that is let through."""
_PAUSE: Final = 0.02
_ANEW: Final = "load the model anew in every process"


class Whole:
    """What the first process asks of all, itself included."""

    def __init__(self, shards: Shards, team: Team) -> None:
        self._shards = shards
        self._team = team
        self._depth = 0
        self._infos: Mapping[ParamName, ParameterInfo] = {}

    def ask(self, method: str, *arguments: Any) -> list[Any]:
        """The answers of all processes to the same, by rank.

        Raises:
            RasuraError: what one of them raised.
        """
        return self.ask_each(method, [arguments] * len(self._team.ranks))

    def ask_each(self, method: str, each: Sequence[tuple[Any, ...]]) -> list[Any]:
        """As `ask`, each process with its own arguments."""
        outcomes = self._team.ask(self._shards, method, each)
        for outcome in outcomes:
            if isinstance(outcome, Failed):
                raise outcome.error
        return [outcome.value for outcome in outcomes if isinstance(outcome, Answer)]

    def ask_living(self, method: str, *arguments: Any) -> None:
        """As `ask`, for what goes on without processes that are lost."""
        for outcome in self._team.ask(self._shards, method, [arguments] * len(self._team.ranks)):
            if isinstance(outcome, Failed) and not isinstance(outcome.error, ProcessGroupError):
                raise outcome.error

    @contextmanager
    def held(self) -> Iterator[None]:
        """Between forwards of all processes, for the length of the block.

        Raises:
            BusyError: one of them is inside a forward, or computed for longer than the group's time limit.
        """
        if self._depth == 0:
            self._hold()
            self._infos = self._shards.parameters()
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if self._depth == 0:
                self.ask_living("release")

    def _hold(self) -> None:
        limit = self._team.limit.total_seconds()
        try:
            for _ in range(math.ceil(limit / _PATIENCE)):
                if all(self.ask("hold", _PATIENCE)):
                    return
                self.ask("release")
                threading.Event().wait(_PAUSE)
        except BaseException:
            self.ask_living("release")
            raise
        raise BusyError(f"the model computed for longer than {limit:g} s in some process: nothing was changed")

    def described(self) -> tuple[Mapping[ParamName, ParameterInfo], frozenset[ParamName]]:
        """All parameters, and those that any process keeps: one whose shard a patch leaves as it is keeps none.

        Raises:
            UnsupportedHostError: the processes hold different parameters.
        """
        with self.held():
            answers = self.ask("describe")
        infos, kept = answers[0]
        for rank, (theirs, _) in zip(self._team.ranks[1:], answers[1:], strict=True):
            if odd := {info.name for info in {*infos.values()} ^ {*theirs.values()}}:
                raise UnsupportedHostError(
                    f"{self._shards.location}: expected the same parameters in every process, got a difference "
                    f"between ranks {self._team.rank} and {rank}: {min(odd)}",
                    hint="attach the same parts of the model in every process",
                )
        return infos, kept.union(*(theirs for _, theirs in answers[1:]))

    def check(self, tensors: Mapping[ParamName, torch.Tensor]) -> None:
        """Refuse values of other shapes or dtypes than the host's, or of no parameter.

        Raises:
            UnsupportedHostError: naming both.
        """
        for name, tensor in tensors.items():
            got = ParameterInfo(name, dtype_name(tensor.dtype), tuple(tensor.shape))
            if got != (info := self._known(name)):
                raise UnsupportedHostError(
                    f"{name}: expected {info.dtype} {list(info.shape)}, got {got.dtype} {list(got.shape)}",
                    parameter=name,
                )

    def places(self, names: Iterable[ParamName]) -> dict[ParamName, list[Box]]:
        """Where each process's shard of each parameter lies, by rank."""
        wanted = list(names)
        answers = self.ask("places", wanted)
        return {name: [answer[name] for answer in answers] for name in wanted}

    def digests(self, names: Iterable[ParamName], *, original: bool) -> dict[ParamName, Digest]:
        """SHA-256 of whole parameters; one at a time is in memory."""
        with self.held():
            looked = self._look(names, original)
            return {name: self._digest(name, seen, original) for name, seen in looked.items()}

    def tensors(self, names: Iterable[ParamName], *, original: bool) -> dict[ParamName, torch.Tensor]:
        """Whole parameters on the CPU."""
        with self.held():
            return {name: self._tensor(name, seen, original) for name, seen in self._look(names, original).items()}

    def _look(self, names: Iterable[ParamName], original: bool) -> dict[ParamName, list[tuple[Box, Digest]]]:
        wanted = list(dict.fromkeys(names))
        answers = self.ask("look", wanted, original)
        return {name: [answer[name] for answer in answers] for name in wanted}

    def _digest(self, name: ParamName, seen: Sequence[tuple[Box, Digest]], original: bool) -> Digest:
        owners = self._owners(name, seen)
        if len(owners) == 1:  # a replica, whose bytes are the whole's
            return next(digest for box, digest in seen if box in owners)
        return digest_tensor(self._tensor(name, seen, original))

    def _tensor(self, name: ParamName, seen: Sequence[tuple[Box, Digest]], original: bool) -> torch.Tensor:
        info = self._known(name)
        found = torch.empty(info.shape, dtype=torch_dtype(info.dtype))
        for box, rank in self._owners(name, seen).items():
            (values,) = (v for v in self.ask_each("give", self._only(rank, name, original)) if v is not None)
            found[box.slices] = torch.frombuffer(bytearray(values), dtype=found.dtype).reshape(box.shape)
        return found

    def _only(self, rank: int, name: ParamName, original: bool) -> list[tuple[ParamName, bool, bool]]:
        return [(name, original, each == rank) for each in self._team.ranks]

    def _owners(self, name: ParamName, seen: Sequence[tuple[Box, Digest]]) -> dict[Box, int]:
        """The first process with each box; together they are the whole.

        Raises:
            UnsupportedHostError: they are not.
            DriftError: two processes hold other bits of the same box.
        """
        owners: dict[Box, int] = {}
        first: dict[Box, Digest] = {}
        for rank, (box, digest) in zip(self._team.ranks, seen, strict=True):
            if box.count:
                owners.setdefault(box, rank)
            if first.setdefault(box, digest) != digest:
                raise DriftError(
                    f"{self._shards.location}: {name}: expected the same bits in all replicas, got others in ranks "
                    f"{owners.get(box, rank)} and {rank}",
                    hint=_ANEW,
                    parameter=name,
                )
        whole = math.prod(self._known(name).shape)
        met = any(one.meets(two) for one, two in itertools.combinations(owners, 2))
        if met or sum(box.count for box in owners) != whole:
            raise UnsupportedHostError(
                f"{name}: expected shards that together are the whole tensor, got {len(owners)} that are not",
                hint="redistribute it to Shard or Replicate placements",
                parameter=name,
            )
        return owners

    def _known(self, name: ParamName) -> ParameterInfo:
        if name not in self._infos:
            raise UnsupportedHostError(
                f"{self._shards.location}: expected a parameter {name}, got none",
                hint="use the architecture that the patch was computed on",
                parameter=name,
            )
        return self._infos[name]


def cut_shard(tensor: torch.Tensor, box: Box) -> bytes:
    """The values of one shard, in row-major order."""
    return encode_raw_bytes(tensor[box.slices])
