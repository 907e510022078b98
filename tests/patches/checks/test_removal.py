"""Taking patches out is checked like putting them in; what comes back, and what the others lose, is named."""

import cProfile
import pstats
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.values import factories
from support.values.factories import World

from rasura.patches.algebra.increment import Increment
from rasura.patches.algebra.protected_subspace import build_protected_basis
from rasura.patches.algebra.rank_rule import RankRule
from rasura.patches.checks.check import check
from rasura.patches.checks.kernels.capacity import Capacity
from rasura.patches.checks.policy import Policy
from rasura.patches.checks.removal import check_revert
from rasura.patches.checks.verdict import Accepted, Refused, Relation
from rasura.patches.erasers.closed_form.null_space import NullSpace, erase
from rasura.patches.format.member import Member
from rasura.patches.format.patch import Patch

WORLD = World()
DOG, CAT, BIRD = (WORLD.columns(name, seed, 3) for seed, name in enumerate(("dog", "cat", "bird"), 1))


@pytest.fixture(scope="module")
def joint() -> list[Member]:
    return [Member(patch) for patch in WORLD.erase(DOG, CAT, BIRD)]


@pytest.fixture(scope="module")
def one_sided() -> tuple[Member, Member]:
    """A dog, and a younger cat that leaves the dog alone."""
    dog = WORLD.erase(DOG)[0]
    cat = WORLD.erase(CAT, guarded={dog.patch_id: dog.tensors.targets})[0]
    return Member(dog), Member(cat)


def crossing(relations: tuple[Relation, ...]) -> dict[str, tuple[str, str]]:
    return {r.check: (r.patch, r.other) for r in relations if r.check in {"lost", "left"}}


def changed(member: Member, **fields: object) -> Member:
    patch: Patch = member.patch
    return Member(replace(patch, manifest=replace(patch.manifest, **fields)))  # type: ignore[arg-type]


def test_any_of_a_joint_set_may_go_and_nothing_is_said(joint: list[Member]) -> None:
    for gone in joint:
        verdict = check_revert(joint, [gone.patch_id])
        assert isinstance(verdict, Accepted)
        assert crossing(verdict.relations) == {}
    assert check_revert(joint, [m.patch_id for m in joint]) == Accepted(())


def test_what_others_require_stays(joint: list[Member]) -> None:
    needy = changed(joint[0], requires=(joint[1].patch_id,))
    stack = [needy, *joint[1:]]
    verdict = check_revert(stack, [joint[1].patch_id])
    assert isinstance(verdict, Refused)
    assert f"requires patch {joint[1].patch_id[:12]}" in verdict.reasons[0].text
    assert isinstance(check_revert(stack, [joint[1].patch_id, needy.patch_id]), Accepted)
    assert isinstance(check_revert(stack, [joint[2].patch_id]), Accepted)


def test_a_one_sided_pair_is_named_when_either_leaves(one_sided: tuple[Member, Member]) -> None:
    dog, cat = one_sided
    loose = Policy(pair=1e9)
    number = next(r.value for r in check(one_sided, loose).relations if r.check == "one-sided")
    back = check_revert(one_sided, [cat.patch_id], loose)
    assert isinstance(back, Accepted)
    left = next(r for r in back.relations if r.check == "left")
    assert (left.patch, left.other, left.value) == (dog.patch_id, cat.patch_id, number)
    gone = check_revert(one_sided, [dog.patch_id], loose)
    assert isinstance(gone, Accepted)
    assert crossing(gone.relations)["lost"] == (dog.patch_id, cat.patch_id)


def test_what_was_broken_before_keeps_nothing_in(one_sided: tuple[Member, Member]) -> None:
    """Three patches of which two disturb each other: the third may go, and so may one of the two."""
    dog, cat = one_sided
    bird = Member(WORLD.erase(BIRD, guarded={m.patch_id: m.patch.tensors.targets for m in one_sided})[0])
    stack = [dog, cat, bird]
    assert not isinstance(check(stack), Accepted)
    assert isinstance(check_revert(stack, [bird.patch_id]), Accepted)
    assert isinstance(check_revert(stack, [dog.patch_id]), Accepted)


