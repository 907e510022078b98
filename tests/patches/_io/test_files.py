"""Regular files, and everything that pretends to be one."""

import os
import socket
from pathlib import Path

import pytest

from rasura.patches._io.files import read_regular
from rasura.patches.errors import FormatError, NotFoundError


def test_a_regular_file_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    assert read_regular(tmp_path / "f", 3) == b"abc"
    with pytest.raises(FormatError, match="expected at most 2 bytes, got 3"):
        read_regular(tmp_path / "f", 2)


def test_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    for path in (tmp_path / "none", tmp_path / "none" / "f", tmp_path / "f" / "g"):
        with pytest.raises(NotFoundError, match="expected a file at"):
            read_regular(path, 10)


def test_links_pipes_sockets_devices_and_folders_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path has at most 107 bytes
    Path("file").write_bytes(b"abc")
    Path("link").symlink_to("file")
    Path("dangling").symlink_to("nowhere")
    Path("folder").mkdir()
    os.mkfifo("pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        for name in ("link", "dangling", "folder", "pipe", "socket", "/dev/zero", "a\0b", "x" * 300):
            with pytest.raises(FormatError, match=r"expected a (regular file|path), got"):
                read_regular(Path(name), 10)


def test_a_file_longer_than_it_said_is_refused() -> None:
    with pytest.raises(FormatError, match="it changed while it was read"):
        read_regular(Path("/proc/self/status"), 100_000)  # its size is 0 until it is read


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for limit in (3, 2):
        for path in (tmp_path / "f", tmp_path):
            try:
                read_regular(path, limit)
            except FormatError:
                continue
    assert len(list(Path("/proc/self/fd").iterdir())) == before
