# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""Stacks and the policy in force, on SQLite and PostgreSQL: what may be in one, and what the log tells of it."""

import functools
import itertools
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.registries.manifest_patches import with_manifest
from support.registries.registry_fixtures import EPOCH, Place, add_patch, base, digest, draft, filled, patch, stack
from support.registries.workshop import ALICE, Workshop, workshop
from support.values import factories

from rasura.patches.algebra.strength import ONE, Strength
from rasura.patches.checks.policy import DEFAULT_POLICY, Policy
from rasura.patches.errors import (
    AmbiguousIdError,
    BaseMismatchError,
    ConflictError,
    DigestMismatchError,
    ExistsError,
    InputError,
    NotFoundError,
    StrengthError,
)
from rasura.patches.format.manifest import Manifest
from rasura.patches.types import PatchId
from rasura.registry._storage.digests import sha256
from rasura.registry._storage.records.choices import check_stack_name, digest_policy
from rasura.registry.log.verify import verify_log
from rasura.registry.registry import Registry
from rasura.registry.stacks import edit
from rasura.registry.stacks.policy_file import put_in_force, read_policy
from rasura.registry.stacks.versions import Versions

if TYPE_CHECKING:
    from rasura.registry._storage.records.records import PatchRecord

# --- rows and entries ------------------------------------------------------------------------------------------------


def test_a_stack_is_made_changed_and_deleted(registry: Registry) -> None:
    first = filled(registry)
    (second,) = registry.patches(concept="mickey mouse")
    made = stack("brand", first)
    registry.add_stack(made, draft("stack.create"))
    assert registry.stack("brand") == made
    assert registry.stacks() == registry.stacks(patch=first.patch_id) == (made,)
    assert registry.stacks(patch=second.patch_id) == ()
    later = stack("brand", first, second, strength=-8, updated_at=EPOCH + timedelta(days=1))
    assert registry.set_stack(made, later, draft("stack.add"))
    assert registry.stack("brand") == later
    verify_log(registry)
    assert not registry.set_stack(later, replace(later, updated_at=EPOCH), draft("stack.add"))
    registry.remove_stack(later, draft("stack.delete"))
    assert registry.stacks() == ()
    told = [(e.action, e.patches, dict(e.details)) for e in registry.entries(newest=False)[-3:]]
    both = tuple(sorted([first.patch_id, second.patch_id]))
    name = {"stack": "brand"}
    assert told == [("stack.create", (first.patch_id,), name), ("stack.add", both, name), ("stack.delete", both, name)]
    registry.add_stack(made, draft("stack.create"))  # the name is free again
    verify_log(registry)


def test_two_people_who_change_one_stack_do_not_overwrite_each_other(registry: Registry) -> None:
    first = filled(registry)
    registry.add_stack(stack("brand", first), draft("stack.create"))
    seen = registry.stack("brand")
    registry.set_stack(seen, stack("brand"), draft("stack.remove"))
    for work in (
        lambda: registry.set_stack(seen, stack("brand", first, strength=8), draft("stack.add")),
        lambda: registry.remove_stack(seen, draft("stack.delete")),
    ):
        with pytest.raises(ConflictError, match="at the same time"):
            work()
    assert registry.stack("brand").patches == {}
    verify_log(registry)


def test_a_stack_names_what_is_here(registry: Registry) -> None:
    size = len(registry.entries())
    with pytest.raises(NotFoundError, match="expected its base"):
        registry.add_stack(stack("brand"), draft("stack.create"))
    registry.add_base(base(), draft("base.add"))
    with pytest.raises(NotFoundError, match="expected patch"):
        registry.add_stack(stack("brand", patch()), draft("stack.create"))
    registry.add_stack(stack("brand"), draft("stack.create"))
    with pytest.raises(ExistsError, match="there is one called brand"):
        registry.add_stack(stack("brand"), draft("stack.create"))
    for work in (lambda: registry.stack("other"), lambda: registry.remove_stack(stack("x"), draft("stack.delete"))):
        with pytest.raises(NotFoundError) as caught:
            work()
        assert caught.value.hint == "rasura stack list"
    assert len(registry.entries()) == size + 2
    verify_log(registry)


