"""One small file in a commit of its own, and read back at that commit."""

from __future__ import annotations

from rasura.patches.errors import ConflictError, NotFoundError
from rasura.registry.hub.client import DEFAULT_BRANCH, Patience, Wire
from rasura.registry.hub.refs import PinnedRepo, check_repo
from rasura.registry.hub.remote import Remote
from rasura.registry.hub.upload import commit_files

__all__ = ["put_file", "read_file"]


def put_file(repo: str, path: str, data: bytes, *, message: str, remote: Remote, private: bool = False) -> PinnedRepo:
    """Write a file to the main branch in one commit; the repository is made where there is none.

    Args:
        repo: `org/name`.
        path: inside it.
        data: the bytes.
        message: of the commit.
        remote: which Hub.
        private: make the repository private if it is new.

    Returns:
        The repository at that commit.

    Raises:
        InputError: no name of a repository.
        ConflictError: somebody else wrote at the same time; nothing was written.
        HubError: the Hub failed, refused or was not reached.
    """
    check_repo(repo)
    wire = Wire(remote.endpoint, remote.token, Patience())
    try:
        head, _ = wire.head(repo, DEFAULT_BRANCH)
    except NotFoundError:
        wire.create(repo, private=private)
        head, _ = wire.head(repo, DEFAULT_BRANCH)
    try:
        return PinnedRepo(repo, commit_files(wire, repo, DEFAULT_BRANCH, {path: data}, message=message, parent=head))
    except ConflictError as error:
        error.hint = "repeat the command"
        raise


def read_file(place: PinnedRepo, path: str, *, limit: int, remote: Remote) -> bytes:
    """A file's bytes at a commit.

    Raises:
        NotFoundError: no such repository, commit or file, or none that this token may see.
        HubError: the Hub failed or was not reached.
        FormatError: more than `limit` bytes.
    """
    return Wire(remote.endpoint, remote.token, Patience()).read(place.repo, place.commit, path, limit=limit)
