"""Ranges of files: what is written is hashed as the medium has it, wherever ranges begin and end."""

import hashlib
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rasura.patches._io.byte_ranges import copy_range, digest_range, digest_ranges, digest_written
from rasura.patches.errors import HostError

SIZE = 3 * 2**20 + 1234  # more than one read past memory takes, and no whole sectors


@pytest.fixture(scope="module")
def data() -> bytes:
    return hashlib.shake_256(b"some weights").digest(SIZE)


@pytest.fixture(scope="module")
def file(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ranges") / "weights"
    path.write_bytes(data)
    with path.open("rb") as opened:
        os.fsync(opened.fileno())
    return path


@given(st.integers(0, SIZE), st.integers(0, SIZE))
def test_what_is_on_the_medium_is_what_was_written(data: bytes, file: Path, one: int, other: int) -> None:
    start, stop = sorted((one, other))
    ranges = [(start, stop), (0, start), (stop, SIZE), (stop, stop)]
    with file.open("rb") as opened:
        flags = os.get_blocking(opened.fileno())
        found = digest_written((opened.fileno(), *each) for each in ranges)
        assert found == digest_ranges((opened.fileno(), *each) for each in ranges)
        assert found == [hashlib.sha256(data[slice(*each)]).hexdigest() for each in ranges]
        assert os.pread(opened.fileno(), 5, 3) == data[3:8]  # as any other reader reads again
        assert os.get_blocking(opened.fileno()) == flags


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="a file system in memory")
def test_where_there_is_no_medium_memory_is_what_there_is(data: bytes) -> None:
    with tempfile.TemporaryFile(dir="/dev/shm") as file:
        file.write(data)
        file.flush()
        assert digest_written([(file.fileno(), 5, SIZE)]) == [hashlib.sha256(data[5:]).hexdigest()]


@pytest.mark.parametrize("start", [0, 5, SIZE - 1, SIZE])
def test_a_file_that_ends_before_is_no_range(file: Path, start: int) -> None:
    with file.open("rb") as opened, pytest.raises(HostError, match="got the file's end"):
        digest_written([(opened.fileno(), start, SIZE + 1)])


@given(st.integers(0, SIZE), st.integers(0, SIZE), st.integers(0, 9999))
def test_what_is_copied_is_hashed(data: bytes, file: Path, one: int, other: int, at: int) -> None:
    start, stop = sorted((one, other))
    with file.open("rb") as source, tempfile.TemporaryFile() as target:
        digest = copy_range(source.fileno(), start, stop, target.fileno(), at)
        assert digest == digest_range(source.fileno(), start, stop)
        assert os.pread(target.fileno(), SIZE, at) == data[start:stop]