def test_a_change_that_cannot_be_logged_does_not_happen(registry: Registry) -> None:
    first = filled(registry)
    registry.add_stack(stack("brand", first), draft("stack.create"))
    before = registry.stack("brand")
    for work in (
        lambda: registry.add_stack(stack("x"), draft("NO GOOD")),
        lambda: registry.set_stack(before, stack("brand"), draft("NO GOOD")),
        lambda: registry.remove_stack(before, draft("NO GOOD")),
        lambda: registry.set_policy(Policy(pair=0.5), draft("NO GOOD")),
    ):
        with pytest.raises(InputError):
            work()
    assert (registry.stacks(), registry.policy_record()) == ((before,), None)
    verify_log(registry)


GOOD_NAMES = ["a", "brand", "EU-artists_2026.1", "x" * 64, "face", "deadbeet", "abc"]
BAD_NAMES = ["", "1st", "-x", ".x", "_x", "x" * 65, "a b", "a/b", "@x", "é", "a\n", "face1", "ABCD", "dead", "a.lock", "p.JSON"]  # fmt: skip


@pytest.mark.parametrize("name", [n for n in GOOD_NAMES if n != "face"])
def test_names_of_stacks(name: str) -> None:
    check_stack_name(name)


@pytest.mark.parametrize("name", [*BAD_NAMES, "face"])
def test_what_could_be_an_id_or_a_path_is_no_name(name: str) -> None:
    with pytest.raises(InputError, match="stack name"):
        check_stack_name(name)


# --- the policy ------------------------------------------------------------------------------------------------------


def test_a_policy_is_in_force_from_when_it_is_set(registry: Registry) -> None:
    assert (registry.policy(), registry.policy_record()) == (DEFAULT_POLICY, None)
    strict = Policy(pair=0.01, separable=True)
    assert registry.set_policy(strict, draft("policy.set"))
    assert registry.policy() == strict
    record = registry.policy_record()
    assert record is not None
    assert record.digest == digest_policy(strict) == sha256(registry.blobs.read(record.digest))
    assert not registry.set_policy(Policy(separable=True, pair=0.01), draft("policy.set"))
    assert registry.set_policy(DEFAULT_POLICY, draft("policy.set"))
    first, second = registry.entries(newest=False)[-2:]
    default, other = digest_policy(DEFAULT_POLICY), digest_policy(strict)
    assert dict(first.details) == {"before": default, "after": other}
    assert dict(second.details) == {"before": other, "after": default}
    verify_log(registry)


def test_a_policy_whose_file_is_gone_or_changed_is_not_guessed(registry: Registry) -> None:
    registry.set_policy(Policy(pair=0.01), draft("policy.set"))
    record = registry.policy_record()
    assert record is not None
    path = registry.blobs.path(record.digest)
    path.chmod(0o600)
    path.write_bytes(Policy(pair=9.0).to_toml().encode())
    with pytest.raises(DigestMismatchError):
        registry.policy()
    path.unlink()
    with pytest.raises(NotFoundError) as caught:
        registry.policy()
    assert caught.value.hint == "rasura policy set FILE"
    assert not registry.set_policy(Policy(pair=0.01), draft("policy.set"))  # which brings the file back
    assert registry.policy() == Policy(pair=0.01)


def test_a_policy_from_a_file(tmp_path: Path, made: Place) -> None:
    path = tmp_path / "policy.toml"
    with pytest.raises(NotFoundError, match="does not exist"):
        read_policy(path)
    path.write_text("[limits]\npair = -1\n")
    with pytest.raises(InputError, match=r"policy\.toml"):
        read_policy(path)
    path.write_text("# ours\n[limits]\npair = 0.01\n")
    with made.open() as registry:
        assert put_in_force(registry, read_policy(path), ALICE)
        assert not put_in_force(registry, Policy(pair=0.01), ALICE)
        assert registry.policy().pair == 0.01


# --- what may be in one ----------------------------------------------------------------------------------------------


@pytest.fixture
def shop(workshop: Workshop) -> Iterator[tuple[Workshop, Registry]]:
    with workshop.open() as opened:
        yield workshop, opened


Shop = tuple[Workshop, Registry]