def test_a_leak_that_only_the_leaving_patch_made_up_for_is_refused(joint: list[Member]) -> None:
    """Two that leak alike with opposite signs: together they keep the promise, alone neither does."""
    careless = World(retained=2).erase(DOG)[0].tensors.increments
    honest = joint[0].patch
    leaky = replace(honest, arrays=replace(honest.arrays, increments=careless))
    negative = {name: Increment(increment.A, -increment.B) for name, increment in careless.items()}
    concept = replace(leaky.manifest.concept, text="something else")
    other = replace(
        leaky,
        manifest=replace(leaky.manifest, concept=concept),
        arrays=replace(leaky.arrays, increments=negative),
    )
    stack = [Member(leaky), Member(other), joint[1]]
    loose = Policy(pair=1e9, own=1e9)
    assert isinstance(check(stack, loose), Accepted)
    verdict = check_revert(stack, [stack[0].patch_id], loose)
    assert isinstance(verdict, Refused)
    assert "the stack leaks" in verdict.reasons[0].text


# --- Capacity ---------------------------------------------------------------------------------------------------------


def test_capacity_counts_null_prompt_retain_set_and_targets_once(joint: list[Member]) -> None:
    found = Capacity.of([m.patch for m in joint])
    assert found == Capacity(WORLD.width, invariants=5, retained=20, patches=9)
    assert found.free == WORLD.width - 34
    assert found.share == pytest.approx(34 / WORLD.width)
    assert Capacity.of([joint[0].patch, joint[0].patch]) == Capacity(WORLD.width, 5, 20, 3)


def test_the_room_is_computed_once_and_comes_with_the_verdict(joint: list[Member]) -> None:
    for work in (lambda: check(joint), lambda: check_revert(joint, [joint[0].patch_id])):
        profile = cProfile.Profile()
        profile.runcall(work)
        calls = pstats.Stats(profile).stats.items()  # type: ignore[attr-defined]  # (file, line, name) to counts
        assert [c[1] for (file, _, name), c in calls if (Path(file).name, name) == ("capacity.py", "of")] == [1]
    assert check(joint).room == Capacity.of([m.patch for m in joint])


def test_other_retain_sets_take_room_of_their_own(joint: list[Member]) -> None:
    other = World(retained=2).erase(CAT)[0]  # two prompts that are none of the first twenty
    assert Capacity.of([joint[0].patch, other]) == Capacity(WORLD.width, 5, 22, 6)


def test_retain_sets_that_differ_by_a_concept_count_nearly_as_one() -> None:
    """Each request leaves its own target out of the one list; the room is that of the list."""
    patches = [one_list_without(concept) for concept in range(6)]
    assert all(Capacity.of([patch]) == Capacity(WORLD.width, 5, 8, 1) for patch in patches)
    found = Capacity.of(patches)
    assert found is not None
    assert 8 <= found.retained <= 16  # six sets of eight


def one_list_without(concept: int) -> Patch:
    """A request that erases a concept of one list and retains the others: thirty about eight that matter."""
    strong = factories.clip_like(60, 8, WORLD.width)
    listed = torch.cat([strong + 0.02 * factories.clip_like(61 + i, 8, WORLD.width) for i in range(4)], dim=1)
    kept = torch.cat([listed[:, :concept], listed[:, concept + 1 :]], dim=1)
    basis = build_protected_basis(WORLD.reference.invariants, factories.moment(kept), RankRule("count", 8))
    columns = WORLD.columns(f"concept {concept}", 300 + concept)
    return WORLD.patch(columns, erase(WORLD.weights, [columns], basis, NullSpace())[0], basis)


def test_guards_are_counted_as_the_targets_that_they_are(one_sided: tuple[Member, Member]) -> None:
    assert Capacity.of([m.patch for m in one_sided]) == Capacity(WORLD.width, 5, 20, 6)


def test_capacity_has_a_limit_in_the_policy(joint: list[Member]) -> None:
    verdict = check(joint, Policy(capacity=0.3))
    assert isinstance(verdict, Refused)
    assert "dimensions" in verdict.reasons[0].text
    assert verdict.reasons[0].hint.startswith("rasura patch join ")


def test_more_targets_than_dimensions_leave_nothing() -> None:
    crowded = [World(width=24, retained=3).erase(World(width=24).columns(str(i), i + 50))[0] for i in range(20)]
    found = Capacity.of(crowded)
    assert found is not None
    assert found.free == 0
    assert found.low
