"""Stacks: named sets of patches with strengths."""

from dataclasses import replace

from rasura.patches.types import PatchId
from rasura.registry._resources.resource import Opened
from rasura.registry._storage.choices import StackRecord
from rasura.registry._storage.records import Draft
from rasura.registry.rows import stacks

__all__ = ["Stacks"]


class Stacks(Opened):
    """What a registry does with stacks. What may be in one is the business of `rasura.registry.stacks.edit`."""

    def stacks(self, *, patch: PatchId | None = None) -> tuple[StackRecord, ...]:
        """All stacks by name, or those that `patch` is in."""
        with self.reading() as session:
            return stacks.every(session, patch=patch)

    def stack(self, name: str) -> StackRecord:
        """The stack of this name.

        Raises:
            NotFoundError: no such stack.
        """
        with self.reading() as session:
            return stacks.load(session, name)

    def add_stack(self, record: StackRecord, entry: Draft) -> None:
        """Adds a stack. The entry names its patches where it names nothing.

        Raises:
            ExistsError: there is one of this name.
            NotFoundError: its base, or a patch of it, is not in this registry.
        """
        self._journal.change(_named(entry, record, record), lambda session: [stacks.insert(session, record)])

    def set_stack(self, before: StackRecord, after: StackRecord, entry: Draft) -> bool:
        """Replaces the patches of a stack; False where they are the same. The entry names those that moved.

        Raises:
            ConflictError: the stack is no longer what `before` says.
            NotFoundError: it is gone, or a patch of it is not in this registry.
        """
        draft = _named(entry, before, after)
        return self._journal.change(draft, lambda session: [stacks.update(session, before, after)]) is not None

    def remove_stack(self, before: StackRecord, entry: Draft) -> None:
        """Removes a stack; its patches and the models that have them stay as they are.

        Raises:
            ConflictError: the stack is no longer what `before` says.
            NotFoundError: it is gone.
        """
        self._journal.change(_named(entry, before, before), lambda session: [stacks.remove(session, before)])


def _named(entry: Draft, before: StackRecord, after: StackRecord) -> Draft:
    """The entry with the stack's name and base, and with all patches of one record or those that moved between two."""
    moved = (
        {*after.patches} if before is after else {p for p, _ in {*before.patches.items()} ^ {*after.patches.items()}}
    )
    return replace(
        entry,
        patches=entry.patches or tuple(sorted(moved)),
        base=entry.base or after.base,
        details={**entry.details, "stack": after.name},
    )
