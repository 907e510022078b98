# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""Patches solved anew: what is gained, what the registry and its log say, and that a refusal registers nothing."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.models.tiny import tiny_model
from support.registries.workshop import (
    ALICE,
    SPEC,
    Workshop,
    copy_of,
    erased,
    request_for,
    silent,
    workshop,
    workshop_template,
)

from rasura.patches.checks.check import Accepted, Member, check
from rasura.patches.checks.kernels.disturbance import measure_disturbance
from rasura.patches.checks.policy import Policy
from rasura.patches.erasers.catalogue import eraser
from rasura.patches.errors import (
    BaseMismatchError,
    DigestMismatchError,
    ErasureRefusedError,
    InputError,
    NotFoundError,
    RegistryError,
)
from rasura.patches.format.patch import Patch
from rasura.patches.prompts.concept_prompts import Target
from rasura.patches.prompts.retain_set import RetainSet
from rasura.patches.types import PatchId
from rasura.registry._storage.records.records import Draft
from rasura.registry.erase.base_models import add_base
from rasura.registry.erase.erase import Erased, erase
from rasura.registry.erase.rebase import Anew, Resolved, find_all_others, join, rebase
from rasura.registry.log.verify import verify_log
from rasura.registry.registry import Registry
from rasura.registry.stacks.policy_file import put_in_force
from rasura.registry.trust.verified_patch import load_verified, manifest_of

REBASE = Draft("bob", "collision", "patch.rebase", "success")
JOIN = replace(REBASE, action="patch.join")


@pytest.fixture
def registry(workshop: Workshop) -> Iterator[Registry]:
    with workshop.open() as opened:
        yield opened


def again(registry: Registry, *ids: PatchId, how: Anew | None = None) -> tuple[Resolved, ...]:
    return rebase(registry, ids, how or Anew(), REBASE, silent)


def alone(registry: Registry, concept: str, anchor: str = "cat") -> PatchId:
    (found,) = erased(registry, Target(concept, anchor))
    return found


def same_increments(one: Patch, other: Patch) -> bool:
    mine, its = one.tensors.increments, other.tensors.increments
    return list(mine) == list(its) and all(
        torch.equal(mine[n].A, its[n].A) and torch.equal(mine[n].B, its[n].B) for n in mine
    )


def test_onto_nothing_gives_the_same_increments(workshop: Workshop, registry: Registry) -> None:
    (made,) = again(registry, workshop.rival)
    old = load_verified(registry, workshop.rival)
    assert same_increments(old, made.patch)
    assert made.new
    old_held_out = {"leak_held_out": made.before["leak_held_out"]}  # on the words of today
    assert made.patch.manifest.measured == made.before == {**old.manifest.measured, **old_held_out}
    expected = replace(old.manifest, supersedes=(workshop.rival,), measured=made.before)
    assert made.patch.manifest == expected
    assert (made.pairs, made.lost) == ((), ())
    (twice,) = again(registry, workshop.rival)
    assert (twice.new, twice.patch.patch_id) == (False, made.patch.patch_id)


def test_beside_another_patch(workshop: Workshop, registry: Registry) -> None:
    photo, of = alone(registry, "photo"), alone(registry, "of")
    size = len(workshop.entries())
    (made,) = again(registry, photo, how=Anew(protect=(of,)))
    manifest = made.patch.manifest
    assert (manifest.supersedes, manifest.protected.patches) == ((photo,), (of,))
    assert int(manifest.measured["protected"]) > int(made.old.manifest.measured["protected"])
    (pair,) = made.pairs
    assert (pair.other, pair.concept) == (of, "of")
    assert None not in {pair.before, pair.after}
    assert (pair.before or 0) > 0.1
    assert (pair.after or 1) < 0.02
    record = registry.patch(made.patch.patch_id)
    assert (record.source, record.concepts) == (f"rebase of {photo[:12]}", ("photo",))
    (entry,) = workshop.entries()[size:]
    assert (entry.action, entry.outcome, entry.actor) == ("patch.rebase", "success", "bob")
    assert entry.details == {"supersedes": photo, "protects": 1}
    assert registry.patch(photo).patch_id == photo  # nothing is changed
    verify_log(registry)


