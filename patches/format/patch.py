"""A patch as files: what is in the folder, byte by byte, and the way back.

    manifest.json                     what the patch says of itself; its SHA-256 is the PatchId
    pytorch_lora_weights.safetensors  the factors as an ordinary LoRA file: uniform rank, no alpha; `lora_A`, `lora_B`,
                                      in a text encoder `lora_linear_layer.down` and `.up`
    basis.safetensors                 what is protected: `rows` [k, d], `energy` [k], F64; the same file for every patch
                                      of one request, so that a content-addressed store keeps it once
    targets.safetensors               `targets` and `anchors` [m, d], F64: the concept's own columns, compressed
                                      Both may hold more: `STEM.rows`, `STEM.energy`, `STEM.targets`, `STEM.anchors`
                                      for a parameter STEM.weight whose promise or input space is its own
    model.sig                         OpenSSF Model Signing bundle over the four files above (absent until signed)
    KEY.sig                           the same by another key, named by its identity; any number up to sixteen

Every file has exactly one encoding, so equal content has equal bytes.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from rasura.patches._io.files import read_regular
from rasura.patches._io.safetensors_file import PATCH_LIMITS
from rasura.patches._io.sha256 import digest_of
from rasura.patches.errors import DigestMismatchError, ExistsError, FormatError, HostWriteError, NotFoundError
from rasura.patches.format.file_names import (
    BASIS,
    FURTHER,
    MANIFEST,
    MAX_FURTHER,
    SIGNATURE,
    TARGETS,
    WEIGHTS,
    is_signature,
)
from rasura.patches.format.manifest import MANIFEST_LIMIT, Manifest
from rasura.patches.format.manifest_parts import TEXT
from rasura.patches.format.patch_arrays import PatchArrays, SpanArrays, check_rows, check_width
from rasura.patches.format.protected_spec import HIDDEN
from rasura.patches.types import ParamName, PatchId

if TYPE_CHECKING:
    from rasura.patches.format.patch_tensors import PatchTensors  # needs torch; verifying a patch does not

__all__ = [
    "BASIS",
    "CONTENT",
    "MANIFEST",
    "SIGNATURE",
    "TARGETS",
    "WEIGHTS",
    "Patch",
    "list_strangers",
    "read_folder",
    "write_folder",
]

CONTENT: Final = (BASIS, MANIFEST, WEIGHTS, TARGETS)
"""The files that a signature covers."""
_SIGNATURE_LIMIT: Final = 1 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """A manifest and the numbers it describes; whoever holds one knows that they belong together.

    Attributes:
        manifest: what it says of itself.
        arrays: its numbers.
    """

    manifest: Manifest
    arrays: PatchArrays

    @property
    def tensors(self) -> PatchTensors:
        """The numbers as tensors, on the same memory."""
        from rasura.patches.format.patch_tensors import PatchTensors  # needs torch; verifying a patch does not

        return PatchTensors.of(self.arrays)

    @property
    def patch_id(self) -> PatchId:
        """SHA-256 of the manifest's bytes."""
        return self.manifest.patch_id

    def files(self) -> dict[str, bytes]:
        """The four signed files."""
        return {MANIFEST: self.manifest.to_bytes(), **self.arrays.files()}

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> Self:
        """Read a patch from bytes that were verified, never from a path.

        Args:
            files: at least the four content files; signatures are ignored here.

        Raises:
            FormatError: a missing file, or one that breaks its format.
            DigestMismatchError: a tensor that is not the one which the manifest names.
            AlgebraError: factors off the grid or out of range.
        """
        missing = [name for name in CONTENT if name not in files]
        if missing:
            raise FormatError(f"the patch lacks {', '.join(missing)}: expected {', '.join(CONTENT)}")
        manifest = Manifest.from_bytes(files[MANIFEST])
        arrays = PatchArrays.from_files(files, manifest.protected.spaces)
        _check_tensors(manifest, arrays)
        _check_basis(manifest, arrays, files[BASIS])
        return cls(manifest, arrays)


def read_folder(folder: Path) -> dict[str, bytes]:
    """The bytes of a patch folder's own files; anything else in the folder is not read.

    Raises:
        NotFoundError: no folder, or a content file is missing.
        FormatError: a link, a pipe, a file too large, or too many signatures.
        HostWriteError: the folder cannot be listed.
    """
    if not folder.is_dir():
        raise NotFoundError(f"{folder} is no patch folder", hint="rasura patch list")
    try:
        further = sorted(path.name for path in folder.iterdir() if FURTHER.fullmatch(path.name))
    except OSError as error:
        raise HostWriteError(f"cannot read {folder}: {error.strerror}") from error
    if len(further) > MAX_FURTHER:
        raise FormatError(f"{folder}: expected at most {MAX_FURTHER} further signatures, got {len(further)}")
    present = [*CONTENT, *([SIGNATURE] if (folder / SIGNATURE).exists() else []), *further]
    return {name: read_regular(folder / name, _limit(name)) for name in present}


def _limit(name: str) -> int:
    if is_signature(name):
        return _SIGNATURE_LIMIT
    return MANIFEST_LIMIT if name == MANIFEST else PATCH_LIMITS.file_bytes


