"""Checking what somebody took out of a log: a bundle or a proof, with the log's public key and nothing else."""

from __future__ import annotations

import os
import shlex
import stat
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Literal

from rasura.patches.errors import AuditError, FormatError, NotFoundError
from rasura.registry._storage.files.durable_files import translated
from rasura.registry._storage.records.records import EntryRecord
from rasura.registry.evidence.proofs.file_kind import find_kind
from rasura.registry.evidence.proofs.log_bundle import read_log_bundle
from rasura.registry.evidence.proofs.proof_file import HEADER, MAX_PROOF_BYTES, verify_proof
from rasura.registry.log.notes.signed_note import Checkpoint, VerifyKey

__all__ = ["SHOWN", "VerifiedFile", "verify_file"]

SHOWN: Final = 50
"""How many of the newest entries are given back."""
_LOOKED: Final = 1024**2
"""Bytes that tell what a file is."""


@dataclass(frozen=True, slots=True)
class VerifiedFile:
    """What a file proves.

    Attributes:
        kind: what it is.
        checkpoint: the log that its entries are in.
        key: whose signature was verified.
        pinned: whether that key, or one that led to it, came from outside the file.
        replaced: whether it was one that has handed the log on since: pin `key` from now on.
        kept: size of the older checkpoint that the log was shown to continue; None where none was given.
        whole: whether every entry of the log is in the file.
        count: how many entries are.
        records: how many records are, each told of by one of them.
        shown: the newest entries, the oldest of them first.
    """

    kind: Literal["bundle", "proof"]
    checkpoint: Checkpoint
    key: VerifyKey
    pinned: bool
    replaced: bool
    kept: int | None
    whole: bool
    count: int
    records: int
    shown: tuple[EntryRecord, ...]


def verify_file(path: Path, *, vkey: VerifyKey | None = None, kept: bytes | None = None) -> VerifiedFile:
    """Check every line of a file; a bundle of any length takes the same memory.

    Args:
        path: of a bundle or a proof.
        vkey: the log's public key, from somebody who kept it, or one that has handed the log on since. A bundle is
            believed when it names its own; a proof names none.
        kept: a checkpoint of this log that somebody kept: the log must continue it.

    Raises:
        NotFoundError: there is no such file.
        AuditError, FormatError: the first thing found wrong.
    """
    with _opened(path) as file:
        if file.read(len(HEADER)) == HEADER.encode():
            file.seek(0)
            return _verify_proof(file.read(MAX_PROOF_BYTES + 1), vkey, kept)
        file.seek(0)
        _check_kind(path, file.read(_LOOKED))
        file.seek(0)
        try:
            bundle = read_log_bundle(file, vkey=vkey, kept=kept)
        except FormatError as error:
            raise AuditError(f"{path}: expected a bundle or a proof of a log: {error.message}") from None
        shown: deque[EntryRecord] = deque(maxlen=SHOWN)
        for entry in bundle.entries():
            shown.append(entry)
    head = bundle.head
    return VerifiedFile(
        "bundle",
        bundle.checkpoint,
        bundle.key,
        bundle.pinned is not None,
        bundle.pinned not in (None, bundle.key),
        bundle.kept,
        head.whole,
        head.entries,
        head.records,
        tuple(shown),
    )


def _verify_proof(data: bytes, vkey: VerifyKey | None, kept: bytes | None) -> VerifiedFile:
    if vkey is None:
        raise AuditError(
            "a proof does not name the log's key: expected it from somebody who kept it",
            hint="rasura audit verify PROOF --vkey KEY",
            check="key",
        )
    found = verify_proof(data, vkey)
    old = None if kept is None else found.signer.read(kept)
    if old is not None and old != found.checkpoint:
        raise AuditError(
            f"a proof is of one tree: expected the {old.size} entries of the kept checkpoint, got "
            f"{found.checkpoint.size}",
            hint="rasura audit export --format bundle --checkpoint FILE -o BUNDLE",
        )
    return VerifiedFile(
        kind="proof",
        checkpoint=found.checkpoint,
        key=found.signer.key,
        pinned=True,
        replaced=found.signer.key != vkey,
        kept=None if old is None else old.size,
        whole=found.checkpoint.size == 1,
        count=1,
        records=0,
        shown=(found.entry,),
    )


def _check_kind(path: Path, data: bytes) -> None:
    """Refuse what is for another command, and say for which.

    Raises:
        AuditError: it is no bundle.
    """
    named = shlex.quote(str(path))
    match find_kind(data):
        case "empty":
            said, hint = "is empty", "rasura audit export -o FILE"
        case "checkpoint":
            said, hint = "is a checkpoint, which a log must continue", f"rasura audit verify --checkpoint {named}"
        case "attestation":
            hint = f"rasura verify --model MODEL --attestation {named} --key PUBLIC.pem"
            said = "is an attestation of a model"
        case "statement":
            said, hint = "is a signed statement", f"rasura verify {named} --key PUBLIC.pem"
        case _:
            return
    raise AuditError(f"{path} {said}: expected a bundle or a proof of a log", hint=hint)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """A regular file, so that reading ends."""
    with translated(f"read {path}"):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NotFoundError(f"file {path} does not exist", hint="rasura audit export -o FILE") from None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise AuditError(f"{path}: expected a regular file")
        with os.fdopen(descriptor, "rb") as file:
            yield file
