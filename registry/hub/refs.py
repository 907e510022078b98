"""Names: of repositories, revisions, commits, and of the files in a patch."""

import re
from dataclasses import dataclass

from rasura.patches.errors import FormatError, InputError
from rasura.patches.format.file_names import SIGNATURE

FOLDER = "patches"
COMFYUI = re.compile(r"comfyui/[a-z0-9][a-z0-9-]{0,63}-[0-9a-f]{12}\.safetensors")
"""Where a repository keeps what `rasura patch export --format kohya` makes of a patch."""

_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"  # the Hub's rule: at most 96, no dash or dot at the end
_REPO = re.compile(rf"{_PART}/{_PART}")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_FILE = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?")  # what Windows opens in place of a file


@dataclass(frozen=True, slots=True)
class PinnedRepo:
    """A repository at one commit, 40 hexadecimal digits: branches may move, this does not."""

    repo: str
    commit: str

    def __post_init__(self) -> None:
        check_repo(self.repo)
        if not _COMMIT.fullmatch(self.commit):
            raise FormatError(f"{self.repo}: expected a commit of 40 hexadecimal digits, got {self.commit[:60]!a}")


def parse_ref(text: str) -> tuple[str, str | None]:
    """`org/name` or `org/name@revision` as (repository, revision or None).

    Raises:
        InputError: anything else.
    """
    repo, at, revision = text.partition("@")
    check_repo(repo)
    if not at:
        return repo, None
    check_revision(revision)
    return repo, revision


def check_repo(repo: str) -> None:
    """Refuse what the Hub would not take as a repository.

    Raises:
        InputError: not of the form `org/name`.
    """
    if not _REPO.fullmatch(repo) or "--" in repo or ".." in repo or repo.endswith(".git"):
        raise InputError(f"expected a Hub repository as org/name, got {repo[:120]!a}", hint="rasura pull org/name@rev")


def check_revision(revision: str) -> None:
    """Refuse what git would not take as a branch, tag or commit.

    Raises:
        InputError: not a revision.
    """
    bad = ("..", "//", "/.", "./", ".lock")
    if not _REVISION.fullmatch(revision) or revision[-1] in "/." or any(part in revision for part in bad):
        raise InputError(f"expected a branch, tag or commit, got {revision[:120]!a}", hint="rasura pull org/name@rev")


def check_file(name: str, where: str) -> None:
    """Refuse a name that must not become a file of a patch: paths, hidden files, device names, odd characters.

    Raises:
        FormatError: not on the allow-list.
    """
    if not _FILE.fullmatch(name) or _DEVICE.fullmatch(name) or name == SIGNATURE:
        raise FormatError(f"{where}: expected a plain file name of lower-case letters and digits, got {name[:120]!a}")
