"""An anchor: where and when somebody outside of the registry saw a checkpoint of its log.

An anchor is a blob, RFC 8785 JSON; an entry `log.anchor` names its digest:

    {"format":"rasura-anchor/1", "kind":"rfc3161", "checkpoint":"<signed note>", "evidence":"<base64>", "where":"…"}

    file      a copy of the checkpoint in a file that the registry's writers cannot change; `where` is its path
    rfc3161   a time-stamp token over the checkpoint
    witness   the checkpoint with another registry's cosignature
    hub       a copy of the checkpoint in a commit of a Hub repository; `where` is repository@commit:path
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, cast

from rasura.patches._io import canonical_json
from rasura.patches._io.json_fields import Fields
from rasura.patches._io.strict_base64 import decode_base64, encode_base64
from rasura.patches.errors import FormatError
from rasura.registry.log.notes.signed_note import MAX_NOTE_BYTES, Checkpoint, parse_note

__all__ = ["FORMAT", "MAX_BYTES", "WHAT", "Anchor", "Kind"]

FORMAT: Final = "rasura-anchor/1"
Kind: TypeAlias = Literal["file", "rfc3161", "witness", "hub"]
_KINDS: Final = ("file", "rfc3161", "witness", "hub")
MAX_BYTES: Final = 1024 * 1024
"""Of an anchor's blob."""
WHAT: Final = "anchor"
"""What messages call it."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """Evidence about one checkpoint.

    Attributes:
        kind: what it is.
        note: the checkpoint, a signed note.
        evidence: a token, or the cosigned note; b"" of a file and of a commit.
        where: path of a file, repository, commit and path, or what somebody calls it.
    """

    kind: Kind
    note: str
    evidence: bytes
    where: str

    @property
    def checkpoint(self) -> Checkpoint:
        """The tree that it is about; no signature is looked at."""
        return Checkpoint.parse(parse_note(self.note.encode()).text)

    def to_bytes(self) -> bytes:
        """The blob."""
        return canonical_json.dumps(
            {
                "format": FORMAT,
                "kind": self.kind,
                "checkpoint": self.note,
                "evidence": encode_base64(self.evidence),
                "where": self.where,
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Anchor:
        """Read a blob.

        Raises:
            FormatError: it is no anchor.
        """
        fields = Fields.of(canonical_json.loads(data, what=WHAT, limit=MAX_BYTES), WHAT)
        fields.choice("format", (FORMAT,))
        kind = cast("Kind", fields.choice("kind", _KINDS))
        evidence = decode_base64(fields.text("evidence", limit=MAX_BYTES))
        if evidence is None:
            raise FormatError(f"{WHAT}: evidence: expected base64")
        found = cls(kind, fields.text("checkpoint", limit=MAX_NOTE_BYTES), evidence, fields.text("where"))
        fields.done()
        return found
