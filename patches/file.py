"""A patch as files: what is in the folder, byte by byte, and the way back.

    manifest.json                     what the patch says of itself; its SHA-256 is the PatchId
    pytorch_lora_weights.safetensors  the factors as an ordinary LoRA file: uniform rank, no alpha
    basis.safetensors                 what is protected: `rows` [k, d], `energy` [k], F64; the same file for every patch
                                      of one request, so that a content-addressed store keeps it once
    targets.safetensors               `targets` and `anchors` [m, d], F64: the concept's own columns, compressed
    model.sig                         OpenSSF Model Signing bundle over the four files above (absent until signed)

Every file has exactly one encoding, so equal content has equal bytes.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from rasura.patches.errors import DigestMismatchError, ExistsError, FormatError, HostWriteError, NotFoundError
from rasura.patches.increment import Increment
from rasura.patches.manifest import MANIFEST_LIMIT, Manifest
from rasura.patches.names import ParamName, PatchId
from rasura.patches.specs import TensorIdentity, TensorSpec
from rasura.patches.tensorfile import PATCH_LIMITS, decode, encode, read_regular
from rasura.patches.tensors import dtype_name, tensor_digest

if TYPE_CHECKING:
    import torch

MANIFEST: Final = "manifest.json"
WEIGHTS: Final = "pytorch_lora_weights.safetensors"
BASIS: Final = "basis.safetensors"
TARGETS: Final = "targets.safetensors"
SIGNATURE: Final = "model.sig"
CONTENT: Final = (BASIS, MANIFEST, WEIGHTS, TARGETS)
"""The files that a signature covers."""

_SUFFIX: Final = ".weight"
_DOWN: Final = ".lora_A.weight"
_UP: Final = ".lora_B.weight"
_SIGNATURE_LIMIT: Final = 1 << 20


@dataclass(frozen=True, slots=True, eq=False)
class PatchTensors:
    """The numbers of a patch.

    Attributes:
        increments: ΔW = B·A a parameter.
        protected: [k, d] float64 orthonormal rows that no detector may see.
        energy: [k] float64, mean squared component of protected prompts along each row.
        targets: [m, d] float64, rows that stand for the concept's columns.
        anchors: [m, d] float64, what they become.
    """

    increments: Mapping[ParamName, Increment]
    protected: torch.Tensor
    energy: torch.Tensor
    targets: torch.Tensor
    anchors: torch.Tensor

    def files(self) -> dict[str, bytes]:
        """The three tensor files, in their one encoding."""
        return {name: encode(tensors, {"format": "pt"}) for name, tensors in self.by_file().items()}

    def by_file(self) -> dict[str, dict[str, torch.Tensor]]:
        """Tensor name to tensor, for each file."""
        factors: dict[str, torch.Tensor] = {}
        for name, increment in self.increments.items():
            stem = name.removesuffix(_SUFFIX)
            factors |= {stem + _DOWN: increment.A, stem + _UP: increment.B}
        return {
            WEIGHTS: factors,
            BASIS: {"rows": self.protected, "energy": self.energy},
            TARGETS: {"targets": self.targets, "anchors": self.anchors},
        }

    def specs(self) -> tuple[TensorSpec, ...]:
        """The manifest's list of every tensor, sorted by file and name."""
        return tuple(
            TensorSpec(file, TensorIdentity(ParamName(name), dtype_name(t.dtype), tuple(t.shape), tensor_digest(t)))
            for file, tensors in sorted(self.by_file().items())
            for name, t in sorted(tensors.items())
        )

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> Self:
        """Read the three tensor files strictly.

        Raises:
            FormatError: anything but the one encoding of the expected tensors, in shapes that fit each other.
            AlgebraError: factors off the grid or out of range.
        """
        factors = _decode(files, WEIGHTS, frozenset({"F32"}))
        basis = _decode(files, BASIS, frozenset({"F64"}), ("rows", "energy"))
        targets = _decode(files, TARGETS, frozenset({"F64"}), ("targets", "anchors"))
        found = cls(_increments(factors), basis["rows"], basis["energy"], targets["targets"], targets["anchors"])
        _check_shapes(found)
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """A manifest and the numbers it describes; whoever holds one knows that they belong together."""

    manifest: Manifest
    tensors: PatchTensors

    @property
    def patch_id(self) -> PatchId:
        """SHA-256 of the manifest's bytes."""
        return self.manifest.patch_id

    def files(self) -> dict[str, bytes]:
        """The four signed files."""
        return {MANIFEST: self.manifest.to_bytes(), **self.tensors.files()}

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> Self:
        """Read a patch from bytes that were verified, never from a path.

        Args:
            files: at least the four content files; `model.sig` is ignored here.

        Raises:
            FormatError: a missing file, or one that breaks its format.
            DigestMismatchError: a tensor that is not the one which the manifest names.
            AlgebraError: factors off the grid or out of range.
        """
        missing = [name for name in CONTENT if name not in files]
        if missing:
            raise FormatError(f"the patch lacks {', '.join(missing)}: expected {', '.join(CONTENT)}")
        manifest = Manifest.from_bytes(files[MANIFEST])
        tensors = PatchTensors.from_files(files)
        _check_tensors(manifest, tensors)
        return cls(manifest, tensors)


