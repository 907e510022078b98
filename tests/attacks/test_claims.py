# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""Attacks by whoever a registry trusts to sign, or who edits a lock or a plan: what is claimed, and is not so."""

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.registries.workshop import ALICE, Workshop, workshop
from support.values import factories
from support.values.factories import World

from rasura.patches._io import canonical_json
from rasura.patches.algebra.increment import Increment
from rasura.patches.algebra.stack import Stack
from rasura.patches.algebra.strength import ONE, Strength
from rasura.patches.checks.check import Accepted, Policy, Refused, check
from rasura.patches.errors import ConflictError, DigestMismatchError, FormatError, RasuraError
from rasura.patches.format.member import Member
from rasura.patches.format.patch import BASIS, Patch
from rasura.patches.format.patch_tensors import PatchTensors
from rasura.patches.format.protected_spec import BasisSpec
from rasura.patches.types import ParamName
from rasura.registry.apply.goal import Goal
from rasura.registry.registry import Registry
from rasura.registry.stacks import edit
from rasura.registry.stacks.lock_stack import lock_stack
from rasura.registry.stacks.plan import apply_plan, make_plan
from rasura.registry.stacks.plan_file import Plan
from rasura.registry.stacks.stack_ref import goal_of
from rasura.registry.trust.keys.key_files import signer
from rasura.registry.trust.verified_patch import read_signed_files, verify_files

WORLD = World()
VICTIM = WORLD.erase(WORLD.columns("dog", 1, 3))[0]


@pytest.fixture
def registry(workshop: Workshop) -> Iterator[Registry]:
    with workshop.open() as opened:
        yield opened


# --- a manifest that says of tensors what they are not ---------------------------------------------------------------


def basis(patch: Patch, **changes: Any) -> Patch:
    said = patch.manifest.protected
    return replace(
        patch, manifest=replace(patch.manifest, protected=replace(said, basis=replace(said.basis, **changes)))
    )


def rows(patch: Patch, change: Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]) -> Patch:
    """Other protected rows and energies, described truthfully: digest, rank and dimension are theirs."""
    found, energy = change(patch.tensors.protected, patch.tensors.energy)
    tensors = replace(patch.tensors, protected=found.contiguous(), energy=energy.contiguous())
    other = replace(patch, arrays=tensors.arrays, manifest=replace(patch.manifest, tensors=tensors.specs()))
    return basis(other, sha256=factories.sha256(tensors.files()[BASIS]), rank=int(found.shape[0]))


