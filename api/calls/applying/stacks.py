"""The calls about named stacks, and the search for the patch of a stack that does harm."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rasura.api.calls._calls import Calls
from rasura.api.hints import in_python
from rasura.registry.stacks import edit
from rasura.registry.stacks.bisection import bisect
from rasura.registry.stacks.lock_stack import lock_stack
from rasura.registry.stacks.overview import overview

if TYPE_CHECKING:
    from rasura.registry._storage.records.choices import StackRecord
    from rasura.registry.live.arguments import GoalRef, Ids
    from rasura.registry.stacks.bisection.bisect import Judgement, Step
    from rasura.registry.stacks.bisection.bisect_state import Bisection
    from rasura.registry.stacks.edit import Update
    from rasura.registry.stacks.lock_file import LockFile
    from rasura.registry.stacks.overview import Overview

__all__ = ["StackCalls"]


class StackCalls(Calls):
    """The stacks of a registry."""

    # Stacks

    @in_python
    def create_stack(
        self,
        name: str,
        patches: GoalRef | Iterable[str] = (),
        *,
        base: str | None = None,
        dry_run: bool = False,
        reason: str = "",
    ) -> StackRecord:
        """Make a stack of patches of one base (`rasura stack create`); with `dry_run` nothing is written.

        Raises:
            ExistsError: there is one of this name.
            BaseMismatchError, ConflictError: patches of several bases, or two versions of one.
        """
        return edit.create(
            self.store, name, dict(self._goal(patches).patches), self._who(reason), base=base, dry_run=dry_run
        )

    @in_python
    def add_to_stack(
        self,
        name: str,
        patches: GoalRef | Iterable[str],
        *,
        replace: bool = False,
        dry_run: bool = False,
        reason: str = "",
    ) -> StackRecord:
        """Add patches to a stack, or with `replace` give them another strength (`rasura stack add`).

        With `dry_run` nothing is written.

        Raises:
            NotFoundError: no such stack or patch.
            ConflictError: another version or strength is there, and `replace` was not asked for.
        """
        found = dict(self._goal(patches).patches)
        return edit.add(self.store, name, found, self._who(reason), replace_old=replace, dry_run=dry_run)[0]

    @in_python
    def remove_from_stack(self, name: str, ids: Ids, *, dry_run: bool = False, reason: str = "") -> StackRecord:
        """Take patches out of a stack; models that have them keep them (`rasura stack remove`).

        With `dry_run` nothing is written.

        Raises:
            NotFoundError: no such stack or patch.
        """
        return edit.remove(self.store, name, self._resolve(ids), self._who(reason), dry_run=dry_run)[0]

    @in_python
    def update_stack(
        self, name: str, *, dry_run: bool = False, reason: str = ""
    ) -> tuple[StackRecord, tuple[Update, ...]]:
        """Replace patches of a stack by the newest that supersede them (`rasura stack update`).

        With `dry_run` nothing is written.

        Raises:
            NotFoundError: no such stack.
        """
        return edit.update(self.store, name, self._who(reason), dry_run=dry_run)

    @in_python
    def delete_stack(self, name: str, *, dry_run: bool = False, reason: str = "") -> StackRecord:
        """Delete a stack; its patches, and models that have them, stay as they are (`rasura stack delete`).

        With `dry_run` nothing is written.

        Raises:
            NotFoundError: no such stack.
        """
        return edit.delete(self.store, name, self._who(reason), dry_run=dry_run)

    @in_python
    def stacks(self) -> tuple[StackRecord, ...]:
        """All stacks (`rasura stack list`)."""
        return self.store.stacks()

    @in_python
    def stack(self, name: str) -> Overview:
        """A stack: patches, what supersedes them, where it is applied, and the verdict (`rasura stack show`).

        Raises:
            NotFoundError: no such stack.
        """
        return overview(self.store, name)

    @in_python
    def lock_stack(self, name: str) -> LockFile:
        """Pin a stack by digests, base, policy and verdict; `to_bytes` is the lock file (`rasura stack lock`).

        Raises:
            CheckRefusedError: the composer refuses it.
        """
        return lock_stack(self.store, self.store.stack(name))

    # Bisection

    @in_python
    def bisect_start(self, stack: str, model: str | Path, *, reason: str = "") -> Step:
        """Begin to look for the patch of a stack that does harm (`rasura patch bisect start`).

        Raises:
            ConflictError: one is going on.
        """
        return bisect.start(self.store, stack, Path(model), self._who(reason))

    @in_python
    def bisect_judge(self, judgement: Judgement, *, reason: str = "") -> Step:
        """Say how the model does now: `good`, `bad` or `skip` (`rasura patch bisect good`).

        Raises:
            NotFoundError: none is going on.
        """
        return bisect.judge(self.store, judgement, self._who(reason))

    @in_python
    def bisect_run(
        self, command: Callable[[], int], *, tell: Callable[[Step], None] = lambda _: None, reason: str = ""
    ) -> Step:
        """Let a function judge until the patch is found: 0 is good, 125 is skip (`rasura patch bisect run`).

        Args:
            command: looks at the model; an exit status, as `git bisect run` reads it.
            tell: told each step.
            reason: why, for the log.

        Raises:
            NotFoundError: none is going on.
        """
        return bisect.run(self.store, command, self._who(reason), tell)

    @in_python
    def bisect_reset(self, *, leave: bool = False, reason: str = "") -> Bisection:
        """End a bisection; the model goes back to what it had (`rasura patch bisect reset`).

        Raises:
            NotFoundError: none is going on.
        """
        return bisect.reset(self.store, self._who(reason), leave=leave)
