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
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from rasura.patches.errors import (
    FormatError,
    NotFoundError,
    VerificationError,
)
from rasura.patches.types import SHORT, Digest
from rasura.registry.hub.client import DEFAULT_BRANCH, Patience, Wire
from rasura.registry.hub.pull_choice import SHOWN, choose_patches, find_folders
from rasura.registry.hub.pull_source import FetchLimits, OpenBundle, OpenedPatch, PinnedSource, RefusedPatch
from rasura.registry.hub.refs import COMFYUI, FOLDER, PinnedRepo, check_repo, check_revision

_PATCH_FOLDER = re.compile(rf"{FOLDER}/[0-9a-f]{{64}}/")
_OURS = frozenset({"README.md", ".gitattributes"})  # what the Hub and `push` keep beside a patch in the root
_READERS = 4  # downloads at a time


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
class Fetched:
    """What came of a commit: at least one patch; those that were refused are named."""

    patches: list[FetchedPatch]
    refused: list[RefusedPatch]


def resolve_revision(
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
        pinned: from `resolve_revision`.
        open_bundle: decides on trust; called once a patch, before any of its files is read.
        limits: what is accepted.
        only: ids of the patches wanted, beginnings of at least four digits, or concepts; none: all.
        endpoint: as for `resolve_revision`.
        token: as for `resolve_revision`.
        patience: as for `resolve_revision`.

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
    source = PinnedSource(wire, pinned, listed, limits, open_bundle)
    choose_patches(source, find_folders(source), only)
    if not source.opened and not source.refused:
        raise NotFoundError(f"{pinned.repo}@{pinned.commit[:SHORT]}: no signed patch there", hint="rasura push")
    _check_total(source)
    _read_all(source)
    refused = [source.refused[folder] for folder in sorted(source.refused)]
    if not source.opened:
        raise explain(pinned, refused)
    patches = [_fetched(source, source.opened[folder]) for folder in sorted(source.opened)]
    return Fetched(patches, refused)


def explain(pinned: PinnedRepo, refused: Sequence[RefusedPatch]) -> VerificationError:
    """The error where nothing was taken: of the kind of the first refusal, with all of them in it."""
    first = refused[0].error
    more = f"; and {len(refused) - SHOWN} more" if len(refused) > SHOWN else ""
    message = f"{pinned.repo}: {'; '.join(each.sentence for each in refused[:SHOWN])}{more}"
    named = [{"path": r.path, "patch": r.patch_id, "signer": r.signer, "error": r.error.code} for r in refused]
    return type(first)(message, hint=first.hint, **{**first.details, "refused": named})


def _places(patches: Iterable[OpenedPatch]) -> dict[Digest, list[str]]:
    """Where each signed file lies; one basis in several folders is one file."""
    found: dict[Digest, list[str]] = {}
    for patch in patches:
        for name, digest in patch.digests.items():
            found.setdefault(digest, []).append(patch.where(name))
    return found


def _check_total(source: PinnedSource) -> None:
    sizes = [max(source.listed[path].size for path in paths) for paths in _places(source.opened.values()).values()]
    if (total := sum(sizes)) > source.limits.total:
        raise FormatError(f"{source.pinned.repo}: expected at most {source.limits.total} bytes in all, got {total}")


def _read_all(source: PinnedSource) -> None:
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


def _fetched(source: PinnedSource, patch: OpenedPatch) -> FetchedPatch:
    contents, listed = source.read_before, source.listed
    files = {**patch.signatures, **{name: contents[digest] for name, digest in patch.digests.items()}}
    if patch.folder:
        beside = {path for path in listed if path.startswith(f"{patch.folder}/")}
    else:
        beside = {path for path in listed if not _PATCH_FOLDER.match(path) and not COMFYUI.fullmatch(path)} - _OURS
    return FetchedPatch(patch.folder, files, tuple(sorted(beside - {patch.where(name) for name in files})))
