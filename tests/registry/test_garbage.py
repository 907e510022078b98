# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""Blobs that nothing refers to: found and removed, whatever else goes on; and nothing that anything needs."""

import contextlib
import os
import threading
import time
from pathlib import Path

import pytest
from support.commandline import rasura
from support.registries.workshop import ALICE, Workshop, workshop

from rasura.patches.errors import NotFoundError
from rasura.patches.types import Digest
from rasura.registry._storage.files.blobs import BlobStore
from rasura.registry.standing.garbage import collect

MODEL = ("--model", "the model")
OLD = time.time() - 3 * 86400


def age(store: BlobStore) -> None:
    """As if everything had been stored three days ago."""
    for blob in store.every():
        os.utime(store.path(blob.digest), (OLD, OLD))


def test_nothing_is_garbage_in_a_registry_that_works(workshop: Workshop) -> None:
    rasura("stack", "create", "brand", workshop.dog, cwd=workshop.folder)
    rasura("patch", "switch", "brand", *MODEL, cwd=workshop.folder)
    rasura("patch", "revert", workshop.dog, *MODEL, cwd=workshop.folder)
    rasura("patch", "retire", workshop.rival, cwd=workshop.folder)
    (workshop.folder / "policy.toml").write_text("[limits]\npair = 0.2\n")
    assert rasura("policy", "set", "policy.toml", cwd=workshop.folder).code == 0
    with workshop.open() as registry:
        age(registry.blobs)
        size = len(list(registry.blobs.every()))
        with workshop.unchanged():
            found = collect(registry, ALICE)
        assert (found.removed, found.recent, found.kept) == ((), 0, size)


def test_loose_blobs_go_and_the_log_says_so(workshop: Workshop) -> None:
    with workshop.open() as registry:
        loose = registry.blobs.put(b"nobody needs this")
    run = rasura("gc", cwd=workshop.folder)  # too new
    assert run.out.splitlines()[-1] == "1 blob too new to judge: stored in the last 24 hours"
    with workshop.open() as registry:
        age(registry.blobs)
    with workshop.unchanged():
        would = rasura("gc", "--dry-run", cwd=workshop.folder)
    assert "would remove 1 blob, 17 bytes" in would.out
    assert rasura("gc", "--json", "--reason", "full disk", cwd=workshop.folder).data["removed"] == [
        {"digest": loose, "size": 17}
    ]
    entry = workshop.entries()[-1]
    assert (entry.action, dict(entry.details), entry.reason) == ("blob.gc", {"blobs": 1, "bytes": 17}, "full disk")
    with workshop.open() as registry, pytest.raises(NotFoundError):
        registry.blobs.read(loose)
    with workshop.unchanged():
        assert rasura("gc", "--json", cwd=workshop.folder).envelope["changed"] is False
    for command in (("audit", "verify"), ("patch", "verify", workshop.dog, workshop.rival)):
        assert rasura(*command, cwd=workshop.folder).code == 0


def test_bytes_that_are_stored_again_are_new(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    digest = store.put(b"x")
    os.utime(store.path(digest), (OLD, OLD))
    store.put(b"x")
    assert store.discard(digest, before=time.time() - 60) is False
    assert store.read(digest) == b"x"
    os.utime(store.path(digest), (OLD, OLD))
    assert store.discard(digest, before=time.time() - 60) is True
    assert store.discard(digest, before=time.time() - 60) is False
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_writer_never_loses_what_it_stored(tmp_path: Path) -> None:
    """Writers that store what a collector is taking away, hundreds of times: after each, the bytes are there."""
    store, stop = BlobStore(tmp_path), threading.Event()
    digest = store.put(b"wanted")

    def take() -> None:
        while not stop.is_set():
            store.discard(digest, before=time.time() - 3600)

    thread = threading.Thread(target=take)
    thread.start()
    try:
        for _ in range(400):
            with contextlib.suppress(FileNotFoundError):
                os.utime(store.path(digest), (OLD, OLD))
            store.put(b"wanted")
            assert there(store, digest)
    finally:
        stop.set()
        thread.join()


def there(store: BlobStore, digest: Digest) -> bool:
    """Whether the bytes are there, or are on their way back from a collector that looked at their time."""
    end = time.monotonic() + 5
    while time.monotonic() < end:
        if store.has(digest):
            return True
    return False
