"""Signed patches out of one commit: a signature first, then the files that it names, and nothing else.

For each patch, in this order:

    (1) the size of `model.sig` is checked against the listing, and the file is read; further signatures likewise
    (2) `open_bundle` says whether to believe it and what it covers, or raises; the first that it believes counts
    (3) names and sizes of what it covers are checked before any of it is asked for
    (4) the files are read at the pinned commit, never more bytes than listed, and compared with their SHA-256

A patch that fails one of them is refused, and the others go on: a repository belongs to many, and one foreign signature
says nothing of the rest. What concerns the whole repository (its size, a Hub that fails) ends everything. All stays in
memory until it is right, so a failure leaves nothing behind.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from rasura.patches.errors import (
    AmbiguousIdError,
    DigestMismatchError,
    FormatError,
    NotFoundError,
    SignatureError,
    VerificationError,
)
from rasura.patches.format.file_names import FURTHER, MANIFEST, MAX_FURTHER, SIGNATURE
from rasura.patches.format.manifest import MANIFEST_LIMIT, Manifest
from rasura.patches.format.model_signature import read_claim
from rasura.patches.types import SHORT, Digest, PatchId
from rasura.registry._storage.digests import sha256
from rasura.registry.hub.client import DEFAULT_BRANCH, Patience, RemoteFile, Wire
from rasura.registry.hub.refs import COMFYUI, FOLDER, PinnedRepo, check_file, check_repo, check_revision

OpenBundle = Callable[[bytes], Mapping[str, Digest]]
"""Bytes of a `model.sig` to name → SHA-256 of what it covers; raises when it is not to be believed."""

_SPOT = re.compile(rf"(?:(?P<folder>{FOLDER}/(?P<id>[0-9a-f]{{64}}))/)?{re.escape(SIGNATURE)}")
_PATCH_FOLDER = re.compile(rf"{FOLDER}/[0-9a-f]{{64}}/")
_ABBREVIATION = re.compile(r"[0-9a-f]{4,64}")
_SHOWN = 8  # patches named in a message
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
        files: name to bytes, the signatures and everything that they cover.
        ignored: paths beside it that no signature covers; they were not read.
    """

    path: str
    files: Mapping[str, bytes]
    ignored: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Refused:
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
class Fetched:
    """What came of a commit: at least one patch; those that were refused are named."""

    patches: list[FetchedPatch]
    refused: list[Refused]


@dataclass(frozen=True, slots=True)
class _Opened:
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
        return f"{self.folder}/{name}" if self.folder else name


@dataclass(frozen=True, slots=True)
class _Source:
    """One commit of a repository: how to read it, what it lists, what of it is accepted, and what was read."""

    wire: Wire
    pinned: PinnedRepo
    listed: Mapping[str, RemoteFile]
    limits: FetchLimits
    open_bundle: OpenBundle
    opened: dict[str, _Opened] = field(default_factory=dict)
    refused: dict[str, Refused] = field(default_factory=dict)
    read_before: dict[Digest, bytes] = field(default_factory=dict)

    def name(self, path: str) -> str:
        return f"{self.pinned.repo}/{path}"

    def read(self, path: str) -> bytes:
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
        self.opened.pop(folder, None)
        patch_id, signer = _claimed(folder, signature)
        self.refused[folder] = Refused(folder, patch_id, signer, error)


def _claimed(folder: str, signature: bytes) -> tuple[PatchId | None, str]:
    """What a refused patch says it is, and who it says signed it; a folder's name says it, too."""
    named = PatchId(folder.rpartition("/")[2]) if folder else None
    try:
        claim = read_claim(signature)
    except SignatureError:
        return named, ""
    manifest = claim.files.get(MANIFEST)
    return named or (PatchId(manifest) if manifest else None), str(claim.key_id)


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
    only: Sequence[str] = (),
    endpoint: str | None = None,
    token: str | None = None,
    patience: Patience | None = None,
) -> Fetched:
    """Read every signed patch of a commit, or those that are wanted.

    Args:
        pinned: from `resolve`.
        open_bundle: decides on trust; called once a patch, before any of its files is read.
        limits: what is accepted.
        only: ids of the patches wanted, beginnings of at least four digits, or concepts; none: all.
        endpoint: as for `resolve`.
        token: as for `resolve`.
        patience: as for `resolve`.

    Raises:
        NotFoundError: no signed patch there, or not the ones wanted.
        AmbiguousIdError: a beginning or concept of several (named in `details["candidates"]`).
        FormatError: more patches, files or bytes in all than the limits allow.
        VerificationError: every patch was refused; the error is that of the first, and names all.
        HubError: the Hub failed or was not reached.
    """
    limits = limits or FetchLimits()
    wire = Wire(endpoint, token, patience or Patience())
    listed = wire.files(pinned.repo, pinned.commit, limit=limits.entries)
    source = _Source(wire, pinned, listed, limits, open_bundle)
    _choose(source, _folders(source), only)
    if not source.opened and not source.refused:
        raise NotFoundError(f"{pinned.repo}@{pinned.commit[:SHORT]}: no signed patch there", hint="rasura push")
    _check_total(source)
    _read_all(source)
    refused = [source.refused[folder] for folder in sorted(source.refused)]
    if not source.opened:
        raise explain(pinned, refused)
    patches = [_fetched(source, source.opened[folder]) for folder in sorted(source.opened)]
    return Fetched(patches, refused)


