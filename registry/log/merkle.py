"""The Merkle tree of the audit log: RFC 6962 §2 hashing, RFC 9162 §2.1 proofs. Pure functions over SHA-256.

A leaf is hashed with a 0x00 byte in front and an inner node with 0x01 (RFC 9162 §2.1.1), so that no entry can pass for
a pair of subtrees. Trees are built over leaf *hashes* of 32 bytes; `leaf_hash` makes one from an entry's bytes.

`Frontier` is the same tree as a few subtree roots, which is all that an append needs: it costs O(log n), not O(n).
`WholeTree` keeps the root of every perfect subtree, so that any proof costs O(log² n) and none hashes the leaves again.
Proofs are made here and checked in `rasura.registry.log.verifying.merkle_proofs`.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Final

from rasura.patches.errors import AuditError

__all__ = [
    "EMPTY_ROOT",
    "HASH_BYTES",
    "Frontier",
    "GrowingTree",
    "WholeTree",
    "hash_leaf",
    "hash_node",
    "hash_root",
    "prove_consistency",
    "prove_inclusion",
]

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = hashlib.sha256(b"").digest()
"""Root of the tree without leaves (RFC 9162 §2.1.1)."""

_sha256: Final = hashlib.sha256


def hash_leaf(entry: bytes) -> bytes:
    """SHA-256 of 0x00 and the entry's bytes: 32 bytes."""
    return _sha256(b"\x00" + entry).digest()


def hash_node(left: bytes, right: bytes) -> bytes:
    """SHA-256 of 0x01 and two subtree hashes: 32 bytes."""
    return _sha256(b"\x01" + left + right).digest()


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


class GrowingTree:
    """A `Frontier` that is changed in place: for whoever goes through a whole log."""

    __slots__ = ("_hashes", "size")

    def __init__(self) -> None:
        self.size = 0
        self._hashes: list[bytes] = []

    def append(self, leaf: bytes) -> None:
        """Add a leaf hash."""
        hashes, carry = self._hashes, self.size
        while carry & 1:
            leaf, carry = _sha256(b"\x01" + hashes.pop() + leaf).digest(), carry >> 1  # `hash_node`, without its call
        hashes.append(leaf)
        self.size += 1

    def root(self) -> bytes:
        """The root over all leaves so far: 32 bytes. A log asks for it after each, so the calls are what it costs."""
        if not self._hashes:
            return EMPTY_ROOT
        root = self._hashes[-1]
        for left in self._hashes[-2::-1]:
            root = _sha256(b"\x01" + left + root).digest()
        return root

    def to_bytes(self) -> bytes:
        """What `Frontier.to_bytes` gives of the same tree."""
        return b"".join(self._hashes)


