"""The composer's verdicts against dense arithmetic, and one refusal for every way in which patches disturb each other."""

import re
import shlex
from dataclasses import replace

import pytest
import torch
from support.values import factories
from support.values.dense import energy
from support.values.factories import World

from rasura.patches.algebra.increment import Increment
from rasura.patches.algebra.protected_subspace import build_guarded_basis, build_protected_basis
from rasura.patches.algebra.strength import Strength
from rasura.patches.checks.check import Accepted, NeedsRebase, Policy, Reason, Refused, Relation, check, require
from rasura.patches.checks.kernels.footprint import Footprint
from rasura.patches.checks.kernels.interference import Interference
from rasura.patches.checks.kernels.weigh import weigh
from rasura.patches.checks.relations import LISTED
from rasura.patches.erasers.closed_form.null_space import NullSpace, erase
from rasura.patches.erasers.columns import Columns
from rasura.patches.errors import CheckRefusedError
from rasura.patches.format.manifest_parts import TensorIdentity
from rasura.patches.format.member import Member
from rasura.patches.format.patch import Patch
from rasura.patches.types import ParamName, PatchId

WORLD = World()
DOG, CAT, BIRD = (WORLD.columns(name, seed, 3) for seed, name in enumerate(("dog", "cat", "it's a bird"), 1))
LOOSE = Policy(own=1e9, pair=1e9, stack=1e9)


@pytest.fixture(scope="module")
def joint() -> list[Patch]:
    return WORLD.erase(DOG, CAT, BIRD)


@pytest.fixture(scope="module")
def alone() -> list[Patch]:
    return [WORLD.erase(concept)[0] for concept in (DOG, CAT, BIRD)]


def members(patches: list[Patch], *sixteenths: int) -> list[Member]:
    return [Member(p, Strength(s)) for p, s in zip(patches, sixteenths or [16] * len(patches), strict=True)]


def changed(patch: Patch, **fields: object) -> Patch:
    return replace(patch, manifest=replace(patch.manifest, **fields))  # type: ignore[arg-type]


def refusal(stack: list[Member], policy: Policy | None = None) -> Reason:
    """The first reason; the whole verdict must also raise."""
    verdict = check(stack, policy) if policy else check(stack)
    assert isinstance(verdict, Refused | NeedsRebase)
    with pytest.raises(CheckRefusedError) as caught:
        require(verdict)
    assert caught.value.hint == verdict.reasons[0].hint
    assert caught.value.details["reasons"] == [reason.text for reason in verdict.reasons]
    assert caught.value.exit_code == 3
    return verdict.reasons[0]


def of(relations: tuple[Relation, ...], kind: str) -> dict[tuple[PatchId, PatchId], float]:
    return {(r.patch, r.other): r.value for r in relations if r.check == kind}


# --- The numbers ------------------------------------------------------------------------------------------------------


def dense(member: Member) -> torch.Tensor:
    """ΔW of all projections, one under the other, [Σ o, d]."""
    return torch.cat([i.dense(member.strength) for _, i in sorted(member.patch.tensors.increments.items())])


def protected(member: Member) -> torch.Tensor:
    tensors = member.patch.tensors
    return tensors.protected.T * tensors.energy.sqrt()


@pytest.mark.parametrize("strengths", [(16, 16, 16), (8, -32, 1), (0, 64, -64)])
def test_every_relation_is_what_dense_arithmetic_gives(alone: list[Patch], strengths: tuple[int, ...]) -> None:
    stack = members(alone, *strengths)
    relations = check(stack, LOOSE, WORLD.weights).relations
    own, pair, whole = (of(relations, kind) for kind in ("own", "pair", "stack"))
    W = torch.cat([WORLD.weights[name].double() for name in sorted(WORLD.weights)])
    for p in stack:
        base = float((W @ protected(p)).norm())
        assert base == pytest.approx(float(p.patch.manifest.measured["base_protected"]), rel=1e-3)
        assert own[p.patch_id, p.patch_id] == pytest.approx(float((dense(p) @ protected(p)).norm()) / base, rel=1e-3)
        for q in stack:
            if q is not p:
                T = q.patch.tensors.targets.T
                share = float((dense(p) @ T).norm() / (dense(Member(q.patch)) @ T).norm())
                assert pair[p.patch_id, q.patch_id] == pytest.approx(share, rel=1e-9)
        together = sum((dense(m) for m in stack[1:]), dense(stack[0])) @ protected(p)
        assert whole[stack[-1].patch_id, p.patch_id] == pytest.approx(float(together.norm()) / base, rel=1e-3)
    assert len(own) == 3
    assert len(pair) == 6
    assert len(whole) == 3


