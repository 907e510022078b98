"""What stands in the way of a set of patches, looked at before anything is computed: all of it at once.

Nothing here writes, and nothing needs the weights: signatures and trust, bases that are registered, evaluations that
the policy demands, a model that is there. What the weights say comes after it (`rasura.registry.apply.prepare`).
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable
from pathlib import Path

from rasura.patches.algebra.stack import Stack
from rasura.patches.algebra.strength import Strength
from rasura.patches.checks.policy import Policy
from rasura.patches.errors import NotFoundError, RasuraError
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.obstacles import Obstacles
from rasura.patches.types import SHORT, PatchId
from rasura.registry.apply.goal import Goal, stricter_of
from rasura.registry.apply.hosts.host_state import applied_of, sight_host
from rasura.registry.apply.preconditions.require_evaluated import require_evaluated
from rasura.registry.apply.preconditions.require_in_use import check_in_use
from rasura.registry.registry import Registry
from rasura.registry.trust.check import Loaded, load_stack
from rasura.registry.trust.checkpoint_age import require_checkpoint
from rasura.registry.trust.limits import merge_policies

__all__ = ["look_ahead", "note_unfit", "note_unready"]


def look_ahead(
    registry: Registry,
    model: Path,
    patch_ids: Iterable[PatchId],
    obstacles: Obstacles,
    *,
    strength: Strength,
    stricter: Policy | None,
) -> None:
    """Note what stands in the way of putting patches on a model, besides what is known already; nothing is written.

    Args:
        registry: where the patches are.
        model: a folder or file, which need not be there.
        patch_ids: those of the patches that were found.
        obstacles: what was found so far; gets the rest.
        strength: of each.
        stricter: limits beside those of the registry's policy.
    """
    present, ids = _present(registry, model, obstacles), tuple(patch_ids)
    with obstacles.noting():
        check_in_use(registry, (patch_id for patch_id in ids if patch_id not in present))
    # What is applied at another strength is an obstacle of the motion itself, and keeps its strength here.
    wanted = present.with_({patch_id: strength for patch_id in ids if patch_id not in present})
    limits = merge_policies(registry, stricter)
    note_unready(registry, wanted, limits, obstacles, in_force=present, add_base=_add_base(model))


def note_unfit(
    registry: Registry, model: Path, goal: Goal | None, stricter: Policy | None, obstacles: Obstacles
) -> None:
    """As `look_ahead`, of a whole set; None where that could not be found."""
    present = _present(registry, model, obstacles)
    if goal is not None:
        policy = merge_policies(registry, stricter_of(goal, stricter))
        # A key that was revoked since takes nothing out: what stays as it is need only be what was signed.
        stays = [patch_id for patch_id, strength in goal.patches.items() if present.get(patch_id) == strength]
        note_unready(registry, goal.patches, policy, obstacles, in_force=stays, add_base=_add_base(model))


def _present(registry: Registry, model: Path, obstacles: Obstacles) -> Stack:
    """What is applied to a model, as far as it can be told."""
    try:
        return applied_of(sight_host(registry, CheckpointHost.open(model)))
    # One obstacle more: the patches can be looked at without the model.
    except RasuraError as error:
        obstacles.add(error)
        return Stack()


def _add_base(model: Path) -> str:
    return f"rasura base add {shlex.quote(str(model))}"


def note_unready(
    registry: Registry,
    wanted: Stack,
    policy: Policy | None,
    obstacles: Obstacles,
    *,
    in_force: Collection[PatchId] = (),
    add_base: str,
) -> Loaded:
    """Verify every patch of a set, and note those that are not good, bases that are not here, and what nobody drew.

    Args:
        registry: where they are.
        wanted: the set.
        policy: whose demands for evaluations count; None: nobody's.
        obstacles: gets what is found.
        in_force: those of the set that are applied already and stay as they are.
        add_base: the command that would register the base.

    Returns:
        The patches that are good.
    """
    if policy is not None:
        with obstacles.noting():
            require_checkpoint(registry, policy)
    loaded = load_stack(registry, wanted, in_force=in_force, obstacles=obstacles)
    # Every patch names the base that it was computed on; one message a base, not a patch.
    known = {base.digest for base in registry.bases()}
    bases = {member.patch_id: member.patch.manifest.base.sha256 for member in loaded.stack}
    for base in sorted(set(bases.values()) - known):
        those = ", ".join(patch_id[:SHORT] for patch_id, own in bases.items() if own == base)
        obstacles.add(NotFoundError(f"the base {base[:SHORT]} of patch {those} is not in this registry", hint=add_base))
    here = sorted(set(bases.values()) & known)
    if policy is not None and len(here) == 1:
        with obstacles.noting():
            require_evaluated(registry, here[0], wanted, policy)
    return loaded