class WholeTree:
    """A tree that can prove each of its leaves: 64 bytes a leaf, whatever their number."""

    __slots__ = ("_levels",)

    def __init__(self, leaves: Iterable[bytes] = ()) -> None:
        """Leaf hashes, in order."""
        self._levels: list[bytearray] = [bytearray()]
        """Level k holds, 32 bytes each, the roots of the perfect subtrees of 2^k leaves, from the left."""
        for leaf in leaves:
            self.append(leaf)

    @property
    def size(self) -> int:
        """Number of leaves."""
        return len(self._levels[0]) // HASH_BYTES

    def append(self, leaf: bytes) -> None:
        """Add a leaf hash, and the subtrees that it completes."""
        levels, at, node = self._levels, 0, leaf
        while True:
            level = levels[at]
            level += node
            if len(level) // HASH_BYTES & 1:
                return
            node, at = hash_node(bytes(level[-2 * HASH_BYTES : -HASH_BYTES]), node), at + 1
            if at == len(levels):
                levels.append(bytearray())

    def root(self, size: int | None = None) -> bytes:
        """The root over the first `size` leaves, or over all of them: 32 bytes.

        Raises:
            AuditError: there are not so many.
        """
        size = self.size if size is None else size
        if not 0 <= size <= self.size:
            raise AuditError(f"tree of {self.size}: expected a size up to that, got {size}")
        return self._subtree(0, size) if size else EMPTY_ROOT

    def prove_inclusion(self, index: int, size: int | None = None) -> tuple[bytes, ...]:
        """What `prove_inclusion` gives for these leaves, or for the first `size` of them.

        Raises:
            AuditError: the tree has no such leaf.
        """
        return _prove_inclusion(self._subtree, self.size if size is None else size, index)

    def prove_consistency(self, size: int) -> tuple[bytes, ...]:
        """What `prove_consistency` gives for these leaves.

        Raises:
            AuditError: `size` is 0 or past the end.
        """
        return _prove_consistency(self._subtree, self.size, size)

    def _subtree(self, start: int, end: int) -> bytes:
        """The root over leaves start … end - 1; `start` is a multiple of the power of two at or above their number."""
        count = end - start
        if count & (count - 1) == 0:
            level = count.bit_length() - 1
            at = (start >> level) * HASH_BYTES
            return bytes(self._levels[level][at : at + HASH_BYTES])
        middle = start + _split(count)
        return hash_node(self._subtree(start, middle), self._subtree(middle, end))


def hash_root(leaves: Iterable[bytes]) -> bytes:
    """The root over leaf hashes, in order: 32 bytes."""
    stack: list[bytes] = []  # roots of perfect subtrees, the largest first, as in `Frontier`
    for index, leaf in enumerate(leaves):
        node, carry = leaf, index
        while carry & 1:
            node, carry = hash_node(stack.pop(), node), carry >> 1
        stack.append(node)
    return reduce(lambda right, left: hash_node(left, right), reversed(stack)) if stack else EMPTY_ROOT


def prove_inclusion(leaves: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """The siblings from leaf `index` up to the root (RFC 9162 §2.1.3.1).

    Raises:
        AuditError: the tree has no such leaf.
    """
    return _prove_inclusion(lambda start, end: hash_root(leaves[start:end]), len(leaves), index)


def prove_consistency(leaves: Sequence[bytes], size: int) -> tuple[bytes, ...]:
    """What shows that the first `size` leaves are a prefix of this tree (RFC 9162 §2.1.4.1).

    Raises:
        AuditError: `size` is 0 (any tree begins with the empty one, so it would prove nothing) or past the end.
    """
    return _prove_consistency(lambda start, end: hash_root(leaves[start:end]), len(leaves), size)


def _prove_inclusion(subtree: Callable[[int, int], bytes], count: int, index: int) -> tuple[bytes, ...]:
    """`subtree` gives the root over leaves start … end - 1."""
    if not 0 <= index < count:
        raise AuditError(f"inclusion proof: expected an index below {count}, got {index}")
    proof: list[bytes] = []
    start, end = 0, count
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            proof.append(subtree(middle, end))
            end = middle
        else:
            proof.append(subtree(start, middle))
            start = middle
    return tuple(reversed(proof))


def _prove_consistency(subtree: Callable[[int, int], bytes], count: int, size: int) -> tuple[bytes, ...]:
    if not 0 < size <= count:
        raise AuditError(f"consistency proof: expected a size from 1 to {count}, got {size}")
    proof: list[bytes] = []
    start, end = 0, count
    whole = True  # whether the old tree is exactly the present subtree, whose root its holder knows
    while size != end:
        middle = start + _split(end - start)
        if size <= middle:
            proof.append(subtree(middle, end))
            end = middle
        else:
            proof.append(subtree(start, middle))
            start, whole = middle, False
    return tuple(reversed(proof if whole else [*proof, subtree(start, end)]))


def _split(count: int) -> int:
    """The largest power of two below `count` (RFC 9162 §2.1.1)."""
    return 1 << (count - 1).bit_length() - 1
