"""Across sites: what is checked again behind a patched text encoder is what dense arithmetic gives on what it encodes."""

import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.registries.workshop import Workshop, copy_of, request_for, silent, workshop_template

from rasura.patches.algebra.compose import compose, layers_of
from rasura.patches.algebra.increment import Increment
from rasura.patches.algebra.strength import ONE, Strength
from rasura.patches.checks.across import Across, reads_across_sites, with_across
from rasura.patches.checks.check import Accepted, Member, check
from rasura.patches.checks.policy import Policy
from rasura.patches.checks.verdict import Refused
from rasura.patches.erasers.text_encoder.clip_null_space import ClipNullSpace
from rasura.patches.models.text_encoders.hidden_states import copy_encoder
from rasura.patches.models.text_encoders.load_encoder import put_back
from rasura.patches.models.text_encoders.text_encoder import TextEncoder
from rasura.patches.prompts.concept_prompts import Target, prompts_of
from rasura.patches.types import ParamName
from rasura.registry._storage.records.records import Draft
from rasura.registry.erase.base_models import add_base
from rasura.registry.erase.erase import erase
from rasura.registry.registry import Registry
from rasura.registry.trust.check import judge_registered
from rasura.registry.trust.encoder_check import look_across
from rasura.registry.trust.keys.key_files import make_key
from rasura.registry.trust.verified_patch import load_verified

LOOSE = Policy(pair=1e9, stack=1e9, own=1e9, site=1e9)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """A workshop that also has a patch which erases "tree" from the text encoder: the photo's patch in its place."""
    made = copy_of(workshop_template(), tmp_path_factory.mktemp("sites") / "workshop")
    with made.open() as registry:
        request = replace(request_for(Target("painting", "a")), eraser=ClipNullSpace(), layers="auto")
        draft = Draft("alice", "", "patch.erase", "success")
        (found,) = erase(registry, "tiny", request, key=None, protect=(), draft=draft, progress=silent)
    return replace(made, rival=found.patch.patch_id)


@pytest.fixture
def workshop(prepared: Workshop, tmp_path: Path) -> Workshop:
    return replace(copy_of(prepared, tmp_path / "a b"), rival=prepared.rival)


@pytest.fixture
def registry(workshop: Workshop) -> Iterator[Registry]:
    with workshop.open() as opened:
        yield opened


@pytest.fixture
def stack(registry: Registry, workshop: Workshop) -> list[Member]:
    """A dog and a van gogh in cross-attention, and a painting in the text encoder."""
    chosen = ((workshop.dog, 16), (workshop.van_gogh, 8), (workshop.rival, 16))
    return [Member(load_verified(registry, patch_id), Strength(s)) for patch_id, s in chosen]


def dense(stack: list[Member], names: list[ParamName], inputs: torch.Tensor, workshop: Workshop) -> list[torch.Tensor]:
    """(W + Σ s Δ) X, parameter by parameter."""
    weights = workshop.host().originals(names)
    found = []
    for name in names:
        total = weights[name].double()
        for member in stack:
            if name in member.patch.tensors.increments:
                total = total + member.patch.tensors.increments[name].dense(member.strength)
        found.append(total @ inputs)
    return found


def encoders(stack: list[Member], workshop: Workshop) -> tuple[TextEncoder, TextEncoder]:
    """Pristine, and with the stack's patches of the text encoder."""
    pristine, host = TextEncoder.load(workshop.model), workshop.host()
    layers = [
        layer
        for layer in layers_of((m.patch.tensors.increments, m.strength) for m in stack)
        if layer.name.startswith("text_encoder.")
    ]
    originals = host.originals(layer.name for layer in layers)
    module = copy_encoder(pristine.module)
    put_back(module, {layer.name: compose(originals[layer.name], layer.terms) for layer in layers})
    return pristine, pristine.with_modules({"text_encoder": module})


def last(encoder: TextEncoder, concept: str) -> torch.Tensor:
    """[d, 2]: the concept's last token in both templates of the workshop."""
    prompts = prompts_of(concept, ("{}", "a {}"))
    hidden = encoder.encode_all(prompts)
    return torch.stack([hidden[i, encoder.subject(p, concept)[-1]] for i, p in enumerate(prompts)], dim=1)


def norm(parts: list[torch.Tensor]) -> float:
    return math.sqrt(sum(float(part.square().sum()) for part in parts))


def numbers(found: Across, kind: str) -> dict[tuple[str, str], float]:
    return {(r.patch, r.other): r.value for r in found.relations if r.check == kind}


def test_the_numbers_are_what_dense_arithmetic_gives(
    registry: Registry, workshop: Workshop, stack: list[Member]
) -> None:
    dog, van_gogh, painting = stack
    found = look_across(registry, stack, LOOSE)
    assert found.unknown == ()
    pristine, moved = encoders(stack, workshop)
    names = sorted(dog.patch.tensors.increments)
    T, there, goal = last(pristine, "dog"), last(moved, "dog"), last(pristine, "cat")
    wanted = dense([], names, goal, workshop)
    asked = norm([a - b for a, b in zip(wanted, dense([], names, T, workshop), strict=True)])
    rest = [
        norm([a - b for a, b in zip(dense([dog, van_gogh], names, X, workshop), wanted, strict=True)]) / asked
        for X in (T, there)
    ]
    site = numbers(found, "site")[painting.patch_id, dog.patch_id]
    assert site == pytest.approx(max(0.0, rest[1] - rest[0]), rel=1e-4, abs=1e-6)
    moved_pair = numbers(found, "moved-pair")
    effect = norm([dog.patch.tensors.increments[n].dense() @ T for n in names])
    disturbed = norm([van_gogh.patch.tensors.increments[n].dense() @ there * 0.5 for n in names])
    assert moved_pair[van_gogh.patch_id, dog.patch_id] == pytest.approx(disturbed / effect, rel=1e-3)
    shift = last(moved, "painting") - last(pristine, "painting")
    unit = norm(dense([], names, shift, workshop))
    on = norm([dog.patch.tensors.increments[n].dense() @ last(moved, "painting") for n in names])
    assert moved_pair[dog.patch_id, painting.patch_id] == pytest.approx(on / unit, rel=1e-3)
    assert set(moved_pair) == {
        (van_gogh.patch_id, dog.patch_id),
        (dog.patch_id, van_gogh.patch_id),
        (dog.patch_id, painting.patch_id),
        (van_gogh.patch_id, painting.patch_id),
    }


