"""What taking everything out of a host would write: its originals, as they were kept.

The empty set needs no patch verified, nothing checked and nothing composed, so neither torch nor numpy: a revert on
disk moves bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rasura.patches.algebra.stack import Stack
from rasura.patches.checks.verdict import Accepted
from rasura.patches.errors import CheckRefusedError
from rasura.patches.obstacles import Obstacles
from rasura.registry.apply.hosts import side_branches
from rasura.registry.apply.hosts.cached_host import Glance
from rasura.registry.apply.hosts.host_state import check_names, list_touched, state_of
from rasura.registry.apply.motion_parts import Composed, Motion, Originals, find_own_base, make_record, name_entries
from rasura.registry.registry import Registry

if TYPE_CHECKING:
    from rasura.registry.apply.hosts.branches import Branches

__all__ = ["prepare_pristine"]


def prepare_pristine(registry: Registry, seen: Glance, present: Stack) -> Motion:
    """As `rasura.registry.apply.prepare.prepare_motion` of the empty set.

    Args:
        registry: where the patches are.
        seen: the model, which nobody else moves meanwhile; read only.
        present: the set that is applied.

    Raises:
        DriftError, HostError: this cannot be.
        RasuraError: of several of these the first, with the others in `others`.
    """
    obstacles, touched = Obstacles(), sorted(list_touched(registry, present))
    with obstacles.noting():
        check_names(seen, touched)
    if any(not isinstance(error, CheckRefusedError) for error in obstacles.found):
        obstacles.refuse()
    with obstacles.noting():
        seen.host.ensure_writable(touched)
    originals = Originals.read(seen, touched)
    with obstacles.noting():
        base = find_own_base(registry, seen, originals)
    obstacles.refuse()
    composed = _as_composed(seen, originals)
    return Motion(
        make_record(registry, seen.host, base, Stack(), composed.digest(())),
        present,
        Accepted(()),
        {},
        composed.tensors,
        composed.branches,
        frozenset(originals.values),
        state_of(seen, touched),
        composed.digest(composed.entries),
    )


def _as_composed(seen: Glance, originals: Originals) -> Composed:
    branches: Branches = {}
    plain = name_entries(originals.values, originals.digests)
    if not originals.coded:  # as every model on disk
        return Composed(originals.values, branches, plain)
    branches = dict.fromkeys(sorted(originals.coded))  # beside quantised layers nothing runs any more
    return Composed(originals.values, branches, {**plain, **side_branches.entries(seen.host, branches)})
