"""Blobs that nothing refers to: found, and removed.

They come from processes that stored bytes and never came to their commit: an erasure that was refused, a pull that was
cut off. Whatever any table, any entry of the log or any manifest names by its digest stays, whatever it is. What was
stored a short while ago stays as well, because its commit may be on its way.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from datetime import timedelta
from typing import Final

from rasura.patches.errors import NotFoundError
from rasura.patches.format.file_names import MANIFEST
from rasura.patches.format.manifest import MANIFEST_LIMIT
from rasura.registry._storage.files.blobs import BlobInfo
from rasura.registry._storage.files.cache import Cache
from rasura.registry._storage.files.durable_files import translated
from rasura.registry._storage.records.records import Draft
from rasura.registry.apply.receipt import Actor
from rasura.registry.registry import Registry

__all__ = ["QUIET", "Garbage", "collect"]

QUIET: Final = timedelta(hours=24)
"""What was stored in this time is left alone."""

_ACTION: Final = "blob.gc"
_DIGEST: Final = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")


@dataclass(frozen=True, slots=True)
class Garbage:
    """What was found.

    Attributes:
        removed: blobs that nothing refers to, and that are gone now; with a dry run: that would be.
        recent: how many more nothing refers to that were stored too short a while ago.
        kept: how many blobs something refers to.
        kept_bytes: how large those are together.
        cached: how many results that can be computed again, unused for as long, went with them.
        cached_bytes: how large those were together.
    """

    removed: tuple[BlobInfo, ...]
    recent: int
    kept: int
    kept_bytes: int
    cached: int = 0
    cached_bytes: int = 0

    @property
    def removed_bytes(self) -> int:
        """How large what was removed is together."""
        return sum(blob.size for blob in self.removed)


def collect(registry: Registry, actor: Actor, *, quiet: timedelta = QUIET, dry_run: bool = False) -> Garbage:
    """Remove the blobs that nothing refers to; an entry says how many, if any. Unused results of the cache go as well.

    The blobs are listed before what refers to them is read, so that nothing which is stored and committed in between
    can be missed.

    Raises:
        RegistryError: a file cannot be removed.
    """
    blobs = sorted(registry.blobs.every(), key=lambda blob: blob.digest)
    before = (registry.now() - quiet).timestamp()
    named = frozenset(_references(registry))
    loose = [blob for blob in blobs if blob.digest not in named]
    kept = [blob for blob in blobs if blob.digest in named]
    old = [blob for blob in loose if blob.stored_at < before]
    removed = tuple(blob for blob in old if dry_run or registry.blobs.discard(blob.digest, before=before))
    if removed and not dry_run:
        details: dict[str, str | int] = {"blobs": len(removed), "bytes": sum(blob.size for blob in removed)}
        registry.note(Draft(actor.name, actor.reason, _ACTION, "success", details=details))
    unused = list(Cache(registry.location.cache).unused(before))
    if not dry_run:
        for path, _ in unused:
            with translated(f"remove {path}"):
                path.unlink(missing_ok=True)
    kept_bytes = sum(blob.size for blob in kept)
    return Garbage(
        removed, len(loose) - len(removed), len(kept), kept_bytes, len(unused), sum(size for _, size in unused)
    )


def _references(registry: Registry) -> Iterator[str]:
    """Every digest that a table, an entry of the log, or a manifest names."""
    with registry.reading() as session:
        for record in registry.records(session):
            yield from _digests(record)
    for entry in registry.entries():
        yield from _digests(entry)
    for patch in registry.patches():
        try:
            manifest = registry.blobs.read(patch.files[MANIFEST], limit=MANIFEST_LIMIT)
        except NotFoundError:  # a damaged registry is `rasura patch verify`'s business
            continue
        yield from _DIGEST.findall(manifest.decode("utf-8", "replace"))


def _digests(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield from _DIGEST.findall(value)
    elif is_dataclass(value):
        for part in fields(value):
            yield from _digests(getattr(value, part.name))
    elif hasattr(value, "items"):
        for name, child in value.items():
            yield from _digests(name)
            yield from _digests(child)
    elif isinstance(value, list | tuple | set | frozenset):
        for child in value:
            yield from _digests(child)
