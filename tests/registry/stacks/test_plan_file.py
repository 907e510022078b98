# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""Plans: they look and write nothing; carried out they do exactly what they say, or are stale."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.registries.workshop import ALICE, Mortal, Workshop, copy_of, silent, workshop

from rasura.patches._io import canonical_json
from rasura.patches.algebra.stack import Stack
from rasura.patches.algebra.strength import ONE, Strength
from rasura.patches.checks.policy import DEFAULT_POLICY, Policy
from rasura.patches.errors import (
    BaseMismatchError,
    CheckRefusedError,
    ConflictError,
    DriftError,
    FormatError,
    NotFoundError,
)
from rasura.patches.types import Digest, PatchId
from rasura.registry._storage.records.records import Draft
from rasura.registry.apply import operations
from rasura.registry.apply.goal import Goal
from rasura.registry.apply.hosts import host_state
from rasura.registry.erase.base_models import add_base
from rasura.registry.log.verify import verify_log
from rasura.registry.registry import Registry
from rasura.registry.stacks import edit
from rasura.registry.stacks.plan import apply_plan, make_plan
from rasura.registry.stacks.plan_file import Plan, read_plan
from rasura.registry.stacks.policy_file import put_in_force
from rasura.registry.trust.keys.key_files import make_key, trust_file
from rasura.registry.trust.register_patch import SignedPatch, add_signed

GOLDEN = Path(__file__).parents[2] / "vectors" / "plan.json"
DATA = GOLDEN.read_bytes()


@pytest.fixture
def registry(workshop: Workshop) -> Iterator[Registry]:
    with workshop.open() as opened:
        yield opened


def planned(registry: Registry, workshop: Workshop, patches: dict[PatchId, Strength], **rest: Policy) -> Plan:
    goal = Goal("brand", registry.base("tiny").digest, patches)
    return make_plan(registry, workshop.host(), goal, **rest).plan


# --- making one ------------------------------------------------------------------------------------------------------


def test_a_plan_says_what_would_happen_and_it_happens(workshop: Workshop, registry: Registry) -> None:
    operations.apply(registry, workshop.host(), [workshop.dog, workshop.van_gogh], ALICE)
    wanted = {workshop.van_gogh: Strength(8), workshop.photo: ONE}
    with workshop.unchanged():
        plan = planned(registry, workshop, wanted)
    assert (plan.diff.added, plan.diff.removed) == (Stack({workshop.photo: ONE}), Stack({workshop.dog: ONE}))
    assert (dict(plan.diff.changed), len(plan.diff)) == ({workshop.van_gogh: (ONE, Strength(8))}, 3)
    registry.note(Draft("bob", "", "something.else", "success"))  # later entries that have nothing to do with it
    size = len(workshop.entries())
    files = workshop.digests()
    receipt = apply_plan(registry, Plan.from_bytes(plan.to_bytes()), ALICE)
    assert (receipt.applied, receipt.parameters) == (Stack(wanted), plan.parameters)
    assert (receipt.before, receipt.after) == (plan.before.state, plan.after.state)
    begun, done = workshop.entries()[size:]
    assert (begun.details["plan"], done.details["goal"]) == (plan.digest, "brand")
    assert workshop.digests() != files
    verify_log(registry)


def test_the_bytes_to_write_are_those_of_the_tensors_that_change(workshop: Workshop, registry: Registry) -> None:
    plan = planned(registry, workshop, {workshop.dog: ONE})
    host = workshop.host()
    names = host_state.list_touched(registry, [workshop.dog])
    before = host.digests(names)
    apply_plan(registry, plan, ALICE)
    after = host.digests(names)
    tensors = host.read(name for name in names if before[name] != after[name])
    assert plan.size_bytes == sum(t.numel() * t.element_size() for t in tensors.values()) > 0
    assert (plan.parameters, planned(registry, workshop, {workshop.dog: ONE}).size_bytes) == (len(names), 0)


def test_weights_that_the_dtype_cannot_change_are_counted(workshop: Workshop, registry: Registry) -> None:
    """In float16 a sixteenth of a patch rounds to nothing in many weights, without a word elsewhere."""
    shares = []
    for strength in (ONE, Strength(1)):
        host, goal = workshop.host(), Goal("patches", None, {workshop.dog: strength})
        before = host.read(host_state.list_touched(registry, [workshop.dog]))
        made = make_plan(registry, host, goal)
        operations.switch(registry, host, goal, ALICE)
        after = host.read(before)
        same = sum(int((before[name] == after[name]).sum()) for name in before)
        assert made.unchanged == same / sum(tensor.numel() for tensor in before.values())
        shares.append(made.unchanged)
        operations.revert(registry, host, None, ALICE)
    assert 0 < shares[0] < shares[1] < 1


