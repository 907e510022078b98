"""RFC 6962 and RFC 9162: the published vectors, the laws, and every way a proof can be wrong."""

import base64
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rasura.patches.errors import AuditError
from rasura.registry.log.merkle import (
    EMPTY_ROOT,
    Frontier,
    hash_leaf,
    hash_node,
    hash_root,
    prove_consistency,
    prove_inclusion,
)
from rasura.registry.log.verifying.merkle_proofs import verify_consistency, verify_inclusion

ENTRIES = [bytes.fromhex(text) for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657")]
ENTRIES.append(bytes.fromhex("606162636465666768696a6b6c6d6e6f"))
LEAVES = [hash_leaf(entry) for entry in ENTRIES]
ROOTS = {
    1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    4: "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    5: "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    6: "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    7: "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
}
INCLUSION_5_OF_8 = (
    "vBoGQ7EuTS18d5GPROD095qDi2z57FtcKD4fTYhZnms=",
    "yoVOoSjtBQtBs1/8G4e46yveRh6eO1WW7Oa51ZdaCuA=",
    "037kGJdt2VdTwcc4Yrk5j6Kiz5tP8P3+izDNlSCWFLc=",
)
CONSISTENCY = {
    (2, 5): ("Xwg/ChozygdqlSeYMlgNs+DvRYS9/x9UyKNg9Q3jAx4=", "vBoGQ7EuTS18d5GPROD095qDi2z57FtcKD4fTYhZnms="),
    (6, 8): ("DrxdNDf74tsVi58Sah0RjjCBgQMdCpSfje3t68VY72o=", *INCLUSION_5_OF_8[1:]),
}


def test_hashes_are_those_of_the_rfc() -> None:
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert hash_leaf(b"L123456").hex() == "395aa064aa4c29f7010acfe3f25db9485bbd4b91897b6ad7ad547639252b4d56"
    assert hash_node(b"N123", b"N456").hex() == "aa217fe888e47007fa15edab33c2b492a722cb106c64667fc2b044444de66bbb"


@pytest.mark.parametrize("size", ROOTS)
def test_roots_are_those_published(size: int) -> None:
    assert hash_root(LEAVES[:size]).hex() == ROOTS[size]


def test_an_entry_cannot_pass_for_a_node() -> None:
    forged = b"\x01" + LEAVES[0] + LEAVES[1]
    assert hash_leaf(forged) != hash_root(LEAVES[:2])
    assert hash_leaf(forged[1:]) != hash_root(LEAVES[:2])


def test_proofs_are_those_published() -> None:
    assert tuple(base64.b64encode(h).decode() for h in prove_inclusion(LEAVES, 5)) == INCLUSION_5_OF_8
    for (old, new), proof in CONSISTENCY.items():
        assert tuple(base64.b64encode(h).decode() for h in prove_consistency(LEAVES[:new], old)) == proof


@pytest.mark.parametrize("size", range(1, 34))
def test_every_leaf_has_a_proof_and_no_other_place(size: int) -> None:
    leaves = [hash_leaf(bytes([i])) for i in range(size)]
    root = hash_root(leaves)
    for index, leaf in enumerate(leaves):
        proof = prove_inclusion(leaves, index)
        verify_inclusion(index, size, leaf, proof, root)
        for other in {index - 1, index + 1, size} - {index}:
            with pytest.raises(AuditError):
                verify_inclusion(other, size, leaf, proof, root)


@pytest.mark.parametrize("new", range(1, 34))
def test_every_prefix_is_consistent_and_nothing_else(new: int) -> None:
    leaves = [hash_leaf(bytes([i])) for i in range(new)]
    roots = [hash_root(leaves[:size]) for size in range(new + 1)]
    for old in range(1, new + 1):
        proof = prove_consistency(leaves, old)
        verify_consistency(old, new, roots[old], roots[new], proof)
        with pytest.raises(AuditError):
            verify_consistency(old, new, roots[old - 1], roots[new], proof)
        for bad in _damaged(proof):
            with pytest.raises(AuditError):
                verify_consistency(old, new, roots[old], roots[new], bad)


@pytest.mark.parametrize("bad", range(8))
def test_damaged_inclusion_proofs_are_refused(bad: int) -> None:
    damaged = _damaged(prove_inclusion(LEAVES, 5))
    with pytest.raises(AuditError):
        verify_inclusion(5, 8, LEAVES[5], damaged[bad % len(damaged)], hash_root(LEAVES))


def test_consistency_from_nothing_is_refused() -> None:
    for size in (0, -1, 9):
        with pytest.raises(AuditError, match="size"):
            prove_consistency(LEAVES, size)
        with pytest.raises(AuditError, match="old size"):
            verify_consistency(size, 8, EMPTY_ROOT, hash_root(LEAVES), [])


def test_a_history_that_was_rewritten_is_not_consistent() -> None:
    rewritten = [hash_leaf(b"other"), *LEAVES[1:]]
    with pytest.raises(AuditError, match="old tree"):
        verify_consistency(5, 8, hash_root(LEAVES[:5]), hash_root(rewritten), prove_consistency(rewritten, 5))


def test_an_endless_proof_is_refused_before_it_is_hashed() -> None:
    with pytest.raises(AuditError, match="at most"):
        verify_inclusion(0, 2**62, LEAVES[0], [LEAVES[0]] * 1_000_000, LEAVES[0])


@given(st.lists(st.binary(max_size=8), max_size=70))
def test_a_frontier_is_the_tree(entries: list[bytes]) -> None:
    leaves = [hash_leaf(entry) for entry in entries]
    tree = Frontier()
    for leaf in leaves:
        tree = tree.append(leaf)
    assert tree.size == len(leaves)
    assert Frontier.from_bytes(tree.size, tree.to_bytes()) == tree
    assert tree.root() == _recursive_root(leaves)


@pytest.mark.parametrize(("size", "data"), [(1, b""), (0, bytes(32)), (3, bytes(32)), (1, bytes(31)), (2, bytes(64))])
def test_a_frontier_of_the_wrong_length_is_refused(size: int, data: bytes) -> None:
    with pytest.raises(AuditError):
        Frontier.from_bytes(size, data)


def _damaged(proof: tuple[bytes, ...]) -> list[tuple[bytes, ...]]:
    """Longer, shorter, swapped, one hash short of a byte, one bit flipped."""
    bad = [(*proof, bytes(32)), (bytes(32), *proof)]
    if proof:
        flipped = bytes([proof[0][0] ^ 1]) + proof[0][1:]
        bad += [proof[1:], proof[:-1], (proof[0][:31], *proof[1:]), (flipped, *proof[1:])]
    if any(a != b for a, b in pairwise(proof)):
        bad.append(tuple(reversed(proof)))
    return bad


def _recursive_root(leaves: list[bytes]) -> bytes:
    """RFC 9162 §2.1.1 as it is written: the other way to the same root."""
    if not leaves:
        return EMPTY_ROOT
    if len(leaves) == 1:
        return leaves[0]
    split = max(1 << power for power in range(len(leaves).bit_length()) if 1 << power < len(leaves))
    return hash_node(_recursive_root(leaves[:split]), _recursive_root(leaves[split:]))
