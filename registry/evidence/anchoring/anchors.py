"""Anchors: evidence outside this registry that its log had this tree at a time, kept with the log and checked again.

An entry `log.anchor` names an anchor's digest (`anchor.py`). What is here can be lost with the
registry; what proves is what lies elsewhere, and what somebody else signed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rasura.patches._io.files import read_regular
from rasura.patches._io.sha256 import digest_of
from rasura.patches.errors import AuditError, HubError, NotFoundError
from rasura.patches.types import Digest
from rasura.registry.evidence.anchoring.anchor import MAX_BYTES, WHAT, Anchor
from rasura.registry.evidence.anchoring.timestamp_token import read_claimed_time, verify_token
from rasura.registry.evidence.proofs.take_out import export_checkpoint
from rasura.registry.hub.one_file import put_file, read_file
from rasura.registry.hub.refs import PinnedRepo
from rasura.registry.hub.remote import Remote
from rasura.registry.log.entries.stored_entries import EntryFilter
from rasura.registry.log.notes.cosignature import WitnessKey, find_cosignature
from rasura.registry.log.notes.signed_note import MAX_NOTE_BYTES, Checkpoint, parse_note, verify_note
from rasura.registry.log.rotation import read_chain
from rasura.registry.log.verify import verify_log

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from rasura.registry._storage.records.records import Draft, EntryRecord
    from rasura.registry.registry import Registry

__all__ = [
    "ANCHOR",
    "AddedAnchor",
    "CheckedAnchor",
    "add_anchor",
    "commit_checkpoint",
    "list_anchors",
    "verify_anchors",
]

ANCHOR: Final = "log.anchor"


@dataclass(frozen=True, slots=True)
class CheckedAnchor:
    """An anchor and what came of checking it.

    Attributes:
        entry: which says that it was added.
        anchor: the anchor.
        time: when somebody else saw the tree, as they signed it; None of a file and of a commit.
        proved: whether that was checked against a key or certificate from outside, or what lies there is the same.
        said: what is wrong or was not looked at; "" where all is well.
    """

    entry: EntryRecord
    anchor: Anchor
    time: datetime | None
    proved: bool
    said: str


@dataclass(frozen=True, slots=True)
class AddedAnchor:
    """An anchor that was made, and the entry that says so."""

    entry: EntryRecord
    anchor: Anchor


def add_anchor(registry: Registry, anchor: Anchor, draft: Draft) -> EntryRecord:
    """Keep an anchor, and say so in the log.

    Raises:
        AuditError: its checkpoint is not this log's, or its evidence is of another kind or tree.
    """
    _check_own(registry, anchor)
    if anchor.kind == "rfc3161":
        read_claimed_time(anchor.evidence)
    elif anchor.kind == "witness" and parse_note(anchor.evidence).text != parse_note(anchor.note.encode()).text:
        raise AuditError(f"{WHAT}: the cosigned checkpoint is another one")
    data = anchor.to_bytes()
    digest = digest_of(data)
    registry.blobs.put(data, digest)
    details: dict[str, str | int] = {"kind": anchor.kind, "size": anchor.checkpoint.size, "anchor": digest}
    return registry.note(replace(draft, action=ANCHOR, outcome="success", details=details))


def commit_checkpoint(
    registry: Registry, repo: str, remote: Remote, draft: Draft, *, private: bool = False
) -> AddedAnchor:
    """Put the newest checkpoint into a Hub repository, in a commit of its own, and keep that as an anchor.

    The commit is out of this registry's reach as far as others can write there, or keep clones of it.

    Args:
        registry: whose log.
        repo: `org/name`; made where there is none.
        remote: which Hub.
        draft: who, and why.
        private: make the repository private if it is new.

    Raises:
        InputError, ConflictError, HubError: nothing was written.
        AuditError: the newest checkpoint is not signed by the log's key.
    """
    note = export_checkpoint(registry)
    tree = Checkpoint.parse(parse_note(note).text)
    path = f"{tree.origin.rpartition('/')[2]}/{tree.size}.checkpoint"
    said = f"Checkpoint of {tree.size} entries of {tree.origin}"
    place = put_file(repo, path, note, message=said, remote=remote, private=private)
    anchor = Anchor("hub", note.decode(), b"", f"{place.repo}@{place.commit}:{path}")
    return AddedAnchor(add_anchor(registry, anchor, draft), anchor)


def list_anchors(registry: Registry) -> tuple[tuple[EntryRecord, Anchor], ...]:
    """All anchors, the oldest first, each with the entry that says so.

    Raises:
        NotFoundError, DigestMismatchError: the evidence is missing or was changed.
    """
    entries = registry.entries(EntryFilter(action=ANCHOR), newest=False)
    return tuple((entry, _read(registry, entry)) for entry in entries)


def verify_anchors(
    registry: Registry,
    *,
    roots: Sequence[Certificate] = (),
    witnesses: Sequence[WitnessKey] = (),
    remote: Remote | None = None,
) -> tuple[CheckedAnchor, ...]:
    """Verify the log, and that it continues the tree of every anchor.

    Args:
        registry: whose.
        roots: certificates of time-stamping authorities that count.
        witnesses: keys of witnesses that count.
        remote: the Hub that commits are fetched from; None: the one that huggingface_hub is set to.

    Raises:
        AuditError: the log is not whole, or does not continue an anchor: it was rewritten.
    """
    verify_log(registry)
    outside = _Outside(roots, witnesses, remote or Remote())
    return tuple(_check(registry, entry, anchor, outside) for entry, anchor in list_anchors(registry))


@dataclass(frozen=True, slots=True)
class _Outside:
    """What counts and does not lie here."""

    roots: Sequence[Certificate]
    witnesses: Sequence[WitnessKey]
    remote: Remote


def _check(registry: Registry, entry: EntryRecord, anchor: Anchor, outside: _Outside) -> CheckedAnchor:
    _check_own(registry, anchor)
    if anchor.kind == "file":
        return CheckedAnchor(entry, anchor, None, *_check_file(anchor))
    if anchor.kind == "hub":
        return CheckedAnchor(entry, anchor, None, *_check_commit(anchor, outside.remote))
    if anchor.kind == "rfc3161":
        if not outside.roots:
            claimed = read_claimed_time(anchor.evidence)
            return CheckedAnchor(entry, anchor, claimed, proved=False, said="no certificate was given: --tsa-ca")
        time = verify_token(anchor.evidence, anchor.note.encode(), outside.roots)
        return CheckedAnchor(entry, anchor, time, proved=True, said="")
    note = parse_note(anchor.evidence)
    for witness in outside.witnesses:
        if any((each.name, each.key_id) == (witness.name, witness.key_id) for each in note.signatures):
            return CheckedAnchor(entry, anchor, find_cosignature(note, witness), proved=True, said="")
    return CheckedAnchor(entry, anchor, None, proved=False, said="no key of its witness was given: --witness-key")


def _check_file(anchor: Anchor) -> tuple[bool, str]:
    try:
        same = read_regular(Path(anchor.where), MAX_NOTE_BYTES) == anchor.note.encode()
    except NotFoundError:
        return False, f"{anchor.where} is not there"
    if not same:
        raise _changed(anchor)
    return True, ""


def _check_commit(anchor: Anchor, remote: Remote) -> tuple[bool, str]:
    repo, _, rest = anchor.where.partition("@")
    commit, _, path = rest.partition(":")
    try:
        found = read_file(PinnedRepo(repo, commit), path, limit=MAX_NOTE_BYTES, remote=remote)
    except NotFoundError:
        return False, f"{anchor.where} is not there, or not for this token"
    except HubError as error:
        return False, error.message
    if found != anchor.note.encode():
        raise _changed(anchor)
    return True, ""


def _changed(anchor: Anchor) -> AuditError:
    return AuditError(
        f"{WHAT}: {anchor.where} does not hold the checkpoint that was put there",
        hint="keep both as evidence, and ask who changed it",
        check="anchor",
    )


def _check_own(registry: Registry, anchor: Anchor) -> None:
    """The checkpoint is signed by a key of this log, and the log has that tree."""
    note, tree = parse_note(anchor.note.encode()), anchor.checkpoint
    with registry.snapshot() as session:
        verify_note(note, read_chain(session).keys)
    root = registry.root_at(tree.size)
    if tree.origin != registry.origin or root != tree.root:
        raise AuditError(
            f"{WHAT}: the log does not continue its checkpoint of {tree.size} entries: it was rewritten or cut",
            hint="keep this copy as evidence, then restore the registry from a backup",
            check="anchor",
        )


def _read(registry: Registry, entry: EntryRecord) -> Anchor:
    digest = str(entry.details.get("anchor", ""))
    try:
        return Anchor.parse(registry.blobs.read(Digest(digest), limit=MAX_BYTES))
    except NotFoundError as error:
        what = f"anchor of entry {entry.index}"
        raise NotFoundError(f"{what}: {error.message}", hint="restore the registry's blobs from a backup") from None
