"""What a bundle holds, as its reader sees it, and what came of taking it in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rasura.patches.format.bundle_file import BundleFiles
from rasura.patches.types import KeyId, PatchId
from rasura.registry.stacks.lock_file import LockFile

__all__ = ["Bundle", "BundledKey", "BundledPatch", "TakenIn"]


@dataclass(frozen=True, slots=True)
class BundledKey:
    """A key of a bundle.

    Attributes:
        key_id: its identifier.
        name: what the sender calls it; nobody vouches for that.
        standing: here: `trusted`, `not trusted`, `revoked` or `unknown`.
        sent: whether the bundle holds it, or only patches that it signed.
    """

    key_id: KeyId
    name: str
    standing: str
    sent: bool


@dataclass(frozen=True, slots=True)
class BundledPatch:
    """A patch of a bundle, by what its manifest says.

    Attributes:
        patch_id: its identity.
        concept: what it erases.
        method: the eraser.
        key_id: whose its first signature is, whoever that is.
        further: other keys that signed it, of those that are here or in the bundle.
    """

    patch_id: PatchId
    concept: str
    method: str
    key_id: KeyId
    further: tuple[KeyId, ...] = ()

    @property
    def signers(self) -> tuple[KeyId, ...]:
        """All of them."""
        return self.key_id, *self.further


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """A bundle that was read.

    Attributes:
        files: its contents.
        patches: one line each.
        keys: of the patches' signatures, and those that were sent besides.
        lock: the lock, if it holds one.
    """

    files: BundleFiles
    patches: tuple[BundledPatch, ...]
    keys: tuple[BundledKey, ...]
    lock: LockFile | None


@dataclass(frozen=True, slots=True, eq=False)
class TakenIn:
    """What came of taking a bundle in.

    Attributes:
        bundle: what it holds.
        added: each patch, and whether it is new here.
        trusted: keys that are trusted since.
        signed: patches that were here, and keys whose signatures over them are new.
    """

    bundle: Bundle
    added: tuple[tuple[PatchId, bool], ...]
    trusted: tuple[KeyId, ...]
    signed: Mapping[PatchId, tuple[KeyId, ...]] = field(default_factory=dict)
