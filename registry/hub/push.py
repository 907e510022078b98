"""Patches into a repository, as one commit on top of the commit that was looked at, or not at all.

Where a patch goes: the first one, into a repository that holds nothing else, goes to the root, so that diffusers loads
it by the repository's name alone; every other one goes to `patches/<id>/`.

`comfyui/` holds a file of every current patch. One that the card names, of a patch that is no longer there, retired or
superseded, is taken away: who loads all of them would erase what nobody wants erased, or twice. A file that no card of
ours names is somebody else's, and stays.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from rasura.patches.errors import ConflictError, DigestMismatchError, HubError, InputError, NotFoundError
from rasura.patches.format.file_names import MANIFEST, SIGNATURE
from rasura.patches.types import Digest, PatchId
from rasura.registry._storage.digests import sha256
from rasura.registry.hub.card import front_matter, licences
from rasura.registry.hub.card.facts import BaseFacts, CardFacts, PatchFacts, list_current
from rasura.registry.hub.card.licences import Licence
from rasura.registry.hub.card.page import render
from rasura.registry.hub.client import DEFAULT_BRANCH, Patience, RemoteFile, Wire
from rasura.registry.hub.refs import COMFYUI, FOLDER, check_file, check_repo, check_revision
from rasura.registry.hub.upload import commit_files

README = "README.md"
MAX_ENTRIES = 20_000  # files and folders of a repository that is pushed to
_FURNITURE = frozenset({README, ".gitattributes", ".gitignore", "LICENSE", "LICENSE.md", "NOTICE"})


@dataclass(frozen=True, slots=True)
class PatchFiles:
    """A patch to push.

    Attributes:
        patch_id: its id.
        files: the bytes of every file by name, `model.sig` included.
        beside: files for other programs by their path in the repository, which no signature covers.
    """

    patch_id: PatchId
    files: Mapping[str, bytes]
    beside: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PushReceipt:
    """What a push did.

    Attributes:
        commit: the commit that now holds the patches, 40 hexadecimal digits; of a dry run, the one that was looked at,
            "" for a repository that is not there.
        url: its page.
        paths: where each patch lies; "" is the root.
        changed: False when the repository held the same bytes already and nothing was written.
        notes: what a person should know, one sentence each.
        written: the files that differed, by their paths.
        removed: the files that were taken away.
    """

    commit: str
    url: str
    paths: Mapping[PatchId, str]
    changed: bool
    notes: tuple[str, ...] = ()
    written: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Plan:
    """What to do on top of `head`: files that differ, by path, and those to remove; and what a person should know."""

    head: str
    paths: Mapping[PatchId, str]
    changes: Mapping[str, bytes]
    removed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        return not self.changes and not self.removed


def push(
    patches: Sequence[PatchFiles],
    repo: str,
    *,
    message: str,
    card: CardFacts,
    endpoint: str | None = None,
    token: str | None = None,
    private: bool = False,
    create: bool = True,
    revision: str = DEFAULT_BRANCH,
    patience: Patience | None = None,
    dry_run: bool = False,
) -> PushReceipt:
    """Write patches and the model card in one commit.

    Args:
        patches: at least one, each with its `model.sig`.
        repo: `org/name`.
        message: of the commit.
        card: what the card says of these patches; what it says of others already there is kept.
        endpoint: another Hub than the one huggingface_hub is set to.
        token: access token; None takes the stored one.
        private: create the repository as private, and refuse one that is public.
        create: create the repository if it does not exist.
        revision: the branch.
        patience: how failures that may pass are met.
        dry_run: look, and write nothing.

    Raises:
        InputError: names or patches that cannot be.
        NotFoundError: no such repository or branch, or none that this token may see.
        ConflictError: the branch moved meanwhile, or the repository is public and was to be private.
        HubError: the Hub failed, refused or was not reached. Nothing was written.
    """
    check_repo(repo)
    check_revision(revision)
    for patch in patches:
        _check(patch)
    if not patches or len({patch.patch_id for patch in patches}) != len(patches) or not message.strip():
        raise InputError("expected one or more different patches and a message, got none or the same one twice")
    wire = Wire(endpoint, token, patience or Patience())
    head = _head(wire, repo, revision, private=private, create=create, dry_run=dry_run)
    plan = _plan(wire, repo, head, patches, card)
    if plan.empty:
        return _receipt(wire, repo, plan, head, changed=False, notes=("the repository holds the same files already",))
    if dry_run:
        made = () if head else (f"there is no {repo}: it would be made, {'private' if private else 'public'}",)
        return _receipt(wire, repo, plan, head, changed=True, notes=made)
    return _write(wire, repo, revision, plan, message)


def _check(patch: PatchFiles) -> None:
    short = patch.patch_id[:12]
    if SIGNATURE not in patch.files:
        raise InputError(f"patch {short}: expected a {SIGNATURE}, got none; unsigned patches are not pushed")
    for name in patch.files.keys() - {SIGNATURE}:
        check_file(name, f"patch {short}")
    if odd := [path for path in patch.beside if not COMFYUI.fullmatch(path)]:
        raise InputError(f"patch {short}: expected files beside it in comfyui/, got {odd[0][:120]!a}")
    got = PatchId(sha256(patch.files.get(MANIFEST, b"")))
    if got != patch.patch_id:
        raise DigestMismatchError(f"patch {short}: expected {MANIFEST} with SHA-256 {patch.patch_id}, got {got}")


def _head(wire: Wire, repo: str, revision: str, *, private: bool, create: bool, dry_run: bool) -> str:
    """The branch's commit; "" of a repository that a dry run does not make."""
    try:
        head, is_private = wire.head(repo, revision)
    except NotFoundError:
        if not create:
            raise
        if dry_run:
            return ""
        wire.create(repo, private=private)
        head, is_private = wire.head(repo, revision)
    if private and not is_private:
        hint = f"hf repos settings {repo} --private"
        raise ConflictError(f"{repo}: expected a private repository, got a public one", hint=hint)
    return head


