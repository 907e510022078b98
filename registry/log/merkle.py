"""The Merkle tree of the audit log: RFC 6962 §2 hashing, RFC 9162 §2.1 proofs. Pure functions over SHA-256.

A leaf is hashed with a 0x00 byte in front and an inner node with 0x01 (RFC 9162 §2.1.1), so that no entry can pass for
a pair of subtrees. Trees are built over leaf *hashes* of 32 bytes; `leaf_hash` makes one from an entry's bytes.

`Frontier` is the same tree as a few subtree roots, which is all that an append needs: it costs O(log n), not O(n).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Final

from rasura.patches.errors import AuditError

__all__ = [
    "EMPTY_ROOT",
    "HASH_BYTES",
    "Frontier",
    "hash_leaf",
    "hash_node",
    "hash_root",
    "prove_consistency",
    "prove_inclusion",
    "verify_consistency",
    "verify_inclusion",
]

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = hashlib.sha256(b"").digest()
"""Root of the tree without leaves (RFC 9162 §2.1.1)."""

_MAX_LEVELS: Final = 63  # a tree of 2^63 leaves; a longer proof is refused before it is read


def hash_leaf(entry: bytes) -> bytes:
    """SHA-256 of 0x00 and the entry's bytes: 32 bytes."""
    return hashlib.sha256(b"\x00" + entry).digest()


def hash_node(left: bytes, right: bytes) -> bytes:
    """SHA-256 of 0x01 and two subtree hashes: 32 bytes."""
    return hashlib.sha256(b"\x01" + left + right).digest()


@dataclass(frozen=True, slots=True)
class Frontier:
    """A tree as the roots of its perfect subtrees, the largest first: one hash for each set bit of `size`."""

    size: int = 0
    hashes: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if self.size < 0 or len(self.hashes) != self.size.bit_count() or any(len(h) != HASH_BYTES for h in self.hashes):
            raise AuditError(f"tree of {self.size}: expected a hash of 32 bytes for each set bit of its size")

    def append(self, leaf: bytes) -> "Frontier":
        """The tree with one more leaf hash: subtrees of equal size merge like carries in a binary counter."""
        hashes, carry = list(self.hashes), self.size
        while carry & 1:
            leaf, carry = hash_node(hashes.pop(), leaf), carry >> 1
        return Frontier(self.size + 1, (*hashes, leaf))

    def root(self) -> bytes:
        """The tree's root hash, 32 bytes."""
        if not self.hashes:
            return EMPTY_ROOT
        return reduce(lambda right, left: hash_node(left, right), reversed(self.hashes))

    def to_bytes(self) -> bytes:
        """All hashes in a row; `from_bytes(size, …)` reads them back."""
        return b"".join(self.hashes)

    @classmethod
    def from_bytes(cls, size: int, data: bytes) -> "Frontier":
        """The frontier of a tree of `size` leaves.

        Raises:
            AuditError: the length does not fit the size.
        """
        return cls(size, tuple(data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)))


def hash_root(leaves: Sequence[bytes]) -> bytes:
    """The root over leaf hashes, in order: 32 bytes."""
    return reduce(Frontier.append, leaves, Frontier()).root()