def test_several_leave_each_other_alone(workshop: Workshop, registry: Registry) -> None:
    ids = alone(registry, "photo"), alone(registry, "of"), alone(registry, "van", "painting")
    before = [
        measure_disturbance(load_verified(registry, p), load_verified(registry, q)) for p in ids for q in ids if p != q
    ]
    made = again(registry, *ids)
    after = [measure_disturbance(p.patch, q.patch) for p in made for q in made if p is not q]
    assert max(filter(None, before)) > 0.1
    assert max(filter(None, after)) < 0.05
    for item in made:
        others = [other for other in made if other is not item]
        # Each names what the others supersede: that is how mutual protection is told from manifests.
        assert set(item.patch.manifest.protected.patches) == {i for o in others for i in o.patch.manifest.supersedes}
        assert len(item.pairs) == 2
    assert isinstance(check([Member(item.patch) for item in made]), Accepted)


def test_what_was_protected_stays_so(workshop: Workshop, registry: Registry) -> None:
    """Patches of one request, known from then on by their ids, and patches that were named; until they are dropped."""
    of = alone(registry, "of")
    (made,) = again(registry, workshop.dog, how=Anew(protect=(of,)))
    assert set(made.patch.manifest.protected.patches) == {workshop.van_gogh, workshop.photo, of}
    assert made.lost == ()
    newest = made.patch.patch_id
    (kept,) = again(registry, newest)
    assert kept.patch.manifest.protected.patches == made.patch.manifest.protected.patches
    (less,) = again(registry, newest, how=Anew(drop=(of, workshop.photo)))
    assert less.patch.manifest.protected.patches == (workshop.van_gogh,)
    assert less.patch.manifest.supersedes == (newest,)


def test_of_all_others_only_those_that_can_be_left_alone(
    workshop: Workshop, registry: Registry, tmp_path: Path
) -> None:
    of = alone(registry, "of")
    (newer,) = again(registry, of)
    add_base(registry, tiny_model(tmp_path / "other", replace(SPEC, seed=3)), "other", REBASE, silent)
    erased(registry, Target("of", "cat"), base="other")
    found = find_all_others(registry, [workshop.rival])
    assert set(found) == {workshop.van_gogh, workshop.photo, newer.patch.patch_id}


def test_refusals_register_nothing(workshop: Workshop, registry: Registry, tmp_path: Path) -> None:
    add_base(registry, tiny_model(tmp_path / "other", replace(SPEC, seed=3)), "other", REBASE, silent)
    (foreign,) = erased(registry, Target("dog", "cat"), base="other")
    with workshop.unchanged("refused erasure_refused"), pytest.raises(ErasureRefusedError, match="lies inside"):
        again(registry, workshop.rival, how=Anew(protect=(workshop.dog,)))
    with workshop.unchanged("refused base_mismatch"), pytest.raises(BaseMismatchError, match="of one base"):
        again(registry, workshop.rival, foreign)
    with workshop.unchanged("refused base_mismatch"), pytest.raises(BaseMismatchError, match="text encoder"):
        again(registry, workshop.rival, how=Anew(protect=(foreign,)))
    with workshop.unchanged("failed input"), pytest.raises(InputError, match="named twice"):
        again(registry, workshop.rival, workshop.rival)
    entry = workshop.entries()[-1]
    assert (entry.action, entry.patches) == ("patch.rebase", (workshop.rival,))
    # The second of two is refused: the first is not registered either.
    photo = alone(registry, "photo")
    with workshop.unchanged("refused erasure_refused"), pytest.raises(ErasureRefusedError):
        again(registry, photo, workshop.rival, how=Anew(protect=(workshop.dog,)))


def test_where_the_second_cannot_be_stored_the_first_is_not_registered(
    workshop: Workshop, registry: Registry, tmp_path: Path
) -> None:
    with copy_of(workshop_template(), tmp_path / "twin").open() as twin:
        second = again(twin, workshop.van_gogh, workshop.photo)[1].patch.patch_id
        files = twin.patch(second).files
    registry.blobs.path(files["manifest.json"]).mkdir(parents=True)
    tables, size = workshop.tables(), len(workshop.entries())
    with pytest.raises(RegistryError):
        again(registry, workshop.van_gogh, workshop.photo)
    assert workshop.tables() == tables
    (entry,) = workshop.entries()[size:]
    assert (entry.action, entry.outcome, entry.error) == ("patch.rebase", "failed", "registry")
    assert entry.patches == (workshop.van_gogh, workshop.photo)


def test_without_the_retain_set(workshop: Workshop, registry: Registry, tmp_path: Path) -> None:
    spec = manifest_of(registry, workshop.rival).protected.retain
    assert spec is not None
    registry.blobs.path(spec.sha256).unlink()
    with pytest.raises(NotFoundError, match="retain set"):
        again(registry, workshop.rival)
    file = tmp_path / "retain.txt"
    file.write_text("painting\ncat\na\n")
    with pytest.raises(DigestMismatchError):
        again(registry, workshop.rival, how=Anew(retain=file))
    file.write_text("painting\na dog\ncat\na\nthe\n")
    (made,) = again(registry, workshop.rival, how=Anew(retain=file))
    assert same_increments(load_verified(registry, workshop.rival), made.patch)
    assert registry.blobs.has(spec.sha256)  # from now on it is here