def test_where_it_is_already_a_plan_changes_nothing(workshop: Workshop, registry: Registry) -> None:
    empty = planned(registry, workshop, {})
    assert (len(empty.diff), empty.parameters, empty.size_bytes, empty.host) == (0, 0, 0, None)
    with workshop.unchanged():
        assert not apply_plan(registry, empty, ALICE).changed
    operations.apply(registry, workshop.host(), [workshop.dog], ALICE)
    plan = planned(registry, workshop, {workshop.dog: ONE})
    with workshop.unchanged():
        assert not apply_plan(registry, plan, ALICE).changed


def test_what_would_be_refused_has_no_plan(workshop: Workshop, registry: Registry) -> None:
    with workshop.unchanged():
        with pytest.raises(CheckRefusedError):
            planned(registry, workshop, {workshop.dog: ONE, workshop.rival: ONE})
        with pytest.raises(CheckRefusedError, match=r"limit 0\.000000000001 "):
            planned(registry, workshop, dict.fromkeys(workshop.all, ONE), policy=Policy(pair=1e-12))
    operations.apply(registry, workshop.host(), [workshop.dog], ALICE)
    with pytest.raises(BaseMismatchError):
        make_plan(registry, workshop.host(), Goal("x", Digest("0" * 64), {}))
    path = next((workshop.model / "unet").glob("*.safetensors"))
    name = host_state.list_touched(registry, [workshop.dog])[0]
    host = workshop.host()
    host.write({name: host.read([name])[name] * 2})
    with pytest.raises(DriftError):
        planned(registry, workshop, {})
    assert path.exists()


def test_a_plan_looks_through_an_interrupted_motion(workshop: Workshop, registry: Registry) -> None:
    with Mortal.open(workshop.folder) as mortal, pytest.raises(KeyboardInterrupt):
        operations.apply(mortal, workshop.host(), [workshop.dog], ALICE)
    with workshop.unchanged():
        plan = planned(registry, workshop, {workshop.photo: ONE})
    assert (plan.diff.removed, plan.diff.added) == (Stack({workshop.dog: ONE}), Stack({workshop.photo: ONE}))
    assert apply_plan(registry, plan, ALICE).applied == {workshop.photo: ONE}
    verify_log(registry)


def test_a_stricter_policy_stays_with_the_plan(workshop: Workshop, registry: Registry) -> None:
    plan = planned(registry, workshop, {workshop.dog: ONE}, policy=Policy(pair=0.001))
    assert Policy.parse(plan.limits.encode()).pair == 0.001
    assert apply_plan(registry, plan, ALICE).applied == {workshop.dog: ONE}
    loose = replace(planned(registry, workshop, dict.fromkeys(workshop.all, ONE)), limits=Policy(pair=99.0).to_toml())
    put_in_force(registry, Policy(pair=1e-12), ALICE)
    forged = replace(loose, policy=planned(registry, workshop, {}).policy)
    with pytest.raises(
        CheckRefusedError, match=r"limit 0\.000000000001 "
    ):  # the registry's holds whatever the file says
        apply_plan(registry, forged, ALICE)


# --- stale -----------------------------------------------------------------------------------------------------------


def another_set(workshop: Workshop, registry: Registry) -> None:
    operations.apply(registry, workshop.host(), [workshop.photo], ALICE)


def another_strength(workshop: Workshop, registry: Registry) -> None:
    operations.switch(registry, workshop.host(), Goal("x", None, {workshop.van_gogh: Strength(8)}), ALICE)


def done_already(workshop: Workshop, registry: Registry) -> None:
    operations.switch(registry, workshop.host(), Goal("x", None, {workshop.dog: ONE}), ALICE)


def another_policy(workshop: Workshop, registry: Registry) -> None:
    put_in_force(registry, Policy(pair=0.9), ALICE)


def a_key_is_not_trusted(workshop: Workshop, registry: Registry) -> None:
    registry.set_trusted("alice", trusted=False, entry=Draft("a", "", "key.trust", "success"))


def a_key_is_revoked(workshop: Workshop, registry: Registry) -> None:
    registry.revoke_key("alice", registry.now(), Draft("a", "", "key.revoke", "success"))


STALE: dict[Callable[[Workshop, Registry], None], str] = {
    another_set: "the model has",
    another_strength: "the model has",
    done_already: "the model has",
    another_policy: "the policy is",
}