def explain(pinned: PinnedRepo, refused: Sequence[Refused]) -> VerificationError:
    """The error where nothing was taken: of the kind of the first refusal, with all of them in it."""
    first = refused[0].error
    more = f"; and {len(refused) - _SHOWN} more" if len(refused) > _SHOWN else ""
    message = f"{pinned.repo}: {'; '.join(each.sentence for each in refused[:_SHOWN])}{more}"
    named = [{"path": r.path, "patch": r.patch_id, "signer": r.signer, "error": r.error.code} for r in refused]
    return type(first)(message, hint=first.hint, **{**first.details, "refused": named})


def _folders(source: _Source) -> list[str]:
    """Where signatures lie."""
    matches = [match for match in map(_SPOT.fullmatch, sorted(source.listed)) if match]
    if len(matches) > source.limits.patches:
        limit = source.limits.patches
        raise FormatError(f"{source.pinned.repo}: expected at most {limit} patches, got {len(matches)}")
    return [match["folder"] or "" for match in matches]


def _choose(source: _Source, folders: Sequence[str], only: Sequence[str]) -> None:
    """Open the patches that are wanted. The root has no id in its name, so it is looked into whatever is wanted."""
    begun = [each.lower() for each in only if _ABBREVIATION.fullmatch(each.lower())]
    for folder in folders:
        if not only or not folder or any(folder.startswith(f"{FOLDER}/{digits}") for digits in begun):
            _open(source, folder)
    if not only:
        return
    if any(not _beginning(source, each) for each in only):  # a concept, which only manifests tell
        for folder in folders:
            if folder not in source.opened and folder not in source.refused:
                _open(source, folder)
    wanted = {_only(source, each) for each in only}
    for found in (source.opened, source.refused):
        for folder in [folder for folder in found if folder not in wanted]:
            found.pop(folder)


def _beginning(source: _Source, text: str) -> list[str]:
    """Folders of the patches whose ids begin so."""
    digits = text.lower()
    if not _ABBREVIATION.fullmatch(digits):
        return []
    named = {folder: patch.patch_id for folder, patch in source.opened.items()}
    named |= {folder: refused.patch_id or "" for folder, refused in source.refused.items()}
    return sorted(folder for folder, patch_id in named.items() if patch_id.startswith(digits))


def _only(source: _Source, text: str) -> str:
    """The folder of the one patch that a person means.

    Raises:
        NotFoundError, AmbiguousIdError: none, or several.
    """
    manifests = {} if _beginning(source, text) else _manifests(source)
    found = _beginning(source, text) or _current(manifests, text)
    ids = {folder: patch.patch_id for folder, patch in source.opened.items()}
    ids |= {folder: refused.patch_id or "" for folder, refused in source.refused.items()}
    names = sorted({ids[folder] for folder in found})
    if len(names) > 1:
        listed = ", ".join(name[:SHORT] for name in names[:_SHOWN])
        raise AmbiguousIdError(
            f"{source.pinned.repo}: {text[:120]!a} stands for {len(names)} patches: {listed}",
            hint=f"rasura pull {source.pinned.repo} {names[0][:SHORT]}",
            candidates=names,
        )
    if not found:
        concepts = sorted({manifest.concept.text for manifest in manifests.values()})
        known = f"; there are {', '.join(f'{c[:60]!a}' for c in concepts[:_SHOWN])}" if concepts else ""
        raise NotFoundError(
            f"{source.pinned.repo}: expected the id, its first digits or the concept of a patch there, "
            f"got {text[:120]!a}{known}",
            hint=f"rasura pull {source.pinned.repo}",
        )
    return found[0]


def _manifests(source: _Source) -> dict[str, Manifest]:
    """The manifest of every patch whose signature is believed, by folder; one that is not as signed is refused."""
    found: dict[str, Manifest] = {}
    for folder, patch in list(source.opened.items()):
        try:
            path = patch.where(MANIFEST)
            if source.listed[path].size > MANIFEST_LIMIT:
                raise FormatError(f"{source.name(path)}: expected at most {MANIFEST_LIMIT} bytes")
            found[folder] = Manifest.from_bytes(source.content(path, patch.digests[MANIFEST]))
        except KeyError:
            source.refuse(folder, patch.signature, FormatError(f"{source.name(folder)}: expected a {MANIFEST}"))
        except VerificationError as error:
            source.refuse(folder, patch.signature, error)
    return found


