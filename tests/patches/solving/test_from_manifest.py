"""A request made again from a manifest gives the same patch."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.values.factories import TinyBase, World, tiny_request

from rasura.patches.algebra.rank_rule import RankRule
from rasura.patches.erasers.catalogue import METHODS, eraser
from rasura.patches.erasers.closed_form.null_space import NullSpace
from rasura.patches.erasers.options import encode_options
from rasura.patches.erasers.request import EraseRequest
from rasura.patches.errors import ConceptError, InputError
from rasura.patches.format.manifest import Manifest
from rasura.patches.format.manifest_parts import EraserSpec
from rasura.patches.format.patch import Patch
from rasura.patches.solving.from_manifest import eraser_of, is_trained, request_of

METHODS_AND_CHOICES = [
    ("null-space", {"ridge": "0.0123456789"}),
    ("span", {"rounds": "1", "words": "6", "left": "0.5"}),
    ("joint", {"words": "4", "sentences": "2", "contexts": "2"}),
    ("speed", {"seed": "7"}),
    ("uce", {"variant": "2023"}),
    ("rece", {}),
    ("clip-null-space", {}),
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyBase:
    return TinyBase.at(tmp_path_factory.mktemp("again") / "model")


def same_increments(one: Patch, other: Patch) -> bool:
    mine, its = one.tensors.increments, other.tensors.increments
    return list(mine) == list(its) and all(
        torch.equal(mine[n].A, its[n].A) and torch.equal(mine[n].B, its[n].B) for n in mine
    )


def made_by(name: str, settings: dict[str, str]) -> EraseRequest:
    method = eraser(name, settings)
    layers = "auto" if name == "clip-null-space" else "kv"
    return tiny_request("dog", eraser=method, layers=layers, tokens="last", rule=RankRule("count", 7))


@pytest.mark.parametrize(("name", "settings"), METHODS_AND_CHOICES)
def test_solved_again_bit_for_bit(tiny: TinyBase, name: str, settings: dict[str, str]) -> None:
    asked = made_by(name, settings)
    (patch,) = tiny.build(asked)
    request = request_of([patch.manifest], asked.retain)
    (again,) = tiny.build(request)
    assert same_increments(patch, again)
    assert again.manifest.supersedes == (patch.patch_id,)
    assert again.patch_id != patch.patch_id
    assert replace(again.manifest, supersedes=()) == patch.manifest


def test_a_joint_patch_keeps_its_prompts(tiny: TinyBase) -> None:
    """Templates and names of the whole request are remembered, so that the retained moment is the same."""
    asked = tiny_request("dog", "van gogh")
    asked = replace(asked, targets=(replace(asked.targets[0], templates=("the {}",)), asked.targets[1]))
    dog, van_gogh = tiny.build(asked)
    for patch in (dog, van_gogh):
        again = request_of([patch.manifest], asked.retain)
        assert list(again.retained_prompts()) == list(asked.retained_prompts())
        assert list(again.held_out_prompts()) == list(asked.held_out_prompts())
    both = request_of([dog.manifest, van_gogh.manifest], asked.retain)
    for old, new in zip((dog, van_gogh), tiny.build(both), strict=True):
        assert same_increments(old, new)
        assert new.manifest.supersedes == (old.patch_id,)


@cache
def manifest() -> Manifest:
    world = World()
    return world.erase(world.columns("dog", 1))[0].manifest


def with_options(**options: str) -> Manifest:
    own = {"layers": "kv", **encode_options(NullSpace()), **options}
    found = manifest()
    return replace(found, eraser=EraserSpec("null-space", own))


def test_choices_that_this_program_does_not_know() -> None:
    with pytest.raises(InputError, match="energy, guard, rank_limit, ridge came later"):
        request_of([manifest()], None)
    with pytest.raises(InputError, match="softness is no longer known"):
        request_of([with_options(softness="1")], None)
    with pytest.raises(InputError, match="no method is called"):
        request_of([replace(manifest(), eraser=EraserSpec("alchemy", {"layers": "kv"}))], None)
    assert request_of([with_options(derived="retargeted")], None).eraser == NullSpace()


def test_what_differs_is_named() -> None:
    one = with_options()
    other = replace(one, concept=replace(one.concept, text="cat", tokens="tail"), licence="MIT")
    with pytest.raises(InputError, match="expected the same tokens and licence, got last and tail;") as caught:
        request_of([one, other], None)
    assert caught.value.details["differing"] == ["tokens", "licence"]
    loose = with_options(ridge="0.5")
    with pytest.raises(InputError, match=r"the same ridge, got 0\.01 and 0\.5"):
        request_of([one, replace(loose, concept=replace(loose.concept, text="cat"))], None)
    with pytest.raises(ConceptError, match="named twice"):
        request_of([one, one], None)


def test_which_are_trained() -> None:
    names = {name for name in METHODS if is_trained(EraserSpec(name, {}))}
    assert names == {"sepme", "all-but-one"}
    assert is_trained(EraserSpec("clip-null-space", {"values": "guided"}))
    assert not is_trained(EraserSpec("clip-null-space", {"values": "states"}))


@given(st.floats(1e-9, 0.999), st.integers(1, 1024))
def test_choices_come_back_exactly(ridge: float, limit: int) -> None:
    method = NullSpace(ridge=ridge, rank_limit=limit)
    spec = EraserSpec("null-space", {"layers": "v", **encode_options(method)})
    assert eraser_of(spec) == method
    assert RankRule.parse(str(RankRule("relative", ridge))) == RankRule("relative", ridge)
