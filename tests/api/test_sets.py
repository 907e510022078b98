# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""Sets of patches from Python: a `Stack` wherever a set is wanted, and `all` for whatever can be left alone."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.models.tiny import tiny_model
from support.registries.workshop import SPEC, Workshop, request_for, workshop, workshop_template

import rasura
from rasura.patches.checks.verdict import Accepted
from rasura.patches.errors import BaseMismatchError, InputError, NotFoundError
from rasura.patches.prompts.concept_prompts import Target


@pytest.fixture
def registry(workshop: Workshop) -> Iterator[rasura.Registry]:
    with rasura.open(workshop.folder, actor="bob") as opened:
        yield opened


def stack_of(workshop: Workshop) -> rasura.Stack:
    return rasura.Stack({workshop.dog: rasura.Strength.of("0.5"), workshop.photo: rasura.Strength.of(1)})


def guarded(registry: rasura.Registry, **choices: str | list[str]) -> set[str]:
    """What a new patch of the concept `of` leaves alone."""
    (made,) = registry.erase("tiny", request_for(Target("of", "cat")), **choices)  # type: ignore[arg-type]
    return set(made.patch.manifest.protected.patches)


def test_a_stack_goes_wherever_a_set_goes(workshop: Workshop, registry: rasura.Registry) -> None:
    stack, before = stack_of(workshop), workshop.digests()
    assert isinstance(registry.check(stack).verdict, Accepted)
    planned = registry.plan(workshop.model, stack)
    receipt = registry.switch(workshop.model, stack)
    assert receipt.applied == stack == registry.status(workshop.model).applied
    assert (planned.plan.after.patches, planned.plan.after.state) == (stack, receipt.after)
    made = registry.create_stack("brand", stack)
    assert rasura.Stack.of_sixteenths(made.patches) == stack
    assert dict(registry.switch(workshop.model, registry.status(workshop.model).applied).applied) == dict(stack)
    assert registry.export_kohya(stack) == registry.export_kohya("brand")
    assert registry.revert(workshop.model, stack).pristine
    assert workshop.digests() == before


def test_apply_does_not_lose_strengths(workshop: Workshop, registry: rasura.Registry) -> None:
    with workshop.unchanged(), pytest.raises(InputError, match="a strength each") as refused:
        registry.apply(workshop.model, stack_of(workshop))
    assert refused.value.hint == "registry.switch(stack='STACK', model='MODEL')"
    with workshop.unchanged(), pytest.raises(InputError, match="no patch was named"):
        registry.apply(workshop.model, [])
    with workshop.unchanged(), pytest.raises(InputError, match="no patch was named"):
        registry.revert(workshop.model, [])


def test_all_is_this_base_other_concepts_and_nothing_superseded(
    workshop: Workshop, registry: rasura.Registry, tmp_path: Path
) -> None:
    registry.add_base(tiny_model(tmp_path / "other", replace(SPEC, seed=3)), name="other")
    (foreign,) = registry.erase("other", request_for(Target("dog", "cat")))
    assert guarded(registry) == set()
    assert guarded(registry, protect="all") == {*workshop.all, workshop.rival}
    (newer,) = registry.rebase(workshop.rival)
    both = guarded(registry, protect=["all", workshop.rival])
    assert both == {*workshop.all, workshop.rival, newer.patch.patch_id}
    assert guarded(registry, protect="all") == both - {workshop.rival}
    with pytest.raises(BaseMismatchError, match="text encoder"):
        guarded(registry, protect=[foreign.patch.patch_id])


def test_onto_a_stack(workshop: Workshop, registry: rasura.Registry) -> None:
    registry.create_stack("brand", [workshop.van_gogh, workshop.photo])
    assert guarded(registry, onto_stack="brand") == {workshop.van_gogh, workshop.photo}
    assert guarded(registry, onto_stack="brand", protect=workshop.dog) == set(workshop.all)
    (made,) = registry.rebase(workshop.rival, onto_stack="brand")
    assert {pair.other for pair in made.pairs} == {workshop.van_gogh, workshop.photo}
    (again,) = registry.rebase(made.patch.patch_id, protect="all")
    others = {record.patch_id for record in registry.patches(concept="of")}
    assert {pair.other for pair in again.pairs} == {workshop.van_gogh, workshop.photo, *others}
    with pytest.raises(NotFoundError) as unknown:
        guarded(registry, onto_stack="nothing")
    assert "registry." in unknown.value.hint
