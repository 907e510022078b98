"""The calls that change models on disk, or say what is applied to them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from rasura.api.arguments import PolicyRef, read_policy_argument
from rasura.api.calls._calls import Calls
from rasura.api.hints import in_python, python_hint
from rasura.patches.algebra.strength import Strength
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.registry.apply.operations import apply_to_folder, revert, switch_folder
from rasura.registry.apply.status import survey
from rasura.registry.doctor import examine
from rasura.registry.live.arguments import list_ids, list_ids_of_one_strength
from rasura.registry.stacks.plan import apply_plan, make_plan
from rasura.registry.standing.garbage import collect
from rasura.registry.standing.retire import retire, unretire
from rasura.registry.standing.standing import find_placed, take_stock
from rasura.registry.standing.undo import plan_undo, undo

if TYPE_CHECKING:
    from rasura.patches.types import PatchId
    from rasura.registry.apply.receipt import Receipt
    from rasura.registry.apply.status import Survey
    from rasura.registry.doctor import Finding
    from rasura.registry.live.arguments import Factor, GoalRef, Ids
    from rasura.registry.stacks.plan import Planned
    from rasura.registry.stacks.plan_file import Plan
    from rasura.registry.standing.garbage import Garbage
    from rasura.registry.standing.standing import Placed, Standing
    from rasura.registry.standing.undo import Undone

__all__ = ["ModelCalls"]


class ModelCalls(Calls):
    """What is applied where."""

    # Models

    @in_python
    def apply(
        self,
        model: str | Path,
        ids: Ids,
        *,
        strength: Factor = 1,
        out: str | Path | None = None,
        policy: PolicyRef | None = None,
        dry_run: bool = False,
        reason: str = "",
    ) -> Receipt:
        """Apply patches to a model, together with those that are applied already: all or nothing.

        Args:
            model: the model.
            ids: the patches.
            strength: of each: a multiple of 1/16 from -4 to 4.
            out: patch a new copy there instead.
            policy: limits that must hold beside those in force.
            dry_run: only say what it would do; nothing is written.
            reason: why, for the log.

        Raises:
            InputError: no patch, or patches with a strength each: that is `switch`.
            AlreadyAppliedError: one of them is applied at another strength; nothing changed. At this one it stays.
            CheckRefusedError, VerificationError, BaseMismatchError, DriftError, HostError: nothing changed.
        """
        found, factor = self._resolve(list_ids_of_one_strength(ids)), Strength.of(strength)
        copy = None if out is None else Path(out)
        return apply_to_folder(
            self.store,
            Path(model),
            found,
            self._who(reason),
            strength=factor,
            out=copy,
            policy=read_policy_argument(policy),
            dry_run=dry_run,
        )

    @in_python
    def undo(
        self, model: str | Path | None = None, *, stack: str | None = None, dry_run: bool = False, reason: str = ""
    ) -> Undone:
        """Take the last motion of a model or a stack back; without either, the last one of all (`rasura undo`).

        A motion of its own, which the next undo takes back. Nobody is asked, whatever comes back. With `dry_run`
        nothing is written.

        Raises:
            InputError: both a model and a stack.
            NotFoundError: nothing was ever moved there.
            ConflictError: the last motion has no inverse.
        """
        planned = plan_undo(self.store, model=None if model is None else Path(model), stack=stack)
        return undo(self.store, planned, self._who(reason), dry_run=dry_run)

    @in_python
    def retire(self, ids: str | Iterable[str], *, dry_run: bool = False, reason: str = "") -> tuple[PatchId, ...]:
        """Retire patches: hidden from lists, left alone by nothing that is made later (`rasura patch retire`).

        With `dry_run` nothing is written.

        Returns:
            Those that were not retired before.

        Raises:
            ConflictError: one is in force on a model or in a stack.
        """
        return retire(self.store, self._resolve(ids), self._who(reason), dry_run=dry_run)

    @in_python
    def unretire(self, ids: str | Iterable[str], *, dry_run: bool = False, reason: str = "") -> tuple[PatchId, ...]:
        """Take retired patches back into use (`rasura patch unretire`).

        With `dry_run` nothing is written.

        Returns:
            Those that were retired.
        """
        return unretire(self.store, self._resolve(ids), self._who(reason), dry_run=dry_run)

    @in_python
    def collect_garbage(self, *, hours: float = 24, dry_run: bool = False, reason: str = "") -> Garbage:
        """Remove stored bytes that no table, no entry of the log and no manifest refers to (`rasura gc`).

        Args:
            hours: leave alone what was stored since; its commit may be on its way.
            dry_run: only say what would be removed.
            reason: why, for the log.

        Raises:
            RegistryError: a blob cannot be removed.
        """
        return collect(self.store, self._who(reason), quiet=timedelta(hours=hours), dry_run=dry_run)

    @in_python
    def hosts(self, *, look: bool = False) -> tuple[Placed, ...]:
        """The models that something was applied to, and what is in force on each (`rasura host list`).

        Args:
            look: hash what is on every model, and compare.
        """
        return find_placed(self.store, look=look, progress=self._progress)

    @in_python
    def standing(self, *, look: bool = False) -> Standing:
        """Where the registry stands: what is in force on which model, and what is open (`rasura status`).

        Args:
            look: hash what is on every model, and compare.
        """
        return take_stock(self.store, look=look, progress=self._progress)

    @in_python
    def revert(
        self,
        model: str | Path,
        ids: Ids | None = None,
        *,
        force: bool = False,
        policy: PolicyRef | None = None,
        dry_run: bool = False,
        reason: str = "",
    ) -> Receipt:
        """Take patches out of a model; with the last one, all that patches touched is the original again.

        Args:
            model: the model.
            ids: the patches; None: all of them.
            force: with all of them: put the originals back even if something else was changed.
            policy: limits for what stays beside those in force.
            dry_run: only say what it would do; nothing is written.
            reason: why, for the log.

        Raises:
            InputError: an empty list of patches.
            NotAppliedError: one of them is not applied; nothing changed.
            DriftError: the model is not what the registry last wrote; nothing changed.
        """
        found = None if ids is None else self._resolve(list_ids(ids))
        return revert(
            self.store,
            CheckpointHost.open(Path(model)),
            found,
            self._who(reason),
            policy=read_policy_argument(policy),
            force=force,
            dry_run=dry_run,
        )

    @in_python
    def switch(
        self,
        model: str | Path,
        stack: GoalRef | Iterable[str],
        *,
        out: str | Path | None = None,
        policy: PolicyRef | None = None,
        dry_run: bool = False,
        reason: str = "",
    ) -> Receipt:
        """Move a model to exactly these patches and strengths, in one motion (`rasura patch switch`).

        With `dry_run` nothing is written.

        Raises:
            RasuraError: as for `apply`; nothing changed.
        """
        goal, copy = self._goal(stack), None if out is None else Path(out)
        return switch_folder(
            self.store,
            Path(model),
            goal,
            self._who(reason),
            out=copy,
            policy=read_policy_argument(policy),
            dry_run=dry_run,
        )

    @in_python
    def status(self, model: str | Path, *, deep: bool = False) -> Survey:
        """What is applied to a model, by hashing what is there (`rasura patch status`).

        Args:
            model: the model.
            deep: hash every patchable parameter and recompute the touched ones.

        Raises:
            HostError: no model that can be read.
        """
        return survey(self.store, CheckpointHost.open(Path(model)), deep=deep, progress=self._progress)

    @in_python
    def plan(self, model: str | Path, stack: GoalRef | Iterable[str], *, policy: PolicyRef | None = None) -> Planned:
        """What would change if a model were switched to a stack; nothing is written (`rasura plan`).

        Raises:
            RasuraError: as for `switch`.
        """
        return make_plan(
            self.store, CheckpointHost.open(Path(model)), self._goal(stack), policy=read_policy_argument(policy)
        )

    @in_python
    def apply_plan(self, plan: Plan, *, reason: str = "") -> Receipt:
        """Do exactly what a plan says (`rasura patch apply PLAN`).

        Raises:
            ConflictError: the plan is stale; nothing changed.
            RasuraError: as for `switch`.
        """
        return apply_plan(self.store, plan, self._who(reason))

    @in_python
    def doctor(
        self, models: Iterable[str | Path] = (), *, dry_run: bool = False, reason: str = ""
    ) -> tuple[Finding, ...]:
        """Find what processes that died left behind, and put it right (`rasura doctor`).

        Args:
            models: which models to look at; none: all that the registry knows.
            dry_run: only say what would be repaired.
            reason: why, for the log.
        """
        folders = tuple(Path(model) for model in models)
        found = examine(self.store, folders, self._who(reason), dry_run=dry_run, progress=self._progress)
        return tuple(replace(finding, hint=python_hint(finding.hint)) for finding in found)