@pytest.mark.parametrize("change", STALE, ids=lambda change: change.__name__)
def test_a_plan_is_stale_when_what_it_rests_on_has_changed(
    workshop: Workshop, registry: Registry, change: Callable[[Workshop, Registry], None]
) -> None:
    operations.apply(registry, workshop.host(), [workshop.van_gogh], ALICE)
    plan = planned(registry, workshop, {workshop.dog: ONE})
    change(workshop, registry)
    with workshop.unchanged("refused conflict"), pytest.raises(ConflictError, match=STALE[change]) as caught:
        apply_plan(registry, plan, ALICE)
    assert caught.value.exit_code == 7
    assert caught.value.hint == f"rasura plan --stack brand --model '{workshop.model}' -o plan.json"


@pytest.mark.parametrize("change", [a_key_is_not_trusted, a_key_is_revoked])
def test_a_plan_is_stale_when_a_key_of_its_patches_does_not_count_any_more(
    workshop: Workshop, registry: Registry, change: Callable[[Workshop, Registry], None]
) -> None:
    plan = planned(registry, workshop, {workshop.dog: ONE})
    change(workshop, registry)
    with workshop.unchanged("refused conflict"), pytest.raises(ConflictError, match="not trusted any more"):
        apply_plan(registry, plan, ALICE)


def test_other_keys_do_not_matter(workshop: Workshop, registry: Registry) -> None:
    plan = planned(registry, workshop, {workshop.dog: ONE})
    make_key(registry, "bob", Draft("a", "", "key.add", "success"))
    registry.revoke_key("bob", registry.now(), Draft("a", "", "key.revoke", "success"))
    edit.create(registry, "other", {workshop.photo: ONE}, ALICE)
    assert apply_plan(registry, plan, ALICE).applied == {workshop.dog: ONE}


def test_applied_and_taken_back_in_between_a_plan_is_as_good_as_before(workshop: Workshop, registry: Registry) -> None:
    plan = planned(registry, workshop, {workshop.dog: ONE})
    operations.apply(registry, workshop.host(), [workshop.photo], ALICE)
    operations.revert(registry, workshop.host(), None, ALICE)
    assert apply_plan(registry, plan, ALICE).applied == {workshop.dog: ONE}


def test_a_plan_of_another_registry_or_of_a_forked_log(workshop: Workshop, registry: Registry, tmp_path: Path) -> None:
    plan = planned(registry, workshop, {workshop.dog: ONE})
    forged = {
        "was made with": replace(plan, origin="rasura/log/" + "0" * 32),
        "does not begin with": replace(plan, root="0" * 64),
        f"the {plan.size + 9} entries": replace(plan, size=plan.size + 9),
        "state before is": replace(plan, before=replace(plan.before, state=Digest("0" * 64))),
        "state after is": replace(plan, after=replace(plan.after, state=Digest("0" * 64))),
        "another model": replace(plan, host="00000000-0000-4000-8000-000000000001"),
    }
    for words, other in forged.items():
        with workshop.unchanged("refused conflict"), pytest.raises(ConflictError, match=words):
            apply_plan(registry, other, ALICE)
    fork = copy_of(workshop, tmp_path / "fork")
    registry.note(Draft("a", "", "mine.do", "success"))
    later = planned(registry, workshop, {workshop.dog: ONE})
    with fork.open() as other_registry:
        other_registry.note(Draft("b", "", "theirs.do", "success"))
        with pytest.raises(ConflictError, match="does not begin with"):
            apply_plan(other_registry, later, ALICE)
    with pytest.raises(NotFoundError):
        apply_plan(registry, replace(plan, location=str(tmp_path / "nowhere")), ALICE)


def test_a_model_that_changed_outside_is_drift(workshop: Workshop, registry: Registry) -> None:
    operations.apply(registry, workshop.host(), [workshop.dog], ALICE)
    plan = planned(registry, workshop, {})
    host = workshop.host()
    name = host_state.list_touched(registry, [workshop.dog])[0]
    host.write({name: host.read([name])[name] * 2})
    with workshop.unchanged("refused drift"), pytest.raises(DriftError):
        apply_plan(registry, plan, ALICE)