def read_folder(folder: Path) -> dict[str, bytes]:
    """The bytes of a patch folder's own files; anything else in the folder is not read.

    Raises:
        NotFoundError: no folder, or a content file is missing.
        FormatError: a link, a pipe, or a file too large.
    """
    if not folder.is_dir():
        raise NotFoundError(f"{folder} is no patch folder", hint="rasura patch list")
    limits = {MANIFEST: MANIFEST_LIMIT, SIGNATURE: _SIGNATURE_LIMIT}
    present = [*CONTENT, *([SIGNATURE] if (folder / SIGNATURE).exists() else [])]
    return {name: read_regular(folder / name, limits.get(name, PATCH_LIMITS.file_bytes)) for name in present}


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a new folder, all of it or nothing.

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
            (scratch / name).write_bytes(data)
        scratch.chmod(0o755)
        os.replace(scratch, folder)  # noqa: PTH105  # over an empty folder, as rename(2) allows
    except OSError as error:
        raise HostWriteError(f"cannot write {folder}: {error.strerror}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _decode(
    files: Mapping[str, bytes], name: str, dtypes: frozenset[str], expected: Iterable[str] | None = None
) -> dict[str, torch.Tensor]:
    data = files[name]
    tensors = decode(data, what=name, limits=PATCH_LIMITS, dtypes=dtypes)
    if expected is not None and set(tensors) != set(expected):
        raise FormatError(f"{name}: expected tensors {sorted(expected)}, got {sorted(tensors)}")
    if encode(tensors, {"format": "pt"}) != data:
        raise FormatError(f"{name}: expected the one deterministic encoding of its tensors, got other bytes")
    return tensors


def _increments(factors: Mapping[str, torch.Tensor]) -> dict[ParamName, Increment]:
    stems = {key.removesuffix(_DOWN) for key in factors if key.endswith(_DOWN)}
    expected = {stem + suffix for stem in stems for suffix in (_DOWN, _UP)}
    if not stems or set(factors) != expected:
        odd = sorted(set(factors) ^ expected)[:3]
        raise FormatError(f"{WEIGHTS}: expected pairs of lora_A and lora_B and nothing else, got {odd}")
    return {ParamName(stem + _SUFFIX): Increment(factors[stem + _DOWN], factors[stem + _UP]) for stem in sorted(stems)}


def _check_shapes(tensors: PatchTensors) -> None:
    rows, targets = tuple(tensors.protected.shape), tuple(tensors.targets.shape)
    if len(rows) != 2 or rows[0] > rows[1] or tuple(tensors.energy.shape) != rows[:1]:  # noqa: PLR2004
        raise FormatError(f"{BASIS}: expected rows [k, d] and energy [k], got {rows} and {[*tensors.energy.shape]}")
    if bool((tensors.energy < 0).any()):
        raise FormatError(f"{BASIS}: expected energies of 0 or more, got a negative one")
    if len(targets) != 2 or 0 in targets or tensors.anchors.shape != tensors.targets.shape:  # noqa: PLR2004
        raise FormatError(
            f"{TARGETS}: expected targets and anchors [m, d], got {targets} and {tuple(tensors.anchors.shape)}"
        )
    widths = {rows[1], targets[1], *(increment.shape[1] for increment in tensors.increments.values())}
    if len(widths) != 1:
        raise FormatError(f"the patch: expected one width of embeddings in all its files, got {sorted(widths)}")


def _check_tensors(manifest: Manifest, tensors: PatchTensors) -> None:
    found = tensors.specs()
    if found != manifest.tensors:
        named = {(spec.file, spec.tensor.name): spec for spec in manifest.tensors}
        odd = next((s for s in found if named.get((s.file, s.tensor.name)) != s), None)
        what = f"{odd.file}: {odd.tensor.name}" if odd else "a tensor that the manifest names"
        raise DigestMismatchError(f"{what}: expected what manifest.json names, got other content or none")
    touched = {parameter.name: parameter.shape for parameter in manifest.base.parameters}
    shapes = {name: increment.shape for name, increment in tensors.increments.items()}
    if touched != shapes:
        raise FormatError("manifest.json: base.parameters do not fit the increments")
