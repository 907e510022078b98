"""A whole stack on another base, so that what is erased stays erased in the models that derive from one.

Where the other base reads text as the old one does, each patch is expressed on its weights
(`rasura.registry.erase.retarget`): same detector, other responses. Where it reads otherwise (another text encoder,
tokenizer, or network in front of the layers) all are solved anew with the words that the registry stored.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from rasura.patches.algebra.stack import Stack
from rasura.patches.checks.kernels.disturbance import measure_own_leak
from rasura.patches.errors import ExistsError, InputError
from rasura.patches.format.patch import Patch
from rasura.patches.format.signatures.signing_key import SigningKey
from rasura.patches.solving.retarget import describe_origin
from rasura.patches.types import ParamName, PatchId
from rasura.registry._storage.records.choices import StackRecord, check_stack_name
from rasura.registry._storage.records.records import Draft
from rasura.registry.apply.receipt import Actor
from rasura.registry.erase.base_models import OpenBase, open_base
from rasura.registry.erase.encoded_prompts import open_moments
from rasura.registry.erase.retarget import Carried, carry, find_other_reader, sign_carried
from rasura.registry.erase.solve_again import Anew, Workbench, judge_again, read_words
from rasura.registry.log.entries.outcome import log_failure
from rasura.registry.registry import Registry
from rasura.registry.stacks import edit
from rasura.registry.trust.checkpoint_age import require_checkpoint
from rasura.registry.trust.register_patch import add_signed, find_new
from rasura.registry.trust.roles.roles import find_eraser
from rasura.registry.trust.verified_patch import load_verified

__all__ = ["Followed", "FollowedPatch", "retarget_stack"]

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class FollowedPatch:
    """One patch of the stack on the other base.

    Attributes:
        old: the patch on its own base.
        patch: the new patch.
        new: False where the registry held it already.
        way: "weights", "targets" or "words": see `rasura.patches.solving.retarget.describe_origin`.
        as_it_is: what the old increments would leave of the concept on the other base, 1 being all of it; None where
            that base reads text otherwise.
        promise: what the new patch leaks on its protected rows, relative to the other base's own outputs there.
        doubts: what speaks against its erasing anything there, in sentences.
    """

    old: Patch
    patch: Patch
    new: bool
    way: str
    as_it_is: float | None
    promise: float
    doubts: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Followed:
    """A stack that followed to another base, and how far that is from its own.

    Attributes:
        stack: the new stack.
        base: name of the other base.
        reads_otherwise: what of it reads text in another way, such as "text encoder"; "" where nothing does.
        drift: ‖W' − W‖ / ‖W‖ of every touched matrix, by name; empty where the old weights are not at hand.
        patches: in the old stack's order.
        seconds: how long solving and measuring took.
    """

    stack: StackRecord
    base: str
    reads_otherwise: str
    drift: Mapping[ParamName, float]
    patches: tuple[FollowedPatch, ...]
    seconds: float


def retarget_stack(
    registry: Registry,
    name: str,
    base: str,
    how: Anew,
    *,
    to: str | None,
    actor: Actor,
    draft: Draft,
    progress: Progress,
    dry_run: bool = False,
) -> Followed:
    """Make of every patch of a stack one for another base, and of these a stack there, at the same strengths.

    All patches are made before the first is registered; the new stack says which it follows.

    Args:
        registry: where the stack is, and goes.
        name: of the stack.
        base: name, digest or folder of the other base.
        how: `retain`, `column`, `held_out` and `key` count.
        to: what to call the new stack; None: the old one's name and the base's.
        actor: who and why, for the stack.
        draft: the audit entry of each patch.
        progress: told what is going on.
        dry_run: solve and measure, and register nothing.

    Raises:
        InputError: an empty stack, one of this base already, or with patches that cannot be solved anew.
        ExistsError: there is a stack of the new name.
        RefusedError, BaseMismatchError, NotFoundError: as for `rasura.registry.erase.retarget.retarget`; logged.
    """
    before = registry.stack(name)
    ids = tuple(before.patches)
    with log_failure(registry, replace(draft, patches=ids, details={"base": base, "stack": name}), dry_run=dry_run):
        require_checkpoint(registry, registry.policy())
        private = None if dry_run else find_eraser(registry, how.key)
        other = open_base(registry, base, replace(draft, action="base.add"), progress, dry_run=dry_run)
        target = to or f"{name}-{other.record.name}"
        _check_new(registry, before, other, target)
        started = time.perf_counter()
        olds = {patch_id: load_verified(registry, patch_id) for patch_id in ids}
        differs = next((found[0] for old in olds.values() if (found := find_other_reader(old, other))), "")
        if differs:
            made = _solved_anew(registry, olds, other, how, progress)
        else:
            made = [
                carry(registry, old, other, how, draft=draft, progress=progress, dry_run=dry_run)
                for old in olds.values()
            ]
        seconds = time.perf_counter() - started
        fresh = _register(registry, made, other, private, draft)
        record = _stacked(registry, before, target, other, made, actor=actor, dry_run=dry_run)
    patches = tuple(_judged(item, new, differs) for item, new in zip(made, fresh, strict=True))
    return Followed(record, other.record.name, differs, _drift(made, other), patches, seconds)


def _register(
    registry: Registry, made: Sequence[Carried], other: OpenBase, private: SigningKey | None, draft: Draft
) -> tuple[bool, ...]:
    """Sign and register all of them, or without a key only look; whether each is new here."""
    if private is None:
        return find_new(registry, [item.patch.patch_id for item in made])
    return tuple(new for _, new in add_signed(registry, [sign_carried(item, other, private, draft) for item in made]))


def _judged(item: Carried, new: bool, differs: str) -> FollowedPatch:
    as_it_is = None if differs else item.as_it_is
    return FollowedPatch(item.old, item.patch, new, item.way, as_it_is, item.promise_new, item.doubts)


def _check_new(registry: Registry, before: StackRecord, other: OpenBase, target: str) -> None:
    if not before.patches:
        raise InputError(f"stack {before.name} is empty: expected patches", hint=f"rasura stack show {before.name}")
    if before.base == other.record.digest:
        raise InputError(
            f"stack {before.name} is of base {other.record.name!r} already: expected another",
            hint="rasura base list",
        )
    check_stack_name(target)
    if any(known.name == target for known in registry.stacks()):
        raise ExistsError(f"stack: there is one called {target}", hint=f"rasura stack show {target}")


def _stacked(
    registry: Registry,
    before: StackRecord,
    target: str,
    other: OpenBase,
    made: Sequence[Carried],
    *,
    actor: Actor,
    dry_run: bool,
) -> StackRecord:
    strengths = Stack.of_sixteenths(before.patches)
    members = Stack({item.patch.patch_id: strengths[item.old.patch_id] for item in made})
    if dry_run:  # the patches are not here, of which a stack could be made
        now = registry.now()
        return StackRecord(target, other.record.digest, members.sixteenths, now, now)
    return edit.create(registry, target, members, actor, base=other.record.digest, details={"from": before.name})


def _solved_anew(
    registry: Registry, olds: Mapping[PatchId, Patch], other: OpenBase, how: Anew, progress: Progress
) -> list[Carried]:
    """All together where they were made alike, else one after another, each beside those before it."""
    bench = Workbench(registry, how, olds, other, progress, open_moments(registry, other))
    ids = list(olds)
    try:
        request = bench.request(ids)
    except InputError as error:
        if "differing" not in error.details:
            raise
        found: dict[PatchId, Patch] = {}
        for patch_id in ids:
            alone = replace(bench.request([patch_id]), supersedes={})
            (found[patch_id],) = bench.built(alone, {made.patch_id: made for made in found.values()})
        patches = list(found.values())
    else:
        patches = list(bench.built(replace(request, supersedes={}), {}))
    return [
        _described(registry, olds[patch_id], patch, other, how=how, progress=progress)
        for patch_id, patch in zip(ids, patches, strict=True)
    ]


def _described(
    registry: Registry, old: Patch, made: Patch, other: OpenBase, *, how: Anew, progress: Progress
) -> Carried:
    patch = describe_origin(made, old, "words")
    words = read_words(registry, old.manifest, how)
    doubts = judge_again(registry, other, patch, words, how=how, progress=progress)
    leak = measure_own_leak(patch, other.host.originals(patch.tensors.increments))
    return Carried(old, patch, "words", 0.0, float("nan"), leak, 0.0, words, doubts, None, float("nan"))


def _drift(made: Sequence[Carried], other: OpenBase) -> dict[ParamName, float]:
    """How far the other base's matrices are from those that the patches were computed on."""
    found: dict[ParamName, float] = {}
    for item in made:
        own = {name: weight for name, weight in (item.own or {}).items() if name not in found}
        theirs = other.host.originals(own)
        for name, weight in own.items():
            W = weight.double()
            found[name] = float((theirs[name].double() - W).norm() / W.norm().clamp_min(1e-300))
    return dict(sorted(found.items()))
