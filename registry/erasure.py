"""Erasing for the registry: a base by name, concepts in words, signed patches as the result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rasura.patches.errors import RasuraError
from rasura.registry.ending import ended_by
from rasura.registry.intake import add_signed, load_verified, signed_files
from rasura.registry.models import OpenBase, open_base
from rasura.registry.signers import signer

if TYPE_CHECKING:
    import torch

    from rasura.patches.file import Patch
    from rasura.patches.names import PatchId
    from rasura.patches.request import EraseRequest
    from rasura.registry.records import Draft
    from rasura.registry.store import Registry

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class Erased:
    """A patch that was made and registered; `new` is False where the registry held it already."""

    patch: Patch
    new: bool


def erase(
    registry: Registry,
    base: str,
    request: EraseRequest,
    *,
    key: str | None,
    protect: Sequence[PatchId],
    draft: Draft,
    progress: Progress,
) -> tuple[Erased, ...]:
    """Erase the request's concepts from a base: one signed, registered patch each.

    Args:
        registry: where the patches go.
        base: name, digest or folder of the base.
        request: what to erase and how.
        key: name of the key to sign with; None takes the only one.
        protect: registered patches whose targets must stay untouched.
        draft: the audit entry of each patch.
        progress: told what is going on.

    Raises:
        RefusedError: the mathematics says no; logged as refused.
        RasuraError: anything else; logged as failed. Nothing is registered.
    """
    try:
        private = signer(registry, key)
        opened = open_base(registry, base, replace(draft, action="base.add"), progress)
        patches = _built(registry, request, opened, protect, progress)
    except RasuraError as error:
        registry.note(ended_by(replace(draft, details={"base": base, **_asked(request)}), error))
        raise
    made = []
    for patch in patches:
        _, new = add_signed(registry, signed_files(patch, private), f"erased from {opened.record.name}", draft)
        made.append(Erased(patch, new))
    return tuple(made)


def _built(
    registry: Registry, request: EraseRequest, opened: OpenBase, protect: Sequence[PatchId], progress: Progress
) -> tuple[Patch, ...]:
    from rasura.patches.build import build_patches

    guarded: dict[PatchId, torch.Tensor] = {p: load_verified(registry, p).tensors.targets for p in protect}
    full = replace(request, guarded=guarded)
    return build_patches(opened.host, opened.encoder, opened.identity, full, progress)


def _asked(request: EraseRequest) -> dict[str, str]:
    return {"concepts": "; ".join(target.concept for target in request.targets)[:1000]}