def test_a_stack_of_what_people_typed(shop: Shop) -> None:
    workshop, registry = shop
    typed = edit.members_of(registry, [workshop.dog[:8], f"{workshop.photo[:6]}=-0.5"])
    assert typed == {workshop.dog: ONE, workshop.photo: Strength(-8)}
    record = edit.create(registry, "brand", typed, ALICE)
    assert dict(record.patches) == {workshop.dog: 16, workshop.photo: -8}
    assert record.base == registry.base("tiny").digest
    record, changed = edit.add(registry, "brand", {workshop.van_gogh: ONE}, ALICE)
    assert (len(record.patches), changed) == (3, True)
    size = len(registry.entries())
    assert edit.add(registry, "brand", {workshop.van_gogh: ONE}, ALICE) == (record, False)
    assert len(registry.entries()) == size
    record, changed = edit.remove(registry, "brand", [workshop.dog, workshop.photo], ALICE)
    assert (dict(record.patches), changed) == ({workshop.van_gogh: 16}, True)
    assert edit.delete(registry, "brand", ALICE) == record
    verify_log(registry)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{dog}=0", StrengthError),
        ("{dog}=0.1", StrengthError),
        ("{dog}=5", StrengthError),
        ("{dog}=", StrengthError),
        ("{dog}=NaN", StrengthError),
        ("ffffffff", NotFoundError),
        ("abc", NotFoundError),
        ("=1", NotFoundError),
        ("{dog} {dog}=2", InputError),
    ],
)
def test_what_nobody_can_mean_is_refused(shop: Shop, text: str, error: type[Exception]) -> None:
    workshop, registry = shop
    with workshop.unchanged(), pytest.raises(error):
        edit.members_of(registry, text.replace("{dog}", workshop.dog).split())


def test_an_ambiguous_id_is_refused(registry: Registry) -> None:
    registry.add_base(base(), draft("base.add"))
    seen: dict[str, str] = {}
    for i in range(2000):  # until two ids begin alike
        name = f"concept {i}"
        if (twin := seen.setdefault(digest(f"patch {name}")[:4], name)) != name:
            break
    for concept in (twin, name):
        add_patch(registry, concept)
    with pytest.raises(AmbiguousIdError):
        edit.members_of(registry, [digest(f"patch {name}")[:4]])


def test_two_versions_of_a_concept_do_not_stand_in_one_stack(shop: Shop) -> None:
    workshop, registry = shop
    both = {workshop.dog: ONE, workshop.rival: ONE}
    with workshop.unchanged(), pytest.raises(ConflictError, match="versions of one concept"):
        edit.create(registry, "brand", both, ALICE)
    edit.create(registry, "brand", {workshop.dog: ONE, workshop.photo: ONE}, ALICE)
    with workshop.unchanged(), pytest.raises(ConflictError, match="a version of the same concept") as caught:
        edit.add(registry, "brand", {workshop.rival: ONE}, ALICE)
    assert caught.value.hint == f"rasura stack add brand {workshop.rival[:12]} --replace"
    with workshop.unchanged(), pytest.raises(ConflictError, match="at another strength"):
        edit.add(registry, "brand", {workshop.photo: Strength(8)}, ALICE)
    record, _ = edit.add(registry, "brand", {workshop.rival: ONE, workshop.photo: Strength(8)}, ALICE, replace_old=True)
    assert dict(record.patches) == {workshop.rival: 16, workshop.photo: 8}
    with workshop.unchanged(), pytest.raises(ConflictError, match="versions of one concept"):
        edit.add(registry, "brand", both, ALICE, replace_old=True)
    with workshop.unchanged(), pytest.raises(NotFoundError, match="has no patch"):
        edit.remove(registry, "brand", [workshop.dog], ALICE)