LIES = {
    "the digest of another patch's basis": lambda p: basis(p, sha256=factories.sha256(b"another basis")),
    "a larger rank": lambda p: basis(p, rank=p.manifest.protected.basis.rank + 1),
    "a smaller rank": lambda p: basis(p, rank=p.manifest.protected.basis.rank - 1),
    "another dimension": lambda p: basis(p, dimension=p.manifest.protected.basis.dimension + 1),
    "more invariants than rows": lambda p: basis(p, invariants=p.manifest.protected.basis.rank + 1),
    "the old rank over empty rows": lambda p: basis(
        rows(p, lambda u, e: (u[:0], e[:0])), rank=p.manifest.protected.basis.rank
    ),
    "rows without energy": lambda p: rows(p, lambda u, e: (u, torch.zeros_like(e))),
    "rows that are nearly nothing": lambda p: rows(p, lambda u, e: (u * 1e-100, e)),
    "one row many times": lambda p: rows(p, lambda u, e: (u[:1].expand_as(u), e)),
    "a row that leans on another": lambda p: rows(p, lambda u, e: (torch.cat([u[:-1], u[:1] + 1e-3 * u[-1:]]), e)),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_patch_is_refused_at_every_intake_that_claims(workshop: Workshop, registry: Registry, lie: str) -> None:
    files = registry.patch_files(workshop.dog)
    honest = verify_files(registry, files).patch
    forged = read_signed_files(LIES[lie](honest), signer(registry, None))
    with pytest.raises((FormatError, DigestMismatchError), match=r"protected\.basis|basis\.safetensors"):
        verify_files(registry, forged)


# --- another patch's promise -----------------------------------------------------------------------------------------


def attacker() -> Patch:
    """Random detectors, which see everything that others protect, and protected rows of no consequence of its own."""
    own = WORLD.erase(WORLD.columns("kettle", 7))[0]
    increments = {
        name: Increment.quantised(
            factories.normal(i, 2, WORLD.width), factories.normal(50 + i, increment.shape[0], 2) * 0.05
        )
        for i, (name, increment) in enumerate(sorted(own.tensors.increments.items()))
    }
    outside = torch.linalg.svd(torch.cat([i.A for i in increments.values()]).double())[2][
        -3:
    ]  # detectors are blind to it
    tensors = replace(own.tensors, increments=increments, protected=outside, energy=torch.ones(3, dtype=torch.float64))
    other = replace(own, arrays=tensors.arrays, manifest=replace(own.manifest, tensors=tensors.specs()))
    return basis(other, sha256=factories.sha256(tensors.files()[BASIS]), rank=3, invariants=0)


def copies(patch: Patch, victim: Patch) -> Patch:
    """The attacker calls its rows by the digest, rank and numbers of the victim's."""
    manifest = patch.manifest
    protected = replace(manifest.protected, basis=victim.manifest.protected.basis)
    return replace(patch, manifest=replace(manifest, protected=protected, measured=victim.manifest.measured))


@pytest.mark.parametrize("weights", [None, WORLD.weights], ids=["stored data alone", "the base at hand"])
@pytest.mark.parametrize("place", ["first", "last"])
def test_another_patchs_promise_cannot_be_switched_off(
    place: str, weights: dict[ParamName, torch.Tensor] | None
) -> None:
    evil = copies(attacker(), VICTIM)
    stack = [Member(evil), Member(VICTIM)] if place == "first" else [Member(VICTIM), Member(evil)]
    verdict = check(stack, Policy(pair=1e9), weights)
    assert isinstance(verdict, Refused)
    leaks = {r.other: r.value for r in verdict.relations if r.check == "stack"}
    assert leaks[VICTIM.patch_id] > 0.02
    with pytest.raises(DigestMismatchError, match=r"protected\.basis"):
        Patch.from_files(evil.files())


POOL = [
    *WORLD.erase(WORLD.columns("cat", 2, 3), WORLD.columns("bird", 3, 2)),
    VICTIM,
    attacker(),
    copies(attacker(), VICTIM),
    WORLD.erase(WORLD.columns("boat", 4), guarded={VICTIM.patch_id: VICTIM.tensors.targets})[0],
]


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.integers(0, len(POOL) - 1), min_size=1, max_size=4, unique=True),
    st.lists(st.integers(-64, 64).filter(bool), min_size=4, max_size=4),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_a_verdict_does_not_depend_on_the_order_of_its_arguments(
    places: list[int], strengths: list[int], at_hand: bool, order: random.Random
) -> None:
    stack = [Member(POOL[place], Strength(s)) for place, s in zip(places, strengths, strict=False)]
    weights = WORLD.weights if at_hand else None
    one, other = (check(some, Policy(), weights) for some in (stack, order.sample(stack, len(stack))))
    assert type(one) is type(other)
    named = {"own", "pair", "kept", "one-sided"}  # the others are named after the patch that stands last

    def told(verdict: Any) -> list[tuple[str, str, str, float]]:
        return sorted((r.check, r.patch if r.check in named else "", r.other, r.value) for r in verdict.relations)

    left, right = told(one), told(other)
    wholes = {"capacity", "bound"}  # these are about no single patch
    assert [item[:2] if item[0] in wholes else item[:3] for item in left] == [
        item[:2] if item[0] in wholes else item[:3] for item in right
    ]
    assert [item[3] for item in left] == pytest.approx([item[3] for item in right], rel=1e-6, abs=1e-12)


def test_a_policy_that_asks_for_proof_is_not_told_by_a_rank() -> None:
    silent = rows(VICTIM, lambda u, e: (u, torch.zeros_like(e)))
    verdict = check([Member(silent)], Policy(separable=True))
    assert isinstance(verdict, Refused)
    assert "not separable" in verdict.reasons[0].text
    assert isinstance(check([Member(VICTIM)], Policy(separable=True)), Accepted)


