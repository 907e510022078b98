"""Taking entries out of a registry with the proof that they are in its log, for somebody who has no registry."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace

from sqlalchemy.orm import Session

from rasura.patches.errors import AuditError, InputError, NotFoundError
from rasura.registry._storage.records.records import Draft, EntryRecord
from rasura.registry.evidence.proofs.bundle_lines import BundleLine, Head, RecordLine, write_bundle
from rasura.registry.evidence.proofs.choose_entries import EVERYTHING, EntryChoice, choose_entries, prepare_choice
from rasura.registry.evidence.proofs.handed_on import KeyLink, Signer, keep_newest
from rasura.registry.evidence.proofs.proof_file import EntryProof, read_checkpoint
from rasura.registry.log.entries.entry import MAX_LISTED, decode
from rasura.registry.log.entries.entry_changes import identify_record
from rasura.registry.log.entries.record_digest import encode_record, fingerprint
from rasura.registry.log.entries.stored_entries import body_at, newest_note, note_at, read_stored
from rasura.registry.log.merkle import WholeTree, hash_leaf
from rasura.registry.log.notes.signed_note import Checkpoint, VerifyKey, parse_note
from rasura.registry.log.rotation import read_chain, read_key, was_handed_on
from rasura.registry.registry import Registry
from rasura.registry.trust.checkpoint_age import GIVEN

__all__ = [
    "choose_indexes",
    "export_bundle",
    "export_checkpoint",
    "export_entries",
    "give_checkpoint",
    "link_keys",
    "prove_entry",
    "read_entry",
]


@dataclass(frozen=True, slots=True)
class _Log:
    """The log in one snapshot: its tree built anew from the entries, which gives the signed root."""

    key: VerifyKey
    note: str
    checkpoint: Checkpoint
    tree: WholeTree
    chosen: tuple[BundleLine, ...]
    """Of the entries that were asked for: bytes and patches; their proofs are in the tree."""
    told: frozenset[tuple[str, str, str]]
    """Kind, identifier and digest of every record that a chosen entry tells of."""
    links: tuple[KeyLink, ...]
    """How it came to its key, from the first that it had."""


def prove_entry(registry: Registry, index: int) -> bytes:
    """A C2SP `tlog-proof` of one entry (`rasura.registry.evidence.proofs.proof_file`).

    Raises:
        NotFoundError: there is no such entry.
        AuditError: the log is not what was signed.
    """
    with registry.snapshot() as session:
        log = _read_log(session, {index})
    return EntryProof(index, log.chosen[0].entry, log.tree.prove_inclusion(index), log.note, log.links).to_bytes()


def read_entry(registry: Registry, index: int) -> tuple[EntryRecord, bytes]:
    """One entry and its bytes, which are those that the log signed.

    Raises:
        NotFoundError: there is no such entry.
    """
    found = registry.entries(newest=False, limit=1, after=index - 1)
    with registry.snapshot() as session:
        body = body_at(session, index)
    if not found or body is None or hash_leaf(body) != found[0].leaf_hash:
        raise _missing(index, registry.head().size)
    return found[0], body


def choose_indexes(registry: Registry, choice: EntryChoice) -> tuple[int, ...] | None:
    """Which entries fit, by index; None for a choice that leaves none out.

    Raises:
        NotFoundError: no such model, or no patch of this concept.
        InputError: none fits.
    """
    if choice == EVERYTHING:
        return None
    found = tuple(entry.index for entry in choose_entries(registry, choice, newest=False))
    if not found:
        raise InputError("no entry of the log is like that", hint="rasura audit log")
    return found


def export_checkpoint(registry: Registry) -> bytes:
    """The newest signed checkpoint, a C2SP signed note: what to keep where nobody can change it.

    Raises:
        AuditError: it is not signed by the log's key.
    """
    with registry.snapshot() as session:
        note = newest_note(session).encode()
        read_checkpoint(note, read_key(session))
    return note


def give_checkpoint(registry: Registry, write: Callable[[bytes], object], draft: Draft) -> tuple[bytes, EntryRecord]:
    """Write the newest checkpoint somewhere, and note in the log that it was given out, with its size and root.

    Args:
        registry: whose log.
        write: takes the signed note, and raises where it cannot be written; then nothing is noted.
        draft: who, and why.

    Raises:
        AuditError: it is not signed by the log's key.
        RegistryError: the log cannot be written.
    """
    note = export_checkpoint(registry)
    write(note)
    tree = Checkpoint.parse(parse_note(note).text)
    details: dict[str, str | int] = {"size": tree.size, "root": tree.root.hex()}
    return note, registry.note(replace(draft, action=GIVEN, outcome="success", details=details))


def link_keys(registry: Registry) -> tuple[KeyLink, ...]:
    """How the log came to its key; of one that was handed on, the whole tree is built for it.

    Raises:
        AuditError: the log is not what was signed.
    """
    with registry.snapshot() as session:
        return _read_log(session, frozenset()).links if was_handed_on(session) else ()


def export_entries(registry: Registry, choice: EntryChoice = EVERYTHING) -> Iterator[tuple[EntryRecord, bytes]]:
    """The entries that fit, the oldest first, each with its bytes: RFC 8785 JSON, which has no newline in it.

    All bytes are hashed on the way; after the last they are compared with the signed root.

    Raises:
        NotFoundError: no such model, or no patch of this concept.
        AuditError: they are not what was signed.
    """
    fits = prepare_choice(registry, choice)
    with registry.snapshot() as session:
        key, note = read_key(session), newest_note(session)
        tree = WholeTree()
        for body, patches in read_stored(session):
            tree.append(hash_leaf(body))
            entry, _, _ = decode(body, patches)
            if fits(entry):
                yield entry, body
        _check_root(read_checkpoint(note.encode(), key), tree)


def export_bundle(
    registry: Registry, chosen: Collection[int] | None = None, *, kept: bytes | None = None
) -> Iterator[bytes]:
    """The lines of a bundle (`rasura.registry.evidence.proofs.log_bundle`).

    Args:
        registry: whose log.
        chosen: indexes of the entries to take out, each with its proof; None: the whole log.
        kept: an older checkpoint of this log that somebody has; the bundle then proves that the log continues it.

    Raises:
        NotFoundError: there is no such entry.
        InputError: no entries.
        AuditError: the log is not what was signed, or does not continue the kept checkpoint.
    """
    if chosen is not None and not chosen:
        raise InputError("bundle: expected at least one entry, got none", hint="rasura audit log")
    with registry.snapshot() as session:
        log = _read_log(session, chosen)
        lines = sorted(
            (identify_record(record), encode_record(record).decode())
            for record in registry.records(session)
            if (*identify_record(record), fingerprint(record)) in log.told
        )
        records = [RecordLine(kind, key, text) for (kind, key), text in lines]
        count, continues = log.tree.size if chosen is None else len(log.chosen), _prove_continues(session, log, kept)
        head = Head(log.note, str(log.key), chosen is None, count, len(records), continues, log.links)
        entries = iter(log.chosen) if chosen is not None else _whole(session)
        yield from write_bundle(head, records, entries)


def _whole(session: Session) -> Iterator[BundleLine]:
    for body, patches in read_stored(session):
        yield BundleLine(body, None, tuple(patches) if len(patches) > MAX_LISTED else ())


def _read_log(session: Session, chosen: Collection[int] | None) -> _Log:
    """Build the tree from the entries' bytes, keep what is asked for, and compare the root with the signed one."""
    key, note = read_key(session), newest_note(session)
    checkpoint = read_checkpoint(note.encode(), key)
    wanted = None if chosen is None else frozenset(chosen)
    if wanted and (missing := sorted(each for each in wanted if not 0 <= each < checkpoint.size)):
        raise _missing(missing[0], checkpoint.size)
    tree, kept, told = WholeTree(), [], set()
    for index, (body, patches) in enumerate(read_stored(session)):
        tree.append(hash_leaf(body))
        if wanted is not None and index not in wanted:
            continue
        _, _, changes = decode(body, patches)
        told |= {(change.kind, change.id, change.record) for change in changes if change.record is not None}
        if wanted is not None:
            kept.append((index, body, tuple(patches) if len(patches) > MAX_LISTED else ()))
    _check_root(checkpoint, tree)
    lines = tuple(BundleLine(body, tree.prove_inclusion(index), beside) for index, body, beside in kept)
    return _Log(key, note, checkpoint, tree, lines, frozenset(told), _link_keys(session, tree))