def _current(manifests: Mapping[str, Manifest], concept: str) -> list[str]:
    """The folders of the patches of a concept that no other patch there, of the same base, supersedes."""
    old = {(earlier, m.base.sha256) for m in manifests.values() for earlier in m.supersedes}
    named = [folder for folder, manifest in manifests.items() if _spelt(manifest.concept.text) == _spelt(concept)]
    return [f for f in named if (manifests[f].patch_id, manifests[f].base.sha256) not in old]


def _spelt(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _open(source: _Source, folder: str) -> None:
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
        opened = _Opened(folder, signature, digests, signatures)
        _check_sizes(source, opened)
    except VerificationError as error:
        source.refuse(folder, signature, error)
    else:
        source.opened[folder] = opened


def _read_signature(source: _Source, path: str) -> bytes:
    """(1)."""
    limit, size = source.limits.signature, source.listed[path].size
    if size > limit:
        raise FormatError(f"{source.name(path)}: expected at most {limit} bytes, got {size}")
    return source.read(path)


def _read_further(source: _Source, folder: str) -> dict[str, bytes]:
    """Signatures by other keys, by name; whatever else lies there is not looked at."""
    start = f"{folder}/" if folder else ""
    names = [path.removeprefix(start) for path in sorted(source.listed) if path.startswith(start)]
    further = [name for name in names if FURTHER.fullmatch(name)]
    if len(further) > MAX_FURTHER:
        raise FormatError(
            f"{source.name(folder)}: expected at most {MAX_FURTHER} further signatures, got {len(further)}"
        )
    return {name: _read_signature(source, f"{start}{name}") for name in further}


def _first_believed(source: _Source, signatures: Mapping[str, bytes]) -> dict[str, Digest]:
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


def _check_sizes(source: _Source, patch: _Opened) -> None:
    for path, digest in ((patch.where(name), digest) for name, digest in patch.digests.items()):
        file = source.listed.get(path)
        if file is None:
            raise FormatError(f"{source.name(path)}: expected the signed file, got nothing there")
        if file.size > source.limits.file:
            raise FormatError(f"{source.name(path)}: expected at most {source.limits.file} bytes, got {file.size}")
        if file.sha256 not in {None, digest}:
            raise DigestMismatchError(f"{source.name(path)}: expected SHA-256 {digest} as signed, got {file.sha256}")


def _places(patches: Iterable[_Opened]) -> dict[Digest, list[str]]:
    """Where each signed file lies; one basis in several folders is one file."""
    found: dict[Digest, list[str]] = {}
    for patch in patches:
        for name, digest in patch.digests.items():
            found.setdefault(digest, []).append(patch.where(name))
    return found


def _check_total(source: _Source) -> None:
    sizes = [max(source.listed[path].size for path in paths) for paths in _places(source.opened.values()).values()]
    if (total := sum(sizes)) > source.limits.total:
        raise FormatError(f"{source.pinned.repo}: expected at most {source.limits.total} bytes in all, got {total}")


def _read_all(source: _Source) -> None:
    """(4), each file once; where it is not as signed in one folder, those of the others that hold it are tried."""

    def read(item: tuple[Digest, list[str]]) -> VerificationError | None:
        digest, paths = item
        error: VerificationError | None = None
        for path in paths:
            try:
                source.content(path, digest)
            except VerificationError as found:
                error = error or found
            else:
                return None
        return error

    places = _places(source.opened.values())
    pool = ThreadPoolExecutor(_READERS, thread_name_prefix="rasura-pull")
    try:
        failures = {d: error for d, error in zip(places, pool.map(read, places.items()), strict=True) if error}
    finally:
        pool.shutdown(cancel_futures=True)
    for folder, patch in list(source.opened.items()):
        bad = next((failures[digest] for digest in patch.digests.values() if digest in failures), None)
        if bad:
            source.refuse(folder, patch.signature, bad)


def _fetched(source: _Source, patch: _Opened) -> FetchedPatch:
    contents, listed = source.read_before, source.listed
    files = {**patch.signatures, **{name: contents[digest] for name, digest in patch.digests.items()}}
    if patch.folder:
        beside = {path for path in listed if path.startswith(f"{patch.folder}/")}
    else:
        beside = {path for path in listed if not _PATCH_FOLDER.match(path) and not COMFYUI.fullmatch(path)} - _OURS
    return FetchedPatch(patch.folder, files, tuple(sorted(beside - {patch.where(name) for name in files})))