def test_joined_they_are_solved_together(workshop: Workshop, registry: Registry) -> None:
    ids = alone(registry, "photo"), alone(registry, "of")
    made, judged = join(registry, ids, Anew(), JOIN, silent)
    together = erased(registry, Target("photo", "cat"), Target("of", "cat"))
    for item, old, other in zip(made, ids, together, strict=True):
        assert item.patch.manifest.supersedes == (old,)
        assert same_increments(item.patch, load_verified(registry, other))
        assert registry.patch(item.patch.patch_id).source == f"join of {old[:12]}"
    assert [item.patch.manifest.protected.concepts for item in made] == [("of",), ("photo",)]
    for pair in (pair for item in made for pair in item.pairs):
        assert None not in {pair.before, pair.after}
        assert (pair.after or 1) < 0.02 < (pair.before or 0)
    assert judged.condition > 1
    assert set(judged.left) == {"photo", "of"}
    assert isinstance(check([Member(item.patch) for item in made]), Accepted)


def test_each_one_s_own_name_is_no_difference_of_retain_sets(workshop: Workshop, registry: Registry) -> None:
    """Of one file each erasure left out what names its concept; together they leave out both."""
    lines = RetainSet("retain.txt", ("painting", "dog", "a photo", "the"))
    made: list[Erased] = []
    for concept in ("dog", "photo"):
        request = replace(request_for(Target(concept, "cat")), retain=lines.without([concept]))
        made += erase(registry, "tiny", request, key=None, protect=(), draft=REBASE, progress=silent)
    ids = [item.patch.patch_id for item in made]
    joined, _ = join(registry, ids, Anew(), JOIN, silent)
    assert {item.patch.manifest.protected.retain.count for item in joined if item.patch.manifest.protected.retain} == {
        2
    }
    request = replace(request_for(Target("of", "cat")), retain=replace(lines, concepts=("painting",)))
    (odd,) = erase(registry, "tiny", request, key=None, protect=(), draft=REBASE, progress=silent)
    with workshop.unchanged("failed input"), pytest.raises(InputError, match=r"got 2 concepts with .* and 1 with"):
        join(registry, [*ids, odd.patch.patch_id], Anew(), JOIN, silent)


def test_only_what_was_made_alike_is_joined(workshop: Workshop, registry: Registry) -> None:
    photo = alone(registry, "photo")
    request = replace(request_for(Target("of", "cat")), layers="v", tokens="tail")
    (odd,) = erase(registry, "tiny", request, key=None, protect=(), draft=REBASE, progress=silent)
    with workshop.unchanged("failed input"), pytest.raises(InputError, match="the same tokens and layers"):
        join(registry, [photo, odd.patch.patch_id], Anew(), JOIN, silent)
    with workshop.unchanged("failed input"), pytest.raises(InputError, match="two patches or more"):
        join(registry, [photo], Anew(), JOIN, silent)


def test_synonyms_are_not_joined(workshop: Workshop, registry: Registry) -> None:
    """Two names of one concept: their prompts, and so their embeddings, are the same."""
    whole = replace(request_for(Target("dog", "cat")), retain=RetainSet("whole.txt", ("a cat", "the"), whole=True))
    ids = []
    for concept, template in (("dog", "a {}"), ("a dog", "{}"), ("photo", "a {}")):
        request = replace(whole, targets=(Target(concept, "cat"),), templates=(template,))
        ids.append(erase(registry, "tiny", request, key=None, protect=(), draft=REBASE, progress=silent)[0])
    found = [item.patch.patch_id for item in ids]
    with workshop.unchanged("refused erasure_refused"), pytest.raises(ErasureRefusedError, match="be told apart") as no:
        join(registry, found, Anew(), JOIN, silent)
    assert no.value.details["concepts"] == ["dog", "a dog"]
    assert "erase dog, a dog as one concept" in no.value.message
    twice = alone(registry, "dog"), alone(registry, "Dog")
    with workshop.unchanged("failed concept"), pytest.raises(InputError, match="named twice"):
        join(registry, twice, Anew(), JOIN, silent)


