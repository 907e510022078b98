# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""Erasing for the registry: what is made, what is logged, and that a refusal registers nothing."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.models.tiny import tiny_model
from support.registries.workshop import SPEC, Workshop, copy_of, request_for, silent, workshop, workshop_template

from rasura.patches.algebra.rank_rule import RankRule
from rasura.patches.checks.check import Accepted, Member, check
from rasura.patches.errors import (
    DigestMismatchError,
    ErasureRefusedError,
    ExistsError,
    InputError,
    NotFoundError,
    RasuraError,
    RegistryError,
    RevokedKeyError,
)
from rasura.patches.prompts.concept_prompts import Target
from rasura.registry._storage.digests import sha256
from rasura.registry._storage.records.records import Draft
from rasura.registry.erase.erase import Erased, erase
from rasura.registry.log.verify import verify_log
from rasura.registry.registry import Registry
from rasura.registry.trust.keys.key_files import make_key
from rasura.registry.trust.verified_patch import load_verified, manifest_of

DRAFT = Draft("bob", "takedown 12", "patch.erase", "success")
OF = Target("of", "cat")


@pytest.fixture
def registry(workshop: Workshop) -> Iterator[Registry]:
    with workshop.open() as opened:
        yield opened


def run(registry: Registry, *targets: Target, base: str = "tiny", key: str | None = None) -> tuple[Erased, ...]:
    return erase(registry, base, request_for(*targets), key=key, protect=(), draft=DRAFT, progress=silent)


def test_one_patch_a_concept_registered_and_logged(workshop: Workshop, registry: Registry) -> None:
    size = len(workshop.entries())
    made = run(registry, OF, Target("van", "painting"))
    assert [item.new for item in made] == [True, True]
    for item, concept in zip(made, ("of", "van"), strict=True):
        record = registry.patch(item.patch.patch_id)
        assert (record.concepts, record.base) == ((concept,), registry.base("tiny").digest)
        assert record.key_id == registry.key("alice").key_id
        assert record.source == "erased from tiny"
        assert load_verified(registry, item.patch.patch_id).files() == item.patch.files()
    entries = workshop.entries()[size:]
    assert [(e.actor, e.reason, e.outcome) for e in entries] == [("bob", "takedown 12", "success")] * 2
    assert [e.patches for e in entries] == [(item.patch.patch_id,) for item in made]
    verify_log(registry)


def test_the_same_request_gives_the_same_patch(workshop: Workshop, registry: Registry) -> None:
    (first,) = run(registry, OF)
    with workshop.unchanged():
        (second,) = run(registry, OF)
    assert (first.new, second.new) == (True, False)
    assert first.patch.patch_id == second.patch.patch_id


def test_protected_patches_stay_untouched(workshop: Workshop, registry: Registry) -> None:
    request = request_for(Target("cat", "a"))
    made = erase(registry, "tiny", request, key=None, protect=[workshop.dog], draft=DRAFT, progress=silent)
    manifest = manifest_of(registry, made[0].patch.patch_id)
    assert manifest.protected.patches == (workshop.dog,)

    pair = [Member(load_verified(registry, workshop.dog)), Member(made[0].patch)]
    verdict = check(pair)
    touched = [r.value for r in verdict.relations if r.check == "pair" and r.patch == made[0].patch.patch_id]
    assert touched[0] < 0.05


def test_a_new_folder_is_registered_on_the_way(workshop: Workshop, registry: Registry, tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "fresh", replace(SPEC, seed=3))
    (made,) = run(registry, OF, base=str(folder))
    assert registry.base("fresh").digest == made.patch.manifest.base.sha256
    actions = [e.action for e in registry.entries(limit=2)]
    assert actions == ["patch.erase", "base.add"]


def test_what_the_mathematics_refuses(workshop: Workshop, registry: Registry) -> None:
    request = replace(request_for(Target("dog", "cat")), rule=RankRule("count", 1000))
    retain = replace(request.retain, concepts=tuple("abcdefghijklmnopqrstuvwxyz")) if request.retain else None
    with workshop.unchanged("refused erasure_refused"), pytest.raises(ErasureRefusedError):
        erase(
            registry,
            "tiny",
            replace(request, retain=retain),
            key=None,
            protect=(),
            draft=DRAFT,
            progress=silent,
        )
    entry = workshop.entries()[-1]
    assert (entry.details["base"], entry.details["concepts"], entry.reason) == ("tiny", "dog", "takedown 12")


@pytest.mark.parametrize(
    ("damage", "error", "outcome"),
    [
        ("unwritable", RegistryError, "failed"),
        ("damaged", DigestMismatchError, "refused"),
        ("conflict", ExistsError, "refused"),
    ],
)
def test_where_the_second_of_two_fails_neither_is_registered(
    workshop: Workshop, tmp_path: Path, damage: str, error: type[RasuraError], outcome: str
) -> None:
    """What the second patch will be is known from a twin of the registry, where nothing stands in its way."""
    with copy_of(workshop_template(), tmp_path / "twin").open() as twin:
        second = run(twin, OF, Target("van", "painting"))[1].patch.patch_id
        record, files = twin.patch(second), twin.patch_files(second)
    with workshop.open() as registry:
        manifest = registry.blobs.path(record.files["manifest.json"])
        if damage == "unwritable":
            manifest.mkdir(parents=True)
        elif damage == "damaged":
            manifest.parent.mkdir(exist_ok=True)
            manifest.write_bytes(b"{}")
        else:  # the same identity with another manifest
            other = {**files, "manifest.json": b"{}"}
            digests = {name: sha256(data) for name, data in other.items()}
            alike = replace(record, files=digests, size=sum(map(len, other.values())), retain_set=None, basis=None)
            registry.add_patch(alike, other, DRAFT)
    tables, size = workshop.tables(), len(workshop.entries())
    with workshop.open() as registry:
        with pytest.raises(error):
            run(registry, OF, Target("van", "painting"))
        verify_log(registry)
    assert workshop.tables() == tables
    (entry,) = workshop.entries()[size:]
    assert (entry.action, entry.outcome, entry.error) == ("patch.erase", outcome, error.code)
    assert entry.details == {"base": "tiny", "concepts": "of; van"}


def test_no_such_base_key_or_patch(workshop: Workshop, registry: Registry) -> None:
    with workshop.unchanged("failed not_found"), pytest.raises(NotFoundError):
        run(registry, OF, base="nothing")
    with workshop.unchanged("failed not_found"), pytest.raises(NotFoundError):
        run(registry, OF, key="nobody")
    make_key(registry, "bob", Draft("bob", "", "key.add", "success"))
    with workshop.unchanged("failed input"), pytest.raises(InputError, match="several keys"):
        run(registry, OF)
    registry.revoke_key("bob", registry.now(), Draft("bob", "", "key.revoke", "success"))
    with workshop.unchanged("refused revoked_key"), pytest.raises(RevokedKeyError):
        run(registry, OF, key="bob")
    assert run(registry, OF)[0].new


def test_with_another_key_the_first_signature_stays(workshop: Workshop, registry: Registry) -> None:
    """Signing again is no new patch: identity is the content, not who vouches for it."""
    make_key(registry, "bob", Draft("bob", "", "key.add", "success"))
    alice = run(registry, OF, key="alice")[0]
    bob = run(registry, OF, key="bob")[0]
    assert (alice.patch.patch_id, bob.new) == (bob.patch.patch_id, False)
    assert registry.patch(bob.patch.patch_id).key_id == registry.key("alice").key_id
