"""Where large files lie: by SHA-256 as Git LFS has it, and in the folder that hf_xet writes by itself."""

import hashlib
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

# Layout of a Xet shard file (`.mdb`): a header, then per file a header, its terms and two optional parts.
SHARD_HEADER = 48  # bytes; every record of a shard has this size
HAS_VERIFICATION, HAS_METADATA = 1 << 31, 1 << 30
END_OF_FILES = b"\xff" * 32


class Objects:
    """Large files by the SHA-256 of their bytes, and the parts of uploads that are under way."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)

    def path(self, oid: str) -> Path:
        """Where an object lies, if it is there."""
        return self.folder / oid

    def has(self, oid: str) -> bool:
        """Whether an object is there."""
        return self.path(oid).is_file()

    def put(self, oid: str, content: bytes) -> bool:
        """Keep an object; False when its bytes are not those of its name."""
        if hashlib.sha256(content).hexdigest() != oid:
            return False
        with tempfile.NamedTemporaryFile(dir=self.folder, delete=False) as file:
            file.write(content)
        Path(file.name).replace(self.path(oid))  # at once: two patches may bring the same object at the same time
        return True

    def put_part(self, oid: str, number: int, content: bytes) -> str:
        """Keep a part of an object and return its ETag."""
        self.path(f"{oid}.{number}").write_bytes(content)
        return hashlib.md5(content).hexdigest()

    def join(self, oid: str, numbers: list[int]) -> bool:
        """Make the object out of its parts; False when the bytes are not those of its name."""
        parts = [self.path(f"{oid}.{number}") for number in numbers]
        complete = self.put(oid, b"".join(part.read_bytes() for part in parts if part.is_file()))
        for part in parts:
            part.unlink(missing_ok=True)
        return complete


class XetStore:
    """The content-addressed store that hf_xet keeps in a folder when it is told `local://` as its server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._seen: set[Path] = set()
        self._hashes: dict[str, str] = {}
        folder.mkdir(parents=True)

    @property
    def url(self) -> str:
        """The address to hand to hf_xet (three slashes: the folder is absolute)."""
        return f"local://{self.folder}"

    def hash_of(self, sha256: str) -> str | None:
        """The Xet hash of the file with this SHA-256, if it was uploaded."""
        for shard in set(self.folder.glob("**/shards/*.mdb")) - self._seen:
            self._hashes.update(_files(shard.read_bytes()))
            self._seen.add(shard)
        return self._hashes.get(sha256)

    def read(self, xet_hash: str, size: int) -> bytes:
        """A file's bytes, put together by hf_xet."""
        import hf_xet  # type: ignore[import-untyped]

        group = hf_xet.XetSession().new_file_download_group(
            endpoint=self.url, token="server", token_expiry_unix_secs=1 << 40
        )
        with tempfile.TemporaryDirectory() as folder:
            with group:
                group.start_download_file(hf_xet.XetFileInfo(xet_hash, size), f"{folder}/file")
            return Path(folder, "file").read_bytes()


def _files(shard: bytes) -> Iterator[tuple[str, str]]:
    """(SHA-256, Xet hash) of every file that a shard describes."""
    at = SHARD_HEADER
    while shard[at : at + 32] != END_OF_FILES and at + SHARD_HEADER <= len(shard):
        flags, terms = struct.unpack_from("<II", shard, at + 32)
        name, at = _hex(shard[at : at + 32]), at + SHARD_HEADER * (1 + terms)
        at += SHARD_HEADER * terms if flags & HAS_VERIFICATION else 0
        if flags & HAS_METADATA:
            yield _hex(shard[at : at + 32]), name
            at += SHARD_HEADER


def _hex(raw: bytes) -> str:
    """A Xet hash prints as four little-endian 64-bit words."""
    return "".join(f"{word:016x}" for word in struct.unpack("<4Q", raw))
