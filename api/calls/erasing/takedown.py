"""The calls from a request to a model that no longer draws it, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rasura.api.arguments import Lines, PolicyRef, read_lines, read_policy_argument
from rasura.api.calls._calls import Calls
from rasura.api.hints import in_python
from rasura.patches.erasers.catalogue import eraser
from rasura.patches.errors import InputError
from rasura.patches.lists.role import ANCHORS, NAMES, REQUESTS
from rasura.patches.models.text_encoders.plain_text import normal
from rasura.patches.prompts.retain_set import load_retain_set

if TYPE_CHECKING:
    from rasura.evaluation.look import Seen
    from rasura.registry.takedown.carry_out import CarriedOut
    from rasura.registry.takedown.ground import Place
    from rasura.registry.takedown.plan import TakedownPlan
    from rasura.registry.takedown.solving.recipe import Recipe
    from rasura.registry.takedown.wanted import WantedConcept

__all__ = ["TakedownCalls"]


class TakedownCalls(Calls):
    """Takedowns and their withdrawal."""

    @in_python
    def takedown(
        self,
        concepts: Lines = (),
        *,
        model: str | Path | None = None,
        stack: str | None = None,
        anchors: Lines = (),
        file: str | Path | None = None,
        retain: str | Path | None = None,
        retain_column: str | None = None,
        truncate: bool = False,
        templates: Lines = (),
        names: Lines | Mapping[str, Lines] = (),
        method: str | None = None,
        settings: Mapping[str, str] | None = None,
        layers: str | None = None,
        tokens: str | None = None,
        rank_rule: str | None = None,
        policy: PolicyRef | None = None,
        judge: str | None = None,
        pictures: int = 4,
        dry_run: bool = False,
        key: str | None = None,
        reason: str = "",
    ) -> tuple[TakedownPlan, tuple[Seen, ...], CarriedOut | None]:
        """Take concepts down beside all that is erased already, in one motion (`rasura takedown`).

        Args:
            concepts: what to take down.
            model: the model; or
            stack: the stack that takes them; one of the two.
            anchors: what they become: one for all or one each; none: `auto`.
            file: requests as CSV, YAML or JSONL, in place of `concepts`.
            retain: what to keep; None: what older patches keep.
            retain_column: which column of it.
            truncate: cut texts of it that are longer than the model reads.
            templates: prompts with one `{}`, for all concepts.
            names: what the concept is called besides; of several concepts, by concept.
            method: eraser of what is new; None: `null-space`. What stands keeps its own.
            settings: choices of the method, see `rasura.options`; a seed is one of them.
            layers: which layers; None: the method's.
            tokens: which tokens stand for a concept; None: the method's.
            rank_rule: cut of the retained spectrum; None: the method's.
            policy: limits that must hold, too.
            judge: looks at pictures first; as for `evaluate`.
            pictures: how many of each concept it is shown.
            dry_run: plan, look, and stop.
            key: name of the key to sign with; None: the only one.
            reason: why, for the log.

        Returns:
            The plan, what a judge saw, and what was done; None of a dry run.

        Raises:
            InputError: both or neither of model and stack, or of concepts and file.
            CheckRefusedError: something stands in the way, or a judge still sees a concept; nothing was moved.
        """
        from rasura.registry.takedown.plan import plan_takedown

        plan = plan_takedown(
            self.store,
            _place(model, stack),
            _wanted(concepts, file, anchors, names, templates),
            retain=None if retain is None else load_retain_set(retain, retain_column, truncate=truncate),
            templates=(),
            draft=self._draft("takedown.plan", reason),
            progress=self._progress,
            policy=read_policy_argument(policy),
            recipe=_recipe(method, settings, layers=layers, tokens=tokens, rank_rule=rank_rule),
        )
        return self._finish(plan, "takedown.plan", reason, policy, judge, pictures, key, dry_run=dry_run)

    @in_python
    def withdraw(
        self,
        names: Lines,
        *,
        model: str | Path | None = None,
        stack: str | None = None,
        policy: PolicyRef | None = None,
        judge: str | None = None,
        pictures: int = 4,
        dry_run: bool = False,
        key: str | None = None,
        reason: str = "",
    ) -> tuple[TakedownPlan, tuple[Seen, ...], CarriedOut | None]:
        """Take takedowns back, in one motion; all others stay erased (`rasura withdraw`).

        Args:
            names: concepts, or identifiers of patches.
            model: see `takedown`.
            stack: see `takedown`.
            policy: limits that must hold, too.
            judge: looks at pictures first.
            pictures: how many of each concept it is shown.
            dry_run: plan, look, and stop.
            key: name of the key to sign with; None: the only one.
            reason: why, for the log.

        Raises:
            NotFoundError: what was never erased there; nothing was moved.
            CheckRefusedError: see `takedown`.
        """
        from rasura.registry.takedown.plan_withdrawal import plan_withdrawal

        plan = plan_withdrawal(
            self.store,
            _place(model, stack),
            read_lines(names),
            draft=self._draft("takedown.withdraw", reason),
            progress=self._progress,
            policy=read_policy_argument(policy),
        )
        return self._finish(plan, "takedown.withdraw", reason, policy, judge, pictures, key, dry_run=dry_run)

    def _finish(  # noqa: PLR0917  # what both calls were given
        self,
        plan: TakedownPlan,
        action: str,
        reason: str,
        policy: PolicyRef | None,
        judge: str | None,
        pictures: int,
        key: str | None,
        *,
        dry_run: bool,
    ) -> tuple[TakedownPlan, tuple[Seen, ...], CarriedOut | None]:
        from rasura.evaluation.look import look_at_plan, require_unseen
        from rasura.registry.takedown.carry_out import carry_out

        seen = look_at_plan(plan, judge, n=pictures, progress=self._progress) if judge and plan.changes else ()
        if dry_run:
            return plan, seen, None
        require_unseen(seen)
        draft, limits = self._draft(action, reason), read_policy_argument(policy)
        return plan, seen, carry_out(self.store, plan, key=key, draft=draft, progress=self._progress, policy=limits)


def _wanted(
    concepts: Lines, file: str | Path | None, anchors: Lines, names: Lines | Mapping[str, Lines], templates: Lines
) -> tuple[WantedConcept, ...]:
    from rasura.registry.takedown.wanted import list_wanted
    from rasura.registry.takedown.wanted_file import read_wanted

    texts, own = read_lines(concepts, REQUESTS), read_lines(templates)
    if bool(texts) == (file is not None):
        raise InputError("expected concepts or a file of requests, one of the two", hint="rasura takedown")
    if file is None:
        return list_wanted(texts, read_lines(anchors, ANCHORS), [own], _names(texts, names))
    if names:
        raise InputError("with a file of requests, names stand in the file: expected no others", hint="rasura takedown")
    return read_wanted(Path(file), own)


def _names(concepts: Sequence[str], names: Lines | Mapping[str, Lines]) -> list[tuple[str, ...]]:
    """What each concept is called besides, in their order."""
    if not isinstance(names, Mapping):
        given = read_lines(names, NAMES)
        if given and len(concepts) != 1:
            raise InputError(
                f"names of {len(concepts)} concepts: expected them by concept, such as "
                f"{{{concepts[0]!r}: [{given[0]!r}]}}, got {type(names).__name__}",
                hint="rasura takedown",
            )
        return [given for _ in concepts]
    by_concept = {normal(concept): read_lines(own, NAMES) for concept, own in names.items()}
    if odd := [concept for concept in names if normal(concept) not in map(normal, concepts)]:
        raise InputError(
            f"names of {', '.join(odd)}: expected those of {', '.join(concepts)}, the concepts of this call",
            hint="rasura takedown",
        )
    return [by_concept.get(normal(concept), ()) for concept in concepts]


def _recipe(
    method: str | None,
    settings: Mapping[str, str] | None,
    *,
    layers: str | None,
    tokens: str | None,
    rank_rule: str | None,
) -> Recipe | None:
    """How it is to be erased; None where nothing was said: then what is there keeps its own way."""
    from rasura.registry.takedown.solving.recipe import make_recipe

    if not any((method, settings, layers, tokens, rank_rule)):
        return None
    made = eraser(method or "null-space", settings or {})
    return make_recipe(made, layers=layers, tokens=tokens, rank_rule=rank_rule)


def _place(model: str | Path | None, stack: str | None) -> Place:
    from rasura.registry.takedown.ground import Place

    if (model is None) == (stack is None):
        raise InputError("expected a model or a stack, one of the two", hint="rasura takedown --model MODEL")
    return Place(None if model is None else Path(model), stack)
