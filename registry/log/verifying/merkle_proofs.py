"""Proofs of the Merkle tree, checked: that an entry is in it, and that a later one begins with an earlier one."""

from collections.abc import Sequence
from typing import Final

from rasura.patches.errors import AuditError
from rasura.registry.log.merkle import HASH_BYTES, hash_node

__all__ = ["verify_consistency", "verify_inclusion"]

_MAX_LEVELS: Final = 63  # a tree of 2^63 leaves; a longer proof is refused before it is read


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


def _check_hashes(what: str, hashes: Sequence[bytes]) -> None:
    if len(hashes) > 2 * _MAX_LEVELS:
        raise AuditError(f"{what}: expected at most {2 * _MAX_LEVELS} hashes, got {len(hashes)}")
    wrong = next((h for h in hashes if len(h) != HASH_BYTES), None)
    if wrong is not None:
        raise AuditError(f"{what}: expected hashes of {HASH_BYTES} bytes, got one of {len(wrong)}")


def _check_root(what: str, *, expected: bytes, got: bytes) -> None:
    if expected != got:
        raise AuditError(f"{what}: expected root {expected.hex()}, got {got.hex()}")