# --- locks -----------------------------------------------------------------------------------------------------------


def other_digest(text: str) -> str:
    return text[:-1] + ("0" if text[-1] != "0" else "1")


LOCKS: dict[str, Callable[[Any], object]] = {
    "concept": lambda d: d["patches"][0].update(concept="a harmless thing"),
    "key": lambda d: d["patches"][0].update(key=other_digest(d["patches"][0]["key"])),
    "file digest": lambda d: d["patches"][0]["files"].update({"model.sig": "0" * 64}),
    "id": lambda d: d["patches"][0].update(id=other_digest(d["patches"][0]["id"])),
    "limit": lambda d: d["policy"]["limits"].update(pair="1000.0"),
    "unknown limit": lambda d: d["policy"]["limits"].update(cheer="1.0"),
    "separable": lambda d: d["policy"].update(separable=True),
    "policy": lambda d: d["policy"].update(sha256="0" * 64),
    "base": lambda d: d["base"].update(sha256="0" * 64),
    "text encoder": lambda d: d["base"].update(text_encoder="0" * 64),
    "tokenizer": lambda d: d["base"].update(tokenizer="0" * 64),
    "touched": lambda d: d["base"].update(touched="0" * 64),
}


@pytest.mark.parametrize("field", LOCKS)
def test_a_lock_is_refused_with_an_edited(workshop: Workshop, registry: Registry, field: str) -> None:
    record = edit.create(registry, "brand", {workshop.dog: ONE}, ALICE)
    path = workshop.folder / "rasura.lock"
    path.write_bytes(lock_stack(registry, record).to_bytes())
    assert goal_of(registry, str(path)).patches == Stack({workshop.dog: ONE})
    document = json.loads(path.read_bytes())
    LOCKS[field](document)
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    with pytest.raises(RasuraError):
        goal_of(registry, str(path))


def test_the_limits_of_a_lock_hold_for_whoever_uses_it(workshop: Workshop, registry: Registry) -> None:
    record = edit.create(registry, "brand", dict.fromkeys(workshop.all, ONE), ALICE)
    lock = lock_stack(registry, record)
    strict = replace(lock.policy, pair=1e-12)
    goal = Goal("rasura.lock", record.base, lock.members, strict)
    with pytest.raises(RasuraError, match="disturbs"):
        make_plan(registry, workshop.host(), goal)


# --- plans -----------------------------------------------------------------------------------------------------------

PLANS: dict[str, Callable[[Any], object]] = {
    "base": lambda d: d.update(base="0" * 64),
    "number of bytes": lambda d: d.update(bytes=d["bytes"] + 1),
    "number of parameters": lambda d: d.update(parameters=d["parameters"] - 1),
    "source": lambda d: d.update(source="other"),
    "policy's text": lambda d: d["policy"].update(toml=d["policy"]["toml"].replace("pair = 0.05", "pair = 0.5")),
    "policy": lambda d: d["policy"].update(sha256="0" * 64),
    "list of signers": lambda d: d.update(keys=[]),
    "state before": lambda d: d["before"].update(state="0" * 64),
    "state after": lambda d: d["after"].update(state="0" * 64),
    "set": lambda d: d["after"].update(patches={}),
    "log": lambda d: d["registry"].update(root="0" * 64),
    "model": lambda d: d["host"].update(id="00000000-0000-4000-8000-000000000009"),
}


@pytest.mark.parametrize("field", PLANS)
def test_a_plan_is_refused_with_an_edited(workshop: Workshop, registry: Registry, field: str) -> None:
    edit.create(registry, "brand", {workshop.dog: ONE}, ALICE)
    edit.create(registry, "other", {workshop.photo: ONE}, ALICE)
    plan = make_plan(registry, workshop.host(), goal_of(registry, "brand")).plan
    document = json.loads(plan.to_bytes())
    PLANS[field](document)
    forged = Plan.from_bytes(canonical_json.dumps(document))
    files = workshop.digests()
    with pytest.raises(ConflictError, match="stale"):
        apply_plan(registry, forged, ALICE)
    assert workshop.digests() == files
