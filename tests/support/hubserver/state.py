"""What the server knows: accounts, repositories and how each file is stored."""

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from support.hubserver.gitrepo import Entry, GitRepository, Pointer
from support.hubserver.storage import Objects, XetStore
from support.hubserver.wire import HttpError, Request

USER, ORGANISATION = "tester", "acme"
TOKEN = "hf_thisTokenIsOnlyForTheLoopbackServer"
FRONT_MATTER = re.compile(rb"\A---\r?\n(.*?)\r?\n---\s", re.DOTALL)


@dataclass(slots=True)
class PullRequest:
    """A proposed change: the commits of `refs/pr/<num>`."""

    num: int
    title: str
    author: str
    created: str
    status: str = "open"


@dataclass(slots=True)
class Repository:
    """A repository with what git does not hold."""

    kind: str
    owner: str
    name: str
    git: GitRepository
    private: bool
    created: str
    gated: bool = False
    pulls: list[PullRequest] = field(default_factory=list)

    @property
    def id(self) -> str:
        """Owner and name."""
        return f"{self.owner}/{self.name}"

    @property
    def prefix(self) -> str:
        """What stands before the id in an address outside of /api; models have nothing there."""
        return "" if self.kind == "models" else f"{self.kind}/"

    def commit(self, revision: str) -> str:
        """The commit that a revision names.

        Raises:
            HttpError: 404, when it names none.
        """
        if oid := self.git.resolve(revision):
            return oid
        raise HttpError(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def entry(self, commit: str, path: str) -> Entry:
        """The file or folder at a path.

        Raises:
            HttpError: 404, when nothing is there.
        """
        if entry := self.git.entries(commit).get(path):
            return entry
        raise HttpError(404, "Entry not found", "EntryNotFound")

    def pointer(self, commit: str, path: str) -> Pointer | None:
        """The pointer at a path, if the file is a large one."""
        return self.git.pointers(commit).get(path)

    def card(self, commit: str) -> dict[str, Any]:
        """The front matter of README.md, or nothing."""
        readme = self.git.entries(commit).get("README.md")
        match = FRONT_MATTER.match(self.git.blob(readme.oid)) if readme else None
        card = yaml.safe_load(match[1]) if match else None
        return card if isinstance(card, dict) else {}


class Hub:
    """Everything that the server holds. Writers take `lock`; readers see whole commits in any case."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lock = threading.RLock()
        self.users = {TOKEN: USER}
        self.namespaces = {USER: {USER, ORGANISATION}}
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.objects = Objects(root / "objects")
        self.xet = XetStore(root / "xet")
        self.url = self.storage_url = ""
        self.xet_enabled = True
        self._made = 0

    def user(self, request: Request) -> str | None:
        """Whose token the request carries, or None when it carries none.

        Raises:
            HttpError: 401, when the token is unknown.
        """
        header = request.headers.get("authorization", "")
        if not header:
            return None
        if user := self.users.get(header.removeprefix("Bearer ")):
            return user
        raise HttpError(401, "Invalid credentials in Authorization header")

    def writer(self, request: Request, owner: str) -> str:
        """The user who may write in a namespace.

        Raises:
            HttpError: 401 without a token, 403 with somebody else's.
        """
        user = self.user(request)
        if user is None:
            raise HttpError(401, "Invalid username or password.")
        if owner not in self.namespaces.get(user, set()):
            raise HttpError(403, f"You don't have the rights to write in the namespace {owner}")
        return user

    def repository(self, request: Request) -> Repository:
        """The repository of the request's address, if it may be read.

        Raises:
            HttpError: 404 (with a token) or 401 (without), when it does not exist or is private to others; 403
                when it is gated.
        """
        user, owner = self.user(request), request.at["owner"]
        found = self.repositories.get((request.at.get("kind", "models"), f"{owner}/{request.at['name']}"))
        mine = user is not None and owner in self.namespaces.get(user, set())
        if found is None or (found.private and not mine):
            raise HttpError(404 if user else 401, "Repository not found", "RepoNotFound")
        if found.gated and not mine:
            raise HttpError(403, f"Access to model {found.id} is restricted", "GatedRepo")
        return found

    def writable(self, request: Request) -> tuple[str, Repository]:
        """The user and the repository of a request that writes.

        Raises:
            HttpError: as `writer` and `repository`.
        """
        return self.writer(request, request.at["owner"]), self.repository(request)

    def create(self, kind: str, owner: str, name: str, *, private: bool, author: str) -> Repository:
        """A new repository with its first commit."""
        self._made += 1  # a folder is never used twice, so a name can be given again
        git = GitRepository.create(self.root / "git" / f"{self._made}-{kind}-{owner}-{name}.git", author)
        repository = Repository(kind, owner, name, git, private, now())
        self.repositories[kind, repository.id] = repository
        return repository

    def xet_hash(self, pointer: Pointer | None) -> str | None:
        """The Xet hash of a large file, when Xet is on and the file was uploaded that way."""
        return self.xet.hash_of(pointer.oid) if pointer and self.xet_enabled else None

    def stored(self, oid: str) -> bool:
        """Whether the bytes of a large file have arrived, either way."""
        return self.objects.has(oid) or self.xet.hash_of(oid) is not None

    def content(self, repository: Repository, commit: str, path: str) -> bytes:
        """A file's bytes, wherever they lie."""
        pointer = repository.pointer(commit, path)
        return self.large(pointer) if pointer else repository.git.blob(repository.entry(commit, path).oid)

    def large(self, pointer: Pointer) -> bytes:
        """A large file's bytes."""
        if self.objects.has(pointer.oid):
            return self.objects.path(pointer.oid).read_bytes()
        return self.xet.read(self.xet.hash_of(pointer.oid) or "", pointer.size)

    def visible(self, request: Request, kind: str) -> Iterator[Repository]:
        """The repositories that the request may know of."""
        allowed = self.namespaces.get(self.user(request) or "", set())
        mine = (r for (its_kind, _), r in sorted(self.repositories.items()) if its_kind == kind)
        return (r for r in mine if not r.private or r.owner in allowed)


def tags(card: dict[str, Any]) -> list[str]:
    """The tags by which the Hub finds a repository: those of its card and those that follow from its fields."""
    found = [str(tag) for tag in card.get("tags") or []]
    found += [str(card[key]) for key in ("library_name", "pipeline_tag") if card.get(key)]
    found += [f"license:{card['license']}"] if card.get("license") else []
    if base := card.get("base_model"):
        found += [f"base_model:{base}", f"base_model:{card.get('base_model_relation', 'finetune')}:{base}"]
    return list(dict.fromkeys(found))


def now() -> str:
    """The time as the Hub writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
