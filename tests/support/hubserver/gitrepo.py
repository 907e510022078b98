"""One repository: a bare git repository, driven through git's plumbing so that every commit is a real one."""

import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

DEFAULT_BRANCH = "main"
ATTRIBUTES = b"".join(
    b"%s filter=lfs diff=lfs merge=lfs -text\n" % glob for glob in (b"*.safetensors", b"*.bin", b"*.png", b"*.ckpt")
)
POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\noid sha256:(?P<oid>[0-9a-f]{64})\nsize (?P<size>[0-9]+)\n"
)
OID = re.compile("[0-9a-f]{40}")
MAX_POINTER = 200  # bytes; a longer blob is no LFS pointer
ENVIRONMENT = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C", "PATH": os.environ["PATH"]}


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of a tree: a file ("blob") or a folder ("tree") by its full path, size in bytes."""

    path: str
    kind: str
    oid: str
    size: int


@dataclass(frozen=True, slots=True)
class Pointer:
    """What git holds in place of a large file."""

    oid: str
    size: int

    def to_bytes(self) -> bytes:
        """The pointer file of the Git LFS specification, version 1."""
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.oid}\nsize {self.size}\n".encode()


@dataclass(frozen=True, slots=True)
class Commit:
    """A line of the history; `date` is ISO 8601 in UTC."""

    oid: str
    author: str
    date: str
    title: str
    message: str


class GitRepository:
    """A bare repository in a folder. Reads are cached by object id, which never changes its meaning."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries = lru_cache(maxsize=None)(self._entries)
        self.pointers = lru_cache(maxsize=None)(self._pointers)
        self.blob = lru_cache(maxsize=None)(self._blob)
        self.log = lru_cache(maxsize=None)(self._log)
        self._commits: set[str] = set()

    @classmethod
    def create(cls, path: Path, author: str) -> "GitRepository":
        """A new repository with the first commit that the Hub makes: `.gitattributes`."""
        path.mkdir(parents=True)
        repository = cls(path)
        repository.git("init", "-q", "--bare", f"--initial-branch={DEFAULT_BRANCH}")
        repository.commit(
            f"refs/heads/{DEFAULT_BRANCH}",
            None,
            {".gitattributes": ATTRIBUTES},
            author=author,
            message="initial commit",
        )
        return repository

    def git(self, *arguments: str, stdin: bytes = b"") -> bytes:
        """Run git here.

        Raises:
            subprocess.CalledProcessError: git said no.
        """
        command = ["git", "--git-dir", str(self.path), *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, check=True, env=ENVIRONMENT).stdout

    def resolve(self, revision: str) -> str | None:
        """The commit that a branch, tag, ref or commit id names, 40 hexadecimal digits."""
        if revision in self._commits:
            return revision
        if (head := self._head(revision)) is not None:
            return head
        for name in (f"refs/heads/{revision}", f"refs/tags/{revision}", revision):
            try:
                found = self.git("rev-parse", "-q", "--verify", "--end-of-options", name + "^{commit}").decode().strip()
            except subprocess.CalledProcessError:
                continue
            self._commits.add(found)
            return found
        return None

    def _head(self, branch: str) -> str | None:
        """The commit of a branch whose file git would read: starting git takes a hundred times as long."""
        if ".." in branch or "\0" in branch:
            return None
        try:
            told = (self.path / "refs" / "heads" / branch).read_text().strip()
        except (OSError, UnicodeError):
            return None
        return told if OID.fullmatch(told) else None

    def refs(self, prefix: str) -> dict[str, str]:
        """Full ref name to commit id, for the refs below `prefix`."""
        form = "--format=%(refname) %(objectname) %(*objectname)"
        rows = (line.split(" ") for line in self.git("for-each-ref", form, prefix).decode().splitlines())
        return {name: peeled or oid for name, oid, peeled in rows}

    def set_ref(self, name: str, oid: str | None) -> None:
        """Point a ref somewhere, or remove it."""
        self.git("update-ref", *(["-d", name] if oid is None else [name, oid]))

    def _entries(self, commit: str) -> dict[str, Entry]:
        rows = self.git("ls-tree", "-r", "-t", "-l", "-z", "--full-tree", commit).decode().split("\0")
        return {entry.path: entry for entry in map(_entry, filter(None, rows))}

    def _pointers(self, commit: str) -> dict[str, Pointer]:
        small = {e.path: e.oid for e in self.entries(commit).values() if e.kind == "blob" and e.size < MAX_POINTER}
        blobs = dict(zip(small, self._blobs(small.values()), strict=True))
        matches = ((path, POINTER.fullmatch(blob)) for path, blob in blobs.items())
        return {path: Pointer(m["oid"].decode(), int(m["size"])) for path, m in matches if m}

    def _blobs(self, oids: Iterable[str]) -> Iterator[bytes]:
        data = self.git("cat-file", "--batch", stdin="".join(f"{oid}\n" for oid in oids).encode())
        at = 0
        while at < len(data):
            end = data.index(b"\n", at)
            size = int(data[at:end].split(b" ")[2])
            yield data[end + 1 : end + 1 + size]
            at = end + 1 + size + 1

    def _blob(self, oid: str) -> bytes:
        """A file's bytes."""
        return self.git("cat-file", "blob", oid)

    def _log(self, commit: str) -> list[Commit]:
        """The history, newest first."""
        rows = self.git(
            "log", "-z", "--format=%H%x01%an%x01%ad%x01%s%x01%b", "--date=format:%Y-%m-%dT%H:%M:%S.000Z", commit
        )
        return [Commit(*row.split("\x01")) for row in rows.decode().split("\0") if row]

    def commit(
        self, ref: str, parent: str | None, changes: Mapping[str, bytes | None], *, author: str, message: str
    ) -> str:
        """Write one commit and move `ref` to it. None as content removes the file or folder."""
        lines = [f"commit {ref}\ncommitter {author} <{author}@localhost> now\n".encode(), _data(message.encode())]
        lines += [f"from {parent}\n".encode()] if parent else []
        for path, content in changes.items():
            quoted = _quote(path)
            lines += [b"D %s\n" % quoted] if content is None else [b"M 100644 inline %s\n" % quoted, _data(content)]
        self.git(
            "fast-import", "--quiet", "--done", "--force", "--date-format=now", stdin=b"".join([*lines, b"done\n"])
        )
        made = self._head(ref.removeprefix("refs/heads/")) or self.git("rev-parse", ref).decode().strip()
        self._commits.add(made)
        return made


def _entry(row: str) -> Entry:
    about, path = row.split("\t", 1)
    _, kind, oid, size = about.split()
    return Entry(path, kind, oid, 0 if size == "-" else int(size))


def _data(content: bytes) -> bytes:
    return b"data %d\n%s\n" % (len(content), content)


def _quote(path: str) -> bytes:
    escaped = path.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'.encode()