def test_energy_is_the_norm_of_the_dense_sum(alone: list[Patch]) -> None:
    stack, X = members(alone, 16, -8, 40), factories.normal(9, WORLD.width, 7)
    expected = sum((dense(m) for m in stack[1:]), dense(stack[0])) @ X
    assert energy(stack, X) == pytest.approx(float(expected.norm()), rel=1e-9)


def test_the_verdict_does_not_depend_on_the_order(alone: list[Patch]) -> None:
    forward, backward = check(members(alone), LOOSE), check(members(alone[::-1]), LOOSE)
    for kind in ("own", "pair"):
        left, right = of(forward.relations, kind), of(backward.relations, kind)
        assert left.keys() == right.keys()
        assert all(left[key] == pytest.approx(right[key], rel=1e-9) for key in left)


# --- Accepted ---------------------------------------------------------------------------------------------------------


def test_the_empty_stack_is_accepted() -> None:
    assert check([]) == Accepted(())


def test_patches_of_one_request_are_accepted_in_any_subset_at_any_strength(joint: list[Patch]) -> None:
    for chosen in ([0], [1], [0, 1], [0, 2], [2, 1, 0]):
        for strength in (16, -16, 64, 1):
            verdict = require(check(members([joint[i] for i in chosen], *[strength] * len(chosen))))
            assert all(relation.holds for relation in verdict.relations)
            assert max(of(verdict.relations, "own").values()) < 1e-5


def test_patches_that_guard_each_other_are_accepted(alone: list[Patch]) -> None:
    """Two requests; the second names the first's patch, and the first is solved again with the second's targets."""
    dog, cat, _ = alone
    needed = check(members([dog, cat]))
    assert isinstance(needed, NeedsRebase)
    assert dict(needed.moves) == {dog.patch_id: (cat.patch_id,), cat.patch_id: (dog.patch_id,)}
    mutual = [
        WORLD.erase(own, guarded={other.patch_id: other.tensors.targets})[0] for own, other in ((DOG, cat), (CAT, dog))
    ]
    verdict = require(check(members(mutual)))
    assert max(of(verdict.relations, "pair").values()) < 1e-5
    assert mutual[0].manifest.protected.patches == (cat.patch_id,)


def test_a_patch_that_guards_one_that_does_not_guard_it_still_refuses_the_other_way(alone: list[Patch]) -> None:
    dog = alone[0]
    guarding = WORLD.erase(CAT, guarded={dog.patch_id: dog.tensors.targets})[0]
    relations = check(members([dog, guarding]), LOOSE).relations
    pair = of(relations, "pair")
    assert pair[guarding.patch_id, dog.patch_id] < 1e-5
    assert pair[dog.patch_id, guarding.patch_id] > 0.05


def test_a_pair_of_which_one_protects_the_other_is_called_one_sided(alone: list[Patch], joint: list[Patch]) -> None:
    """Where the younger is taken out again, its concept is as the older leaves it: that number is shown."""
    dog = alone[0]
    guarding = WORLD.erase(CAT, guarded={dog.patch_id: dog.tensors.targets})[0]
    relations = check(members([guarding, dog]), LOOSE).relations
    pair, one_sided = of(relations, "pair"), of(relations, "one-sided")
    assert one_sided == {(dog.patch_id, guarding.patch_id): pair[dog.patch_id, guarding.patch_id]}
    assert all(r.holds for r in relations if r.check == "one-sided")
    assert of(check(members(alone), LOOSE).relations, "one-sided") == {}
    assert of(check(members(joint), LOOSE).relations, "one-sided") == {}