def _plan(wire: Wire, repo: str, head: str, patches: Sequence[PatchFiles], card: CardFacts) -> _Plan:
    present = wire.files(repo, head, limit=MAX_ENTRIES) if head else {}
    paths = _paths(patches, present)
    wanted = {_join(paths[patch.patch_id], name): data for patch in patches for name, data in patch.files.items()}
    readme = _read_card(wire, repo, head, present)
    merged = _merged(card, readme, paths, present)
    named = {row.comfyui for row in merged.patches}
    wanted |= {path: data for patch in patches for path, data in patch.beside.items() if path in named}
    ours = {row.comfyui for row in front_matter.rows(readme)}
    licence = _licence(wire, merged, readme)
    wanted[README] = render(merged, repo, readme, licence).encode()
    changes = {path: data for path, data in wanted.items() if not _same(present.get(path), data)}
    return _Plan(head, paths, changes, tuple(sorted((ours - named) & present.keys())), licence.notes)


def _paths(patches: Sequence[PatchFiles], present: Mapping[str, RemoteFile]) -> dict[PatchId, str]:
    empty = present.keys() <= _FURNITURE
    if empty and len(patches) == 1:
        return {patches[0].patch_id: ""}
    return {
        patch.patch_id: "" if _same(present.get(MANIFEST), patch.files[MANIFEST]) else f"{FOLDER}/{patch.patch_id}"
        for patch in patches
    }


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _same(remote: RemoteFile | None, data: bytes) -> bool:
    """Whether the Hub holds these bytes: by SHA-256, or by git's name for them, which a hostile Hub may forge."""
    if remote is None or remote.size != len(data):
        return False
    if remote.sha256:
        return sha256(data) == remote.sha256
    return hashlib.sha1(b"blob %d\0%s" % (len(data), data), usedforsecurity=False).hexdigest() == remote.oid


def _read_card(wire: Wire, repo: str, head: str, present: Mapping[str, RemoteFile]) -> str:
    if README not in present:
        return ""
    data = wire.read(repo, head, README, limit=front_matter.MAX_CARD)
    return data.decode("utf-8", errors="replace")


