"""A PostgreSQL of our own for the tests: made in a temporary folder, reached over a socket in it, thrown away after.

`initdb` refuses to run as root, so root becomes the user `postgres` for it. Import both fixtures in a conftest.py:

    from support.registries.postgres import postgres_cluster, postgres_url  # noqa: F401
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

_USER = "postgres"
# Durability costs a second a test and proves nothing here: the cluster dies with the tests.
_SETTINGS = "-c listen_addresses='' -c fsync=off -c synchronous_commit=off -c full_page_writes=off"


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running server."""

    folder: Path
    binaries: Path
    options: str

    def url(self, database: str) -> str:
        return f"postgresql://{_USER}@/{database}?host={self.folder}"

    def create_database(self, template: str = "template1") -> str:
        """A new database, empty or a copy of another one that nobody is connected to; gives its name."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        self.psql("postgres", f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def control(self, *words: str) -> list[str]:
        """A command line of the server's control program."""
        return [str(self.binaries / "pg_ctl"), *words, "-w", "-s", "-D", str(self.folder / "data")]

    def start(self) -> None:
        """Start it, also after it was killed: it recovers first."""
        _run([*self.control("start"), "-l", str(self.folder / "log"), "-o", self.options])

    def kill(self) -> None:
        """Every process of it, by SIGKILL: nothing is flushed, nobody is told."""
        lock = self.folder / "data" / "postmaster.pid"
        server = int(lock.read_text().splitlines()[0])
        children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
        for process in (server, *map(int, children)):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        while _is_alive(server):
            time.sleep(0.01)
        for left in (lock, *self.folder.glob(".s.PGSQL*")):  # it may be a zombie for good, which reads as alive
            left.unlink()

    def psql(self, database: str, sql: str) -> str:
        """What the server's own client answers, as superuser."""
        command = ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", str(self.folder), "-U", _USER]
        return _run([str(self.binaries / command[0]), *command[1:], "-d", database, "-c", sql])


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[Cluster]:
    with running(_SETTINGS) as cluster:
        yield cluster


@contextmanager
def running(settings: str) -> Iterator[Cluster]:
    """A server with these settings."""
    binaries = _binaries()
    if binaries is None:
        pytest.skip("needs PostgreSQL's initdb, in PATH or in /usr/lib/postgresql/*/bin")
    pytest.importorskip("psycopg", reason="needs the driver psycopg (the extra `postgres`)")
    # Not pytest's own folder: that one is closed to other users, and its long path would not fit a socket's address.
    # In memory where possible: a database is 8 MB in 300 files, and there is one a test.
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="rasura-pg-", dir=memory if os.access(memory, os.W_OK) else "/tmp"))
    if os.geteuid() == 0:
        shutil.chown(folder, _USER, _USER)
    cluster = Cluster(folder, binaries, f"{settings} -k {folder}")
    try:
        _run(
            [
                str(binaries / "initdb"),
                "--no-sync",
                "-A",
                "trust",
                "-U",
                _USER,
                "-E",
                "UTF8",
                "-D",
                str(folder / "data"),
            ]
        )
        cluster.start()
        try:
            yield cluster
        finally:
            _run(cluster.control("stop", "-m", "immediate"))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres_cluster: Cluster) -> str:
    """URL of an empty database."""
    return postgres_cluster.url(postgres_cluster.create_database())


def _is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _binaries() -> Path | None:
    found = shutil.which("pg_ctl")
    folders = [Path(found).resolve().parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return next((folder for folder in reversed(folders) if (folder / "initdb").exists()), None)


def _run(command: list[str]) -> str:
    dropped: dict[str, Any] = {"user": _USER, "group": _USER, "extra_groups": []} if os.geteuid() == 0 else {}
    done: subprocess.CompletedProcess[str] = subprocess.run(
        command, check=False, capture_output=True, text=True, cwd="/", **dropped
    )
    assert done.returncode == 0, f"{command[0]}: {done.stdout}{done.stderr}"
    return done.stdout.strip()
