"""How a log came from one key to the next, in a file that leaves the registry.

Whoever pinned a key that has handed the log on since would otherwise be told only that another key signed. So a file
has, for each entry `log.rotate`, a link:

    {"entry":"<JSON text>","proof":["<base64>", …],"checkpoint":"<signed note>","consistency":["<base64>", …]}

`checkpoint` is the one after that entry, which both keys signed; `proof` shows that the entry is its last leaf, and
`consistency` that the tree which the file is about continues it. Nobody can make a link without both keys, so the keys
of a chain of links vouch for one another, whichever of them was pinned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rasura.patches._io import canonical_json
from rasura.patches._io.json_fields import Fields, JsonValue
from rasura.patches.errors import AuditError
from rasura.registry.log.entries.entry import MAX_ENTRY_BYTES, decode
from rasura.registry.log.merkle import hash_leaf
from rasura.registry.log.notes.signed_note import MAX_NOTE_BYTES, Checkpoint, VerifyKey, parse_note, verify_note
from rasura.registry.log.notes.strict_base64 import encode_base64, read_base64
from rasura.registry.log.rotation import NEW, OLD, ROTATE
from rasura.registry.log.verifying.merkle_proofs import verify_consistency, verify_inclusion

__all__ = ["MAX_LINKS_BYTES", "KeyLink", "Signer", "find_signer", "keep_newest", "read_links", "write_links"]

MAX_LINKS_BYTES: Final = 1024**2
"""Most bytes of all links of a file as JSON; of a log with more, the oldest are left out."""
MAX_LINKS: Final = 1000

_HASH_BYTES: Final = 32
_MAX_HASHES: Final = 126
_WHAT: Final = "key of the log"


@dataclass(frozen=True, slots=True)
class KeyLink:
    """One entry that hands a log on; nothing is verified yet.

    Attributes:
        entry: its bytes.
        proof: siblings from its leaf to the root of the tree that ends with it, 32 bytes each (RFC 9162 §2.1.3).
        note: the checkpoint of that tree, signed by both keys.
        consistency: that the file's own tree continues that one (RFC 9162 §2.1.4).
    """

    entry: bytes
    proof: tuple[bytes, ...]
    note: str
    consistency: tuple[bytes, ...]

    def to_json(self) -> JsonValue:
        """The link."""
        return {
            "entry": self.entry.decode(),
            "proof": [encode_base64(each) for each in self.proof],
            "checkpoint": self.note,
            "consistency": [encode_base64(each) for each in self.consistency],
        }


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signed a file's checkpoint, as far as it is believed.

    Attributes:
        key: the one that signs now.
        keys: all that the links tie together, the oldest first; `key` is the last.
    """

    key: VerifyKey
    keys: tuple[VerifyKey, ...]

    def read(self, note: bytes) -> Checkpoint:
        """The checkpoint in a note that one of the keys signed.

        Raises:
            AuditError: none did, it is another log's, or no checkpoint.
        """
        return _read(note, self.keys, self.key.name)[0]


def write_links(links: Sequence[KeyLink]) -> JsonValue:
    """The JSON of links."""
    return [link.to_json() for link in links]


def read_links(found: Sequence[Fields]) -> tuple[KeyLink, ...]:
    """Links out of JSON; nothing is verified.

    Raises:
        FormatError, AuditError: one is none.
    """
    links = []
    for fields in found:
        links.append(
            KeyLink(
                fields.text("entry", limit=MAX_ENTRY_BYTES).encode(),
                _hashes(fields, "proof"),
                fields.text("checkpoint", limit=MAX_NOTE_BYTES),
                _hashes(fields, "consistency"),
            )
        )
        fields.done()
    return tuple(links)


def keep_newest(links: Sequence[KeyLink]) -> tuple[KeyLink, ...]:
    """The newest links that fit into a file together: whoever pinned an older key must ask for a newer one."""
    left, kept = MAX_LINKS_BYTES, 0
    for link in reversed(links[-MAX_LINKS:]):
        left -= len(canonical_json.dumps(link.to_json())) + 1
        if left < 0:
            break
        kept += 1
    return tuple(links[len(links) - kept :])


def find_signer(note: str, links: Sequence[KeyLink], pinned: VerifyKey) -> tuple[Checkpoint, Signer]:
    """The checkpoint of a file, and the key that vouches for it.

    Args:
        note: the checkpoint as it was signed.
        links: how the log came to the key that signed it, the oldest first.
        pinned: a key that is believed: the present one, or one of those that handed the log on.

    Raises:
        AuditError: a link does not hold, or the pinned key is none of the chain.
        FormatError: an entry in a link is none.
    """
    if not links:
        return _read(note.encode(), (pinned,), pinned.name)[0], Signer(pinned, (pinned,))
    keys: list[VerifyKey] = []
    trees: list[Checkpoint] = []
    for link in links:
        old, new, tree = _follow(link)
        if keys and (old != keys[-1] or tree.size <= trees[-1].size):
            raise AuditError(f"{_WHAT}: expected the next link to hand on from {keys[-1]}, got {old}", check="key")
        keys += [new] if keys else [old, new]
        trees.append(tree)
    signer = Signer(keys[-1], tuple(keys))
    if pinned not in signer.keys:
        raise AuditError(f"{_WHAT}: expected {pinned}, got {signer.key}", check="key")
    checkpoint = _read(note.encode(), (signer.key,), signer.key.name)[0]
    for link, tree in zip(links, trees, strict=True):
        verify_consistency(tree.size, checkpoint.size, tree.root, checkpoint.root, link.consistency)
    return checkpoint, signer


def _follow(link: KeyLink) -> tuple[VerifyKey, VerifyKey, Checkpoint]:
    """The old key, the new one, and the tree at whose end both signed."""
    entry, place, _ = decode(link.entry, None)
    old, new = (VerifyKey.parse(str(entry.details.get(side, ""))) for side in (OLD, NEW))
    if (entry.action, entry.outcome) != (ROTATE, "success") or {old.name, new.name} != {place.log}:
        raise AuditError(f"{_WHAT}: entry {place.index} does not hand {place.log} on", check="key")
    tree, signers = _read(link.note.encode(), (old, new), place.log)
    if len(signers) != 2 or place.index != tree.size - 1:  # noqa: PLR2004  # the old key and the new
        raise AuditError(
            f"{_WHAT}: expected the checkpoint after entry {place.index}, signed by {old} and {new}", check="key"
        )
    verify_inclusion(place.index, tree.size, hash_leaf(link.entry), link.proof, tree.root)
    return old, new, tree


def _read(note: bytes, keys: Sequence[VerifyKey], name: str) -> tuple[Checkpoint, tuple[VerifyKey, ...]]:
    parsed = parse_note(note)
    signers = verify_note(parsed, keys)
    checkpoint = Checkpoint.parse(parsed.text)
    if checkpoint.origin != name:
        raise AuditError(f"checkpoint: expected the log {name}, got {checkpoint.origin}")
    return checkpoint, signers


def _hashes(fields: Fields, name: str) -> tuple[bytes, ...]:
    return tuple(read_base64(each, _WHAT, size=_HASH_BYTES) for each in fields.texts(name, _MAX_HASHES))
