"""Nothing new is made of patches that were retired."""

from __future__ import annotations

from collections.abc import Iterable

from rasura.patches.errors import ConflictError
from rasura.patches.types import SHORT, PatchId
from rasura.registry.registry import Registry

__all__ = ["check_in_use"]


def check_in_use(registry: Registry, patch_ids: Iterable[PatchId]) -> None:
    """Refuse patches that were retired: nothing that is made later leaves them alone.

    Raises:
        ConflictError: naming all of them.
    """
    retired = registry.retired_patches()
    found = [patch_id[:SHORT] for patch_id in patch_ids if patch_id in retired]
    if found:
        named = f"patch {found[0]} is" if len(found) == 1 else f"patches {', '.join(found)} are"
        raise ConflictError(
            f"{named} retired: expected {'one' if len(found) == 1 else 'those'} in use",
            hint=f"rasura patch unretire {' '.join(found)}",
        )
