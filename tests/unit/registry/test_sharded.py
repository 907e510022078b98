# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""Models that are sharded over processes: real ones, two on one machine, with torch's own collectives."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from sharding import PROCESSES, SPEC, noise
from tiny import tiny_pipeline
from workshop import Workshop, copy_of, start, workshop, workshop_template

from rasura.patches.tensors import tensor_digest
from rasura.registry.live import attach

SCRIPT = str(Path(__file__).parents[2] / "sharding.py")
Found = list[dict[str, Any]]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return copy_of(workshop_template(), tmp_path_factory.mktemp("sharded") / "shop")


@pytest.fixture(scope="module")
def found(shop: Workshop) -> Found:
    """What both processes found, started once for all tests."""
    store = str(shop.folder / "store")
    processes = [start([SCRIPT, str(r), store, str(shop.folder), *shop.all], shop.folder) for r in range(PROCESSES)]
    try:
        answers = [process.communicate(timeout=240) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert all(out for out, _ in answers), "\n".join(err for _, err in answers)
    return [json.loads(out) for out, _ in answers]
