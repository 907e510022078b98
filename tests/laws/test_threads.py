"""The same request gives the same bits, however many threads a process has."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from support.full import some
from support.models.tiny import TinySpec, tiny_model
from support.values.closed_form import encoder
from support.values.factories import normal
from support.values.solved_bits import solve_all

from rasura.patches._io.settings import Settings, get_settings, use
from rasura.patches.algebra.one_thread import map_in_single_threads, use_all_threads, use_one_thread

WORDS = ("dog", "cat", "van", "gogh", "tree", "house", "photo", "painting")
PROMPTS = [f"{one} of a {other}" for one in WORDS for other in WORDS for _ in range(3)]  # three batches


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, object]]:
    """A model, and what this process, which has one thread, makes of it."""
    folder = tiny_model(tmp_path_factory.mktemp("threads") / "model", TinySpec(size="wide"))
    assert (torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]) == (1, "1")
    found: dict[str, object] = json.loads(json.dumps(solve_all(folder)))
    return folder, found


def solved(folder: Path, variable: str, *told: str) -> dict[str, object]:
    """What a process with this OMP_NUM_THREADS prints; `told`: what torch is told besides."""
    variables = {"OMP_NUM_THREADS": variable, "MKL_NUM_THREADS": variable, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-m", "support.values.solved_bits", str(folder), *told],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("threads", some([("2",)], [("2",), ("1", "3"), ("4",), ("2", "1")]))
def test_every_method_gives_the_same_bits(alone: tuple[Path, dict[str, object]], threads: tuple[str, ...]) -> None:
    folder, expected = alone
    assert len(expected) == 15
    assert solved(folder, *threads) == expected


def test_what_prompts_are_known_changes_no_identifier(alone: tuple[Path, dict[str, object]]) -> None:
    _, found = alone
    methods = {name.partition(",")[0] for name in found if "known" in name}
    assert len(methods) == 6
    assert all(found[f"{method}, known"] == found[f"{method}, encoded"] for method in methods)


@pytest.fixture
def threaded() -> Iterator[None]:
    """Four threads, for torch and for what is computed at once."""
    settings, before = get_settings(), torch.get_num_threads()
    use(Settings(threads="4"))
    torch.set_num_threads(4)
    try:
        yield
    finally:
        use(settings)
        torch.set_num_threads(before)


@pytest.mark.usefixtures("threaded")
def test_a_decomposition_needs_the_one_thread() -> None:
    columns = normal(1, 768, 768)
    with use_one_thread():
        alone = torch.linalg.qr(columns)[0]
    if torch.equal(torch.linalg.qr(columns)[0], alone):
        pytest.skip("this LAPACK rounds alike whatever the threads")
    with use_one_thread():
        assert torch.equal(torch.linalg.qr(columns)[0], alone)


@pytest.mark.usefixtures("threaded")
def test_blocks_nest_and_leave_the_number_as_it_was() -> None:
    @use_one_thread()
    def count() -> tuple[int, int]:
        with use_all_threads():
            inside = torch.get_num_threads()
            with use_one_thread():
                assert torch.get_num_threads() == 1
        return torch.get_num_threads(), inside

    with use_all_threads():
        assert torch.get_num_threads() == 4
    assert count() == (1, 4)

    @use_one_thread()
    def fail() -> None:
        assert count() == (1, 4)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert torch.get_num_threads() == 4


@pytest.mark.usefixtures("threaded")
def test_other_threads_keep_theirs() -> None:
    seen: dict[str, int] = {}
    begun, inside = threading.Event(), threading.Event()

    def look(name: str) -> None:
        seen[name] = torch.get_num_threads()

    def wait() -> None:
        torch.set_num_threads(4)
        begun.set()
        inside.wait()
        look("older")

    older = threading.Thread(target=wait)
    older.start()
    begun.wait()
    with use_one_thread():
        newer = threading.Thread(target=look, args=("newer",))
        newer.start()
        newer.join()
        inside.set()
        older.join()
        look("own")
    look("after")
    assert seen == {"older": 4, "newer": 4, "own": 1, "after": 4}


@pytest.mark.usefixtures("threaded")
@pytest.mark.parametrize("count", [0, 1, 2, 3, 20])
@pytest.mark.parametrize("alone", [False, True])
def test_a_map_keeps_the_order_and_computes_each_in_one_thread(count: int, alone: bool) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for i in range(count):
            taken.append(i)
            yield i

    ahead = []
    for i, (found, threads) in enumerate(
        map_in_single_threads(lambda i: (i * i, torch.get_num_threads()), items(), alone=alone)
    ):
        assert (found, threads, torch.get_num_threads()) == (i * i, 1, 4)
        ahead.append(len(taken) - i)
    assert len(ahead) == count
    assert max(ahead, default=0) <= (2 if alone else 5)


@pytest.mark.usefixtures("threaded")
def test_a_map_raises_what_a_call_raised_and_ends() -> None:
    def fail(i: int) -> int:
        if i == 3:
            raise ZeroDivisionError
        return i

    running = threading.active_count()
    found: list[int] = []
    with pytest.raises(ZeroDivisionError):
        found += map_in_single_threads(fail, range(100))
    assert threading.active_count() == running
    given = map_in_single_threads(lambda i: i, iter(range(10**9)))
    assert next(given) == 0
    del given
    assert threading.active_count() == running


@pytest.mark.usefixtures("threaded")
def test_batches_that_are_read_at_once_have_the_bits_of_one_after_the_other() -> None:
    at_once = encoder().encode_all(PROMPTS)
    torch.set_num_threads(1)
    assert torch.equal(encoder().encode_all(PROMPTS), at_once)