def prove_inclusion(leaves: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """The siblings from leaf `index` up to the root (RFC 9162 §2.1.3.1).

    Raises:
        AuditError: the tree has no such leaf.
    """
    if not 0 <= index < len(leaves):
        raise AuditError(f"inclusion proof: expected an index below {len(leaves)}, got {index}")
    proof: list[bytes] = []
    while len(leaves) > 1:
        split = _split(len(leaves))
        if index < split:
            proof.append(hash_root(leaves[split:]))
            leaves = leaves[:split]
        else:
            proof.append(hash_root(leaves[:split]))
            leaves, index = leaves[split:], index - split
    return tuple(reversed(proof))


def prove_consistency(leaves: Sequence[bytes], size: int) -> tuple[bytes, ...]:
    """What shows that the first `size` leaves are a prefix of this tree (RFC 9162 §2.1.4.1).

    Raises:
        AuditError: `size` is 0 (any tree begins with the empty one, so it would prove nothing) or past the end.
    """
    if not 0 < size <= len(leaves):
        raise AuditError(f"consistency proof: expected a size from 1 to {len(leaves)}, got {size}")
    proof: list[bytes] = []
    whole = True  # whether the old tree is exactly the present subtree, whose root its holder knows
    while size != len(leaves):
        split = _split(len(leaves))
        if size <= split:
            proof.append(hash_root(leaves[split:]))
            leaves = leaves[:split]
        else:
            proof.append(hash_root(leaves[:split]))
            leaves, size, whole = leaves[split:], size - split, False
    return tuple(reversed(proof if whole else [*proof, hash_root(leaves)]))


def verify_inclusion(index: int, size: int, leaf: bytes, proof: Sequence[bytes], root: bytes) -> None:
    """Checks that the tree of `size` leaves with this root has `leaf` (a hash) at `index` (RFC 9162 §2.1.3.2).

    Raises:
        AuditError: it does not, or the proof has the wrong shape.
    """
    if not 0 <= index < size:
        raise AuditError(f"inclusion proof: expected an index below {size}, got {index}")
    _check_hashes("inclusion proof", [leaf, root, *proof])
    node, last, here = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise AuditError(f"inclusion proof: expected fewer hashes for leaf {index} of {size}, got {len(proof)}")
        if node & 1 or node == last:
            here = hash_node(sibling, here)
            node, last = _climb(node, last)
        else:
            here = hash_node(here, sibling)
        node, last = node >> 1, last >> 1
    if last != 0:
        raise AuditError(f"inclusion proof: expected more hashes for leaf {index} of {size}, got {len(proof)}")
    _check_root("inclusion proof", expected=root, got=here)


def verify_consistency(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Checks that the tree of `old` leaves is a prefix of the tree of `new` leaves (RFC 9162 §2.1.4.2).

    Raises:
        AuditError: it is not, the proof has the wrong shape, or `old` is 0.
    """
    if not 0 < old <= new:
        raise AuditError(f"consistency proof: expected an old size from 1 to {new}, got {old}")
    _check_hashes("consistency proof", [old_root, new_root, *proof])
    if old == new:
        if proof:
            raise AuditError(f"consistency proof: expected no hashes for equal sizes, got {len(proof)}")
        return _check_root("consistency proof", expected=new_root, got=old_root)
    # An old tree that is one perfect subtree needs no hash of its own: its root is the first step.
    path = [old_root, *proof] if old & (old - 1) == 0 else list(proof)
    if not path:
        raise AuditError("consistency proof: expected at least one hash, got none")
    return _walk_consistency(old, new, path, old_root, new_root)


def _walk_consistency(old: int, new: int, path: Sequence[bytes], old_root: bytes, new_root: bytes) -> None:
    """Rebuilds both roots from one path."""
    node, last = old - 1, new - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    left = here = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise AuditError(f"consistency proof: expected fewer hashes from {old} to {new}")
        if node & 1 or node == last:
            left, here = hash_node(sibling, left), hash_node(sibling, here)
            node, last = _climb(node, last)
        else:
            here = hash_node(here, sibling)
        node, last = node >> 1, last >> 1
    if last != 0:
        raise AuditError(f"consistency proof: expected more hashes from {old} to {new}")
    _check_root("consistency proof, old tree", expected=old_root, got=left)
    _check_root("consistency proof, new tree", expected=new_root, got=here)


def _climb(node: int, last: int) -> tuple[int, int]:
    """Skips the levels where the rightmost node has no sibling and is handed up as it is."""
    while node and not node & 1:
        node, last = node >> 1, last >> 1
    return node, last


def _split(count: int) -> int:
    """The largest power of two below `count` (RFC 9162 §2.1.1)."""
    return 1 << (count - 1).bit_length() - 1


def _check_hashes(what: str, hashes: Sequence[bytes]) -> None:
    if len(hashes) > 2 * _MAX_LEVELS:
        raise AuditError(f"{what}: expected at most {2 * _MAX_LEVELS} hashes, got {len(hashes)}")
    wrong = next((h for h in hashes if len(h) != HASH_BYTES), None)
    if wrong is not None:
        raise AuditError(f"{what}: expected hashes of {HASH_BYTES} bytes, got one of {len(wrong)}")


def _check_root(what: str, *, expected: bytes, got: bytes) -> None:
    if expected != got:
        raise AuditError(f"{what}: expected root {expected.hex()}, got {got.hex()}")
