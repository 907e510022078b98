# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""The lock file: one spelling, strict, the same for ever; and whether a stack still is what it says."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.registries.workshop import ALICE, Workshop, workshop

from rasura.patches.algebra.strength import ONE, Strength
from rasura.patches.checks.policy import Policy
from rasura.patches.errors import CheckRefusedError, ConflictError, FormatError, RevokedKeyError
from rasura.registry._storage.records.records import Draft
from rasura.registry.registry import Registry
from rasura.registry.stacks import edit
from rasura.registry.stacks.lock_file import LockFile
from rasura.registry.stacks.lock_stack import check_lock, lock_stack
from rasura.registry.stacks.policy_file import put_in_force

GOLDEN = Path(__file__).parents[2] / "vectors" / "rasura.lock"
DATA = GOLDEN.read_bytes()


@pytest.fixture
def registry(workshop: Workshop) -> Iterator[Registry]:
    with workshop.open() as opened:
        yield opened


def test_the_golden_lock_is_read_and_written_byte_for_byte() -> None:
    lock = LockFile.from_bytes(DATA)
    assert lock.to_bytes() == DATA
    assert (lock.stack, lock.separable, lock.worst["pair"]) == ("brand", True, ("7.31e-07", "5.00e-02"))
    assert {p.concept: str(p.strength) for p in lock.patches} == {'Grüße "x" ☕': "-0.5", "van gogh": "1"}
    assert lock.members == {"a" * 64: Strength(-8), "b" * 64: ONE}


def test_a_lock_says_what_the_stack_is(workshop: Workshop, registry: Registry) -> None:
    record = edit.create(registry, "brand", {workshop.van_gogh: Strength(8), workshop.dog: ONE}, ALICE)
    with workshop.unchanged():
        lock = lock_stack(registry, record)
    assert LockFile.from_bytes(lock.to_bytes()) == lock == check_lock(registry, record, lock)
    assert [(p.concept, p.patch_id, str(p.strength)) for p in lock.patches] == [
        ("dog", workshop.dog, "1"),
        ("van gogh", workshop.van_gogh, "0.5"),
    ]
    assert dict(lock.patches[0].files) == dict(registry.patch(workshop.dog).files)
    base = registry.base("tiny")
    assert (lock.base.sha256, lock.base.text_encoder) == (base.digest, base.text_encoder)
    assert lock.limits["residual"] == "inf"
    assert set(lock.worst) >= {"own", "pair", "stack", "bound"}
    empty = lock_stack(registry, edit.create(registry, "empty", {}, ALICE))
    assert LockFile.from_bytes(empty.to_bytes()).patches == ()


def test_a_lock_that_is_no_longer_so_says_where(workshop: Workshop, registry: Registry) -> None:
    record = edit.create(registry, "brand", {workshop.dog: ONE, workshop.photo: ONE}, ALICE)
    lock = lock_stack(registry, record)
    almost = replace(lock, worst={**lock.worst, "own": ("9.99e-08", "1.00e-03")})
    assert check_lock(registry, record, almost) == lock  # another machine may round the last digit otherwise
    changed, _ = edit.add(
        registry, "brand", {workshop.photo: Strength(8), workshop.van_gogh: ONE}, ALICE, replace_old=True
    )
    with pytest.raises(ConflictError) as caught:
        check_lock(registry, changed, lock)
    assert caught.value.details["differences"] == sorted(
        [
            f"{workshop.photo[:12]} has another strength, key, concept or files",
            f"{workshop.van_gogh[:12]} is only in the stack",
        ]
    )
    put_in_force(registry, Policy(pair=0.01), ALICE)
    with pytest.raises(ConflictError, match="policy"):
        check_lock(registry, record, lock)
    put_in_force(registry, Policy(pair=1e-12), ALICE)
    with pytest.raises(CheckRefusedError):
        check_lock(registry, record, lock)
    registry.revoke_key("alice", registry.now(), Draft("a", "", "key.revoke", "success"))
    with pytest.raises(RevokedKeyError):
        check_lock(registry, record, lock)


def test_a_refused_stack_has_no_lock(workshop: Workshop, registry: Registry) -> None:
    put_in_force(registry, Policy(pair=1e-12), ALICE)
    record = edit.create(registry, "brand", dict.fromkeys(workshop.all, ONE), ALICE)
    with pytest.raises(CheckRefusedError):
        lock_stack(registry, record)


def forged(change: Callable[[Any], object]) -> bytes:
    document = json.loads(DATA)
    change(document)
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


BAD = {
    "empty": b"",
    "no JSON": b"lock: yes",
    "a list": b"[]\n",
    "cut": DATA[:-3],
    "without the last newline": DATA[:-1],
    "carriage returns": DATA.replace(b"\n", b"\r\n"),
    "other indentation": DATA.replace(b"\n  ", b"\n    ", 1),
    "escaped": DATA.replace("ü".encode(), b"\\u00fc"),
    "twice": DATA.replace(b'"stack": "brand",', b'"stack": "brand",\n  "stack": "brand",'),
    "other order": forged(lambda d: d.update(format=d.pop("format"))),
    "a later format": forged(lambda d: d.update(format="rasura-lock/2")),
    "a field too many": forged(lambda d: d.update(more=1)),
    "a field too many in the base": forged(lambda d: d["base"].update(more=1)),
    "a field too many in a patch": forged(lambda d: d["patches"][0].update(more=1)),
    "a field too many in the policy": forged(lambda d: d["policy"].update(more=1)),
    "a field too many in the verdict": forged(lambda d: d["verdict"].update(more=1)),
    **{f"no {n}": forged(lambda d, n=n: d.pop(n)) for n in json.loads(DATA)},  # type: ignore[misc]
    **{f"no {n} of a patch": forged(lambda d, n=n: d["patches"][0].pop(n)) for n in json.loads(DATA)["patches"][0]},  # type: ignore[misc]
    "a stack that is an id": forged(lambda d: d.update(stack="deadbeef")),
    "strength 0": forged(lambda d: d["patches"][0].update(strength="0")),
    "a strength off the grid": forged(lambda d: d["patches"][0].update(strength="0.1")),
    "another spelling of a strength": forged(lambda d: d["patches"][0].update(strength="-0.50")),
    "a strength as number": forged(lambda d: d["patches"][0].update(strength=1)),
    "a patch twice": forged(lambda d: d["patches"].append(d["patches"][0])),
    "patches in another order": forged(lambda d: d["patches"].reverse()),
    "not accepted": forged(lambda d: d["verdict"].update(accepted=False)),
    "a number that is none": forged(lambda d: d["verdict"]["worst"]["own"].update(value="NaN")),
    "an id in upper case": forged(lambda d: d["patches"][0].update(id="A" * 64)),
    "a float": DATA.replace(b'"separable": true', b'"separable": 1.0'),
    "too long": DATA + b" " * 17_000_000,
}


@pytest.mark.parametrize("name", BAD)
def test_another_file_is_no_lock(name: str) -> None:
    assert BAD[name] != DATA
    with pytest.raises(FormatError):
        LockFile.from_bytes(BAD[name])


@given(st.integers(0, len(DATA) - 1), st.integers(1, 255))
def test_a_changed_byte_never_gives_an_equal_lock(at: int, flip: int) -> None:
    bad = DATA[:at] + bytes([DATA[at] ^ flip]) + DATA[at + 1 :]
    try:
        found = LockFile.from_bytes(bad)
    except FormatError:
        return
    assert found != LockFile.from_bytes(DATA)
    assert found.to_bytes() == bad
