"""Signed patches out of one commit: a signature first, then the files that it names, and nothing else.

For each patch, in this order:

    (1) the size of `model.sig` is checked against the listing, and the file is read
    (2) `open_bundle` says whether to believe it and what it covers, or raises
    (3) names and sizes of what it covers are checked, for all patches, before any of it is asked for
    (4) the files are read at the pinned commit, never more bytes than listed, and compared with their SHA-256

Everything stays in memory until all of it is right, so a failure leaves nothing behind.
"""

import re
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from rasura.patches.errors import DigestMismatchError, FormatError, NotFoundError
from rasura.patches.format.file_names import MANIFEST, SIGNATURE
from rasura.patches.types import Digest, PatchId
from rasura.registry._storage.digests import sha256
from rasura.registry.hub.client import DEFAULT_BRANCH, Patience, RemoteFile, Wire
from rasura.registry.hub.refs import COMFYUI, FOLDER, PinnedRepo, check_file, check_repo, check_revision

OpenBundle = Callable[[bytes], Mapping[str, Digest]]
"""Bytes of a `model.sig` to name → SHA-256 of what it covers; raises when it is not to be believed."""

_SPOT = re.compile(rf"(?:(?P<folder>{FOLDER}/(?P<id>[0-9a-f]{{64}}))/)?{re.escape(SIGNATURE)}")
_PATCH_FOLDER = re.compile(rf"{FOLDER}/[0-9a-f]{{64}}/")
_OURS = frozenset({"README.md", ".gitattributes"})  # what the Hub and `push` keep beside a patch in the root
_READERS = 4  # downloads at a time


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
class FetchedPatch:
    """One patch as it was signed.

    Attributes:
        path: its folder in the repository, "" for the root.
        files: name to bytes, `model.sig` and everything that it covers.
        ignored: paths beside it that no signature covers; they were not read.
    """

    path: str
    files: Mapping[str, bytes]
    ignored: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Source:
    """One commit of a repository: how to read it, what it lists, what of it is accepted."""

    wire: Wire
    pinned: PinnedRepo
    listed: Mapping[str, RemoteFile]
    limits: FetchLimits

    def name(self, path: str) -> str:
        return f"{self.pinned.repo}/{path}"

    def read(self, path: str) -> bytes:
        return self.wire.read(self.pinned.repo, self.pinned.commit, path, limit=self.listed[path].size)


@dataclass(frozen=True, slots=True)
class _Opened:
    """A patch whose signature is believed."""

    folder: str
    signature: bytes
    digests: Mapping[str, Digest]

    def where(self, name: str) -> str:
        return f"{self.folder}/{name}" if self.folder else name


def resolve(
    repo: str,
    revision: str | None = None,
    *,
    endpoint: str | None = None,
    token: str | None = None,
    patience: Patience | None = None,
) -> PinnedRepo:
    """Pin a repository to the commit that a branch, tag or commit id names now.

    Args:
        repo: `org/name`.
        revision: branch, tag or commit; None is the main branch.
        endpoint: another Hub than the one huggingface_hub is set to.
        token: access token; None takes the stored one.
        patience: how failures that may pass are met.

    Raises:
        InputError: a name that cannot be one.
        NotFoundError: no such repository or revision, or none that this token may see.
        HubError: the Hub failed or was not reached.
    """
    check_repo(repo)
    check_revision(revision or DEFAULT_BRANCH)
    wire = Wire(endpoint, token, patience or Patience())
    return PinnedRepo(repo, wire.head(repo, revision or DEFAULT_BRANCH)[0])


def fetch(
    pinned: PinnedRepo,
    *,
    open_bundle: OpenBundle,
    limits: FetchLimits | None = None,
    only: Collection[PatchId] | None = None,
    endpoint: str | None = None,
    token: str | None = None,
    patience: Patience | None = None,
) -> list[FetchedPatch]:
    """Read every signed patch of a commit, or those named in `only`.

    Args:
        pinned: from `resolve`.
        open_bundle: decides on trust; called once a patch, before any of its files is read.
        limits: what is accepted.
        only: ids of the patches wanted.
        endpoint: as for `resolve`.
        token: as for `resolve`.
        patience: as for `resolve`.

    Raises:
        NotFoundError: no signed patch there, or not the ones wanted.
        FormatError: a name, number or size outside the limits; a signed file that is missing.
        DigestMismatchError: bytes that are not those that were signed.
        HubError: the Hub failed or was not reached.
        RasuraError: whatever `open_bundle` raises.
    """
    limits = limits or FetchLimits()
    wire = Wire(endpoint, token, patience or Patience())
    source = _Source(wire, pinned, wire.files(pinned.repo, pinned.commit, limit=limits.entries), limits)
    opened = [_open(source, folder, open_bundle) for folder in _folders(source, only)]
    if only is not None:
        opened = [patch for patch in opened if str(patch.digests.get(MANIFEST)) in only]
    if not opened:
        raise NotFoundError(f"{pinned.repo}@{pinned.commit[:12]}: no signed patch there", hint="rasura push")
    _check_sizes(source, opened)
    return _read_all(source, opened)


