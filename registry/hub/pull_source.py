"""One commit of a repository of patches: how it is read, what of it is accepted, and what was read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from rasura.patches.errors import (
    DigestMismatchError,
    FormatError,
    SignatureError,
    VerificationError,
)
from rasura.patches.format.file_names import FURTHER, MANIFEST, MAX_FURTHER, SIGNATURE
from rasura.patches.format.signatures.model_signature import read_claim
from rasura.patches.types import SHORT, Digest, PatchId
from rasura.registry._storage.digests import sha256
from rasura.registry.hub.client import RemoteFile, Wire
from rasura.registry.hub.refs import PinnedRepo, check_file

OpenBundle = Callable[[bytes], Mapping[str, Digest]]
"""Bytes of a `model.sig` to name → SHA-256 of what it covers; raises when it is not to be believed."""


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """What is accepted from a repository; sizes in bytes."""

    signature: int = 1 << 20
    file: int = 64 << 20
    total: int = 512 << 20
    files: int = 16
    patches: int = 1000
    entries: int = 20_000


@dataclass(frozen=True, slots=True)
class RefusedPatch:
    """A patch that was not taken.

    Attributes:
        path: its folder in the repository, "" for the root.
        patch_id: the patch that it says it is, or None where it says nothing that can be read.
        signer: hint of the key that it says it is signed with, or "".
        error: why.
    """

    path: str
    patch_id: PatchId | None
    signer: str
    error: VerificationError

    @property
    def sentence(self) -> str:
        """Where, what, by whom, why."""
        what = f"patch {self.patch_id[:SHORT]}" if self.patch_id else "what lies there"
        by = f", signed with key {self.signer[:SHORT]}" if self.signer else ""
        return f"{self.path or 'the root'}: {what}{by}: {self.error.message}"


@dataclass(frozen=True, slots=True)
class OpenedPatch:
    """A patch of which one signature is believed; the others are as they lie there."""

    folder: str
    signature: bytes
    digests: Mapping[str, Digest]
    signatures: Mapping[str, bytes]

    @property
    def patch_id(self) -> str:
        """SHA-256 of its manifest, as signed; "" for a signature over no manifest."""
        return str(self.digests.get(MANIFEST, ""))

    def where(self, name: str) -> str:
        """Path of one of its files in the repository."""
        return f"{self.folder}/{name}" if self.folder else name


@dataclass(frozen=True, slots=True)
class PinnedSource:
    """One commit of a repository: how to read it, what it lists, what of it is accepted, and what was read."""

    wire: Wire
    pinned: PinnedRepo
    listed: Mapping[str, RemoteFile]
    limits: FetchLimits
    open_bundle: OpenBundle
    opened: dict[str, OpenedPatch] = field(default_factory=dict)
    refused: dict[str, RefusedPatch] = field(default_factory=dict)
    read_before: dict[Digest, bytes] = field(default_factory=dict)

    def name(self, path: str) -> str:
        """A path, for messages."""
        return f"{self.pinned.repo}/{path}"

    def read(self, path: str) -> bytes:
        """A file of the commit, never more bytes than listed."""
        return self.wire.read(self.pinned.repo, self.pinned.commit, path, limit=self.listed[path].size)

    def content(self, path: str, digest: Digest) -> bytes:
        """A signed file: patches of one request share their basis, so every digest is read once."""
        if digest in self.read_before:
            return self.read_before[digest]
        data = self.read(path)
        if (got := sha256(data)) != digest:
            raise DigestMismatchError(f"{self.name(path)}: expected SHA-256 {digest} as signed, got {got}")
        self.read_before[digest] = data
        return data

    def refuse(self, folder: str, signature: bytes, error: VerificationError) -> None:
        """Take no patch from a folder, and remember why."""
        self.opened.pop(folder, None)
        patch_id, signer = _claimed(folder, signature)
        self.refused[folder] = RefusedPatch(folder, patch_id, signer, error)


def _claimed(folder: str, signature: bytes) -> tuple[PatchId | None, str]:
    """What a refused patch says it is, and who it says signed it; a folder's name says it, too."""
    named = PatchId(folder.rpartition("/")[2]) if folder else None
    try:
        claim = read_claim(signature)
    except SignatureError:
        return named, ""
    manifest = claim.files.get(MANIFEST)
    return named or (PatchId(manifest) if manifest else None), str(claim.key_id)


def open_patch(source: PinnedSource, folder: str) -> None:
    """Steps (1) to (3) of `rasura.registry.hub.pull`: the patch of a folder, opened or refused."""
    path = f"{folder}/{SIGNATURE}" if folder else SIGNATURE
    where, limits = source.name(path), source.limits
    signature, signatures = b"", dict[str, bytes]()
    try:
        signature = signatures[SIGNATURE] = _read_signature(source, path)
        signatures |= _read_further(source, folder)
        digests = _first_believed(source, signatures)  # (2)
        if len(digests) > limits.files:  # (3)
            raise FormatError(f"{where}: expected at most {limits.files} signed files, got {len(digests)}")
        for name in digests:
            check_file(name, where)
        if folder and MANIFEST in digests and not folder.endswith(digests[MANIFEST]):
            raise FormatError(f"{where}: expected a signature of the patch of that name, got {digests[MANIFEST]}")
        opened = OpenedPatch(folder, signature, digests, signatures)
        _check_sizes(source, opened)
    except VerificationError as error:
        source.refuse(folder, signature, error)
    else:
        source.opened[folder] = opened


def _read_signature(source: PinnedSource, path: str) -> bytes:
    """(1)."""
    limit, size = source.limits.signature, source.listed[path].size
    if size > limit:
        raise FormatError(f"{source.name(path)}: expected at most {limit} bytes, got {size}")
    return source.read(path)


def _read_further(source: PinnedSource, folder: str) -> dict[str, bytes]:
    """Signatures by other keys, by name; whatever else lies there is not looked at."""
    start = f"{folder}/" if folder else ""
    names = [path.removeprefix(start) for path in sorted(source.listed) if path.startswith(start)]
    further = [name for name in names if FURTHER.fullmatch(name)]
    if len(further) > MAX_FURTHER:
        raise FormatError(
            f"{source.name(folder)}: expected at most {MAX_FURTHER} further signatures, got {len(further)}"
        )
    return {name: _read_signature(source, f"{start}{name}") for name in further}


def _first_believed(source: PinnedSource, signatures: Mapping[str, bytes]) -> dict[str, Digest]:
    """What the first signature covers that is believed.

    Raises:
        VerificationError: none is; the first one's.
    """
    refusals: list[VerificationError] = []
    for bundle in signatures.values():
        try:
            return dict(source.open_bundle(bundle))
        except VerificationError as error:
            refusals.append(error)
    raise refusals[0]


def _check_sizes(source: PinnedSource, patch: OpenedPatch) -> None:
    for path, digest in ((patch.where(name), digest) for name, digest in patch.digests.items()):
        file = source.listed.get(path)
        if file is None:
            raise FormatError(f"{source.name(path)}: expected the signed file, got nothing there")
        if file.size > source.limits.file:
            raise FormatError(f"{source.name(path)}: expected at most {source.limits.file} bytes, got {file.size}")
        if file.sha256 not in {None, digest}:
            raise DigestMismatchError(f"{source.name(path)}: expected SHA-256 {digest} as signed, got {file.sha256}")
