"""Registered patches that have a real manifest and no tensors: for what reads manifests alone."""

import functools
from dataclasses import replace
from datetime import timedelta

from support.registries.registry_fixtures import EPOCH, digest, draft, patch
from support.values import factories

from rasura.patches.format.manifest import Manifest
from rasura.patches.types import PatchId
from rasura.registry._storage.digests import sha256
from rasura.registry.registry import Registry

__all__ = ["with_manifest"]


def with_manifest(
    registry: Registry, concept: str, *supersedes: PatchId, base_digest: str | None = None, age: int = 0
) -> PatchId:
    """A registered patch with a real manifest that says this; nobody reads its tensors."""
    manifest = replace(
        _template(),
        concept=replace(_template().concept, text=concept, anchor=f"anchor {age} {len(supersedes)}"),
        supersedes=supersedes,
    )
    data = manifest.to_bytes()
    files = {"manifest.json": data, "model.sig": b"x"}
    record = patch(
        concept,
        concepts=(concept,),
        base=base_digest or digest("sd14"),
        files={name: sha256(content) for name, content in files.items()},
        size=sum(map(len, files.values())),
        added_at=EPOCH + timedelta(minutes=age),
    )
    record = replace(record, patch_id=manifest.patch_id)
    assert registry.add_patch(record, files, draft("patch.add"))
    return manifest.patch_id


@functools.cache
def _template() -> Manifest:
    world = factories.World(width=12, retained=3, outs=(4,))
    return world.erase(world.columns("x", 1))[0].manifest
