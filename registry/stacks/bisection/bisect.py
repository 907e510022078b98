"""Which patch of a stack does harm: halving, as `git bisect` does it.

With the whole stack a model is bad, with none of its patches good; so somewhere along any order of them it turns. Each
step gives the model the first few patches, a person or a command says good or bad, and half of the suspects are left.
What is found is the patch with which the model turned bad: the culprit, if there is one. If two patches do harm only
together, it is the later of them in that order; nothing here tells the two cases apart, and nobody is told otherwise.

Every step is a switch, with its entries in the log. The file of `rasura.registry.stacks.bisection.bisect_state` is
written before and after each, so that a process that died leaves the model in a known subset, or on the way to it, and
`reset` takes it back.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, TypeAlias

from rasura.patches.algebra.stack import Stack
from rasura.patches.algebra.strength import Strength
from rasura.patches.errors import CheckRefusedError, ConflictError, InputError, NotFoundError
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.types import PatchId
from rasura.registry._storage.records.choices import StackRecord
from rasura.registry.apply.goal import Goal
from rasura.registry.apply.hosts.host_state import applied_of, sight_host
from rasura.registry.apply.receipt import Actor
from rasura.registry.registry import Registry
from rasura.registry.stacks.bisection import bisect_state
from rasura.registry.stacks.bisection.bisect_state import Bisection
from rasura.registry.trust.verified_patch import manifest_of

__all__ = ["Judgement", "Step", "judge", "present", "reset", "run", "start"]

Judgement: TypeAlias = Literal["good", "bad", "skip"]

_RESET: Final = "rasura patch bisect reset"
_SKIP: Final = 125
_LAST_BAD: Final = 127


@dataclass(frozen=True, slots=True)
class Step:
    """Where a bisection is.

    Attributes:
        state: the bisection.
        refused: how many patches the subsets had that the composer refused on the way, and which were skipped.
    """

    state: Bisection
    refused: tuple[int, ...] = ()


def start(registry: Registry, name: str, model: Path, actor: Actor, *, dry_run: bool = False) -> Step:
    """Begin with a stack on a model folder, and give the model half of it. With `dry_run`, nothing is written.

    Raises:
        ConflictError: a bisection is going on.
        InputError: a stack without patches.
        RasuraError: see `rasura.registry.apply.operations.switch`; nothing has begun.
    """
    stack = registry.stack(name)
    _check_free(registry)
    if not stack.patches:
        raise InputError(f"stack {name} has no patches: expected some to look among", hint=f"rasura stack show {name}")
    host = CheckpointHost.open(model)
    before = applied_of(sight_host(registry, host))
    state = Bisection(stack.name, stack.base, host.location, before, _ordered(registry, stack), 0, len(stack.patches))
    if dry_run:
        return _advance(registry, state, actor, dry_run=True)
    try:
        return _advance(registry, state, actor)
    except Exception:
        if present(registry, state) == before:  # nothing was written, so nothing has to be taken back
            bisect_state.remove_bisection(registry)
        raise


def judge(registry: Registry, judgement: Judgement, actor: Actor, *, dry_run: bool = False) -> Step:
    """Say what the model is with the subset that it has, and go on to the next one, or to the end.

    With `dry_run`, nothing is written, and what was said is forgotten again.

    Raises:
        NotFoundError: no bisection is going on.
        ConflictError: it is over, was interrupted, the stack was changed, or somebody moved the model.
        DriftError: the model changed outside the registry.
    """
    state = bisect_state.load_bisection(registry)
    _check_going_on(registry, state)
    tried = state.testing
    assert tried is not None
    match judgement:
        case "good":
            state = replace(state, good=tried)
        case "bad":
            state = replace(state, bad=tried)
        case "skip":
            state = replace(state, skipped=state.skipped | {tried})
    return _advance(registry, state, actor, dry_run=dry_run)


def run(registry: Registry, command: Callable[[], int], actor: Actor, tell: Callable[[Step], None]) -> Step:
    """Let a command judge until the end: exit code 0 is good, 125 skips, 1 to 127 is bad.

    Args:
        registry: where.
        command: runs it and gives its exit code, negative for a signal.
        actor: who and why.
        tell: told each step.

    Raises:
        InputError: any other exit code; the bisection stays where it is.
        RasuraError: see `judge`.
    """
    state = bisect_state.load_bisection(registry)
    _check_going_on(registry, state)
    step = Step(state)
    while not step.state.over:
        step = judge(registry, _judgement(command()), actor)
        tell(step)
    return step


def reset(registry: Registry, actor: Actor, *, leave: bool = False, dry_run: bool = False) -> Bisection:
    """Give the model back what it had before, and end the bisection, whatever state it is in.

    Args:
        registry: where.
        actor: who and why.
        leave: leave the model as it is; also where its folder is gone.
        dry_run: see whether it can be done; nothing is written.

    Raises:
        NotFoundError: no bisection is going on, or the model's folder is gone.
        RasuraError: see `rasura.registry.apply.operations.switch`; the bisection stays.
    """
    state = bisect_state.load_bisection(registry)
    if not (leave or (state.over and state.reached)):
        _switch(registry, state, state.before, actor, dry_run=dry_run)
    if not dry_run:
        bisect_state.remove_bisection(registry)
    return state


def _advance(registry: Registry, state: Bisection, actor: Actor, *, dry_run: bool = False) -> Step:
    """Move on to the next subset that the composer accepts; at the end, back to what was before."""
    refused: list[int] = []
    while True:
        state = replace(state, testing=state.next(), reached=False)
        if not dry_run:
            bisect_state.save_bisection(registry, state)
        try:
            _switch(registry, state, state.subset, actor, dry_run=dry_run)
        except CheckRefusedError:
            if state.testing is None:
                raise
            refused.append(state.testing)
            state = replace(state, skipped=state.skipped | {state.testing})
        else:
            state = replace(state, reached=True)
            return Step(state if dry_run else bisect_state.save_bisection(registry, state), tuple(refused))


def _switch(registry: Registry, state: Bisection, patches: Stack, actor: Actor, *, dry_run: bool = False) -> None:
    from rasura.registry.apply.operations import switch  # needs torch; the doctor's look at a bisection does not

    try:
        host = CheckpointHost.open(Path(state.location))
    except NotFoundError as error:
        raise NotFoundError(error.message, hint=f"{_RESET} --leave") from None
    base = state.base if patches or not state.before else None
    switch(registry, host, Goal(f"bisection of {state.stack}", base, patches), actor, dry_run=dry_run)


def _ordered(registry: Registry, stack: StackRecord) -> tuple[tuple[PatchId, Strength], ...]:
    """The patches by age, each after those of the stack that it requires; circles, which cannot be, would come last."""
    needs = {p: {r for r in manifest_of(registry, p).requires if r in stack.patches} for p in stack.patches}
    ages = {p: (registry.patch(p).added_at, p) for p in stack.patches}
    needed_by: dict[PatchId, list[PatchId]] = {}
    for patch_id, required in needs.items():
        for other in required:
            needed_by.setdefault(other, []).append(patch_id)
    ready = [ages[p] for p, required in needs.items() if not required]
    heapq.heapify(ready)
    order: dict[PatchId, None] = {}
    while ready:
        _, patch_id = heapq.heappop(ready)
        order[patch_id] = None
        for dependent in needed_by.get(patch_id, ()):
            needs[dependent].discard(patch_id)
            if not needs[dependent]:
                heapq.heappush(ready, ages[dependent])
    members = Stack.of_sixteenths(stack.patches)
    return tuple((p, members[p]) for p in [*order, *members.without(order)])


def _check_free(registry: Registry) -> None:
    try:
        state = bisect_state.load_bisection(registry)
    except NotFoundError:
        return
    if not (state.over and state.reached):
        raise ConflictError(f"a bisection of stack {state.stack} is going on", hint=_RESET)


def _check_going_on(registry: Registry, state: Bisection) -> None:
    if state.over and state.reached:
        raise ConflictError(f"the bisection of stack {state.stack} is over", hint=_RESET)
    if not state.reached:
        raise ConflictError(
            f"the bisection of stack {state.stack} was interrupted in the middle of a step", hint=_RESET
        )
    try:
        same = Stack.of_sixteenths(registry.stack(state.stack).patches) == dict(state.order)
    except NotFoundError:
        same = False
    if not same:
        raise ConflictError(f"stack {state.stack} is not what it was when the bisection began", hint=_RESET)
    if present(registry, state) != state.subset:
        raise ConflictError(f"{state.location} has other patches than the bisection gave it", hint=_RESET)


def present(registry: Registry, state: Bisection) -> Stack:
    """What the bisection's model has now.

    Raises:
        NotFoundError: it is gone.
        DriftError: it changed outside the registry.
    """
    return applied_of(sight_host(registry, CheckpointHost.open(Path(state.location))))


def _judgement(code: int) -> Judgement:
    if code in {0, _SKIP}:
        return "good" if code == 0 else "skip"
    if 0 < code <= _LAST_BAD:
        return "bad"
    got = f"signal {-code}" if code < 0 else str(code)
    raise InputError(f"the command ended with {got}: expected an exit code from 0 to {_LAST_BAD}", hint=_RESET)
