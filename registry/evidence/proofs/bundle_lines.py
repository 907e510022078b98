"""The lines of a bundle of log entries: its head, the records that entries tell of, entries with their proofs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Final

from rasura.patches._io import canonical_json
from rasura.patches._io.json_fields import Fields, JsonValue
from rasura.patches.errors import AuditError
from rasura.patches.types import PatchId
from rasura.registry.evidence.proofs.handed_on import MAX_LINKS, KeyLink, read_links, write_links
from rasura.registry.log.entries.entry import MAX_ENTRY_BYTES
from rasura.registry.log.notes.signed_note import MAX_NOTE_BYTES
from rasura.registry.log.notes.strict_base64 import encode_base64, read_base64

__all__ = ["FORMAT", "MAX_LINE_BYTES", "BundleLine", "Head", "RecordLine", "write_bundle"]

FORMAT: Final = "rasura-log/1"

MAX_LINE_BYTES: Final = 4 * 1024**2
"""Most bytes of a line: an entry as a JSON text, with up to ten thousand patches beside it, has less."""

BUNDLE: Final = "bundle"

_HASH_BYTES: Final = 32

_MAX_HASHES: Final = 126


@dataclass(frozen=True, slots=True)
class Head:
    """The first line.

    Attributes:
        note: the signed checkpoint that everything is proved against.
        vkey: the log's public key as whoever wrote the file names it.
        whole: whether every entry of the log is here.
        entries: how many entries follow.
        records: how many records follow.
        consistency: an older size and the proof that this log continues that tree; None: there is none.
        links: how the log came to its present key, from the first that it had.
    """

    note: str
    vkey: str
    whole: bool
    entries: int
    records: int
    consistency: tuple[int, tuple[bytes, ...]] | None = None
    links: tuple[KeyLink, ...] = ()

    def to_json(self) -> JsonValue:
        """The line."""
        value: dict[str, JsonValue] = {
            "format": FORMAT,
            "checkpoint": self.note,
            "vkey": self.vkey,
            "whole": self.whole,
            "entries": self.entries,
            "records": self.records,
        }
        if self.consistency is not None:
            size, proof = self.consistency
            value["consistency"] = {"size": size, "proof": [encode_base64(each) for each in proof]}
        if self.links:
            value["links"] = write_links(self.links)
        return value

    @classmethod
    def parse(cls, line: bytes) -> Head:
        """Read the first line.

        Raises:
            FormatError, AuditError: it is none.
        """
        fields = Fields.of(canonical_json.loads(line, what=BUNDLE, limit=MAX_LINE_BYTES), BUNDLE)
        fields.choice("format", (FORMAT,))
        inside = fields.optional("consistency", fields.fields)
        older = None
        if inside is not None:
            older = inside.integer("size", 1, canonical_json.MAX_INTEGER), read_hashes(inside, "proof")
            inside.done()
        links = read_links(tuple(fields.records("links", limit=MAX_LINKS))) if fields.has("links") else ()
        head = cls(
            fields.text("checkpoint", limit=MAX_NOTE_BYTES),
            fields.text("vkey", limit=1024),
            fields.flag("whole"),
            fields.integer("entries", 0, canonical_json.MAX_INTEGER),
            fields.integer("records", 0, canonical_json.MAX_INTEGER),
            older,
            links,
        )
        fields.done()
        return head


@dataclass(frozen=True, slots=True)
class RecordLine:
    """A record, as the canonical JSON whose digest an entry gives."""

    kind: str
    id: str
    text: str

    def to_json(self) -> JsonValue:
        """The line."""
        return {"kind": self.kind, "id": self.id, "record": self.text}


@dataclass(frozen=True, slots=True)
class BundleLine:
    """An entry; `proof` is None in a whole log, `beside` the patches that its bytes do not spell out."""

    entry: bytes
    proof: tuple[bytes, ...] | None
    beside: tuple[PatchId, ...] = ()

    def to_json(self) -> JsonValue:
        """The line."""
        value: dict[str, JsonValue] = {"entry": self.entry.decode()}
        if self.proof is not None:
            value["proof"] = [encode_base64(each) for each in self.proof]
        if self.beside:
            value["patches"] = list(self.beside)
        return value


def write_bundle(head: Head, records: Iterable[RecordLine], entries: Iterable[BundleLine]) -> Iterator[bytes]:
    """The file, line by line."""
    yield canonical_json.dumps(head.to_json()) + b"\n"
    for record in records:
        yield canonical_json.dumps(record.to_json()) + b"\n"
    for line in entries:
        yield canonical_json.dumps(line.to_json()) + b"\n"


def read_line(file: IO[bytes]) -> bytes:
    """The next line of a bundle, without its end.

    Raises:
        AuditError: it is longer than any line may be, or not there.
    """
    line = file.readline(MAX_LINE_BYTES + 1)
    if not line.endswith(b"\n"):
        if len(line) > MAX_LINE_BYTES:
            raise AuditError(f"{BUNDLE}: expected a line of at most {MAX_LINE_BYTES} bytes, got a longer one")
        where = "in the middle of a line" if line else "before the last of the lines that its head counts"
        raise AuditError(f"{BUNDLE}: the file is cut off: it ends {where}", hint="rasura audit export -o FILE")
    return line[:-1]


def read_record(line: bytes) -> RecordLine:
    """What an entry tells of.

    Raises:
        FormatError: another shape.
    """
    fields = Fields.of(canonical_json.loads(line, what=BUNDLE, limit=MAX_LINE_BYTES), BUNDLE)
    found = RecordLine(
        fields.text("kind", limit=32), fields.text("id", limit=64), fields.text("record", limit=MAX_LINE_BYTES)
    )
    fields.done()
    return found


def read_entry(line: bytes) -> BundleLine:
    """An entry with its proof.

    Raises:
        FormatError: another shape.
    """
    fields = Fields.of(canonical_json.loads(line, what=BUNDLE, limit=MAX_LINE_BYTES), BUNDLE)
    entry = fields.text("entry", limit=MAX_ENTRY_BYTES).encode()
    proof = read_hashes(fields, "proof") if fields.has("proof") else None
    beside = tuple(map(PatchId, fields.texts("patches"))) if fields.has("patches") else ()
    fields.done()
    return BundleLine(entry, proof, beside)


def read_hashes(fields: Fields, name: str) -> tuple[bytes, ...]:
    """Hashes of a proof.

    Raises:
        FormatError: none of their size, or too many.
    """
    return tuple(read_base64(each, BUNDLE, size=_HASH_BYTES) for each in fields.texts(name, _MAX_HASHES))
