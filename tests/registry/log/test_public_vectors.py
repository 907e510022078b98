"""Other people's vectors for trees and notes, with their sources, in all the ways in which their owners spoil them."""

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rasura.patches.errors import AuditError
from rasura.registry.log.merkle import EMPTY_ROOT, hash_leaf
from rasura.registry.log.notes.signed_note import Checkpoint, VerifyKey, parse_note, verify_note
from rasura.registry.log.verifying.merkle_proofs import verify_consistency, verify_inclusion

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "rfc6962.json").read_text())
GARBAGE = hash_leaf(b"garbage")

Case = dict[str, Any]


def read(case: Case) -> Case:
    """With bytes in the place of base64."""

    def decode(value: object) -> object:
        if isinstance(value, list):
            return [decode(each) for each in value]
        return base64.b64decode(value) if isinstance(value, str) else value

    return {name: decode(value) for name, value in case.items()}


def flipped(data: bytes, bit: int) -> bytes:
    return bytes([data[0] ^ 1 << bit]) + data[1:]


def spoilt_proofs(case: Case, *roots: str) -> Iterator[tuple[str, Case]]:
    """What upstream does to every proof."""
    proof = case["proof"]
    yield "trailing garbage", {**case, "proof": [*proof, GARBAGE]}
    yield "preceding garbage", {**case, "proof": [GARBAGE, *proof]}
    yield "truncated proof", {**case, "proof": proof[:-1]}
    yield "empty proof", {**case, "proof": []}
    yield "inserted component", {**case, "proof": [*proof[:1], GARBAGE, *proof[1:]]}
    yield "cut component", {**case, "proof": [proof[0][:-1], *proof[1:]]}
    for at, each in enumerate(proof):
        for bit in range(8):
            yield (
                f"modified proof {at} bit {bit}",
                {**case, "proof": [*proof[:at], flipped(each, bit), *proof[at + 1 :]]},
            )
    for name in roots:
        yield f"trailing {name}", {**case, "proof": [*proof, case[name]]}
        yield f"preceding {name}", {**case, "proof": [case[name], *proof]}
        yield f"wrong {name}", {**case, name: GARBAGE}
        yield f"empty {name}", {**case, name: b""}


def spoilt_inclusion(case: Case) -> Iterator[tuple[str, Case]]:
    yield from spoilt_proofs(case, "root")
    index, size = case["leafIdx"], case["treeSize"]
    for name, other in (("- 1", index - 1), ("+ 1", index + 1), ("^ 2", index ^ 2)):
        yield f"leafIdx {name}", {**case, "leafIdx": other}
    for name, other in (("* 2", size * 2), ("/ 2", size // 2)):
        yield f"treeSize {name}", {**case, "treeSize": other}
    yield "wrong leaf", {**case, "leafHash": GARBAGE}
    yield "removed component", {**case, "proof": case["proof"][1:]}


def spoilt_consistency(case: Case) -> Iterator[tuple[str, Case]]:
    yield from spoilt_proofs(case, "root1", "root2")
    first, second = case["size1"], case["size2"]
    for name, other in (("- 1", first - 1), ("+ 1", first + 1), ("^ 2", first ^ 2)):
        yield f"size1 {name}", {**case, "size1": other}
    for name, other in (("* 2", second * 2), ("/ 2", second // 2)):
        yield f"size2 {name}", {**case, "size2": other}
    yield "swapped roots", {**case, "root1": case["root2"], "root2": case["root1"]}


def check_inclusion(case: Case) -> None:
    verify_inclusion(case["leafIdx"], case["treeSize"], case["leafHash"], case["proof"], case["root"])


def check_consistency(case: Case) -> None:
    verify_consistency(case["size1"], case["size2"], case["root1"], case["root2"], case["proof"])


KINDS: dict[str, tuple[Callable[[Case], None], Callable[[Case], Iterator[tuple[str, Case]]]]] = {
    "inclusion": (check_inclusion, spoilt_inclusion),
    "consistency": (check_consistency, spoilt_consistency),
}
PASS = [(kind, at) for kind in KINDS for at in range(len(VECTORS[kind]))]
FAIL = [
    pytest.param(kind, spoilt, id=f"{kind} {at}: {name} (fail)")
    for kind, at in PASS
    for name, spoilt in KINDS[kind][1](read(VECTORS[kind][at]))
]


@pytest.mark.parametrize(("kind", "at"), PASS, ids=[f"{kind} {at} (pass)" for kind, at in PASS])
def test_a_published_proof_verifies(kind: str, at: int) -> None:
    KINDS[kind][0](read(VECTORS[kind][at]))


@pytest.mark.parametrize(("kind", "spoilt"), FAIL)
def test_a_published_proof_that_was_spoilt_is_refused(kind: str, spoilt: Case) -> None:
    with pytest.raises(AuditError):
        KINDS[kind][0](spoilt)


def test_a_proof_from_the_empty_tree_proves_nothing() -> None:
    """Upstream: consistency proof from empty tree is meaningless."""
    for size in (0, 5):
        with pytest.raises(AuditError):
            verify_consistency(0, size, EMPTY_ROOT, GARBAGE if size else EMPTY_ROOT, [])


NOTES = {
    "c2sp.org/signed-note, a note whose text has an empty line": (
        "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\ned è subito sera.\n",
        (
            "— quasimodo.example/salvatore "
            "NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n"
        ),
    ),
    "c2sp.org/tlog-checkpoint": (
        "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n",
        (
            "— example.com/behind-the-sofa "
            "Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
        ),
    ),
    "c2sp.org/tlog-cosignature": (
        "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n",
        (
            "— example.com/behind-the-sofa "
            "Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
            "— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0"
            "xUe+mbIUBkBIfZ+qnA==\n"
        ),
    ),
}


@pytest.mark.parametrize("name", NOTES)
def test_a_published_note_is_read_as_it_stands_and_believed_of_nobody(name: str) -> None:
    """Their keys are not published with them: what is read is the form, and a note without a known signer is refused."""
    text, lines = NOTES[name]
    note = parse_note(f"{text}\n{lines}".encode())
    assert (note.text, str(note)) == (text, f"{text}\n{lines}")
    if text.startswith("example.com/"):
        assert Checkpoint.parse(text).size == 20852163
        assert Checkpoint.parse(text).text == text
    stranger = VerifyKey.parse("example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k")
    with pytest.raises(AuditError, match="expected a signature by"):
        verify_note(note, [stranger])
