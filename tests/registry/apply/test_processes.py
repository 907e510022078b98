"""Several processes at once, and processes that die in the middle: the log stays whole."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path

import pytest
from support.registries.postgres import running
from support.registries.registry_fixtures import Place, draft

from rasura.registry.log.verify import verify_log
from rasura.registry.registry import Registry

WRITERS = """
import os, sys
from rasura.registry._storage.records.records import Draft
from rasura.registry.registry import Registry

location, count = sys.argv[1], int(sys.argv[2])
with Registry.open(location):
    pass  # what that imports, no child imports again
for line in sys.stdin:
    children = []
    for name in line.strip().split(","):
        children.append(os.fork())
        if children[-1] != 0:
            continue
        try:
            with Registry.open(location, busy_seconds=120) as registry:
                os.write(1, f"ready {os.getpid()}\\n".encode())  # a line in one call: the others write, too
                for number in range(count):
                    entry = registry.note(Draft(name, "", "test.append", "success", details={"number": number}))
                    os.write(1, f"{entry.index}\\n".encode())
                os._exit(0)
        finally:
            os._exit(1)
    for child in children:
        print("ended", os.waitpid(child, 0)[1], flush=True)
"""


@contextmanager
def writers(place: Place, count: int) -> Iterator["subprocess.Popen[str]"]:
    """A process that forks a writer of `count` entries for each name on a line, and waits for them."""
    command = [sys.executable, "-c", WRITERS, place.location, str(count)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path("/")
    ) as process:
        yield process


def test_writers_at_once_leave_one_log(made: Place) -> None:
    with writers(made, 15) as process:
        out, err = process.communicate(",".join(f"writer {i}" for i in range(4)), timeout=300)
    assert out.splitlines().count("ended 0") == 4, err
    assert sorted(int(line) for line in out.splitlines() if line.isdigit()) == list(range(1, 61))
    with made.open() as registry:
        assert verify_log(registry).size == 61
        for i in range(4):
            numbers = [e.details["number"] for e in registry.entries(newest=False) if e.actor == f"writer {i}"]
            assert numbers == list(range(15))


def test_a_killed_writer_loses_nothing_that_it_acknowledged(made: Place) -> None:
    acknowledged = 0
    with writers(made, 10_000) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for round_number in range(15):
            process.stdin.write(f"round {round_number}\n")
            process.stdin.flush()
            word, child = process.stdout.readline().split()
            assert word == "ready"
            acknowledged = max(acknowledged, int(process.stdout.readline()))
            # Another moment of an append in each round: they take a few milliseconds.
            time.sleep(0.003 * round_number)
            os.kill(int(child), signal.SIGKILL)
            while (line := process.stdout.readline()) != f"ended {int(signal.SIGKILL)}\n":
                acknowledged = max(acknowledged, int(line))
            with made.open() as registry:
                size = verify_log(registry).size
                assert size > acknowledged
                # The next writer takes up what the dead one left: an intention, a lock, a journal.
                assert registry.note(draft()).index == size
                acknowledged = size
                verify_log(registry)
    assert acknowledged >= 2 * 15


SIXTEEN = """
import os, sys, time
from rasura.patches.errors import RegistryError
from rasura.registry._storage.records.records import Draft
from rasura.registry.registry import Registry

location, home, count, endless = sys.argv[1:]

reader, writer = os.pipe()

def live(name, count):
    os.close(writer)
    os.read(reader, 1)  # until all are there and named
    opened, until = None, time.monotonic() + 240
    for number in range(count):
        while True:
            try:
                opened = opened or Registry.open(location, home=home or None, busy_seconds=120)
                entry = opened.note(Draft(name, "", "test.append", "success", details={"number": number}))
                break
            except RegistryError:  # the server is gone, and comes again
                if time.monotonic() > until:
                    raise
                if opened is not None:
                    opened.close()
                opened = None
                time.sleep(0.05)
        os.write(1, f"{name} {number} {entry.index}\\n".encode())

children = []
for at in range(16):
    child = os.fork()
    if child == 0:
        try:
            live(f"writer-{at}", 10**6 if at < int(endless) else int(count))
        finally:
            os._exit(0)
    children.append(child)
os.write(1, f"{' '.join(map(str, children))}\\n".encode())
os.close(writer)
for child in children:
    os.waitpid(child, 0)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_of_sixteen_processes_nothing_is_lost_when_writers_or_the_server_are_killed(kind: str, tmp_path: Path) -> None:
    """PostgreSQL with its default durability, every process of it killed; of SQLite four of the writers."""
    durable = "-c listen_addresses='' -c fsync=off"  # the machine stays up: what was written is there
    count = 4
    # Who is to be killed writes until then: a writer that had ended could not be.
    killed = {f"writer-{at}" for at in range(4)} if kind == "sqlite" else set()
    with running(durable) if kind == "postgres" else nullcontext() as cluster:
        location = str(tmp_path) if cluster is None else cluster.url("postgres")
        home = None if cluster is None else tmp_path / "home"
        Registry.create(location, home=home).close()
        command = [sys.executable, "-c", SIXTEEN, location, str(home or ""), str(count), str(len(killed))]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/") as process:
            assert process.stdout is not None
            children = [int(word) for word in process.stdout.readline().split()]
            said = [process.stdout.readline() for _ in range(6)]
            if cluster is None:
                for child in children[:4]:
                    os.kill(child, signal.SIGKILL)
            else:
                cluster.kill()
                cluster.start()
            rest, complaints = process.communicate(timeout=300)
        acknowledged = [line.split() for line in (*said, *rest.splitlines())]
        with Registry.open(location, home=home) as registry:
            entries = {entry.index: entry for entry in registry.entries()}
            assert verify_log(registry).size == len(entries) == max(entries) + 1
    for name, number, index in acknowledged:
        entry = entries[int(index)]
        assert (entry.actor, entry.details["number"]) == (name, int(number)), complaints
    done = {(name, int(number)) for name, number, _ in acknowledged}
    whole = {(f"writer-{at}", number) for at in range(16) for number in range(count)}
    assert {each for each in whole - done if each[0] not in killed} == set(), complaints


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
