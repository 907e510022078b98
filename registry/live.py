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

import getpass
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rasura.patches.errors import InputError
from rasura.patches.increment import ONE, Strength
from rasura.registry.steps import Actor, Receipt
from rasura.registry.store import Registry, find_location

if TYPE_CHECKING:
    from torch import nn

    from rasura.patches.hosts.originals import KeepOn
    from rasura.patches.hosts.torch_host import TorchHost
    from rasura.patches.policy import Policy
    from rasura.registry.goals import Goal
    from rasura.registry.planning import Planned
    from rasura.registry.survey import Survey

__all__ = ["LiveModel", "attach"]

Ids = str | Iterable[str]
"""One identifier or abbreviation, or several."""


def attach(
    model: object,
    registry: str | Path | None = None,
    *,
    label: str = "",
    keep_on: KeepOn = "cpu",
    remember: int = 2,
    actor: str | None = None,
) -> LiveModel:
    """Put a live model under a registry's hand.

    Args:
        model: a diffusers pipeline, or one of its modules (UNet, transformer, CLIP text encoder).
        registry: folder or URL of the registry; None: the nearest `.rasura` upwards from the working folder.
        label: what people call the model; goes into the log.
        keep_on: where the originals of touched parameters are kept: `cpu`, `pinned`, `device`, or the base's folder
            (`rasura.patches.hosts.originals`).
        remember: how many values of each touched parameter to keep there besides, so that stacks that come back are
            neither composed nor hashed again (`rasura.patches.hosts.remembered`).
        actor: who acts where a call does not say; None: the user's login name.

    Raises:
        UnsupportedHostError: neither a pipeline nor such a module.
        NoRegistryError: there is no registry.
    """
    from rasura.patches.hosts.torch_host import TorchHost

    location = find_location(Path.cwd()) if registry is None else registry
    Registry.open(location).close()
    host = TorchHost.of(model, label, keep_on=keep_on, remember=remember)
    return LiveModel(host, location, actor or _login())


class LiveModel:
    """A handle on a live model; see the module. Made by `attach`."""

    def __init__(self, host: TorchHost, location: str | Path, actor: str) -> None:
        """Use `attach`."""
        from rasura.patches.hosts.gate import Gate, gate_of, gated

        self.host = host
        self._location = location
        self._actor = actor
        self._turn = threading.RLock()
        modules = tuple(host.modules)
        shared = [gate for module in modules if (gate := gate_of(module)) is not None]
        # Two handles of one model share the gate that the first put around it, and the first takes it away.
        self._gate = shared[0] if shared else Gate()
        self._ungate = gated([m for m in modules if gate_of(m) is None], self._gate)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()

    def detach(self) -> None:
        """Take the gate away. What is applied stays applied; the originals stay with the model."""
        self._ungate()

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """The parts of the model that patches may touch."""
        return tuple(self.host.modules)

    def apply(
        self,
        ids: Ids,
        *,
        strength: Strength | str = ONE,
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
            RasuraError: see `rasura.registry.deploy.apply`; nothing changed.
            BusyError: called from inside a forward of this model.
        """
        from rasura.registry import deploy

        factor = Strength.parse(strength) if isinstance(strength, str) else strength
        with self._opened() as registry:
            found = [registry.resolve_patch(i) for i in _listed(ids)]
            who = self._who(actor, reason)
            return deploy.apply(registry, self.host, found, who, strength=factor, policy=policy)

    def revert(self, ids: Ids | None = None, *, reason: str = "", actor: str | None = None) -> Receipt:
        """Take patches out; None takes out all of them, and every bit is the original again.

        Raises:
            RasuraError: see `rasura.registry.deploy.revert`; nothing changed.
        """
        from rasura.registry import deploy

        with self._opened() as registry:
            found = None if ids is None else [registry.resolve_patch(i) for i in _listed(ids)]
            return deploy.revert(registry, self.host, found, self._who(actor, reason))

    def switch(
        self,
        goal: str | Mapping[str, Strength | str],
        *,
        reason: str = "",
        actor: str | None = None,
        policy: Policy | None = None,
    ) -> Receipt:
        """Go to exactly this set, in one motion.

        Args:
            goal: name of a stack, path of a lock file, or patches with their strengths.
            reason: why.
            actor: who.
            policy: limits beside those in force.

        Raises:
            RasuraError: see `rasura.registry.deploy.switch`; nothing changed.
        """
        from rasura.registry import deploy

        with self._opened() as registry:
            wanted = _goal(registry, goal)
            return deploy.switch(registry, self.host, wanted, self._who(actor, reason), policy=policy)

    def plan(self, goal: str | Mapping[str, Strength | str], *, policy: Policy | None = None) -> Planned:
        """What `switch` would do now, with the digests before and after; nothing is written, neither model nor log.

        Raises:
            RasuraError: whatever would refuse the motion.
        """
        from rasura.registry.planning import make_plan

        with self._opened() as registry:
            return make_plan(registry, self.host, _goal(registry, goal), policy=policy)

    def status(self, *, deep: bool = False) -> Survey:
        """What is applied, by hashing what is there."""
        from rasura.registry.survey import survey

        with self._opened() as registry:
            return survey(registry, self.host, deep=deep, progress=lambda *_: None)

    @contextmanager
    def applied(self, ids: Ids, *, strength: Strength | str = ONE, reason: str = "") -> Iterator[Receipt]:
        """Apply patches for the length of a block, and go back to the set that was there before.

        Other motions of this handle wait until the block ends.
        """
        with self._turn:
            before = {str(p): s for p, s in self.status().applied.items()}
            receipt = self.apply(ids, strength=strength, reason=reason)
            try:
                yield receipt
            finally:
                self._go_back(before, reason)

    @contextmanager
    def request(self) -> Iterator[None]:
        """Keep the weights as they are for the length of the block: one picture, one set. Motions wait."""
        with self._gate.reading():
            yield

    def _go_back(self, before: Mapping[str, Strength], reason: str) -> None:
        if before:
            self.switch(before, reason=reason)
        else:
            self.revert(reason=reason)

    @contextmanager
    def _opened(self) -> Iterator[Registry]:
        with self._turn, Registry.open(self._location) as registry:
            yield registry

    def _who(self, actor: str | None, reason: str) -> Actor:
        return Actor(actor or self._actor, reason)


def _listed(ids: Ids) -> list[str]:
    found = [ids] if isinstance(ids, str) else list(ids)
    if not found:
        raise InputError("no patch was named: expected at least one", hint="rasura patch list")
    return found


def _goal(registry: Registry, goal: str | Mapping[str, Strength | str]) -> Goal:
    from rasura.registry.goals import Goal, goal_of

    if isinstance(goal, str):
        return goal_of(registry, goal)
    factors = {i: Strength.parse(s) if isinstance(s, str) else s for i, s in goal.items()}
    return Goal("patches", None, {registry.resolve_patch(i): strength for i, strength in factors.items()})


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