# --- Refused ----------------------------------------------------------------------------------------------------------


def test_near_synonyms_erased_independently_are_refused() -> None:
    near = replace(DOG, name="hound", targets=DOG.targets + 0.1 * CAT.targets)
    dog, hound = (WORLD.erase(concept)[0] for concept in (DOG, near))
    reason = refusal(members([dog, hound]))
    assert "disturbs patch" in reason.text
    assert "limit 0.05" in reason.text
    assert "(dog)" in reason.text
    assert "(hound)" in reason.text
    assert reason.hint == f"rasura patch rebase {' '.join(sorted(p.patch_id[:12] for p in (dog, hound)))}"


def test_names_in_hints_survive_a_shell(alone: list[Patch]) -> None:
    verdict = check(members(alone), Policy(residual=0.0), WORLD.weights)
    assert isinstance(verdict, Refused)
    hints = [shlex.split(reason.hint) for reason in verdict.reasons]
    assert any("it's a bird" in words for words in hints)


def test_duplicates_are_refused(alone: list[Patch]) -> None:
    reason = refusal(members([alone[0], alone[1], alone[0]]))
    assert "stands twice" in reason.text
    assert alone[0].patch_id[:12] in reason.text


def test_a_missing_requirement_is_refused_and_a_present_one_accepted(joint: list[Patch]) -> None:
    needy = changed(joint[0], requires=(joint[1].patch_id,))
    reason = refusal(members([needy, joint[2]]))
    assert f"requires patch {joint[1].patch_id[:12]}" in reason.text
    assert reason.hint.startswith(f"rasura patch apply {joint[1].patch_id[:12]} ")
    assert isinstance(check(members([needy, joint[1]])), Accepted)


def test_different_bases_are_refused(joint: list[Patch]) -> None:
    base = joint[1].manifest.base
    first, *rest = base.parameters
    elsewhere = TensorIdentity(first.name, first.dtype, first.shape, factories.sha256(b"other weights"))
    other = changed(joint[1], base=replace(base, parameters=(elsewhere, *rest)))
    reason = refusal(members([joint[0], other]))
    assert "different bases" in reason.text
    assert first.name in reason.text


@pytest.mark.parametrize("part", ["text_encoder", "tokenizer"])
def test_different_text_encoders_are_different_bases(joint: list[Patch], part: str) -> None:
    """Targets and protected sets of another text encoder are embeddings of another space."""
    base = replace(joint[1].manifest.base, **{part: factories.sha256(b"other")})  # type: ignore[arg-type]
    reason = refusal(members([joint[0], changed(joint[1], base=base)]))
    assert "different bases" in reason.text
    assert part.replace("_", " ") in reason.text


def strong(patch: Patch, response: float) -> Patch:
    """The same patch with one detector more, which sees nothing and answers loudly: Σ|b| grows, the effect does not."""

    def louder(increment: Increment) -> Increment:
        silent, loud = torch.zeros(1, WORLD.width), torch.full((increment.shape[0], 1), response)
        return Increment(torch.cat([increment.A, silent]), torch.cat([increment.B, loud], dim=1))

    increments = {name: louder(increment) for name, increment in patch.tensors.increments.items()}
    return replace(patch, arrays=replace(patch.arrays, increments=increments))


def test_a_sum_that_float64_would_round_is_refused_and_one_just_below_accepted(joint: list[Patch]) -> None:
    stack = [strong(patch, 63.0) for patch in joint[:2]]
    assert isinstance(check(members(stack, 16, 16)), Accepted)
    reason = refusal(members(stack, 64, 16))
    assert "float64 would round" in reason.text
    assert "--strength 0.5" in reason.hint
    assert "rasura patch apply" in reason.hint


def test_a_broken_own_promise_is_refused() -> None:
    """A detector that looks into its own protected set, such as one solved for another retain set."""
    careless = World(retained=2).erase(DOG)[0]
    honest = WORLD.erase(DOG)[0]
    broken = replace(careless, arrays=replace(honest.arrays, increments=careless.arrays.increments))
    reason = refusal(members([broken]))
    assert "breaks its own promise" in reason.text
    assert "--concept dog" in reason.hint


