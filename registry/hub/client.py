"""The calls to a Hub: our errors, bounded retries, bounded downloads, and never a token in a message."""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeVar

from rasura.patches.errors import FormatError, HubError, RasuraError
from rasura.patches.types import Digest
from rasura.registry.hub.faults import Fault, translate
from rasura.registry.hub.licences import KEYS

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoFile, RepoFolder

T = TypeVar("T")

DEFAULT_BRANCH = "main"


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a Hub that is busy, slow or out of reach is put up with; times in seconds.

    Attributes:
        attempts: calls in all.
        wait: before the second call; doubles each time.
        longest: no single wait is longer, whatever the Hub asks for.
        deadline: after this long no new attempt begins.
        silence: a look-up or download in which nothing comes for so long has failed.
        download: no single file may take longer, however steadily it drips.
    """

    attempts: int = 4
    wait: float = 0.5
    longest: float = 10.0
    deadline: float = 60.0
    silence: float = 30.0
    download: float = 600.0


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file at a commit: its size in bytes, git's object id, and its SHA-256 if it is stored apart from git."""

    size: int
    oid: str
    sha256: Digest | None


class Wire:
    """A Hub with a token.

    Args:
        endpoint: the Hub's address, or None for the one that huggingface_hub is set to.
        token: an access token, or None for the one that `hf auth login` stored, if any.
        patience: how failures that may pass are met.
    """

    def __init__(self, endpoint: str | None, token: str | None, patience: Patience) -> None:
        from huggingface_hub import HfApi, constants, get_token

        implicit = None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token()
        self._token = token or implicit
        self.endpoint = (endpoint or constants.ENDPOINT).rstrip("/")
        self.api: HfApi = HfApi(endpoint=self.endpoint, token=self._token or False, library_name="rasura")
        self._patience = patience

    def call(self, what: str, function: Callable[[], T]) -> T:
        """Call, again if the failure may pass, and raise only our own errors.

        Raises:
            NotFoundError: no such repository, revision or file, or none that this token may see.
            ConflictError: somebody else was faster.
            HubError: everything else; `details["status"]` holds the HTTP status if there was one.
        """
        begun = time.monotonic()
        for attempt in itertools.count(1):
            try:
                return function()
            except RasuraError:
                raise
            except Exception as error:  # noqa: BLE001 (httpx, hf_xet and huggingface_hub share no base class)
                fault = Fault.of(error)
                wait = self._wait(fault, attempt, time.monotonic() - begun)
                if wait is None:
                    raise translate(fault, what, self._token, self.endpoint) from fault.cause(self._token)
            time.sleep(wait)
        raise AssertionError  # pragma: no cover (count has no end)

    def _wait(self, fault: Fault, attempt: int, elapsed: float) -> float | None:
        patience = self._patience
        if not fault.may_pass or attempt >= patience.attempts or elapsed > patience.deadline:
            return None
        return min(patience.longest, max(patience.wait * 2.0 ** (attempt - 1), fault.retry_after))

    def head(self, repo: str, revision: str) -> tuple[str, bool]:
        """The commit that a revision names now, and whether the repository is private."""
        info = self.call(
            f"look up {repo}@{revision}",
            lambda: self.api.model_info(repo, revision=revision, timeout=self._patience.silence),
        )
        return str(info.sha), bool(info.private)

    def licence(self, model: str) -> Mapping[str, str]:
        """What the page of a model says of its licence; empty where there is no such page here, or it says none."""
        try:
            info = self.call(f"look up {model}", lambda: self.api.model_info(model, timeout=self._patience.silence))
        except RasuraError:
            return {}
        card: dict[str, object] = info.card_data.to_dict() if info.card_data else {}  # type: ignore[no-untyped-call]
        return {key: str(card[key]) for key in KEYS if isinstance(card.get(key), str) and card[key]}

    def files(self, repo: str, commit: str, *, limit: int) -> dict[str, RemoteFile]:
        """Every file of a commit by its path.

        Raises:
            FormatError: more than `limit` entries, or an entry that makes no sense.
        """
        from huggingface_hub import RepoFile

        def rows() -> "list[RepoFile | RepoFolder]":
            return list(itertools.islice(self.api.list_repo_tree(repo, recursive=True, revision=commit), limit + 1))

        listed = self.call(f"list {repo}", rows)
        if len(listed) > limit:
            raise FormatError(f"{repo}: expected at most {limit} files and folders, got more")
        return {row.path: _remote(row, repo) for row in listed if isinstance(row, RepoFile)}

    def read(self, repo: str, commit: str, path: str, *, limit: int) -> bytes:
        """A file's bytes, into memory.

        Raises:
            FormatError: it does not end after `limit` bytes.
            HubError: it takes too long.
        """
        from huggingface_hub import hf_hub_url

        url = hf_hub_url(repo, path, revision=commit, endpoint=self.endpoint)
        return self.call(f"download {repo}/{path}", lambda: self._stream(url, f"{repo}/{path}", limit))

    def _stream(self, url: str, what: str, limit: int) -> bytes:
        # Not hf_hub_download: it writes to disk what the server sends for as long as the server sends.
        from huggingface_hub import get_session, hf_raise_for_status

        patience, data = self._patience, bytearray()
        until = time.monotonic() + patience.download
        with get_session().stream("GET", url, headers=self._headers(), timeout=patience.silence) as response:
            hf_raise_for_status(response)
            for piece in response.iter_raw():  # as it comes: a chunk size would wait for a full chunk
                data += piece
                if len(data) > limit:
                    raise FormatError(f"{what}: expected at most {limit} bytes, got more")
                if time.monotonic() > until:
                    late = f"{what}: expected {limit} bytes within {patience.download:g} s, got {len(data)}"
                    raise HubError(late, hint="repeat later, or from another network")
        return bytes(data)

    def _headers(self) -> dict[str, str]:
        # httpx drops Authorization by itself where a redirect leaves the Hub's origin.
        headers = {"Accept-Encoding": "identity", "User-Agent": "rasura"}
        return {**headers, "Authorization": f"Bearer {self._token}"} if self._token else headers

    def lacks_xet(self, repo: str, revision: str) -> bool:
        """Whether huggingface_hub would upload by Xet to a Hub that does not know it: there it just fails."""
        from urllib.parse import quote

        from huggingface_hub import constants, get_session

        if constants.HF_HUB_DISABLE_XET:
            return False
        url = f"{self.endpoint}/api/models/{repo}/xet-write-token/{quote(revision, safe='')}"
        answer = self.call(
            f"ask {repo} for Xet",
            lambda: get_session().get(url, headers=self._headers(), timeout=self._patience.silence),
        )
        return bool(answer.status_code == HTTPStatus.NOT_FOUND)


def _remote(row: "RepoFile", repo: str) -> RemoteFile:
    size: object = row.lfs.size if row.lfs else row.size  # as the server sent it, whatever the annotation says
    if not isinstance(size, int) or size < 0:
        raise FormatError(f"{repo}/{row.path[:120]}: expected a size in bytes, got {size!r}")
    return RemoteFile(size, str(row.blob_id), Digest(row.lfs.sha256) if row.lfs else None)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep huggingface_hub's progress bars off the terminal; what is shown there is the command line's business."""
    from huggingface_hub import constants
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if constants.HF_HUB_DISABLE_PROGRESS_BARS is not None or are_progress_bars_disabled():
        yield  # the user has said what they want
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
