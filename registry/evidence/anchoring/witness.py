"""Witnessing another registry's log: signing that its tree was seen, and never two that contradict each other.

What a witness saw last of each log stands in its own log, as `log.witness`: it is committed before the cosignature
leaves, so that a crash can only make the witness more careful (C2SP `tlog-witness`: persist before answering).
"""

from __future__ import annotations

import io
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from rasura.patches.errors import AuditError, ConflictError
from rasura.registry.evidence.proofs.log_bundle import LogBundle, read_log_bundle
from rasura.registry.evidence.proofs.proof_file import read_checkpoint
from rasura.registry.log.entries.stored_entries import EntryFilter
from rasura.registry.log.notes.signed_note import Checkpoint, Note, NoteSignature, VerifyKey, parse_note

if TYPE_CHECKING:
    from rasura.registry._storage.records.records import Draft, EntryRecord
    from rasura.registry.registry import Registry

__all__ = ["WITNESS", "witness"]

WITNESS: Final = "log.witness"


def witness(registry: Registry, note: bytes, vkey: VerifyKey, draft: Draft, *, bundle: bytes | None = None) -> str:
    """Cosign the checkpoint of another log.

    Args:
        registry: the witness; its log remembers what it saw.
        note: the checkpoint, signed by that log's key.
        vkey: that log's public key.
        draft: who does it, and why.
        bundle: proves that the log continues the tree that was seen last; needed where it has grown since.

    Returns:
        The checkpoint with the cosignature added: a note.

    Raises:
        AuditError: it is not signed by the key, or does not continue what was seen last: that log has two pasts.
        ConflictError: a proof is needed, or a later tree was seen already.
    """
    before = _find_last(registry, vkey.name)
    proof = None if bundle is None else _read_proof(bundle, vkey, before)
    key = vkey if proof is None else proof.key  # which the bundle ties to the one that was given, across rotations
    checkpoint = read_checkpoint(note, key)
    if before is not None:
        _check_continues(before, checkpoint, proof)
    now = registry.now()
    signed = parse_note(note)
    details: dict[str, str | int] = {
        "log": checkpoint.origin,
        "size": checkpoint.size,
        "root": checkpoint.root.hex(),
        "checkpoint": str(replace(signed, signatures=_by(signed, key))),
    }
    mine = registry.note(replace(draft, action=WITNESS, outcome="success", details=details))
    _check_alone(registry, before, mine)
    cosigned = replace(signed, signatures=(*signed.signatures, registry.log_key.cosign(signed.text, now)))
    return str(cosigned)


def _by(note: Note, vkey: VerifyKey) -> tuple[NoteSignature, ...]:
    return tuple(each for each in note.signatures if (each.name, each.key_id) == (vkey.name, vkey.key_id))


def _find_last(registry: Registry, origin: str) -> EntryRecord | None:
    """The entry about the largest tree of that log that was seen."""
    seen = [e for e in registry.entries(EntryFilter(action=WITNESS)) if e.details.get("log") == origin]
    return max(seen, key=lambda entry: int(entry.details["size"]), default=None)


def _check_alone(registry: Registry, before: EntryRecord | None, mine: EntryRecord) -> None:
    """Refuse to sign where another process saw a tree of this log since we looked; both stand in the log then."""
    seen = registry.entries(EntryFilter(action=WITNESS), newest=False, after=-1 if before is None else before.index)
    others = [e for e in seen if e.index < mine.index and e.details.get("log") == mine.details["log"]]
    if others:
        raise ConflictError(
            f"{mine.details['log']}: another process witnessed it at the same time (entry {others[0].index})",
            hint="try again",
        )


def _read_proof(bundle: bytes, vkey: VerifyKey, before: EntryRecord | None) -> LogBundle:
    """A bundle, read to its end: it continues what was seen last."""
    kept = None if before is None else str(before.details["checkpoint"]).encode()
    found = read_log_bundle(io.BytesIO(bundle), vkey=vkey, kept=kept)
    for _ in found.entries():  # a whole log proves it by its entries
        pass
    return found


def _check_continues(before: EntryRecord, checkpoint: Checkpoint, proof: LogBundle | None) -> None:
    size, root = int(before.details["size"]), str(before.details["root"])
    if checkpoint.size < size:
        raise ConflictError(
            f"{checkpoint.origin}: a tree of {size} entries was seen already (entry {before.index}), got one of "
            f"{checkpoint.size}",
            hint=f"rasura audit show {before.index}",
        )
    if checkpoint.size == size:
        if checkpoint.root.hex() != root:
            raise AuditError(
                f"{checkpoint.origin} has two pasts: of {size} entries it had root {root} (entry {before.index}), and "
                f"now {checkpoint.root.hex()}",
                hint="keep both checkpoints as evidence",
                check="fork",
            )
        return
    if proof is None:
        raise ConflictError(
            f"{checkpoint.origin} has grown from {size} entries to {checkpoint.size}: expected a proof that it "
            "continues them",
            hint="rasura audit witness CHECKPOINT --vkey KEY --bundle FILE",
        )
    if proof.checkpoint != checkpoint:
        raise AuditError(
            f"bundle: expected one of the tree of {checkpoint.size} entries, got one of {proof.checkpoint.size}",
            # A checkpoint that is given out is an entry, too: the bundle first, then the checkpoint, are of one tree.
            hint="rasura audit checkpoint -o NEW"
            if proof.checkpoint.size > checkpoint.size
            else "rasura audit export --checkpoint OLD -o BUNDLE",
        )
