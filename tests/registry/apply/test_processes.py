"""Several processes at once, and processes that die in the middle: the log stays whole."""

import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from support.registries.registry_fixtures import Place, draft

from rasura.registry.log.verify import verify_log

APPEND = """
import sys
from rasura.registry._storage.records.records import Draft
from rasura.registry.registry import Registry

location, name, count = sys.argv[1:]
with Registry.open(location, busy_seconds=120) as registry:
    print("ready", flush=True)
    for number in range(int(count)):
        entry = registry.note(Draft(name, "", "test.append", "success", details={"number": number}))
        print(entry.index, flush=True)
"""


def writer(place: Place, name: str, count: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", APPEND, place.location, name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path("/"))


def test_writers_at_once_leave_one_log(made: Place) -> None:
    writers = [writer(made, f"writer {i}", 15) for i in range(4)]
    outputs = [process.communicate(timeout=300) for process in writers]
    assert [process.returncode for process in writers] == [0] * 4, [err for _, err in outputs]
    acknowledged = sorted(int(line) for out, _ in outputs for line in out.split()[1:])
    assert acknowledged == list(range(1, 61))
    with made.open() as registry:
        assert verify_log(registry).size == 61
        for i in range(4):
            numbers = [e.details["number"] for e in registry.entries(newest=False) if e.actor == f"writer {i}"]
            assert numbers == list(range(15))


def test_a_killed_writer_loses_nothing_that_it_acknowledged(made: Place) -> None:
    acknowledged = 0
    for round_number in range(15):
        process = writer(made, f"round {round_number}", 10_000)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        # Another moment of an append in each round: they take a few milliseconds.
        time.sleep(0.05 + 0.02 * round_number)
        process.send_signal(signal.SIGKILL)
        out, _ = process.communicate(timeout=60)
        acknowledged = max([acknowledged, *(int(line) for line in out.split())])
        with made.open() as registry:
            size = verify_log(registry).size
            assert size > acknowledged
            # The next writer takes up what the dead one left: an intention, a lock, a journal.
            assert registry.note(draft()).index == size
            acknowledged = size
            verify_log(registry)
    assert acknowledged > 15


@pytest.mark.parametrize("committed", [False, True])
def test_a_crash_around_the_commit_is_told_from_a_cut(made: Place, committed: bool) -> None:
    """The memory says what is being committed; the database may be in front of it or behind."""
    memory = made.folder / "keys" / "last_signed"
    with made.open() as registry:
        registry.note(draft())
        before = registry.log_key.recall()
        registry.note(draft())
        after = registry.log_key.recall()
        size = 3
        if not committed:
            return _check_uncommitted(made, memory)
        registry.log_key.remember(type(before)(before.committed, after.committed))
        assert verify_log(registry).size == size
        assert registry.note(draft()).index == size
        assert registry.log_key.recall().intended is None
        return None


def _check_uncommitted(made: Place, memory: Path) -> None:
    with made.open() as registry:
        state = registry.log_key.recall()
        future = type(state.committed)(state.committed.origin, state.committed.size + 1, bytes(32))
        registry.log_key.remember(type(state)(state.committed, future))
        assert b"\n4\n" in memory.read_bytes()
        assert verify_log(registry).size == 3
        assert registry.note(draft()).index == 3
        assert verify_log(registry).size == 4


def test_a_reader_mends_what_a_killed_writer_left(made: Place) -> None:
    """A hot rollback journal: a reader that may not write could not open the database at all."""
    if made.url is not None:
        pytest.skip("SQLite's journal")
    program = (
        "import os, signal, sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "connection.execute('PRAGMA cache_size = 1')\n"
        "connection.execute('BEGIN IMMEDIATE')\n"
        "connection.execute('CREATE TABLE big (x)')\n"
        "connection.executemany('INSERT INTO big VALUES (?)', [('x' * 4000,)] * 400)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    database = made.folder / "registry.db"
    subprocess.run([sys.executable, "-c", program, str(database)], check=False)
    assert (made.folder / "registry.db-journal").stat().st_size > 0
    with (
        closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as reader,
        pytest.raises(sqlite3.OperationalError),
    ):
        reader.execute("SELECT * FROM sqlite_master")
    with made.open() as registry:
        assert verify_log(registry).size == 1


def test_a_full_disk_changes_nothing(made: Place) -> None:
    """A limit on the size of files plays the full disk: the database, then the memory of the log, cannot grow."""
    if made.url is not None:
        pytest.skip("PostgreSQL's disk is its own business")
    program = (
        "import resource, signal, sys\n"
        "from rasura.patches.errors import RegistryError\n"
        "from rasura.registry._storage.records.records import Draft\n"
        "from rasura.registry.registry import Registry\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "with Registry.open(sys.argv[1]) as registry:\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), -1))\n"
        "    try:\n"
        "        for number in range(400):\n"
        "            registry.note(Draft('alice', 'x' * 4000, 'test.fill', 'success'))\n"
        "    except RegistryError as error:\n"
        "        print(type(error).__name__, number)\n"
    )
    for limit in (400_000, 10):
        command = [sys.executable, "-c", program, made.location, str(limit)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path("/"))
        assert done.stdout.startswith("RegistryError"), done.stdout + done.stderr
        with made.open() as registry:
            size = verify_log(registry).size
            assert registry.note(draft()).index == size
    assert not list(made.folder.rglob(".incoming-*"))