def test_leaks_are_those_on_the_retained_prompts_encoded_again(
    registry: Registry, workshop: Workshop, stack: list[Member]
) -> None:
    dog = stack[0]
    found = numbers(look_across(registry, stack, LOOSE), "moved-own")[dog.patch_id, dog.patch_id]
    names = sorted(dog.patch.tensors.increments)
    kept = [p for c in ("painting", "cat", "a", "the") for p in prompts_of(c, ("{}", "a {}"))]
    leaks = []
    for encoder in encoders(stack, workshop):
        tokens = encoder.encode_all(kept).flatten(0, 1).T
        changed = norm([dog.patch.tensors.increments[n].dense() @ tokens for n in names])
        leaks.append(changed / norm(dense([], names, tokens, workshop)))
    assert found == pytest.approx(max(0.0, leaks[1] - leaks[0]), rel=1e-6)


def test_an_encoder_that_no_patch_moves_adds_nothing(registry: Registry, stack: list[Member]) -> None:
    dog, van_gogh, painting = stack
    still = {name: Increment(i.A, torch.zeros_like(i.B)) for name, i in painting.patch.tensors.increments.items()}
    idle = Member(replace(painting.patch, arrays=replace(painting.patch.arrays, increments=still)))
    found = look_across(registry, [dog, van_gogh, idle], LOOSE)
    for kind in ("site", "moved-own", "moved-stack"):
        assert set(numbers(found, kind).values()) == {0.0}
    before = {(r.patch, r.other): r.value for r in check([dog, van_gogh], LOOSE).relations if r.check == "pair"}
    moved = numbers(found, "moved-pair")
    assert all(moved[pair] == pytest.approx(value, rel=1e-3) for pair, value in before.items())


def test_stacks_on_one_side_have_nothing_to_check_again(registry: Registry, stack: list[Member]) -> None:
    assert not reads_across_sites(stack[:2])
    assert look_across(registry, stack[:2], Policy()) == Across()
    assert look_across(registry, stack[2:], Policy()) == Across()


def test_a_relation_over_its_limit_refuses_and_says_what_to_do(
    registry: Registry, workshop: Workshop, stack: list[Member]
) -> None:
    found = look_across(registry, stack, Policy(site=0.0, pair=0.0, stack=0.0))
    verdict = with_across(check(stack[:1]), found, stack)
    assert isinstance(verdict, Refused)
    texts = [reason.text for reason in verdict.reasons]
    assert any("behind the patched text encoder" in text for text in texts)
    assert all(reason.hint.startswith("rasura ") for reason in verdict.reasons)
    assert numbers(found, "site")[workshop.rival, workshop.dog] > 0
    site = next(r for r in verdict.reasons if "undo" in r.text and "(dog)" in r.text)
    assert site.hint == f"rasura patch rebase {workshop.rival[:12]} --protect {workshop.dog[:12]}"
    assert isinstance(with_across(check(stack[:1]), Across(), stack), Accepted)


def test_words_that_are_not_here_are_named_and_the_null_prompt_is_still_judged(
    registry: Registry, workshop: Workshop, stack: list[Member]
) -> None:
    retain = stack[0].patch.manifest.protected.retain
    assert retain is not None
    registry.blobs.path(retain.sha256).unlink()
    found = look_across(registry, stack, LOOSE)
    assert set(found.unknown) == {workshop.dog, workshop.van_gogh}
    assert numbers(found, "moved-own").keys() == {(p, p) for p in found.unknown}


def test_without_the_bases_folder_nothing_is_assumed(tmp_path: Path) -> None:
    """The model was moved: a stack of both kinds is refused until the base is registered where it is."""
    model = shutil.copytree(workshop_template().model, tmp_path / "model")
    with Registry.create(tmp_path / "new", actor="alice") as registry:
        make_key(registry, "alice", drafted("key.add"))
        add_base(registry, model, "here", drafted("base.add"), silent)
        ask = {"key": None, "protect": (), "draft": drafted("patch.erase"), "progress": silent}
        encoder = replace(request_for(Target("painting", "a")), eraser=ClipNullSpace(), layers="auto")
        made = [erase(registry, "here", r, **ask)[0] for r in (request_for(Target("dog", "cat")), encoder)]  # type: ignore[arg-type]
        wanted = dict.fromkeys((item.patch.patch_id for item in made), ONE)
        assert isinstance(judge_registered(registry, wanted, LOOSE).verdict, Accepted)
        model.rename(tmp_path / "elsewhere")
        verdict = judge_registered(registry, wanted, LOOSE).verdict
        assert isinstance(verdict, Refused)
        assert verdict.reasons[-1].hint == "rasura base add DIR"
        alone = judge_registered(registry, dict.fromkeys(list(wanted)[:1], ONE), LOOSE)
        assert isinstance(alone.verdict, Accepted)


def drafted(action: str) -> Draft:
    return Draft("alice", "", action, "success")
