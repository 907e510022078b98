"""A sharded model as one host, in four real processes: every placement, every way to fail, and a host of the whole as judge."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.registries.workshop import start
from support.sharded.ranks import read_rank
from support.sharded.sharding_mesh import PROCESSES
from support.values.factories import increment, same_bits, weights

from rasura.patches.algebra.compose import Term, compose
from rasura.patches.algebra.increment import Increment

pytestmark = pytest.mark.xdist_group("a sharded host")  # its processes run once, not in every test process
SCRIPT = str(Path(__file__).parents[3] / "support" / "sharded" / "sharding_mesh.py")
Found = list[dict[str, Any]]
GONE = "expected rank {} to take part, got: "


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What the processes found, started once for all tests."""
    folder = tmp_path_factory.mktemp("mesh")
    with start([SCRIPT, str(folder)], folder) as process:
        try:
            _, complained = process.communicate(timeout=180)
        finally:
            process.kill()
    answers = [read_rank(folder, rank) for rank in range(PROCESSES)]
    assert all(answers), complained
    return [json.loads(answer) for answer in answers]


def test_digests_and_values_are_those_of_the_whole(found: Found) -> None:
    """Uneven shards, empty ones, columns, replicas, boxes, and rows that FSDP and tensor parallelism cut twice."""
    facts = ("parameters", "digests", "written", "full", "all kept", "originals", "back")
    assert [[each[fact] for fact in facts] for each in found] == [[True] * len(facts)] * PROCESSES
    assert not any(each["left"] for each in found)
    assert "_StridedShard" in found[0]["places"][0]


def test_each_process_keeps_its_own_shard_alone(found: Found) -> None:
    assert [each["kept"].get("unet.rows") for each in found] == [[2, 6], [2, 6], [1, 6], None]
    assert [each["kept"].get("unet.columns") for each in found] == [[6, 2], [6, 2], [6, 1], None]
    assert [each["kept"]["unet.boxes"] for each in found] == [[3, 4], [3, 3], [2, 4], [2, 3]]


def test_shards_of_smaller_groups_are_copies_and_not_what_is_written(found: Found) -> None:
    """`reshard_after_forward=2` of four: a naive write into them is lost as soon as anything reshards."""
    for each in found:
        assert each["held"] == [4, 6]
        assert each["group lost"]
        assert each["group seen"]


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("not finite", "NotFiniteError: rank 2: unet.rows: expected finite numbers, got NaN or infinity"),
        ("shape", "UnsupportedHostError: unet.rows: expected F32 [5, 6], got F32 [5, 5]"),
        ("name", "UnsupportedHostError: shards: expected a parameter unet.nothing, got none"),
        (
            "apart",
            "DriftError: shards: unet.copies: expected the same bits in all replicas, got others in ranks 0 and 3",
        ),
        (
            "partial",
            "UnsupportedHostError: unet.rows: expected a part of a tensor, got [5, 6] of [5, 6] placed as P(sum)",
        ),
    ],
)
def test_what_one_cannot_do_none_does(found: Found, what: str, error: str) -> None:
    """In particular: an infinity in the rows of one process is seen by it alone, after others have written theirs."""
    assert [each[what] for each in found] == [[error, True, False]] * PROCESSES


def test_an_error_of_the_first_process_ends_the_call_in_all(found: Found) -> None:
    told = "HostError: rank 0: got ZeroDivisionError: integer division or modulo by zero"
    assert [each["bug"] for each in found] == [["done", True, False], *[[told, True, False]] * (PROCESSES - 1)]


def test_who_stops_in_the_middle_of_a_write_has_not_written_and_no_other_has(found: Found) -> None:
    """Ctrl-C in the first process; the others are told by the closed connection. Afterwards the handle is of no use."""
    assert [each["stopped"][1:] for each in found] == [[True, False]] * PROCESSES
    assert found[0]["stopped"][0].startswith("KeyboardInterrupt")
    for each in found[1:]:
        assert each["stopped"][0].startswith("ProcessGroupError: " + GONE.format(0))
    for each in found:
        assert each["after stopped"][0].startswith("ProcessGroupError: ")
        assert each["after stopped"][0].endswith("nothing was changed")


def test_nobody_waits_for_ever(found: Found) -> None:
    """The second process does not call at all."""
    assert found[0]["late"][0].startswith("ProcessGroupError: " + GONE.format(1) + "Timed out")
    assert all(found[rank]["late"][0].startswith("ProcessGroupError: ") for rank in (2, 3))
    assert all(found[rank]["late"][1:] == [True, False] for rank in (0, 2, 3))


def test_a_process_that_dies_while_all_write_leaves_the_others_as_they_were(found: Found) -> None:
    assert "dead" not in found[3]
    for each in found[:3]:
        assert each["dead"][0].startswith("ProcessGroupError: " + GONE.format(3))
        assert each["dead"][1:] == [True, False]
        assert each["after dead"][0].startswith("ProcessGroupError: ")


def test_rows_composed_by_themselves_are_the_rows_of_the_whole() -> None:
    """The sum is exact, so cutting before or after composing is the same to the bit."""
    base = weights(0, 37, 24, torch.float16)
    terms = [Term(increment(rank, 37, 24, rank)) for rank in (1, 3)]
    whole = compose(base, terms)
    for rows in (slice(0, 19), slice(19, 37), slice(36, 37)):
        part = [Term(Increment(term.increment.A, term.increment.B[rows])) for term in terms]
        assert same_bits(compose(base[rows], part), whole[rows])