def list_strangers(folder: Path) -> tuple[str, ...]:
    """What lies in a patch folder that no signature covers and that is none; `read_folder` does not read it.

    Raises:
        OSError: the folder cannot be read.
    """
    names = (path.name for path in folder.iterdir())
    return tuple(sorted(name for name in names if name not in CONTENT and not is_signature(name)))


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a new folder, all of it or nothing.

    Args:
        folder: its path.
        files: bytes by name; a name may begin with that of a folder inside, as in `dog/manifest.json`.

    Raises:
        ExistsError: something is there already.
        HostWriteError: disk full or not writable; nothing is left.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ExistsError(f"{folder} exists and is not empty", hint="rasura patch export ID -o ANOTHER")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise HostWriteError(f"cannot write {folder}: {error.strerror}") from error
    try:
        for name, data in files.items():
            (scratch / name).parent.mkdir(exist_ok=True)
            (scratch / name).write_bytes(data)
        scratch.chmod(0o755)
        os.replace(scratch, folder)  # noqa: PTH105  # over an empty folder, as rename(2) allows
    except OSError as error:
        raise HostWriteError(f"cannot write {folder}: {error.strerror}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _check_tensors(manifest: Manifest, arrays: PatchArrays) -> None:
    found = arrays.specs()
    if found != manifest.tensors:
        named = {(spec.file, spec.tensor.name): spec for spec in manifest.tensors}
        odd = next((s for s in found if named.get((s.file, s.tensor.name)) != s), None)
        named_odd = f"{odd.file}: {odd.tensor.name}" if odd else "a tensor that the manifest names"
        raise DigestMismatchError(f"{named_odd}: expected what manifest.json names, got other content or none")
    touched = {parameter.name: parameter.shape for parameter in manifest.base.parameters}
    shapes = {name: increment.shape for name, increment in arrays.increments.items()}
    if touched != shapes:
        raise FormatError("manifest.json: base.parameters do not fit the increments")
    reads = manifest.protected.reads
    if odd_reads := sorted(set(reads) - set(arrays.increments)):
        raise FormatError(f"manifest.json: protected.reads names {odd_reads[0]}, which the patch does not touch")
    for name, increment in arrays.increments.items():
        what = reads.get(name, TEXT)
        if what == TEXT:
            check_width(increment.shape[1], int(arrays.targets.shape[1]))
        has_own = arrays.space_of(name) in arrays.pairs
        if has_own != (what == HIDDEN) or (name in arrays.spans and what not in {TEXT, HIDDEN}):
            raise FormatError(f"{name} reads {what!r}: its targets and rows do not fit that")
    _check_spaces(arrays, reads)


def _check_spaces(arrays: PatchArrays, reads: Mapping[ParamName, str]) -> None:
    """What reads the same states is touched, reads rows of one width, and has columns together."""
    for name, space in arrays.spaces.items():
        if name not in arrays.increments or reads.get(name) != HIDDEN or name in arrays.pairs:
            raise FormatError(
                f"manifest.json: protected.spaces: expected touched parameters that read {HIDDEN!r} and have no "
                f"columns of their own, got {name}"
            )
        if ParamName(space) in arrays.increments or ParamName(f"{space}.weight") in arrays.increments:
            raise FormatError(f"manifest.json: protected.spaces: {space} is a touched parameter: expected another name")
        if arrays.span_owner(name) is None:
            raise FormatError(f"{name} reads {space}: expected protected rows of these states, got none")
        if (width := arrays.pairs_of(name).targets.shape[1]) != arrays.increments[name].shape[1]:
            raise FormatError(
                f"{name} reads {arrays.increments[name].shape[1]} numbers a row: expected {width}, as {space} has"
            )


def _check_basis(manifest: Manifest, arrays: PatchArrays, file: bytes) -> None:
    """What the manifest says of the protected rows is what the file holds, and the rows are what rows must be.

    Where parameters have rows of their own, the manifest sums up those that leave the least room.
    """
    said, found = manifest.protected.basis, digest_of(file)
    if said.sha256 != found:
        raise DigestMismatchError(
            f"manifest.json: protected.basis: expected sha256 {said.sha256[:12]}…, got {BASIS} of {found[:12]}…"
        )
    spans = [SpanArrays(arrays.protected, arrays.energy), *arrays.spans.values()]
    sizes = {(int(span.rows.shape[0]), int(span.rows.shape[1])) for span in spans}
    fullest = max(rank / width for rank, width in sizes)
    if (said.rank, said.dimension) not in {(k, d) for k, d in sizes if k / d == fullest}:
        got = " or ".join(f"{k} of {d}" for k, d in sorted(sizes))
        raise FormatError(
            f"manifest.json: protected.basis: expected the rank and dimension of {BASIS}, {got}, got {said.rank} of "
            f"{said.dimension}"
        )
    if said.invariants > said.rank:
        raise FormatError(
            f"manifest.json: protected.basis: expected at most {said.rank} invariants, got {said.invariants}"
        )
    for span in spans:
        check_rows(span, seed=found)
