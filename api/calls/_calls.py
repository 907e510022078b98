"""What all calls of a registry share.

`rasura.api.registry.Registry` inherits from the classes of this room and of those below it, in the order in which
docs/python.md shows them: one object with all calls, as one types them, in modules that can be read.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rasura.api.progress import Progress
from rasura.registry._storage.records.records import Draft
from rasura.registry.apply.goal import Goal
from rasura.registry.apply.receipt import Actor
from rasura.registry.live.arguments import goal_from

if TYPE_CHECKING:
    from rasura.patches.types import PatchId
    from rasura.registry.live.arguments import GoalRef, Ids
    from rasura.registry.registry import Registry as Store

__all__ = ["Calls"]


class Calls:
    """What all calls of a registry share: where it is, who asks, and how what they name is found."""

    store: Store
    actor: str
    _progress: Progress

    def _draft(self, action: str, reason: str) -> Draft:
        self.store.check_reason(reason)
        self.store.check_signed(action)
        return Draft(self.actor, reason, action, "success")

    def _who(self, reason: str) -> Actor:
        self.store.check_reason(reason)
        return Actor(self.actor, reason)

    def _protected(self, protect: Ids, onto_stack: str | None) -> tuple[list[PatchId], bool]:
        """The patches that were named, each once, and whether all were, which is not a name."""
        words = [protect] if isinstance(protect, str) else list(protect)
        stack = self.store.stack(onto_stack).patches if onto_stack is not None else ()
        named = self._resolve([*(word for word in words if word != "all"), *stack])
        return list(dict.fromkeys(named)), "all" in words

    def _resolve(self, ids: Ids) -> list[PatchId]:
        return [self.store.resolve_patch(i) for i in ([ids] if isinstance(ids, str) else ids)]

    def _goal(self, patches: GoalRef | Iterable[str]) -> Goal:
        """The set that was named; see `Registry`."""
        return goal_from(self.store, patches)
