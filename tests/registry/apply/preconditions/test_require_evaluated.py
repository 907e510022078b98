# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""A policy that demands an evaluation: what nobody looked at is not applied, and what was looked at is exactly that."""

import hashlib
from collections.abc import Iterator, Mapping

import pytest
from support.registries.workshop import ALICE, Workshop, workshop

from rasura.patches.algebra.stack import Stack
from rasura.patches.algebra.strength import ONE, Strength
from rasura.patches.checks.policy import Policy
from rasura.patches.errors import CheckRefusedError
from rasura.patches.types import Digest, PatchId
from rasura.registry._storage.records.records import Draft, EvaluationRecord
from rasura.registry.apply import operations
from rasura.registry.apply.goal import Goal
from rasura.registry.registry import Registry
from rasura.registry.stacks.plan import make_plan
from rasura.registry.stacks.policy_file import put_in_force

DEMAND = Policy(evaluated=True)
STRICT = Policy(evaluated=True, min_forget=0.9, min_retain=0.8)


@pytest.fixture
def registry(workshop: Workshop) -> Iterator[Registry]:
    with workshop.open() as opened:
        yield opened


def evaluate(registry: Registry, patches: Mapping[PatchId, Strength], **summary: str) -> Digest:
    """Record that somebody drew this set."""
    report = repr((sorted(patches.items()), summary)).encode()
    digest = Digest(hashlib.sha256(report).hexdigest())
    base = registry.base("tiny").digest
    record = EvaluationRecord(digest, base, Stack(patches).sixteenths, "a judge", summary, registry.now())
    assert registry.add_evaluation(record, report, Draft("bob", "", "evaluation.add", "success"))
    return digest


def test_what_nobody_looked_at_is_refused_with_the_command_that_looks(workshop: Workshop, registry: Registry) -> None:
    put_in_force(registry, DEMAND, ALICE)
    before = workshop.digests()
    with pytest.raises(CheckRefusedError, match=r"no evaluation of exactly .* on base tiny is recorded") as caught:
        operations.apply(registry, workshop.host(), [workshop.dog], ALICE)
    assert caught.value.hint == f"rasura evaluate --base tiny --patch {workshop.dog[:12]}"
    wanted = Goal("a set", None, Stack({workshop.dog: Strength(8), workshop.photo: ONE}))
    for refused in (
        lambda: operations.switch(registry, workshop.host(), wanted, ALICE),
        lambda: make_plan(registry, workshop.host(), wanted),
    ):
        with pytest.raises(CheckRefusedError) as caught:
            refused()
        patches = sorted([f"{workshop.dog[:12]}=0.5", workshop.photo[:12]])
        assert caught.value.hint == f"rasura evaluate --base tiny --patch {patches[0]} --patch {patches[1]}"
    assert workshop.digests() == before
    evaluate(registry, {workshop.dog: ONE})
    assert operations.apply(registry, workshop.host(), [workshop.dog], ALICE).changed


def test_an_evaluation_counts_for_exactly_what_it_drew(workshop: Workshop, registry: Registry) -> None:
    put_in_force(registry, DEMAND, ALICE)
    evaluate(registry, {workshop.dog: ONE, workshop.van_gogh: ONE})
    evaluate(registry, {workshop.dog: Strength(8)})
    with pytest.raises(CheckRefusedError):
        operations.apply(registry, workshop.host(), [workshop.dog], ALICE)
    assert operations.apply(registry, workshop.host(), [workshop.dog, workshop.van_gogh], ALICE).changed


def test_taking_out_is_always_allowed(workshop: Workshop, registry: Registry) -> None:
    operations.apply(registry, workshop.host(), [workshop.dog, workshop.van_gogh], ALICE)
    put_in_force(registry, DEMAND, ALICE)
    assert operations.revert(registry, workshop.host(), [workshop.dog], ALICE).changed
    with pytest.raises(CheckRefusedError):
        operations.apply(registry, workshop.host(), [workshop.dog], ALICE)
    assert operations.revert(registry, workshop.host(), [workshop.van_gogh], ALICE).pristine


def test_what_the_newest_evaluation_says_counts(workshop: Workshop, registry: Registry) -> None:
    put_in_force(registry, STRICT, ALICE)
    dog = {workshop.dog: ONE}
    with pytest.raises(CheckRefusedError, match=r"forget of 0\.9 or more and retain of 0\.8 or more") as caught:
        operations.apply(registry, workshop.host(), dog, ALICE)
    assert caught.value.hint.endswith(" --min forget=0.9 --min retain=0.8")
    evaluate(registry, dog, forget="1.000", retain="1.000")
    newest = evaluate(registry, dog, forget="0.180", retain="1.000")
    with pytest.raises(CheckRefusedError, match=r"says forget 0\.180: expected one") as caught:
        operations.apply(registry, workshop.host(), dog, ALICE)
    assert caught.value.hint == f"rasura evaluation show {newest[:12]}"
    evaluate(registry, dog, forget="0.900", retain="0.800")
    evaluate(registry, dog, harmonic="0.1")  # says nothing of what is asked for
    assert operations.apply(registry, workshop.host(), dog, ALICE).changed


def test_for_one_command_alone(workshop: Workshop, registry: Registry) -> None:
    with pytest.raises(CheckRefusedError, match="no evaluation"):
        operations.apply(registry, workshop.host(), [workshop.dog], ALICE, policy=DEMAND)
    assert operations.apply(registry, workshop.host(), [workshop.dog], ALICE).changed
