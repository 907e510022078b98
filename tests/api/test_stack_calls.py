# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""Stacks and bisections from Python: what the command line shows of them afterwards, and every way back."""

from collections.abc import Iterator

import pytest
from support.commandline import rasura as typed
from support.registries.workshop import Workshop, workshop

import rasura
from rasura.patches.errors import ConflictError, ExistsError, NotFoundError


@pytest.fixture
def registry(workshop: Workshop) -> Iterator[rasura.Registry]:
    with rasura.open(workshop.folder, actor="alice") as opened:
        yield opened


def test_a_stack_from_its_making_to_its_end(workshop: Workshop, registry: rasura.Registry) -> None:
    made = registry.create_stack("brand", [workshop.dog, f"{workshop.photo}=0.5"], reason="launch")
    assert made.patches == {workshop.dog: 16, workshop.photo: 8}
    assert registry.add_to_stack("brand", [workshop.van_gogh]).patches.keys() == set(workshop.all)
    assert registry.remove_from_stack("brand", workshop.photo).patches.keys() == {workshop.dog, workshop.van_gogh}
    shown = registry.stack("brand")
    assert {member.patch_id for member in shown.members} == {workshop.dog, workshop.van_gogh}
    assert shown.hosts == ()
    assert registry.stacks() == (shown.record,)
    lock = registry.lock_stack("brand")
    (workshop.folder / "brand.lock").write_bytes(lock.to_bytes())
    listed = typed("stack", "list", "--json", cwd=workshop.folder).data["stacks"]
    assert [stack["name"] for stack in listed] == ["brand"]
    registry.switch(workshop.model, str(workshop.folder / "brand.lock"))
    assert [host.location for host in registry.stack("brand").hosts] == [str(workshop.model)]
    assert registry.delete_stack("brand", dry_run=True).name == "brand"
    assert registry.stacks() != ()
    registry.delete_stack("brand", reason="over")
    assert registry.stacks() == ()
    assert registry.log()[0].action == "stack.delete"
    registry.verify()


def test_what_cannot_be_done_with_a_stack(workshop: Workshop, registry: rasura.Registry) -> None:
    registry.create_stack("brand", [workshop.dog])
    with workshop.unchanged():
        with pytest.raises(ExistsError, match="brand"):
            registry.create_stack("brand", [workshop.photo])
        with pytest.raises(NotFoundError) as missing:
            registry.delete_stack("other")
        assert "rasura " not in missing.value.hint  # a call, not a command
        assert registry.create_stack("new", [workshop.dog], dry_run=True).name == "new"


def test_a_function_finds_the_patch_that_does_harm(workshop: Workshop, registry: rasura.Registry) -> None:
    registry.create_stack("brand", list(workshop.all))
    before = workshop.digests()
    told: list[object] = []
    begun = registry.bisect_start("brand", workshop.model)
    assert not begun.state.over
    with pytest.raises(ConflictError):
        registry.bisect_start("brand", workshop.model)

    def look() -> int:
        return int(workshop.van_gogh in registry.status(workshop.model).applied)

    found = registry.bisect_run(look, tell=told.append)
    assert found.state.suspects == (workshop.van_gogh,)
    assert found == told[-1]
    assert workshop.digests() == before
    registry.bisect_reset()
    with pytest.raises(NotFoundError, match="no bisection"):
        registry.bisect_judge("good")
    registry.verify()


def test_a_bisection_that_is_given_up_leaves_the_model_as_it_was(workshop: Workshop, registry: rasura.Registry) -> None:
    registry.create_stack("brand", list(workshop.all))
    registry.apply(workshop.model, workshop.photo)
    before = workshop.digests()
    registry.bisect_start("brand", workshop.model)
    registry.bisect_judge("good")
    registry.bisect_reset()
    assert workshop.digests() == before
