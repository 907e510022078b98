# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""Files that calls write: never over one that is there, and nothing is logged of what was not written."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.registries.workshop import Workshop, workshop

import rasura

WRITING: dict[str, Callable[[rasura.Registry, Path], object]] = {
    "a checkpoint": lambda registry, file: registry.checkpoint(file, reason="monthly"),
    "an anchor": lambda registry, file: registry.add_anchor(file=file),
}


@pytest.mark.parametrize("what", WRITING)
def test_a_file_that_is_there_is_left_alone(what: str, workshop: Workshop, tmp_path: Path) -> None:
    there = tmp_path / "kept"
    there.write_text("mine")
    with rasura.open(workshop.folder, actor="alice") as registry:
        with workshop.unchanged(), pytest.raises(rasura.errors.ExistsError, match="kept exists already"):
            WRITING[what](registry, there)
        assert there.read_text() == "mine"
        size = len(registry.log())
        WRITING[what](registry, tmp_path / "new")
        assert (tmp_path / "new").read_bytes().startswith(registry.verify().vkey.partition("+")[0].encode())
        assert len(registry.log()) == size + 1


def test_a_log_file_of_two_kinds_is_none(workshop: Workshop, tmp_path: Path) -> None:
    with rasura.open(workshop.folder) as registry:
        with (
            workshop.unchanged(),
            pytest.raises(rasura.errors.InputError, match="one of file, token, cosigned and hub"),
        ):
            registry.add_anchor(file=tmp_path / "a", token=tmp_path / "b")
        assert list(tmp_path.glob("[ab]")) == []