def test_the_same_on_postgresql(workshop: Workshop, postgres_url: str, tmp_path: Path) -> None:
    draft = Draft("alice", "", "setup.do", "success")
    with workshop.open() as registry:
        files = [registry.patch_files(patch) for patch in workshop.all]
        (tmp_path / "alice.pub").write_text(registry.key("alice").pem)
    with Registry.create(f"{postgres_url}&blobs={quote(str(tmp_path / 'home'))}", actor="alice") as registry:
        trust_file(registry, tmp_path / "alice.pub", None, draft)
        add_base(registry, workshop.model, "tiny", draft, silent)
        add_signed(registry, [SignedPatch(each, "a stick", draft) for each in files])
        edit.create(registry, "brand", {workshop.dog: ONE, workshop.photo: Strength(8)}, ALICE)
        plan = planned(registry, workshop, {workshop.dog: ONE, workshop.photo: Strength(8)})
        put_in_force(registry, Policy(pair=0.04), ALICE)
        with pytest.raises(ConflictError, match="policy"):
            apply_plan(registry, plan, ALICE)
        plan = planned(registry, workshop, {workshop.dog: ONE, workshop.photo: Strength(8)})
        assert apply_plan(registry, plan, ALICE).applied == dict(plan.after.patches)
        operations.switch(registry, workshop.host(), Goal("x", None, {}), ALICE)
        edit.delete(registry, "brand", ALICE)
        verify_log(registry)


# --- the file --------------------------------------------------------------------------------------------------------


def test_the_golden_plan_is_read_and_written_byte_for_byte() -> None:
    plan = Plan.from_bytes(DATA)
    assert plan.to_bytes() == DATA
    a, b, c, d = (PatchId(letter * 64) for letter in "abcd")
    assert (plan.diff.added, plan.diff.removed, dict(plan.diff.changed)) == (
        Stack({c: Strength(1)}),
        Stack({d: Strength(-64)}),
        {b: (ONE, Strength(-8))},
    )
    assert (plan.location, plan.size, a in plan.after.patches) == ("/models/ä b", 42, True)


def forged(change: Callable[[Any], object]) -> bytes:
    document = json.loads(DATA)
    change(document)
    return canonical_json.dumps(document)


BAD = {
    "empty": b"",
    "no JSON": b"do it",
    "spaces": DATA.replace(b":", b": ", 1),
    "a newline": DATA + b"\n",
    "a later format": forged(lambda d: d.update(format="rasura-plan/2")),
    **{f"no {n}": forged(lambda d, n=n: d.pop(n)) for n in json.loads(DATA)},  # type: ignore[misc]
    **{f"more in {n}": forged(lambda d, n=n: d[n].update(x=1)) for n in ("registry", "host", "before", "policy")},  # type: ignore[misc]
    "more": forged(lambda d: d.update(x=1)),
    "no location": forged(lambda d: d["host"].pop("location")),
    "an empty location": forged(lambda d: d["host"].update(location="")),
    "a location with NUL": forged(lambda d: d["host"].update(location="a\0b")),
    "a host that is no UUID": forged(lambda d: d["host"].update(id="x" * 36)),
    "strength 0": forged(lambda d: d["after"]["patches"].update({"a" * 64: 0})),
    "strength 65": forged(lambda d: d["after"]["patches"].update({"a" * 64: 65})),
    "strength true": forged(lambda d: d["after"]["patches"].update({"a" * 64: True})),
    "a patch by name": forged(lambda d: d["after"]["patches"].update(dog=16)),
    "a key by name": forged(lambda d: d.update(keys=["alice"])),
    "keys in another order": forged(lambda d: d["keys"].reverse()),
    "a key twice": forged(lambda d: d.update(keys=["6" * 64, "6" * 64])),
    "a policy that is none": forged(lambda d: d["policy"].update(toml="[limits]\npair = -1\n")),
    "a policy in another spelling": forged(lambda d: d["policy"].update(toml="")),
    "a root in base64": forged(lambda d: d["registry"].update(root="AAAA")),
    "size 0": forged(lambda d: d["registry"].update(size=0)),
    "negative bytes": forged(lambda d: d.update(bytes=-1)),
}


@pytest.mark.parametrize("name", BAD)
def test_another_file_is_no_plan(name: str) -> None:
    with pytest.raises(FormatError):
        Plan.from_bytes(BAD[name])


@given(st.integers(0, len(DATA) - 1), st.integers(1, 255))
def test_a_changed_byte_never_gives_an_equal_plan(at: int, flip: int) -> None:
    bad = DATA[:at] + bytes([DATA[at] ^ flip]) + DATA[at + 1 :]
    try:
        found = Plan.from_bytes(bad)
    except FormatError:
        return
    assert found != Plan.from_bytes(DATA)
    assert found.to_bytes() == bad


def test_a_plan_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="does not exist") as caught:
        read_plan(tmp_path / "plan.json")
    assert caught.value.hint.startswith("rasura plan --stack")
    with pytest.raises(FormatError):
        read_plan(tmp_path)