def test_a_soft_method_is_solved_anew_and_promises_nothing(workshop: Workshop, registry: Registry) -> None:
    request = replace(request_for(Target("of", "cat")), eraser=eraser("uce", {}))
    (soft,) = erase(registry, "tiny", request, key=None, protect=(), draft=REBASE, progress=silent)
    (made,) = again(registry, soft.patch.patch_id, how=Anew(protect=(workshop.photo,)))
    assert made.patch.manifest.protected.patches == ()
    assert not same_increments(soft.patch, made.patch)


def test_a_trained_patch_is_projected_and_not_joined(workshop: Workshop, registry: Registry) -> None:
    put_in_force(registry, Policy(moved=0.0), ALICE)  # two steps of training hardly erase
    choices = {"steps": "2", "batch": "1", "images": "1", "drawing": "2", "rank": "2", "tau": "-1e9"}
    sepme = eraser("sepme", {**choices, "tau_unit": "absolute"})
    request = replace(request_for(Target("of", "cat")), eraser=sepme, retain=None)
    (made,) = erase(registry, "tiny", request, key=None, protect=(), draft=REBASE, progress=silent)
    old, photo = made.patch.patch_id, alone(registry, "photo")
    (found,) = again(registry, old, how=Anew(protect=(photo,), held_out=request.held_out))
    assert found.patch.manifest.eraser.options["derived"] == "projected"
    assert found.patch.manifest.supersedes == (old,)
    assert (found.pairs[0].after or 1) < 1e-3 < (found.pairs[0].before or 0)
    assert set(found.before) >= {"residual", "leak_held_out", "change_l1"}
    with workshop.unchanged("failed input"), pytest.raises(InputError, match="expected no patches to drop"):
        again(registry, found.patch.patch_id, how=Anew(drop=(photo,)))
    with workshop.unchanged("failed input"), pytest.raises(InputError, match="was trained by sepme"):
        join(registry, [old, photo], Anew(), JOIN, silent)


def test_an_anchor_that_draws_its_target_is_signed_no_second_time(workshop: Workshop, registry: Registry) -> None:
    put_in_force(registry, Policy(alike=1.0), ALICE)
    wide = RetainSet("wide.txt", ("painting", "photo", "a", "the", "van", "gogh"))
    targets = (Target("dog", "dog dog"), Target("of", "cat"))
    made = [
        erase(
            registry, "tiny", replace(request_for(target), retain=wide), key=None, protect=(), draft=REBASE,
            progress=silent,
        )[0].patch.patch_id
        for target in targets
    ]  # fmt: skip
    put_in_force(registry, Policy(alike=0.0), ALICE)
    for solve in (lambda: again(registry, made[0]), lambda: join(registry, made, Anew(), JOIN, silent)):
        with (
            workshop.unchanged("refused erasure_refused"),
            pytest.raises(ErasureRefusedError, match="the anchor is like"),
        ):
            solve()


def test_a_patch_of_the_text_encoder_is_solved_anew(workshop: Workshop, registry: Registry) -> None:
    request = replace(request_for(Target("of", "cat")), eraser=eraser("clip-null-space", {}), layers="auto")
    (inside,) = erase(registry, "tiny", request, key=None, protect=(), draft=REBASE, progress=silent)
    (made,) = again(registry, inside.patch.patch_id, how=Anew(protect=(workshop.photo,)))
    (pair,) = made.pairs
    assert (pair.before, pair.after) == (None, None)  # one reads hidden states, the other text embeddings
    assert made.patch.manifest.supersedes == (inside.patch.patch_id,)
    assert "leak_held_out" not in made.before


def test_for_want_of_room_the_patches_are_named(workshop: Workshop, registry: Registry) -> None:
    """Many tokens of many prompts take most of the 128 dimensions, of which the null prompt has 77."""
    wide = replace(request_for(Target("of", "cat")), tokens="tail", templates=("{}", "a {}", "the {} of", "{} dog cat"))
    (of,) = erase(registry, "tiny", wide, key=None, protect=(), draft=REBASE, progress=silent)
    target = replace(wide, targets=(Target("van", "cat"),))
    (van,) = erase(registry, "tiny", target, key=None, protect=(), draft=REBASE, progress=silent)
    found = of.patch.patch_id, van.patch.patch_id
    with workshop.unchanged("refused erasure_refused"), pytest.raises(ErasureRefusedError, match="takes all 128") as no:
        again(registry, workshop.rival, how=Anew(protect=found))
    assert set(found) == set(no.value.details["guards"])  # type: ignore[call-overload]
    assert f"{found[0][:12]} takes " in no.value.message
    assert "leave out one of these patches" in no.value.message