def test_a_stack_is_of_one_base_that_is_here(registry: Registry, made: Place) -> None:
    with pytest.raises(InputError, match="expected the name of its base"):
        edit.create(registry, "brand", {}, ALICE)
    other = with_manifest(registry, "tree", base_digest=digest("elsewhere"))
    with pytest.raises(NotFoundError, match="not in this registry") as caught:
        edit.create(registry, "brand", {other: ONE}, ALICE)
    assert caught.value.hint == "rasura base add DIR"
    registry.add_base(base(), draft("base.add"))
    assert edit.create(registry, "empty", {}, ALICE).base == base().digest
    mine = with_manifest(registry, "house")
    with pytest.raises(BaseMismatchError, match="expected a patch of base"):
        edit.create(registry, "brand", {mine: ONE, other: ONE}, ALICE)
    edit.create(registry, "brand", {mine: ONE}, ALICE, base="sd14")
    with pytest.raises(BaseMismatchError):
        edit.add(registry, "brand", {other: ONE}, ALICE)
    registry.add_base(base("sd15"), draft("base.add"))
    with pytest.raises(InputError, match="got none of 2"):
        edit.create(registry, "third", {}, ALICE)
    assert edit.create(registry, "third", {}, ALICE, base="sd15").base == base("sd15").digest


# --- versions --------------------------------------------------------------------------------------------------------


@pytest.fixture
def based(registry: Registry) -> Registry:
    registry.add_base(base(), draft("base.add"))
    return registry


def test_a_stack_is_brought_up_to_date(based: Registry) -> None:
    first = with_manifest(based, "dog", age=1)
    other = with_manifest(based, "cat", age=2)
    second = with_manifest(based, "Dog ", first, age=3)
    third = with_manifest(based, "hound", second, age=4)
    edit.create(based, "brand", {first: Strength(8), other: ONE}, ALICE)
    with pytest.raises(ConflictError):
        edit.add(based, "brand", {third: ONE}, ALICE)  # another concept, but a later version by way of another
    record, moved = edit.update(based, "brand", ALICE)
    assert dict(record.patches) == {third: 8, other: 16}
    assert moved == (edit.Update(first, third),)
    size = len(based.entries())
    assert edit.update(based, "brand", ALICE) == (record, ())
    assert len(based.entries()) == size
    verify_log(based)


def test_of_two_successors_the_one_registered_last_is_the_newest(based: Registry) -> None:
    first = with_manifest(based, "dog")
    with_manifest(based, "dog", first, age=5)
    last = with_manifest(based, "dog", first, age=9)
    with_manifest(based, "dog", first, age=7)
    assert Versions.of(based, base().digest).newest(first) == last


def test_references_to_patches_that_were_never_here_lead_nowhere(based: Registry) -> None:
    gone = PatchId(digest("gone"))
    orphan = with_manifest(based, "dog", gone)
    versions, unheard = Versions.of(based, base().digest), PatchId(digest("unheard of"))
    assert versions.newest(gone) == orphan
    assert versions.newest(orphan) == orphan
    assert versions.newest(unheard) == unheard


def test_two_patches_that_one_supersedes_become_one(based: Registry) -> None:
    dog, cat = with_manifest(based, "dog", age=1), with_manifest(based, "cat", age=2)
    both = with_manifest(based, "pets", dog, cat, age=3)
    edit.create(based, "brand", {dog: ONE, cat: ONE}, ALICE)
    assert dict(edit.update(based, "brand", ALICE)[0].patches) == {both: 16}
    edit.create(based, "other", {dog: ONE, cat: Strength(8)}, ALICE)
    with pytest.raises(ConflictError, match="of different strengths"):
        edit.update(based, "other", ALICE)


@given(st.dictionaries(st.integers(0, 12), st.lists(st.integers(0, 12), max_size=3), max_size=12))
def test_any_web_of_references_ends(edges: dict[int, list[int]]) -> None:
    """Circles too, which content addressing cannot make."""
    names = {i: PatchId(digest(i)) for i in range(13)}
    records = {name: replace(patch(str(i)), patch_id=name) for i, name in names.items()}
    later = {names[old]: tuple(names[new] for new in news) for old, news in edges.items()}
    versions = Versions(records, {name: frozenset({name}) for name in records}, later)
    for name in names.values():
        assert versions.newest(name) in records
        assert versions.newest(name) in {name, *versions.after(name)}
        assert name not in versions.after(name)


def test_a_long_chain_is_walked_without_recursion() -> None:
    chain = [PatchId(digest(i)) for i in range(20_000)]
    records: dict[PatchId, PatchRecord] = {name: replace(patch(), patch_id=name) for name in (chain[0], chain[-1])}
    later = {old: (new,) for old, new in itertools.pairwise(chain)}
    assert Versions(records, {}, later).newest(chain[0]) == chain[-1]