def _folders(source: _Source, only: Collection[PatchId] | None) -> list[str]:
    """Where signatures lie. The root has no id in its name, so it is looked into whatever is wanted."""
    matches = [match for match in map(_SPOT.fullmatch, sorted(source.listed)) if match]
    wanted = [m["folder"] or "" for m in matches if only is None or not m["id"] or m["id"] in only]
    if len(wanted) > source.limits.patches:
        limit = source.limits.patches
        raise FormatError(f"{source.pinned.repo}: expected at most {limit} patches, got {len(wanted)}")
    return wanted


def _open(source: _Source, folder: str, open_bundle: OpenBundle) -> _Opened:
    path = f"{folder}/{SIGNATURE}" if folder else SIGNATURE
    where, limits, size = source.name(path), source.limits, source.listed[path].size
    if size > limits.signature:  # (1)
        raise FormatError(f"{where}: expected at most {limits.signature} bytes, got {size}")
    signature = source.read(path)
    digests = dict(open_bundle(signature))  # (2)
    if len(digests) > limits.files:  # (3)
        raise FormatError(f"{where}: expected at most {limits.files} signed files, got {len(digests)}")
    for name in digests:
        check_file(name, where)
    if folder and MANIFEST in digests and not folder.endswith(digests[MANIFEST]):
        raise FormatError(f"{where}: expected a signature of the patch of that name, got {digests[MANIFEST]}")
    return _Opened(folder, signature, digests)


def _check_sizes(source: _Source, opened: list[_Opened]) -> None:
    sizes: dict[Digest, int] = {}
    for path, digest in ((patch.where(name), digest) for patch in opened for name, digest in patch.digests.items()):
        file = source.listed.get(path)
        if file is None:
            raise FormatError(f"{source.name(path)}: expected the signed file, got nothing there")
        if file.size > source.limits.file:
            raise FormatError(f"{source.name(path)}: expected at most {source.limits.file} bytes, got {file.size}")
        if file.sha256 not in {None, digest}:
            raise DigestMismatchError(f"{source.name(path)}: expected SHA-256 {digest} as signed, got {file.sha256}")
        sizes[digest] = max(file.size, sizes.get(digest, 0))
    if (total := sum(sizes.values())) > source.limits.total:
        raise FormatError(f"{source.pinned.repo}: expected at most {source.limits.total} bytes in all, got {total}")


def _read_all(source: _Source, opened: list[_Opened]) -> list[FetchedPatch]:
    # (4) Patches of one request share their basis, so every digest is read once.
    places = {digest: patch.where(name) for patch in opened for name, digest in patch.digests.items()}

    def read(digest: Digest) -> bytes:
        data = source.read(places[digest])
        if (got := sha256(data)) != digest:
            raise DigestMismatchError(f"{source.name(places[digest])}: expected SHA-256 {digest} as signed, got {got}")
        return data

    pool = ThreadPoolExecutor(_READERS, thread_name_prefix="rasura-pull")
    try:
        contents = dict(zip(places, pool.map(read, places), strict=True))
    finally:
        pool.shutdown(cancel_futures=True)
    return [_fetched(patch, contents, source.listed) for patch in opened]


def _fetched(patch: _Opened, contents: Mapping[Digest, bytes], listed: Mapping[str, RemoteFile]) -> FetchedPatch:
    files = {SIGNATURE: patch.signature, **{name: contents[digest] for name, digest in patch.digests.items()}}
    if patch.folder:
        beside = {path for path in listed if path.startswith(f"{patch.folder}/")}
    else:
        beside = {path for path in listed if not _PATCH_FOLDER.match(path) and not COMFYUI.fullmatch(path)} - _OURS
    return FetchedPatch(patch.folder, files, tuple(sorted(beside - {patch.where(name) for name in files})))
