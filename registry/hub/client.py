"""The calls to a Hub: our errors, one layer of retries under one deadline, bounds on every answer.

The Hub's interface is spoken here as huggingface_hub speaks it, without its calls: those try again by themselves inside
of ours, read whatever a server sends, follow it wherever it leads, and draw progress bars. What stays of the library is
its settings, its stored token and its HTTP client (proxies, certificates).
"""

import itertools
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import quote, urljoin

from huggingface_hub import constants, get_token

from rasura.patches.errors import CutOffError, ForeignAnswerError, FormatError, HubError, NotFoundError, RasuraError
from rasura.patches.types import Digest
from rasura.registry.hub.card.licences import KEYS
from rasura.registry.hub.faults import Fault, foreign_page, translate
from rasura.registry.hub.http import Answer, Clock, Request, is_foreign_page, late, same_origin, send

T = TypeVar("T")

DEFAULT_BRANCH = "main"
_ANSWER: Final = 8 << 20  # bytes of one JSON answer; a page of a listing holds a thousand rows of 400
_PAGES: Final = 200  # of a listing


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a Hub that is busy, slow or out of reach is put up with; times in seconds.

    Attributes:
        attempts: of one request, in all.
        wait: before the second one; doubles each time.
        longest: no wait is longer, unless the Hub asks for it and the deadline allows it.
        deadline: of one call with all its attempts, waits and pages; files have `download` instead.
        silence: a request in which nothing comes for so long has failed.
        download: no single file may take longer, down or up, however steadily it drips.
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
        implicit = None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token()
        self._token = token or implicit
        self.endpoint = (endpoint or constants.ENDPOINT).rstrip("/")
        self._patience = patience

    def ask(self, request: Request, repo: str, clock: Clock | None = None) -> Answer:
        """Send a request, again if the failure may pass, and raise only our own errors.

        Raises:
            NotFoundError: no such repository, revision or file, or none that this token may see.
            ConflictError: somebody else was faster.
            HubError: everything else; `details["status"]` holds the HTTP status if there was one.
            FormatError: more bytes than the request's limit.
        """
        clock = clock or Clock.start(self._patience.deadline)
        for attempt in itertools.count(1):
            try:
                answer = send(request, self.endpoint, self._token, clock, self._patience.silence)
                if answer.good:
                    return answer
                fault, ours = Fault.of_answer(answer), None
            except CutOffError as error:
                fault, ours = Fault.of(error), error
            except RasuraError:
                raise
            except Exception as error:  # noqa: BLE001 (httpx and huggingface_hub share no base class)
                fault, ours = Fault.of(error), None
            wait = self._wait(fault, attempt, clock)
            if wait is None:
                if not clock.left and not fault.status:
                    raise late(request.what, clock.seconds) from fault.cause(self._token)
                if ours:
                    raise ours
                raise translate(fault, request.what, self._token, self.endpoint, repo) from fault.cause(self._token)
            time.sleep(wait)
        raise AssertionError  # pragma: no cover (count has no end)

    def _wait(self, fault: Fault, attempt: int, clock: Clock) -> float | None:
        patience = self._patience
        if not fault.may_pass or attempt >= patience.attempts:
            return None
        wait = fault.retry_after or min(patience.longest, patience.wait * 2.0 ** (attempt - 1))
        return wait if wait < clock.left else None

    def _get(self, path: str, what: str, repo: str) -> Any:
        return self.read_json(self.ask(Request("GET", f"{self.endpoint}{path}", what, _ANSWER), repo), what)

    def post(self, path: str, what: str, repo: str, body: object, *, headers: Mapping[str, str] | None = None) -> Any:
        """Send JSON, or lines of it as bytes, and read the JSON that comes back."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        kind = {"Content-Type": "application/json", "Accept": "application/json", **(headers or {})}
        request = Request("POST", urljoin(f"{self.endpoint}/", path), what, _ANSWER, kind, content)
        return self.read_json(self.ask(request, repo), what)

    def put(self, url: str, what: str, repo: str, content: bytes) -> Answer:
        """Upload a file, or a part of one, to where the Hub said; the token goes there only if it is the Hub itself."""
        clock = Clock.start(self._patience.download)
        return self.ask(Request("PUT", url, what, _ANSWER, content=content), repo, clock)

    def read_json(self, answer: Answer, what: str) -> Any:
        """The value of a JSON answer.

        Raises:
            ForeignAnswerError: a web page, or no JSON.
        """
        if answer.is_page:
            raise foreign_page(what, self.endpoint)
        try:
            return json.loads(answer.body)
        except (ValueError, RecursionError):
            raise self._odd(what, "one that is no JSON") from None

    def _odd(self, what: str, got: str) -> ForeignAnswerError:
        return ForeignAnswerError(
            f"could not {what}: expected an answer of a Hub, got {got}",
            hint="check HF_ENDPOINT",
            endpoint=self.endpoint,
        )

    def head(self, repo: str, revision: str) -> tuple[str, bool]:
        """The commit that a revision names now, and whether the repository is private."""
        what = f"look up {repo}@{revision}"
        info = self._get(f"/api/models/{repo}/revision/{quote(revision, safe='')}", what, repo)
        if not isinstance(info, dict) or not isinstance(info.get("sha"), str):
            raise self._odd(what, "one without a commit")
        return info["sha"], bool(info.get("private"))

    def licence(self, model: str) -> Mapping[str, str]:
        """What the page of a model says of its licence; empty where there is no such page here, or it says none."""
        try:
            info = self._get(f"/api/models/{model}", f"look up {model}", model)
        except (HubError, NotFoundError, FormatError):
            return {}
        card = info.get("cardData") if isinstance(info, dict) else None
        found = card if isinstance(card, dict) else {}
        return {key: str(found[key]) for key in KEYS if isinstance(found.get(key), str) and found[key]}

    def create(self, repo: str, *, private: bool) -> None:
        """Make a repository; one that somebody made meanwhile is as good."""
        owner, name = repo.split("/")
        body = {"name": name, "organization": owner, "private": private, "type": "model"}
        try:
            self.post("/api/repos/create", f"create {repo}", "", body)
        except RasuraError as error:
            if error.details.get("status") != 409:  # noqa: PLR2004
                raise

    def files(self, repo: str, commit: str, *, limit: int) -> dict[str, RemoteFile]:
        """Every file of a commit by its path.

        Raises:
            FormatError: more than `limit` entries, or an entry that makes no sense.
            ForeignAnswerError: a next page that is another server's.
        """
        what, clock = f"list {repo}", Clock.start(self._patience.deadline)
        url: str | None = f"{self.endpoint}/api/models/{repo}/tree/{commit}?recursive=True&expand=False"
        found: dict[str, RemoteFile] = {}
        entries = 0
        for _ in range(_PAGES):
            if url is None:
                return found
            answer = self.ask(Request("GET", url, what, _ANSWER), repo, clock)
            rows = self.read_json(answer, what)
            if not isinstance(rows, list):
                raise self._odd(what, "one that is no list")
            entries += len(rows)
            if entries > limit:
                raise FormatError(f"{repo}: expected at most {limit} files and folders, got more")
            found |= dict(_remote(row, repo) for row in rows if not _is_folder(row))
            url = self._next(answer, what)
        raise FormatError(f"{repo}: expected a listing of at most {_PAGES} pages, got more")

    def _next(self, answer: Answer, what: str) -> str | None:
        """The address of the next page, if there is one; the token goes along, so it must be the Hub's."""
        url = _next_link(answer.headers.get("link", ""))
        if url is None:
            return None
        url = urljoin(answer.url, url)
        if not same_origin(url, self.endpoint):
            raise self._odd(what, "one whose next page is another server's")
        return url

    def read(self, repo: str, commit: str, path: str, *, limit: int) -> bytes:
        """A file's bytes, into memory.

        Raises:
            FormatError: it does not end after `limit` bytes.
            HubError: it takes too long.
        """
        url = f"{self.endpoint}/{repo}/resolve/{commit}/{quote(path)}"
        what = f"download {repo}/{path}"
        request = Request("GET", url, what, limit, leaves=True)
        answer = self.ask(request, repo, Clock.start(self._patience.download))
        if is_foreign_page(answer, path):
            raise foreign_page(what, self.endpoint)
        return answer.body


def _next_link(header: str) -> str | None:
    """The target of `rel="next"` in a Link header (RFC 8288)."""
    for part in header.split(","):
        target, _, parameters = part.partition(";")
        if 'rel="next"' in parameters.replace(" ", "") and target.strip().startswith("<"):
            return target.strip()[1:].rstrip(">")
    return None


def _is_folder(row: object) -> bool:
    return isinstance(row, dict) and row.get("type") == "directory"


def _remote(row: object, repo: str) -> tuple[str, RemoteFile]:
    match row:
        case {"type": "file", "path": str(path), **rest}:
            lfs = rest.get("lfs")
            stored = lfs if isinstance(lfs, dict) else rest
            size, digest = stored.get("size"), lfs.get("oid") if isinstance(lfs, dict) else None
            if type(size) is not int or size < 0:
                raise FormatError(f"{repo}/{path[:120]}: expected a size in bytes, got {size!r}")
            if digest is not None and not isinstance(digest, str):
                raise FormatError(f"{repo}/{path[:120]}: expected a SHA-256, got {digest!r}")
            return path, RemoteFile(size, str(rest.get("oid")), Digest(digest) if digest else None)
    raise FormatError(f"{repo}: expected a listing of files and folders, got another row")
