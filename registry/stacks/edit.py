"""Stacks by name: making one, changing its patches, bringing it up to date, deleting it.

A stack pins: what it names is a patch's digest, so it means the same for ever. All its patches are of one base, and no
two of them are versions of one concept. Whether they may be applied together is the composer's business, which is asked
when a stack is locked, planned or applied.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from rasura.patches.algebra.stack import Stack
from rasura.patches.algebra.strength import ONE, Strength
from rasura.patches.checks.verdict import SHORT
from rasura.patches.errors import (
    BaseMismatchError,
    ConflictError,
    ExistsError,
    InputError,
    NotFoundError,
    StrengthError,
)
from rasura.patches.types import Digest, PatchId
from rasura.registry._storage.records.choices import StackRecord, check_stack_name
from rasura.registry._storage.records.records import Draft
from rasura.registry.apply.preconditions.require_in_use import check_in_use
from rasura.registry.apply.receipt import Actor
from rasura.registry.registry import Registry
from rasura.registry.stacks.versions import Versions
from rasura.registry.trust.approvals.demand import require_approved

__all__ = ["Update", "add", "create", "delete", "members_of", "mend_member", "remove", "set_members", "update"]


@dataclass(frozen=True, slots=True)
class Update:
    """A member that gave way to the newest patch that supersedes it."""

    old: PatchId
    new: PatchId


def members_of(registry: Registry, texts: Iterable[str]) -> Stack:
    """The patches and strengths that people typed as `ID` or `ID=STRENGTH`.

    Raises:
        NotFoundError, AmbiguousIdError: no such patch, or several.
        StrengthError: off the grid, out of range, or 0.
        InputError: a patch twice.
    """
    found: dict[PatchId, Strength] = {}
    for text in texts:
        ref, equals, factor = text.partition("=")
        patch_id = registry.resolve_patch(ref)
        try:
            strength = Strength.parse(factor) if equals else ONE
        except StrengthError as error:
            error.hint = mend_member(text)
            raise
        if strength.sixteenths == 0:
            raise StrengthError(f"{text}: strength 0 adds nothing: expected another", hint=mend_member(text))
        if patch_id in found:
            raise InputError(f"patch {patch_id[:SHORT]} is named twice: expected each once", hint="rasura patch list")
        found[patch_id] = strength
    return Stack(found)


def mend_member(text: str) -> str:
    """A patch as it was typed, with the nearest strength that may stand there; 1 in place of 0 and of what is none."""
    ref, equals, factor = text.partition("=")
    try:
        return f"{ref}=1" if equals and Strength.parse(factor).sixteenths == 0 else text
    except StrengthError as error:
        return f"{ref}={error.details['nearest']}"


def create(
    registry: Registry,
    name: str,
    members: Mapping[PatchId, Strength],
    actor: Actor,
    *,
    base: str | None = None,
    details: Mapping[str, str | int] = MappingProxyType({}),
    dry_run: bool = False,
) -> StackRecord:
    """Make a stack.

    Args:
        registry: where.
        name: what to call it.
        members: its patches; may be empty.
        actor: who and why.
        base: name or digest of its base; needed where there are no patches and several bases.
        details: what else the entry says.
        dry_run: only say what it would be; nothing is written.

    Raises:
        InputError: a name that is none, or no way to know the base.
        ExistsError: there is a stack of this name.
        BaseMismatchError: a patch of another base.
        NotFoundError: the base is not here.
        ConflictError: two versions of one concept.
    """
    check_stack_name(name)
    digest = _base_for(registry, members, base)
    check_in_use(registry, members)
    versions = Versions.of(registry, digest)
    _check_bases(registry, members, digest)
    _check_versions(versions, members, name)
    require_approved(registry, members, stack=name, on_model=False)
    now = registry.now()
    record = StackRecord(name, digest, Stack(members).sixteenths, now, now)
    if dry_run:
        if any(known.name == name for known in registry.stacks()):
            raise ExistsError(f"stack: there is one called {name}", hint=f"rasura stack show {name}")
        return record
    registry.add_stack(record, _draft(actor, "stack.create", details))
    return registry.stack(name)


def add(
    registry: Registry,
    name: str,
    members: Mapping[PatchId, Strength],
    actor: Actor,
    *,
    replace_old: bool = False,
    dry_run: bool = False,
) -> tuple[StackRecord, bool]:
    """Add patches to a stack; with `replace_old`, versions of the same concepts and other strengths give way.

    Returns:
        The stack, and whether it changed.

    Raises:
        NotFoundError: no such stack.
        BaseMismatchError: a patch of another base.
        ConflictError: a version of the same concept, or the patch at another strength, is in the stack.
    """
    before = registry.stack(name)
    check_in_use(registry, (patch_id for patch_id in members if patch_id not in before.patches))
    versions = Versions.of(registry, before.base)
    _check_bases(registry, members, before.base)
    _check_versions(versions, members, name)
    kept = Stack.of_sixteenths(before.patches)
    for patch_id, strength in members.items():
        other = kept.get(patch_id, strength) != strength
        rivals = versions.rivals(patch_id, kept)
        if (rivals or other) and not replace_old:
            raise _taken(name, patch_id, strength, rivals)
        kept = kept.without(rivals).with_({patch_id: strength})
    return _changed(registry, before, kept, _draft(actor, "stack.add"), dry_run=dry_run)


def remove(
    registry: Registry, name: str, patch_ids: Sequence[PatchId], actor: Actor, *, dry_run: bool = False
) -> tuple[StackRecord, bool]:
    """Take patches out of a stack.

    Raises:
        NotFoundError: no such stack, or a patch that is not in it.
    """
    before = registry.stack(name)
    for patch_id in patch_ids:
        if patch_id not in before.patches:
            raise NotFoundError(f"stack {name} has no patch {patch_id[:SHORT]}", hint=f"rasura stack show {name}")
    kept = Stack.of_sixteenths(before.patches).without(patch_ids)
    return _changed(registry, before, kept, _draft(actor, "stack.remove"), dry_run=dry_run)


def update(
    registry: Registry, name: str, actor: Actor, *, dry_run: bool = False
) -> tuple[StackRecord, tuple[Update, ...]]:
    """Replace every patch of a stack by the newest registered one that supersedes it, at the same strength.

    Raises:
        NotFoundError: no such stack.
        ConflictError: the result would have two versions of one concept.
    """
    before = registry.stack(name)
    versions = Versions.of(registry, before.base)
    newest = {patch_id: versions.newest(patch_id) for patch_id in before.patches}
    moved = tuple(Update(old, new) for old, new in sorted(newest.items()) if old != new)
    kept: dict[PatchId, Strength] = {}
    for patch_id, strength in Stack.of_sixteenths(before.patches).items():
        if kept.setdefault(newest[patch_id], strength) != strength:
            raise ConflictError(
                f"stack {name}: patch {newest[patch_id][:SHORT]} supersedes two of its patches, of different strengths",
                hint=f"rasura stack add {name} {newest[patch_id][:SHORT]}=1 --replace",
            )
    _check_versions(versions, kept, name)
    record, _ = _changed(registry, before, Stack(kept), _draft(actor, "stack.update"), dry_run=dry_run)
    return record, moved


def set_members(
    registry: Registry,
    name: str,
    members: Stack,
    actor: Actor,
    *,
    expected: Stack,
    details: Mapping[str, str | int] = MappingProxyType({}),
    dry_run: bool = False,
) -> StackRecord:
    """Make a stack exactly this set, in one step, from exactly that one.

    Raises:
        NotFoundError: no such stack.
        ConflictError: the stack is no longer `expected`, or two versions of one concept.
        BaseMismatchError: a patch of another base.
    """
    before = registry.stack(name)
    if before.patches != expected.sixteenths:
        raise ConflictError(
            f"stack {name} changed since that was planned: expected the {len(expected)} patches of then, got "
            f"{len(before.patches)} others or at other strengths",
            hint=f"rasura stack show {name}",
        )
    _check_bases(registry, members, before.base)
    _check_versions(Versions.of(registry, before.base), members, name)
    return _changed(registry, before, members, _draft(actor, "stack.set", details), dry_run=dry_run)[0]


def delete(registry: Registry, name: str, actor: Actor, *, dry_run: bool = False) -> StackRecord:
    """Delete a stack; patches, and models that have them, stay as they are.

    Raises:
        NotFoundError: no such stack.
    """
    before = registry.stack(name)
    if not dry_run:
        registry.remove_stack(before, _draft(actor, "stack.delete"))
    return before


def _changed(
    registry: Registry, before: StackRecord, patches: Stack, draft: Draft, *, dry_run: bool
) -> tuple[StackRecord, bool]:
    way = Stack.of_sixteenths(before.patches).diff(patches)
    require_approved(registry, (*way.added, *way.changed), stack=before.name, on_model=False)
    after = replace(before, patches=patches.sixteenths, updated_at=registry.now())
    if dry_run:
        return after, after.patches != before.patches
    changed = registry.set_stack(before, after, draft)
    return registry.stack(before.name) if changed else before, changed


def _draft(actor: Actor, action: str, details: Mapping[str, str | int] = MappingProxyType({})) -> Draft:
    return Draft(actor.name, actor.reason, action, "success", details=details)


def _base_for(registry: Registry, members: Iterable[PatchId], base: str | None) -> Digest:
    if base is not None:
        return registry.base(base).digest
    bases = registry.bases()
    first = next(iter(members), None)
    if first is not None:
        digest = registry.patch(first).base
        if all(known.digest != digest for known in bases):
            raise NotFoundError(
                f"the base {digest[:SHORT]} of patch {first[:SHORT]} is not in this registry",
                hint="rasura base add DIR",
            )
        return digest
    if len(bases) != 1:
        raise InputError(
            f"a stack without patches: expected the name of its base, got none of {len(bases)}", hint="--base NAME"
        )
    return bases[0].digest


def _check_bases(registry: Registry, members: Iterable[PatchId], base: Digest) -> None:
    for patch_id in members:
        if (got := registry.patch(patch_id).base) != base:
            raise BaseMismatchError(
                f"patch {patch_id[:SHORT]}: expected a patch of base {base[:SHORT]}, got one of {got[:SHORT]}",
                hint="rasura patch list",
            )


def _check_versions(versions: Versions, members: Iterable[PatchId], name: str) -> None:
    """Refuse a set that names two versions of one concept by itself."""
    pair = versions.clash(members)
    if pair is not None:
        raise ConflictError(
            f"stack {name}: patches {pair[0][:SHORT]} and {pair[1][:SHORT]} are versions of one concept: "
            "expected one of them",
            hint=f"rasura patch show {pair[1][:SHORT]}",
        )


def _taken(name: str, patch_id: PatchId, strength: Strength, rivals: Sequence[PatchId]) -> ConflictError:
    what = f"holds {rivals[0][:SHORT]}, a version of the same concept" if rivals else "holds it at another strength"
    return ConflictError(
        f"patch {patch_id[:SHORT]}: stack {name} {what}",
        hint=f"rasura stack add {name} {patch_id[:SHORT]}{'' if strength == ONE else f'={strength}'} --replace",
    )
