"""A live model that is sharded over processes, under the hand of one registry.

    model = rasura.attach(unet, registry)       # in every process, at the same time
    model.apply(["c075fe008d4f"])               # in every process: each returns the same receipt

Calls are collective, as those of `torch.distributed` are: every process makes the same ones in the same order. The
first process alone opens the registry, checks, and writes the log, one *begun* and one *done* a motion; its actor and
its reason stand there. The others need not even have the registry's folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self, TypeVar

from rasura.patches.algebra.strength import ONE
from rasura.patches.checks.policy import Policy
from rasura.patches.format.signatures.signing_key import SigningKey
from rasura.patches.hosts.live.originals import KeepOn
from rasura.patches.hosts.sharded.sharded_host import ShardedHost
from rasura.registry.apply.receipt import Receipt
from rasura.registry.apply.status import Survey
from rasura.registry.live.arguments import Factor, GoalRef, Ids, list_ids_of_one_strength
from rasura.registry.live.live_model import LiveModel
from rasura.registry.registry import Registry, find_location
from rasura.registry.stacks.plan import Planned

__all__ = ["ShardedModel"]

_T = TypeVar("_T")


class ShardedModel(LiveModel):
    """One process's handle; see `LiveModel` for the methods, all of which every process calls."""

    def __init__(
        self,
        host: ShardedHost,
        location: str | Path,
        actor: str,
        *,
        acting: SigningKey | None = None,
        say: Callable[[str], str] = str,
    ) -> None:
        """Use `rasura.attach`."""
        super().__init__(host, location, actor, acting=acting, say=say)
        self._sharded = host

    @classmethod
    def joined(
        cls,
        model: object,
        registry: str | Path | None,
        label: str,
        keep_on: KeepOn,
        actor: str,
        *,
        act: Callable[[Registry], SigningKey] | None = None,
        say: Callable[[str], str] = str,
    ) -> Self:
        """Attach this process's part, together with the others; the first one, which writes the log, calls `act`.

        Raises:
            UnsupportedHostError: neither a pipeline nor such a module, or shards that are none.
            NoRegistryError: there is no registry where the first process looks.
            ProcessGroupError: another process did not come.
        """

        def located() -> str:
            # in the first process alone; the others hear of it
            location = find_location(Path.cwd()) if registry is None else registry
            with Registry.open(location) as opened:  # a missing registry is told in every process, before any motion
                keys.extend(() if act is None else [act(opened)])
            host.parameters()
            return str(location)

        keys: list[SigningKey] = []
        # Defined before the host exists, called after.
        host = ShardedHost.of(model, label, keep_on=keep_on)
        place = host.together(("attach", label), located)
        return cls(host, place, actor, acting=keys[0] if keys else None, say=say)

    def apply(
        self,
        ids: Ids,
        *,
        strength: Factor = ONE,
        reason: str = "",
        actor: str | None = None,
        policy: Policy | None = None,
    ) -> Receipt:
        """See `LiveModel`."""
        # Bound here: inside the lambda, `super()` would find no `self`.
        wanted, act = list_ids_of_one_strength(ids), super().apply
        return self._together(
            ("apply", wanted, str(strength), policy),
            lambda: act(wanted, strength=strength, reason=reason, actor=actor, policy=policy),
        )

    def revert(
        self, ids: Ids | None = None, *, reason: str = "", actor: str | None = None, force: bool = False
    ) -> Receipt:
        """See `LiveModel`."""
        wanted, act = None if ids is None else _listed(ids), super().revert
        return self._together(("revert", wanted, force), lambda: act(wanted, reason=reason, actor=actor, force=force))

    def switch(
        self,
        goal: GoalRef,
        *,
        reason: str = "",
        actor: str | None = None,
        policy: Policy | None = None,
    ) -> Receipt:
        """See `LiveModel`."""
        act, wanted = super().switch, _read_once(goal)
        return self._together(
            # The question is compared between the processes, so it holds texts: strengths of several types mean the
            # same.
            ("switch", _said(wanted), policy),
            lambda: act(wanted, reason=reason, actor=actor, policy=policy),
        )

    def plan(self, goal: GoalRef, *, policy: Policy | None = None) -> Planned:
        """See `LiveModel`."""
        act, wanted = super().plan, _read_once(goal)
        return self._together(("plan", _said(wanted), policy), lambda: act(wanted, policy=policy))

    def status(self, *, deep: bool = False) -> Survey:
        """See `LiveModel`."""
        act = super().status
        return self._together(("status", deep), lambda: act(deep=deep))

    def _sign_receipt(self, picture: bytes | None, look: bool) -> bytes:
        """Called by every process; the first signs, for the picture that it was given."""
        act = super()._sign_receipt
        return self._together(("receipt", look), lambda: act(picture, look))

    def _together(self, question: object, act: Callable[[], _T]) -> _T:
        # One call after the other: calls of two threads would meet those of other processes in another order.
        with self._spoken(), self._turn:
            return self._sharded.together(question, act)


def _listed(ids: Ids) -> list[str]:
    return [ids] if isinstance(ids, str) else list(ids)


def _read_once(goal: GoalRef) -> GoalRef:
    return goal if isinstance(goal, str | Mapping) else list(goal)


def _said(goal: GoalRef) -> object:
    return {i: str(strength) for i, strength in goal.items()} if isinstance(goal, Mapping) else goal
