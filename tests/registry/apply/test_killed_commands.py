"""Whole commands that are killed: the next look finds the old state or the new one, and nothing stays open.

`make test FULL=1` kills 300 times, `make soak` as often as it is told.
"""

from collections.abc import Iterator

import pytest
from support.crashes.command_soaking import COMMANDS, CommandSoak
from support.full import FULL

KILLS = 30 if FULL else 1
"""Of each command, at least."""


@pytest.fixture(scope="module")
def soak(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandSoak]:
    with CommandSoak.begun(tmp_path_factory.mktemp("soak"), seed=7) as begun:
        yield begun


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_killed_command_leaves_the_old_state_or_the_new(soak: CommandSoak, name: str) -> None:
    assert soak.kill(name, KILLS) >= KILLS
