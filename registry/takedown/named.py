"""Which patch somebody means who wants a concept back: by its name, by another name of it, or by its identifier."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rasura.patches.errors import AmbiguousIdError, NotFoundError
from rasura.patches.format.manifest import Manifest
from rasura.patches.models.text_encoders.plain_text import normal
from rasura.patches.types import SHORT, PatchId
from rasura.registry.registry import Registry
from rasura.registry.takedown.ground import Ground, Place
from rasura.registry.trust.verified_patch import manifest_of

__all__ = ["Meant", "find_meant"]

_LEAST: Final = 4
"""Digits that stand for an identifier."""


@dataclass(frozen=True, slots=True)
class Meant:
    """The patch that was meant; None where it is not there, but was known once.

    Attributes:
        patch_id: the patch.
        said: what a person should hear of how it was found; "" where it was named by its concept.
    """

    patch_id: PatchId | None
    said: str = ""


def find_meant(registry: Registry, ground: Ground, text: str) -> Meant:
    """The patch of the ground that a text stands for: its concept first, then another name of it, then its identifier.

    Raises:
        AmbiguousIdError: several; the commands that tell them apart are named.
        NotFoundError: nothing of this name was ever erased from this base; those that are erased are named.
    """
    manifests = {patch_id: patch.manifest for patch_id, patch in ground.patches.items()}
    wanted = normal(text)
    by_concept = [i for i, manifest in manifests.items() if normal(manifest.concept.text) == wanted]
    if by_concept:
        return Meant(_only(ground, text, by_concept))
    by_name = [i for i, manifest in manifests.items() if wanted in map(normal, manifest.names)]
    if by_name:
        found = _only(ground, text, by_name)
        return Meant(found, f"{text} is another name of {manifests[found].concept.text}")
    by_id = [i for i in ground.patches if i.startswith(text.lower())] if len(text) >= _LEAST else []
    if by_id:
        return Meant(_only(ground, text, by_id))
    if _was_known(registry, ground, text):
        return Meant(None)  # asked again: it is back already
    names = ", ".join(map(_tell, manifests.values())) or "nothing"
    raise NotFoundError(
        f"{text!r} is not erased on {ground.place.source}: expected one of what is, {names}",
        hint="rasura patch list"
        if ground.place.model is None
        else f"rasura patch status --model {shlex.quote(str(ground.place.model))}",
    )


def _only(ground: Ground, text: str, found: Sequence[PatchId]) -> PatchId:
    if len(found) == 1:
        return found[0]
    told = ", ".join(f"{i[:SHORT]} ({_tell(ground.patches[i].manifest)})" for i in found)
    raise AmbiguousIdError(
        f"{text!r} stands for several patches on {ground.place.source}: {told}; expected one of them",
        hint=" or ".join(_command(i, ground.place) for i in found),
        candidates=list(found),
    )


def _command(patch_id: PatchId, place: Place) -> str:
    return f"rasura withdraw {patch_id[:SHORT]} {place.option}"


def _tell(manifest: Manifest) -> str:
    """A concept with its other names."""
    names = f" (also called {', '.join(manifest.names)})" if manifest.names else ""
    return manifest.concept.text + names


def _was_known(registry: Registry, ground: Ground, text: str) -> bool:
    """Whether any patch of this base erased it, by whichever of its names."""
    base = ground.base.record.digest
    if registry.patches(concept=text, base=base):
        return True
    names = (name for r in registry.patches(base=base) for name in manifest_of(registry, r.patch_id).names)
    return normal(text) in map(normal, names)
