"""The processes that fork others to be killed, as fixtures: each starts once in a run's process, for all modules."""

from collections.abc import Iterator

import pytest
from support.crashes.commands import CommandNursery
from support.crashes.crashing import Nursery

__all__ = ["command_nursery", "nursery"]


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Of processes that write a model."""
    with Nursery.started() as started:
        yield started


@pytest.fixture(scope="session")
def command_nursery() -> Iterator[CommandNursery]:
    """Of commands."""
    with CommandNursery.started() as started:
        yield started
