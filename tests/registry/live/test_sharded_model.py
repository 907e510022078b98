# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""`rasura.attach` of a model that FSDP2 has sharded over two real processes; its judge is the model that is not."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from support.registries.workshop import Workshop, copy_of, start, workshop, workshop_template
from support.sharded.ranks import read_rank
from support.sharded.sharding import PROCESSES, noise

from rasura.api.attach import attach
from rasura.patches._io.tensor_bytes import digest_tensor
from rasura.registry._storage.records.records import EntryRecord

pytestmark = pytest.mark.xdist_group("a sharded model")  # its processes run once, not in every test process
SCRIPT = str(Path(__file__).parents[2] / "support" / "sharded" / "sharding.py")


@dataclass(frozen=True, slots=True)
class Runs:
    """What both processes found, and what they left in the log."""

    found: list[dict[str, Any]]
    entries: tuple[EntryRecord, ...]

    def both(self, fact: str) -> Any:
        """What both found."""
        one, two = (each[fact] for each in self.found)
        assert one == two
        return one


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Started once for all tests."""
    template = workshop_template()
    shop, size = copy_of(template, tmp_path_factory.mktemp("sharded") / "shop"), len(template.entries())
    out = tmp_path_factory.mktemp("out")
    with start([SCRIPT, str(out), str(shop.folder), *shop.all], shop.folder) as process:
        try:
            _, complained = process.communicate(timeout=600)
        finally:
            process.kill()
    answers = [read_rank(out, rank) for rank in range(PROCESSES)]
    assert all(answers), complained
    return Runs([json.loads(answer) for answer in answers], shop.entries()[size:])


def test_what_torch_lets_pass_and_the_next_forward_never_sees(runs: Runs) -> None:
    """A shard that is written while a gathered copy is kept, or while one is on its way, and the copy itself."""
    assert runs.both("shard") == [32, 128]
    assert runs.both("shard lost")
    assert runs.both("shard seen")
    assert runs.both("gathering lost")
    assert runs.both("looks plain")
    assert runs.both("copy lost")


def test_one_process_by_itself_is_refused(runs: Runs) -> None:
    told = runs.both("alone")
    assert len(told) == 8
    assert all("UnsupportedHostError" in each and "sharded over devices" in each for each in told)


def test_bits_and_receipts_are_those_of_a_model_that_is_not_sharded(runs: Runs, workshop: Workshop) -> None:
    """Whatever FSDP holds when a motion comes: gathered weights are kept, and some are on their way."""
    unet = UNet2DConditionModel.from_pretrained(workshop.model, subfolder="unet", torch_dtype=torch.float32)
    with attach(unet, workshop.folder, label="shards") as model:
        receipt = model.apply(workshop.dog)
        assert runs.both("apply") == [repr(receipt), receipt.after, digest_tensor(noise(unet))]
        switched = model.switch({workshop.van_gogh: "1"})
        assert runs.both("plan") == [True, switched.after, digest_tensor(noise(unet))]
        assert runs.both("status") == [repr(model.status(deep=True)), 0]
        model.revert()
    assert runs.both("changed")
    assert runs.both("kept") == [[32, 128]]  # half of 64 rows: each process keeps what it has
    assert runs.both("pristine")
    assert runs.both("back")
    assert not runs.both("left")


def test_the_log_has_one_begun_and_one_done(runs: Runs) -> None:
    told = [(e.action, e.outcome, e.actor, e.reason) for e in runs.entries[:6]]
    motions = [("patch.apply", "takedown 118"), ("patch.switch", ""), ("patch.revert", "")]
    assert told == [(action, how, "alice", reason) for action, reason in motions for how in ("begun", "done")]


def test_processes_that_are_asked_for_different_things_do_nothing(runs: Runs) -> None:
    assert runs.both("different").startswith("ConflictError: rank 0 was asked for ('apply', ['")
    assert runs.both("unknown").startswith("NotFoundError")


def test_from_inside_a_forward_nothing_is_asked(runs: Runs) -> None:
    assert runs.both("inside").startswith("BusyError: the model is computing in this very thread")


def test_threads_that_compute_meanwhile_see_one_set_or_the_other(runs: Runs) -> None:
    """A forward waits for that of the other process: both motions let it end before they write."""
    assert runs.both("served") == [12, True]


def test_mixed_precision_and_compiled_blocks(runs: Runs) -> None:
    """The shards are float32, and so the digests are those of the float32 model."""
    after, changed, back = runs.both("mixed")
    assert after == runs.both("apply")[1]
    assert changed
    assert back


def test_where_one_process_cannot_write_none_has_written(runs: Runs) -> None:
    """One keeps its originals in a folder that cannot have them; then it is killed in the middle of a write."""
    refused, lost = runs.found[0]["failing"]
    assert [refused] == runs.found[1]["failing"]
    assert refused[0].startswith("BaseMismatchError: rank 1: ")
    assert lost[0].startswith("ProcessGroupError: expected rank 1 to take part, got: ")
    assert refused[1:] == lost[1:] == [True, False]
    assert runs.found[0]["after"].startswith("ProcessGroupError")
    told = [(e.action, e.outcome, e.error) for e in runs.entries[-4:]]
    errors = "base_mismatch", "process_group"
    assert told == [
        ("patch.apply", how, error if how == "failed" else None) for error in errors for how in ("begun", "failed")
    ]


def test_flat_parameters_of_fsdp1_are_refused(runs: Runs) -> None:
    told = runs.found[0]["flat"]
    assert len(told) == 3
    assert all(each.startswith("UnsupportedHostError") for each in told)
    assert "fully_shard" in told[2]
