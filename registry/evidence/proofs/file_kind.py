"""What a file that left a registry is, told by its first bytes, so that a command can say which other it is for.

a line {"checkpoint":… "format":"rasura-log/1"…}    a bundle of a log
c2sp.org/tlog-proof@v1                              a proof of one entry
a signed note of three lines                        a checkpoint
{"payload":…                                        a signed statement, of a model or an evaluation
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Final, Literal, TypeAlias

from rasura.patches.errors import AuditError
from rasura.registry.evidence.proofs.proof_file import HEADER
from rasura.registry.log.notes.signed_note import MAX_NOTE_BYTES, Checkpoint, parse_note

__all__ = ["FileKind", "find_kind"]

FileKind: TypeAlias = Literal["empty", "bundle", "proof", "checkpoint", "attestation", "statement", "other"]

_BUNDLE: Final = b'{"checkpoint":'
_STATEMENT: Final = b'{"payload":'
_MODEL: Final = "urn:rasura:model-state:v1"  # rasura.registry.evidence.attestations.model_statement


def find_kind(data: bytes) -> FileKind:
    """What the bytes of a file begin like; nothing is verified."""
    if not data.strip():
        return "empty"
    if data.startswith(HEADER.encode()):
        return "proof"
    if data.startswith(_BUNDLE):
        return "bundle"
    if data.startswith(_STATEMENT):
        return "attestation" if _MODEL in _read_payload(data) else "statement"
    try:
        Checkpoint.parse(parse_note(data[: MAX_NOTE_BYTES + 1]).text)
    except AuditError:
        return "other"
    return "checkpoint"


def _read_payload(data: bytes) -> str:
    """The statement inside; "" of an envelope that is cut off."""
    try:
        value = json.loads(data)
        return base64.b64decode(value["payload"]).decode()
    except (ValueError, KeyError, TypeError, binascii.Error):
        return ""