def test_a_stack_that_leaks_on_a_protected_set_is_refused() -> None:
    """Neither disturbs the other's target, and each keeps its own promise; but one was made without a retain set."""
    careless = World(retained=2).erase(DOG, CAT)[0]
    careful = WORLD.erase(DOG, CAT)[1]
    same_base = changed(careless, base=careful.manifest.base)
    verdict = check(members([same_base, careful]))
    assert isinstance(verdict, Refused)
    assert {r.check for r in verdict.relations if not r.holds} == {"stack"}
    assert "the stack leaks" in verdict.reasons[0].text
    assert any(careful.patch_id[:12] in reason.text for reason in verdict.reasons)


def later_erasure_of_something_retained() -> Patch:
    """What q kept, erased by a later request that keeps the rest of q's retain set and leaves q's target alone."""
    kept = WORLD.retained_columns
    plain = build_protected_basis(WORLD.reference.invariants, factories.moment(kept[:, 1:]), WORLD.rule)
    basis = build_guarded_basis(plain, [DOG.targets.T], 0.9999)
    columns = Columns("once kept", kept[:, :1], factories.clip_like(900, 1, WORLD.width))
    return WORLD.patch(columns, erase(WORLD.weights, [columns], basis, NullSpace())[0], basis)


def test_erasing_later_what_an_earlier_patch_retained_is_an_intention_and_is_shown() -> None:
    earlier, later = WORLD.erase(DOG)[0], later_erasure_of_something_retained()
    verdict = check(members([earlier, later]))
    assert isinstance(verdict, Accepted)
    shown: dict[tuple[str, str, str], float] = {(r.check, r.patch, r.other): r.value for r in verdict.relations}
    assert shown["kept", later.patch_id, earlier.patch_id] >= Policy().kept
    assert ("kept", earlier.patch_id, later.patch_id) not in shown


def test_a_policy_may_hold_patches_to_promises_that_were_ended() -> None:
    stack = members([WORLD.erase(DOG)[0], later_erasure_of_something_retained()])
    assert "the stack leaks" in refusal(stack, Policy(kept=2.0)).text


def test_guarded_targets_are_no_retained_prompts(alone: list[Patch]) -> None:
    """A patch that guards another does not thereby count as one whose promise the other ended."""
    guarding = WORLD.erase(CAT, guarded={alone[0].patch_id: alone[0].tensors.targets})[0]
    assert not any(r.check == "kept" for r in check(members([alone[0], guarding]), LOOSE).relations)


@pytest.mark.parametrize("weights", [None, WORLD.weights], ids=["stored data alone", "the base at hand"])
@pytest.mark.parametrize("claimed", [None, "0", "-1", "-1e5", "1e300"])
def test_what_a_manifest_claims_was_measured_decides_nothing(
    joint: list[Patch], alone: list[Patch], claimed: str | None, weights: dict[ParamName, torch.Tensor] | None
) -> None:
    numbers = ("base_protected", "residual", "leak_retained")
    measured = {k: v for k, v in joint[0].manifest.measured.items() if k not in numbers}
    lying = changed(joint[0], measured=measured | (dict.fromkeys(numbers, claimed) if claimed else {}))
    honest, found = (check(members([p, alone[1]]), LOOSE, weights).relations for p in (joint[0], lying))
    names = {lying.patch_id: joint[0].patch_id}
    kinds = ("own", "pair", "stack", *(() if weights is None else ("residual",)))
    for kind in kinds:
        left, right = of(honest, kind), of(found, kind)
        assert left == {(names.get(p, p), names.get(q, q)): value for (p, q), value in right.items()}


def test_a_claimed_residual_is_shown_and_held_to_no_limit(joint: list[Patch]) -> None:
    claiming = changed(joint[0], measured={**joint[0].manifest.measured, "residual": "0.000e+00"})
    shown = of(check(members([claiming]), Policy(residual=0.0)).relations, "residual")
    assert shown == {(claiming.patch_id, claiming.patch_id): 0.0}
    assert isinstance(check(members([claiming]), Policy(residual=0.0), WORLD.weights), Refused)


