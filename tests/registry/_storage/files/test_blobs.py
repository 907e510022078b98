"""The blob store: what goes in comes out, and nothing else does."""

import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rasura.patches.errors import DigestMismatchError, InputError, NotFoundError, RegistryError
from rasura.patches.types import Digest
from rasura.registry._storage.files.blobs import BlobStore

DATA = b"factors"
DIGEST = Digest(hashlib.sha256(DATA).hexdigest())


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    folder = tmp_path / "a b%20?#"
    folder.mkdir()
    return BlobStore(folder)


def test_bytes_come_back(blobs: BlobStore) -> None:
    assert not blobs.has(DIGEST)
    assert blobs.put(DATA) == DIGEST
    assert blobs.has(DIGEST)
    assert blobs.read(DIGEST) == DATA
    assert blobs.path(DIGEST) == blobs.folder / DIGEST[:2] / DIGEST[2:]


def test_storing_twice_changes_nothing_but_the_time(blobs: BlobStore) -> None:
    blobs.put(DATA)
    before = blobs.path(DIGEST).stat()
    blobs.put(DATA, DIGEST)
    after = blobs.path(DIGEST).stat()
    assert before.st_ino == after.st_ino
    assert before.st_mtime_ns <= after.st_mtime_ns  # so that a collector sees that somebody needs it
    assert [path.name for path in blobs.path(DIGEST).parent.iterdir()] == [DIGEST[2:]]


def test_a_blob_cannot_be_written_to(blobs: BlobStore) -> None:
    assert blobs.path(blobs.put(DATA)).stat().st_mode & 0o777 == 0o444


def test_an_empty_blob_is_a_blob(blobs: BlobStore) -> None:
    assert blobs.read(blobs.put(b"")) == b""


def test_other_bytes_than_promised_are_refused(blobs: BlobStore) -> None:
    with pytest.raises(DigestMismatchError, match="expected bytes"):
        blobs.put(DATA + b"!", DIGEST)
    assert not any(blobs.folder.rglob("*"))


@pytest.mark.parametrize("damage", [DATA[:-1], DATA + b"!", b"", b"Factors"])
def test_changed_bytes_are_never_given_out(blobs: BlobStore, damage: bytes) -> None:
    path = blobs.path(blobs.put(DATA))
    path.chmod(0o600)
    path.write_bytes(damage)
    with pytest.raises(DigestMismatchError):
        blobs.read(DIGEST)
    with pytest.raises(DigestMismatchError):
        blobs.put(DATA)
    assert path.read_bytes() == damage


def test_a_missing_blob_is_named(blobs: BlobStore) -> None:
    with pytest.raises(NotFoundError) as caught:
        blobs.read(DIGEST)
    assert str(blobs.path(DIGEST)) in caught.value.message


@pytest.mark.parametrize("name", ["", "ab", "../../etc/passwd", DIGEST.upper(), DIGEST + "0", DIGEST[:-1] + "\n"])
def test_only_digests_name_blobs(blobs: BlobStore, name: str) -> None:
    with pytest.raises(InputError):
        blobs.read(Digest(name))


def test_links_pipes_and_folders_are_no_blobs(blobs: BlobStore, tmp_path: Path) -> None:
    path = blobs.path(DIGEST)
    path.parent.mkdir()
    (tmp_path / "elsewhere").write_bytes(DATA)
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RegistryError):
        blobs.read(DIGEST)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(RegistryError):  # and it does not wait for somebody to write
        blobs.read(DIGEST)
    path.unlink()
    path.mkdir()
    with pytest.raises(RegistryError):
        blobs.read(DIGEST)


def test_a_blob_over_the_limit_is_not_read(blobs: BlobStore) -> None:
    blobs.put(DATA)
    with pytest.raises(RegistryError, match="at most 6 bytes"):
        blobs.read(DIGEST, limit=6)
    assert blobs.read(DIGEST, limit=7) == DATA


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    """`/dev/full` cannot hold a folder, so a size limit of the process plays the full disk."""
    program = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from rasura.patches.errors import RegistryError\n"
        "from rasura.registry._storage.files.blobs import BlobStore\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "try:\n"
        "    BlobStore(Path(sys.argv[1])).put(bytes(1000))\n"
        "except RegistryError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False)
    assert "cannot store blob" in done.stdout, done.stderr
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_many_writers_of_one_blob_agree(blobs: BlobStore) -> None:
    data = os.urandom(200_000)
    threads = [threading.Thread(target=blobs.put, args=(data,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    digest = Digest(hashlib.sha256(data).hexdigest())
    assert blobs.read(digest) == data
    assert len([path for path in blobs.folder.rglob("*") if path.is_file()]) == 1
