"""The calls that show and register patches, and write them as files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rasura.api.calls._calls import Calls
from rasura.api.hints import in_python
from rasura.patches.format.patch import write_folder
from rasura.registry.standing.successors import find_called
from rasura.registry.trust.register_patch import add_folders, find_signers
from rasura.registry.trust.sign_again import sign_patches
from rasura.registry.trust.verified_patch import load_verified

if TYPE_CHECKING:
    from rasura.patches.format.patch import Patch
    from rasura.patches.format.spellings.lora_file import KohyaFile
    from rasura.patches.types import PatchId
    from rasura.registry._storage.records.records import KeyRecord, PatchRecord
    from rasura.registry.live.arguments import GoalRef, Ids
    from rasura.registry.trust.sign_again import SignedAgain

__all__ = ["PatchCalls"]


class PatchCalls(Calls):
    """The patches of a registry."""

    @in_python
    def patches(self, *, concept: str | None = None, base: str | None = None) -> tuple[PatchRecord, ...]:
        """The registered patches, the oldest first; or those of a concept or base (`rasura patch list`).

        Args:
            concept: what they erase, by any of its names.
            base: name or digest of theirs.

        Raises:
            NotFoundError: no such base.
        """
        digest = None if base is None else self.store.base(base).digest
        found = self.store.patches(concept=concept, base=digest)
        if concept is None or not (called := find_called(self.store, concept)):
            return found
        return tuple(r for r in self.store.patches(base=digest) if r.patch_id in called or r in found)

    @in_python
    def patch(self, patch: str) -> Patch:
        """One patch, read from its stored bytes and verified: signature, trust, digests, numbers.

        It answers `rasura patch show` and `rasura patch verify`.

        Raises:
            NotFoundError, AmbiguousIdError: no such patch, or several.
            VerificationError: something about it is not good.
        """
        return load_verified(self.store, self.store.resolve_patch(patch))

    @in_python
    def add_patch(self, folder: str | Path, *, dry_run: bool = False, reason: str = "") -> tuple[PatchId, bool]:
        """Register the patch in a folder, if a key trusted here has signed it (`rasura patch add`).

        Returns:
            Its identity, and whether it was not here before.

        Raises:
            VerificationError: a signature that does not count here, or bytes that were not signed.
        """
        return self.add_patches([folder], dry_run=dry_run, reason=reason)[0]

    @in_python
    def add_patches(
        self, folders: Iterable[str | Path], *, dry_run: bool = False, reason: str = ""
    ) -> tuple[tuple[PatchId, bool], ...]:
        """Register the patches in folders in one transaction: all of them, or none (`rasura patch add`).

        With `dry_run` they are verified, and nothing is written.

        Returns:
            For each its identity, and whether it was not here before.

        Raises:
            VerificationError: a signature that does not count here, or bytes that were not signed; `others` has those
                of further folders.
        """
        given = [folders] if isinstance(folders, str | Path) else folders
        draft = self._draft("patch.add", reason)
        added = add_folders(self.store, [Path(folder) for folder in given], draft, dry_run=dry_run)
        return tuple((patch.patch_id, patch.new) for patch in added)

    @in_python
    def sign_patches(
        self, patches: Ids, *, key: str | None = None, dry_run: bool = False, reason: str = ""
    ) -> tuple[SignedAgain, ...]:
        """Sign registered patches with another key, beside the signatures that are there (`rasura patch sign`).

        With `dry_run` they are verified, and nothing is written.

        Args:
            patches: which: all of them are signed, or none.
            key: name of the key to sign with; None: the only one.
            dry_run: only say what would be new.
            reason: why.

        Raises:
            NotFoundError, RevokedKeyError: there is no such key to sign with.
            VerificationError: a patch is not what a key that is known here signed.
        """
        draft = self._draft("patch.sign", reason)
        return sign_patches(self.store, self._resolve(patches), key, draft, dry_run=dry_run)

    @in_python
    def signers(self, patch: str) -> tuple[KeyRecord, ...]:
        """The keys whose signatures over a patch are kept here, the first signer first (`rasura patch show`).

        Raises:
            NotFoundError: no such patch.
        """
        return tuple(map(self.store.key, find_signers(self.store, self.store.resolve_patch(patch))))

    @in_python
    def export(self, patch: Ids, folder: str | Path) -> None:
        """Write a patch as a signed folder for diffusers and model_signing (`rasura patch export`).

        Args:
            patch: a patch; of a list, each goes into a folder of its own inside, named after its concept and id.
            folder: a new one.

        Raises:
            ExistsError: the folder is not empty.
            InputError: an empty list.
        """
        from rasura.registry.stacks.export import list_folders

        if isinstance(patch, str):
            write_folder(Path(folder), self.store.patch_files(patch))
        else:
            write_folder(Path(folder), list_folders(self.store, self._resolve(patch)))

    @in_python
    def export_kohya(self, patches: GoalRef | Iterable[str]) -> KohyaFile:
        """Patches as one unsigned file for ComfyUI and A1111 (`rasura patch export --format kohya`).

        Raises:
            InputError: nothing to export.
            UnsupportedHostError: a layer that has no name there.
        """
        from rasura.registry.stacks.export import export_lora

        return export_lora(self.store, self._goal(patches).patches, "kohya")

    @in_python
    def export_native(self, patches: GoalRef | Iterable[str], denoiser: str | None = None) -> KohyaFile:
        """Patches of a transformer as one unsigned file in its authors' names (`rasura patch export --format native`).

        Args:
            patches: patches, or a stack.
            denoiser: of Wan 2.2, which has two: `"transformer"` or `"transformer_2"`.

        Raises:
            InputError: nothing to export.
            UnsupportedHostError: a layer that has no name there.
        """
        from rasura.registry.stacks.export import export_lora

        return export_lora(self.store, self._goal(patches).patches, "native", denoiser)