def _link_keys(session: Session, tree: WholeTree) -> tuple[KeyLink, ...]:
    """A link for each time that the log was handed on."""
    links = []
    for index in read_chain(session).at:
        body, size = body_at(session, index), index + 1
        assert body is not None  # the chain was read from these rows, in the same snapshot
        links.append(
            KeyLink(body, tree.prove_inclusion(index, size), note_at(session, size), tree.prove_consistency(size))
        )
    return keep_newest(links)


def _missing(index: int, size: int) -> NotFoundError:
    return NotFoundError(f"the log has entries 0 to {size - 1}: got {index}", hint="rasura audit log")


def _check_root(checkpoint: Checkpoint, tree: WholeTree) -> None:
    if (checkpoint.size, checkpoint.root) != (tree.size, tree.root()):
        raise AuditError(
            f"audit log: expected {checkpoint.size} entries with root {checkpoint.root.hex()}, got {tree.size} with "
            f"{tree.root().hex()}",
            hint="rasura audit verify",
        )


def _prove_continues(session: Session, log: _Log, kept: bytes | None) -> tuple[int, tuple[bytes, ...]] | None:
    if kept is None:
        return None
    old = Signer(log.key, read_chain(session).keys).read(kept)
    if old.size > log.tree.size or log.tree.root(old.size) != old.root:
        raise AuditError(
            f"audit log: it does not continue the kept checkpoint of {old.size} entries; it has {log.tree.size}",
            hint="keep this copy as evidence, then restore the registry from a backup",
        )
    return (old.size, log.tree.prove_consistency(old.size)) if old.size else None
