"""A live model under a registry's hand: apply, revert and switch patches on it while it serves.

    model = rasura.attach(pipe)                       # the nearest registry, as the command line finds it
    model.apply(["c075fe008d4f"], reason="takedown 118")
    with model.applied(["91ab…"]): …                  # for the length of the block
    model.switch("brand")                             # a stack, or a lock file
    model.detach()

Every motion is checked, logged and all or nothing, as on disk. It happens between two forwards of the model, never in
the middle of one; a `request` keeps a whole picture on one set of weights. One handle may be used from many threads:
each call opens the registry for itself, and motions of one process wait for each other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Self

from torch import nn

from rasura.patches.algebra.strength import ONE, Strength
from rasura.patches.checks.policy import Policy
from rasura.patches.errors import BusyError, DriftError, InputError, RasuraError
from rasura.patches.format.signatures.signing_key import SigningKey
from rasura.patches.hosts.live.forward_gate import Gate, computing_gate, gates_of, put_gate, reading, turn
from rasura.patches.hosts.live.torch_host import TorchHost
from rasura.patches.hosts.sharded.sharded_host import ShardedHost
from rasura.registry.apply import operations
from rasura.registry.apply.hosts.host_state import find_record
from rasura.registry.apply.receipt import Actor, Receipt
from rasura.registry.apply.status import Survey, survey
from rasura.registry.evidence.pictures.picture_receipt import make_receipt
from rasura.registry.live.arguments import Factor, GoalRef, Ids, goal_from, list_ids, list_ids_of_one_strength
from rasura.registry.live.request import LiveRequest
from rasura.registry.registry import Registry
from rasura.registry.stacks.plan import Planned, make_plan

__all__ = ["LiveModel"]


class LiveModel:
    """A handle on a live model; see the module. Made by `rasura.attach`."""

    def __init__(
        self,
        host: TorchHost | ShardedHost,
        location: str | Path,
        actor: str,
        *,
        acting: SigningKey | None = None,
        say: Callable[[str], str] = str,
    ) -> None:
        """Use `rasura.attach`.

        Args:
            host: the model.
            location: of the registry.
            actor: who acts where a call does not say.
            acting: their key, which signs the log's entries; None: who acts is a claim.
            say: puts the hints of errors into the words of whoever holds the handle.
        """
        self.host = host
        self._location = location
        self._actor = actor
        self._acting = acting
        self._say = say
        self._turn = threading.RLock()
        # Two handles of one model share the gate that the first put around it; the last one takes it away.
        self._ungate = put_gate(host.modules, next(iter(gates_of(host.modules)), Gate()))
        self._gates = gates_of(host.modules)
        self._left = False
        self._blocks = 0

    def __repr__(self) -> str:
        """What it is a handle on, and whether something is applied; nothing is hashed."""
        parts = ", ".join(type(module).__name__ for module in self.modules)
        return f"<rasura.LiveModel {self.host.location}: {parts}; {len(self.host.kept())} parameters patched>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()

    def detach(self) -> None:
        """Let go of the model: no more motions by this handle. What is applied stays, the originals with the model.

        The last handle takes away what keeps motions out of forwards.

        Raises:
            BusyError: called inside a block of `applied`, which has to go back first.
        """
        with self._spoken(), self._turn:
            if self._blocks:
                raise BusyError("a block of applied() has not ended: expected to detach after it")
            self._left = True
            self._ungate()

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """The parts of the model that patches may touch."""
        return tuple(self.host.modules)

    def apply(
        self,
        ids: Ids,
        *,
        strength: Factor = ONE,
        reason: str = "",
        actor: str | None = None,
        policy: Policy | None = None,
    ) -> Receipt:
        """Apply patches, together with those that are applied already.

        Args:
            ids: identifiers or abbreviations.
            strength: a multiple of 1/16 from -4 to 4.
            reason: why, or a ticket; for the log.
            actor: who.
            policy: limits beside those in force.

        Raises:
            RasuraError: see `rasura.registry.apply.operations.apply`; nothing changed.
            BusyError: called from inside a forward of this model.
        """
        with self._moving() as registry:
            factor = Strength.of(strength)
            found = [registry.resolve_patch(i) for i in list_ids_of_one_strength(ids)]
            who = self._who(actor, reason)
            return operations.apply(registry, self.host, found, who, strength=factor, policy=policy)

    def revert(
        self, ids: Ids | None = None, *, reason: str = "", actor: str | None = None, force: bool = False
    ) -> Receipt:
        """Take patches out; None takes out all of them, and every bit is the original again.

        Args:
            ids: identifiers or abbreviations.
            reason: why.
            actor: who.
            force: with all of them only: put the originals back even if somebody else changed touched parameters.

        Raises:
            RasuraError: see `rasura.registry.apply.operations.revert`; nothing changed.
        """
        with self._moving() as registry:
            found = None if ids is None else [registry.resolve_patch(i) for i in list_ids(ids)]
            return operations.revert(registry, self.host, found, self._who(actor, reason), force=force)

    def switch(
        self,
        goal: GoalRef,
        *,
        reason: str = "",
        actor: str | None = None,
        policy: Policy | None = None,
    ) -> Receipt:
        """Go to exactly this set, in one motion.

        Args:
            goal: name of a stack, path of a lock file, or patches with their strengths: a `Stack`, a mapping,
                `["ID", "ID=0.5"]`.
            reason: why.
            actor: who.
            policy: limits beside those in force.

        Raises:
            RasuraError: see `rasura.registry.apply.operations.switch`; nothing changed.
        """
        with self._moving() as registry:
            wanted = goal_from(registry, goal)
            return operations.switch(registry, self.host, wanted, self._who(actor, reason), policy=policy)

    def plan(self, goal: GoalRef, *, policy: Policy | None = None) -> Planned:
        """What `switch` would do now, with the digests before and after; nothing is written, neither model nor log.

        Raises:
            RasuraError: whatever would refuse the motion.
        """
        with self._looking() as registry:
            return make_plan(registry, self.host, goal_from(registry, goal), policy=policy)

    def status(self, *, deep: bool = False) -> Survey:
        """What is applied, by hashing what is there."""
        with self._looking() as registry:
            return survey(registry, self.host, deep=deep, progress=lambda *_: None)

    @contextmanager
    def applied(self, ids: Ids, *, strength: Factor = ONE, reason: str = "") -> Iterator[Receipt]:
        """Apply patches for the length of a block, and go back to the set that was there before.

        Other motions of this handle wait until the block ends.
        """
        with self._spoken(), turn(self._turn):
            before = {str(p): s for p, s in self.status().applied.items()}
            receipt = self.apply(ids, strength=strength, reason=reason)
            self._blocks += 1
            try:
                yield receipt
            finally:
                self._blocks -= 1
                self._go_back(before, reason)  # also where the block raised

    @contextmanager
    def request(self) -> Iterator[LiveRequest]:
        """Keep the weights as they are for the length of the block: one picture, one set. Motions wait.

        Inside of it, `status` and `plan` may be called, and `receipt` of what the block gives says, signed, what was in
        force. A motion is refused: it would wait for its own request.
        """
        with self._spoken(), reading(self._gates):
            made = LiveRequest(self._sign_receipt)
            try:
                yield made
            finally:
                made.end()

    def _sign_receipt(self, picture: bytes | None, look: bool) -> bytes:
        with self._looking() as registry:
            if look and (drifted := survey(registry, self.host, deep=False, progress=lambda *_: None).drifted):
                raise DriftError(
                    f"{self.host.location} is not what the log says: {drifted[0]} is another; nothing was signed",
                    hint="rasura patch status --deep",
                )
            record = find_record(registry, self.host)
            return make_receipt(registry, self.host.location, record, picture=picture, looked=look)

    def _go_back(self, before: Mapping[str, Strength], reason: str) -> None:
        # The set as a whole, not the patches of the block: one of them may have been applied before it.
        if before:
            self.switch(before, reason=reason)
        else:
            self.revert(reason=reason)

    @contextmanager
    def _moving(self) -> Iterator[Registry]:
        # A connection belongs to one thread, and a handle to many: each call has one of its own.
        with self._spoken(), turn(self._turn), Registry.open(self._location) as registry:
            if self._left:
                raise InputError("this handle was detached: expected one that is attached", hint="rasura.attach(pipe)")
            if self._acting is not None:
                registry.act_as(self._acting)
            yield registry

    @contextmanager
    def _looking(self) -> Iterator[Registry]:
        # Inside of a request no turn is taken: the motion that has it may be waiting for this very request to end.
        # Until then it writes nothing, so that looking is safe.
        still = nullcontext() if computing_gate(self._gates) else self._turn
        with self._spoken(), still, Registry.open(self._location) as registry:
            yield registry

    @contextmanager
    def _spoken(self) -> Iterator[None]:
        """Errors leave with hints as the holder of the handle reads them."""
        try:
            yield
        except RasuraError as error:
            for each in (error, *error.others):
                each.hint = self._say(each.hint)
            raise

    def _who(self, actor: str | None, reason: str) -> Actor:
        return Actor(actor or self._actor, reason)