def _merged(card: CardFacts, readme: str, paths: Mapping[PatchId, str], present: Mapping[str, RemoteFile]) -> CardFacts:
    """The card's facts with the rows of the patches that are there already and stay there, in the registry's light."""
    known: dict[str, PatchFacts] = {
        row.path: _in_light_of(card, replace(row, comfyui=row.comfyui if row.comfyui in present else ""))
        for row in front_matter.rows(readme)
        if _join(row.path, SIGNATURE) in present
    }
    files = {row.patch_id: row.comfyui for row in known.values()}
    pushed = [
        replace(row, path=paths.get(row.patch_id, ""), comfyui=row.comfyui or files.get(row.patch_id, ""))
        for row in card.patches
    ]
    rows = {**known, **{row.path: row for row in pushed if row.patch_id in paths}}
    bases = _bases([*known.values()], pushed, front_matter.written_base(readme))
    found = [replace(rows[at], base=bases[rows[at].base.digest]) for at in sorted(rows)]
    current = {row.patch_id for row in list_current(found)}
    return replace(card, patches=tuple(row if row.patch_id in current else replace(row, comfyui="") for row in found))


def _in_light_of(card: CardFacts, row: PatchFacts) -> PatchFacts:
    """A row that was there, with what the registry that pushes knows of its patch."""
    successor = card.later.get(row.patch_id, row.successor)
    return replace(row, successor=successor, retired=card.retired.get(row.patch_id, row.retired))


def _bases(known: Sequence[PatchFacts], pushed: Sequence[PatchFacts], written: str) -> dict[Digest, BaseFacts]:
    """Each base in the words of who pushes now; what was said of it before and is not said now stays."""
    found: dict[Digest, BaseFacts] = {}
    for base in (row.base for row in (*known, *pushed)):
        old = found.get(base.digest, base)
        found[base.digest] = replace(base, family=base.family or old.family, model=base.model or old.model)
    if len(found) == 1:
        return {digest: replace(base, model=base.model or written) for digest, base in found.items()}
    return found


def _licence(wire: Wire, card: CardFacts, readme: str) -> Licence:
    """What the card says of its licence; the base's page is asked only where nobody else has said one."""
    written = front_matter.written_licence(front_matter.split(readme)[0])
    signed = [patch.licence for patch in card.patches]
    models = {patch.base.model for patch in card.patches}
    inherited: Mapping[str, str] = {}
    if not card.license and not written and not any(signed) and len(models) == 1 and all(models):
        inherited = wire.licence(*models)
    return licences.choose_licence(card.license, signed, written, inherited)


def _write(wire: Wire, repo: str, revision: str, plan: _Plan, message: str) -> PushReceipt:
    try:
        oid = commit_files(wire, repo, revision, plan.changes, message=message, parent=plan.head, removed=plan.removed)
    except (ConflictError, HubError):
        # The answer may have been lost, or somebody else pushed the same: what counts is what is there.
        head = _held(wire, repo, revision, plan)
        if head is None:
            raise
        lost = ("the Hub's answer was lost, the files are there",)
        return _receipt(wire, repo, plan, head, changed=True, notes=lost)
    return _receipt(wire, repo, plan, oid, changed=True)


def _held(wire: Wire, repo: str, revision: str, plan: _Plan) -> str | None:
    """The branch's head, if it is not the old one and is as planned in every file; None otherwise."""
    try:
        head, _ = wire.head(repo, revision)
        present = wire.files(repo, head, limit=MAX_ENTRIES)
    except (HubError, NotFoundError):
        return None
    done = all(_same(present.get(p), d) for p, d in plan.changes.items()) and not present.keys() & set(plan.removed)
    return head if head != plan.head and done else None


def _receipt(
    wire: Wire, repo: str, plan: _Plan, commit: str, *, changed: bool, notes: tuple[str, ...] = ()
) -> PushReceipt:
    url = f"{wire.endpoint}/{repo}{f'/commit/{commit}' if commit else ''}"
    said = (*notes, *plan.notes)
    return PushReceipt(commit, url, plan.paths, changed, said, tuple(sorted(plan.changes)), plan.removed)
