"""Retiring patches: hidden from lists, protected by nothing that is made later, and still there to verify.

Nothing is forgotten and nothing changes on any model. The log alone says what is retired
(`rasura.registry._resources.patches.patch_rows.find_retired`), as it says what was applied.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path

from rasura.patches.errors import ConflictError
from rasura.patches.types import SHORT, PatchId
from rasura.registry._storage.records.choices import RETIRE, UNRETIRE
from rasura.registry._storage.records.records import Draft
from rasura.registry.apply.receipt import Actor
from rasura.registry.registry import Registry

__all__ = ["retire", "unretire"]


def retire(
    registry: Registry, patch_ids: Iterable[PatchId], actor: Actor, *, dry_run: bool = False
) -> tuple[PatchId, ...]:
    """Retire patches that are in force nowhere and in no stack; gives those that were not retired before.

    Raises:
        ConflictError: one is in force on a model, or in a stack: it has to be left alone there.
    """
    ids = tuple(dict.fromkeys(patch_ids))
    for patch_id in ids:
        _check_unused(registry, patch_id)
    retired = registry.retired_patches()
    new = tuple(patch_id for patch_id in ids if patch_id not in retired)
    if new and not dry_run:
        registry.note(Draft(actor.name, actor.reason, RETIRE, "success", new))
    return new


def unretire(
    registry: Registry, patch_ids: Iterable[PatchId], actor: Actor, *, dry_run: bool = False
) -> tuple[PatchId, ...]:
    """Take retired patches back into use; gives those that were retired."""
    retired = registry.retired_patches()
    back = tuple(patch_id for patch_id in dict.fromkeys(patch_ids) if patch_id in retired)
    if back and not dry_run:
        registry.note(Draft(actor.name, actor.reason, UNRETIRE, "success", back))
    return back


def _check_unused(registry: Registry, patch_id: PatchId) -> None:
    hosts, stacks = registry.hosts(patch=patch_id), registry.stacks(patch=patch_id)
    named = [*(f"model {host.location}" for host in hosts), *(f"stack {stack.name}" for stack in stacks)]
    if not named:
        return
    ways = [
        f"rasura patch revert {patch_id[:SHORT]} --model {shlex.quote(host.location)}"
        for host in hosts
        if Path(host.location).is_absolute()  # no command reaches into a live model
    ]
    ways += [f"rasura stack remove {shlex.quote(stack.name)} {patch_id[:SHORT]}" for stack in stacks]
    raise ConflictError(
        f"patch {patch_id[:SHORT]} is in use: {', '.join(named)}; expected one that is in force nowhere",
        hint=ways[0] if ways else "rasura host list",
    )
