"""A stack is a value: one order, one spelling, and differences that lead from one to the other."""

import json
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rasura.patches._io import canonical_json
from rasura.patches._io.json_fields import Fields, JsonValue
from rasura.patches.algebra.stack import Stack
from rasura.patches.algebra.strength import Strength
from rasura.patches.errors import FormatError, StrengthError
from rasura.patches.types import PatchId

IDS = st.sampled_from([PatchId(f"{number:064x}") for number in range(12)])
STRENGTHS = st.integers(-64, 64).filter(bool).map(Strength)
MAPPINGS = st.dictionaries(IDS, STRENGTHS)
STACKS = MAPPINGS.map(Stack)


def read(value: JsonValue) -> Stack:
    return Stack.parse(Fields.of(value, "document"), "document")


@given(STACKS)
def test_what_was_written_is_read_back(stack: Stack) -> None:
    data = canonical_json.dumps(stack.to_json())
    again = read(canonical_json.loads(data, what="document", limit=10_000))
    assert again == stack
    assert canonical_json.dumps(again.to_json()) == data
    assert Stack.of_sixteenths(stack.sixteenths) == stack


@given(MAPPINGS, st.randoms())
def test_the_order_of_naming_means_nothing(mapping: dict[PatchId, Strength], random: Random) -> None:
    named = list(mapping.items())
    random.shuffle(named)
    one, other = Stack(mapping), Stack(dict(named))
    assert list(one) == list(other) == sorted(mapping)
    assert (one, hash(one), one.digest) == (other, hash(other), other.digest)
    assert json.dumps(one.to_json()) == json.dumps(other.to_json())


@given(STACKS, STACKS)
def test_a_difference_leads_from_one_to_the_other(before: Stack, after: Stack) -> None:
    diff = before.diff(after)
    new = {p: strength for p, (_, strength) in diff.changed.items()}
    assert before.without(diff.removed).with_(diff.added).with_(new) == after
    assert not {*diff.added} & {*before}
    assert {p: before[p] for p in diff.removed} == diff.removed
    assert all(before[p] == old != strength == after[p] for p, (old, strength) in diff.changed.items())
    assert len(diff) == len(diff.patches)


@given(STACKS, STACKS)
def test_a_difference_the_other_way_round_is_its_inverse(before: Stack, after: Stack) -> None:
    there, back = before.diff(after), after.diff(before)
    assert (there.added, there.removed, there.patches) == (back.removed, back.added, back.patches)
    assert there.changed == {p: (old, new) for p, (new, old) in back.changed.items()}
    assert (len(there) == 0) == (before == after) == (before.digest == after.digest)


@given(STACKS, MAPPINGS)
def test_what_is_taken_out_is_gone(stack: Stack, others: dict[PatchId, Strength]) -> None:
    assert stack.with_(others).without(others) == stack.without(others)
    assert all(p not in stack.without(others) for p in others)
    assert len(stack.without(others)) == len({*stack} - {*others})


def test_a_stack_is_a_copy() -> None:
    given_in = {PatchId("a" * 64): Strength(16)}
    stack = Stack(given_in)
    given_in.clear()
    assert dict(stack) == {PatchId("a" * 64): Strength(16)}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a" * 63: 16}, "64 lower-case hexadecimal digits"),
        ({"a" * 64: 0}, "strength 0"),
        ({"a" * 64: 65}, "an integer from -64 to 64"),
        ({"a" * 64: True}, "an integer"),
        ({"a" * 64: "1"}, "an integer"),
    ],
)
def test_other_documents_are_refused(value: JsonValue, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        read(value)


def test_integers_out_of_range_are_refused() -> None:
    with pytest.raises(StrengthError):
        Stack.of_sixteenths({PatchId("a" * 64): 65})
