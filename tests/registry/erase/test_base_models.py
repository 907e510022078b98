# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""Bases: registered by content, found by name, digest or folder, and never another model under the same name."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.models.tiny import tiny_model
from support.registries.workshop import ALICE, SPEC, Workshop, silent, workshop

from rasura.patches.errors import DriftError, ExistsError, InputError, NotFoundError, UnsupportedHostError
from rasura.registry._storage.records.records import Draft
from rasura.registry.apply import operations
from rasura.registry.erase.base_models import OpenBase, add_base, open_base
from rasura.registry.registry import Registry

ADD = Draft("alice", "", "base.add", "success")


@pytest.fixture
def registry(workshop: Workshop) -> Iterator[Registry]:
    with workshop.open() as opened:
        yield opened


def add(registry: Registry, folder: Path, name: str | None = None) -> tuple[OpenBase, bool]:
    return add_base(registry, folder, name, ADD, silent)


def test_the_same_weights_are_the_same_base_wherever_they_lie(workshop: Workshop, registry: Registry) -> None:
    copied = shutil.copytree(workshop.model, workshop.folder / "copied")
    size = len(workshop.entries())
    opened, new = add(registry, copied)
    assert (opened.record, new) == (registry.base("tiny"), False)
    assert add(registry, copied, "tiny")[1] is False
    with pytest.raises(ExistsError):
        add(registry, copied, "another name")
    assert len(workshop.entries()) == size


def test_shards_and_spelling_make_no_other_base(workshop: Workshop, registry: Registry, tmp_path: Path) -> None:
    sharded = tiny_model(tmp_path / "sharded", replace(SPEC, sharded=True))
    assert add(registry, sharded)[0].record == registry.base("tiny")


def test_a_patched_model_is_the_base_that_it_was(workshop: Workshop, registry: Registry) -> None:
    operations.apply(registry, workshop.host(), [workshop.dog], ALICE)
    assert add(registry, workshop.model)[0].record == registry.base("tiny")


def test_other_weights_are_another_base(workshop: Workshop, registry: Registry, tmp_path: Path) -> None:
    other = tiny_model(tmp_path / "other", replace(SPEC, seed=1))
    with pytest.raises(ExistsError):
        add(registry, other, "tiny")
    opened, new = add(registry, other)
    assert (opened.record.name, new) == ("other", True)
    assert opened.record.source == str(other)
    tiny = {p.name: p for p in registry.base("tiny").parameters}
    assert {p.name for p in opened.record.parameters} == set(tiny)
    projections = [p for p in opened.record.parameters if p.casts]
    assert {tuple(p.casts) for p in projections} == {("F16", "BF16", "F32")}
    assert all(
        (".attn2.to_" in p.name or p.name.endswith(".mlp.fc2.weight")) and p.casts["F16"] == p.sha256
        for p in projections
    )


def test_found_by_name_digest_and_folder(workshop: Workshop, registry: Registry) -> None:
    record = registry.base("tiny")
    for reference in ("tiny", record.digest, record.digest[:7], str(workshop.model)):
        assert open_base(registry, reference, ADD, silent).record == record
    with pytest.raises(NotFoundError, match="no base and no folder is called 'nothing'"):
        open_base(registry, "nothing", ADD, silent)


def test_a_folder_whose_weights_were_exchanged(workshop: Workshop, registry: Registry, tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "my model", replace(SPEC, seed=1))
    add(registry, folder, "mine")
    shutil.rmtree(folder)
    with pytest.raises(NotFoundError):
        open_base(registry, "mine", ADD, silent)
    tiny_model(folder, replace(SPEC, seed=2))
    with pytest.raises(DriftError, match="no longer holds base 'mine'") as caught:
        open_base(registry, "mine", ADD, silent)
    assert caught.value.hint == f"rasura base add '{folder}' --name NEW"


def test_folders_that_are_no_model(workshop: Workshop, registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        add(registry, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UnsupportedHostError):
        add(registry, tmp_path / "empty")
    shutil.rmtree(workshop.model / "tokenizer")
    with pytest.raises(NotFoundError, match="no tokenizer/ folder"):
        add(registry, workshop.model)
    shutil.rmtree(workshop.model / "unet")
    with pytest.raises(UnsupportedHostError):
        add(registry, workshop.model)


def test_a_name_that_would_break_a_line(workshop: Workshop, registry: Registry, tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "odd", replace(SPEC, seed=1))
    with workshop.unchanged(), pytest.raises(InputError, match="base name"):
        add(registry, folder, "two\nlines")