def test_the_estimate_without_the_base_is_of_the_size_of_what_the_base_gives(alone: list[Patch]) -> None:
    for estimate, exact in zip(weigh(alone), weigh(alone, WORLD.weights), strict=True):
        assert 0.3 < estimate.promise / exact.promise < 3
        assert estimate.residual is None
        assert exact.residual is not None


def test_what_the_base_gives_is_what_the_eraser_measured(alone: list[Patch]) -> None:
    for patch, found in zip(alone, weigh(alone, WORLD.weights), strict=True):
        measured = patch.manifest.measured
        assert found.promise == pytest.approx(float(measured["base_protected"]), rel=2e-3)
        assert found.residual == pytest.approx(float(measured["residual"]), rel=2e-3, abs=1e-5)


def test_without_a_retain_set_the_null_prompt_is_what_must_not_leak() -> None:
    lonely = World(retained=0).erase(DOG)[0]
    assert float(lonely.manifest.measured["base_protected"]) > 0
    verdict = require(check(members([lonely])))
    assert 0 < max(of(verdict.relations, "own").values()) < 1e-5


def test_limits_are_inclusive_and_named_in_the_refusal(alone: list[Patch]) -> None:
    worst = max(of(check(members(alone), LOOSE).relations, "pair").values())
    assert isinstance(check(members(alone), replace(LOOSE, pair=worst)), Accepted)
    limit = worst * (1 - 1e-12)
    reason = refusal(members(alone), replace(LOOSE, pair=limit))
    said = re.search(r"([0-9.]+), limit ([0-9.]+)", reason.text)  # with digits enough to show which is larger
    assert said is not None
    assert float(said[1]) > float(said[2])
    assert (float(said[1]), float(said[2])) == pytest.approx((worst, limit), rel=1e-11)


def test_own_promise_is_judged_per_unit_of_strength(alone: list[Patch]) -> None:
    limit = of(check(members(alone[:1]), LOOSE).relations, "own")[alone[0].patch_id, alone[0].patch_id]
    policy = Policy(own=limit * 1.01, pair=1, stack=1)
    assert isinstance(check(members(alone[:1], 64), policy), Accepted)
    assert isinstance(check(members(alone[:1], 1), policy), Accepted)


def test_every_structural_flaw_is_told_at_once(joint: list[Patch]) -> None:
    needy = changed(joint[0], requires=(PatchId("0" * 64),))
    verdict = check(members([needy, needy]))
    assert isinstance(verdict, Refused)
    assert len(verdict.reasons) == 3  # twice, and each asks for what is missing
    assert verdict.relations == ()


def test_forty_patches_of_one_request_are_accepted() -> None:
    world = World(width=160, retained=10)
    patches = world.erase(*(world.columns(f"c{i}", i) for i in range(40)), options=NullSpace(rank_limit=1))
    assert isinstance(check(members(patches)), Accepted)


def test_of_many_patches_the_pairs_over_the_limit_are_found_and_told_as_they_are() -> None:
    """Bounds choose which pairs are listed; what is told of them is dense arithmetic."""
    stack = members([WORLD.erase(WORLD.columns(f"concept {i}", 400 + i, 3))[0] for i in range(LISTED + 1)])
    prints = [Footprint.of(member.patch) for member in stack]
    exact = Interference(prints).matrix()
    limit = float(exact.flatten().sort().values[-41:-39].mean())  # between two values: no rounding decides
    found = [r for r in check(stack, replace(LOOSE, pair=limit)).relations if r.check == "pair"]
    place = {member.patch_id: i for i, member in enumerate(stack)}
    told = {(place[r.patch], place[r.other]): r.value for r in found}
    over = {(p, q) for p, q in torch.nonzero(exact > limit).tolist()}
    assert over <= told.keys()
    assert {pair for pair, value in told.items() if value > limit} == over
    for (p, q), value in told.items():
        assert value == pytest.approx(float(exact[p, q]), rel=1e-9)
    worst = {q: max(value for (_, other), value in told.items() if other == q) for q in range(len(stack))}
    for q, value in worst.items():
        assert value >= float(exact[:, q].max()) * 0.9  # a bound may choose another of two that are as bad
