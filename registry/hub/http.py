"""One request to a Hub: bounded in bytes and in time, and never a token to anybody else.

What is not left to the HTTP library, because a server decides there:

    bytes       an answer is read piece by piece, as it comes, and ends at its limit; compressed ones are refused, since
                a thousand times as much may come out of them
    time        `silence` between two pieces; and a clock over the whole request, headers included, which a server that
                drips cannot stretch: the request runs in a thread of its own, and is left behind when its time is over
    redirects   of calls stay on the Hub's own origin; those of files may leave it (so the Hub hands large files out),
                without the token, and never from https to http
    noise       nothing is printed, and nothing is tried again here: that is `rasura.registry.hub.client`'s business
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, TypeVar
from urllib.parse import urljoin, urlsplit

from huggingface_hub import get_session

from rasura.patches.errors import CutOffError, ForeignAnswerError, FormatError, HubError, RasuraError

__all__ = ["Answer", "Clock", "Request", "is_foreign_page", "same_origin", "send"]

T = TypeVar("T")

_REDIRECTS: Final = 5
_MOVED: Final = frozenset({301, 302, 303, 307, 308})
_COMPLAINT: Final = 64 << 10  # bytes that are read of an answer that says no


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for.

    Attributes:
        method: GET, POST or PUT.
        url: where.
        what: for messages, such as `list acme/delta`.
        limit: most bytes of an answer that says yes.
        headers: further ones; the token is none of them.
        content: the body.
        leaves: whether a redirect may lead away from the Hub's origin, as those of files do.
    """

    method: str
    url: str
    what: str
    limit: int
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    leaves: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What came: status, headers by lower-case name, body, and the address that it came from in the end."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str

    @property
    def good(self) -> bool:
        """Whether it says yes."""
        return HTTPStatus.OK <= self.status < HTTPStatus.MULTIPLE_CHOICES

    @property
    def is_page(self) -> bool:
        """Whether it is a page for people."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower() in {
            "text/html",
            "application/xhtml+xml",
        }


@dataclass(frozen=True, slots=True)
class Clock:
    """When something has to be done: `seconds` after `begun`, both of `time.monotonic`."""

    begun: float
    seconds: float

    @classmethod
    def start(cls, seconds: float) -> "Clock":
        """One that runs from now on."""
        return cls(time.monotonic(), seconds)

    @property
    def left(self) -> float:
        """Seconds that are left, at least 0."""
        return max(0.0, self.begun + self.seconds - time.monotonic())


def send(request: Request, endpoint: str, token: str | None, clock: Clock, silence: float) -> Answer:
    """Carry one request out, with its redirects, before the clock has run down.

    Args:
        request: what.
        endpoint: the Hub; the token goes to its origin alone.
        token: an access token, or None.
        clock: for all of it.
        silence: seconds in which nothing comes until it has failed.

    Raises:
        FormatError: more bytes than `request.limit`.
        ForeignAnswerError: a redirect to another server where none may lead, or a compressed answer.
        HubError: the time is over.
        Exception: whatever the HTTP library raises when the Hub is not reached or cuts the connection.
    """
    return _within(clock, request.what, lambda: _follow(request, endpoint, token, clock, silence))


def same_origin(url: str, endpoint: str) -> bool:
    """Whether an address is the Hub's own: scheme, host and port."""
    return _origin(url) == _origin(endpoint)


def is_foreign_page(answer: Answer, path: str) -> bool:
    """Whether a page for people came in place of a file that is none."""
    return answer.is_page and not path.endswith((".html", ".htm"))


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, (parts.hostname or "").lower(), port


def _within(clock: Clock, what: str, work: Callable[[], T]) -> T:
    """Run in a thread and wait no longer than the clock says; a server that drips headers is left to itself."""
    done: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(work())
        except BaseException as error:  # noqa: BLE001  # handed over to the thread that waits
            failed.append(error)

    thread = threading.Thread(target=run, name="rasura-hub", daemon=True)
    thread.start()
    thread.join(clock.left + 0.05)  # the work looks at the same clock, and says what it was waiting for
    if failed:
        raise failed[0]
    if not done:
        raise late(what, clock.seconds)
    return done[0]


def late(what: str, seconds: float) -> HubError:
    """The error of a request whose time is over."""
    return HubError(
        f"could not {what}: expected an answer within {seconds:g} s, got none to its end",
        hint="repeat later, or from another network",
        status=0,
    )


def _follow(request: Request, endpoint: str, token: str | None, clock: Clock, silence: float) -> Answer:
    url = request.url
    for _ in range(_REDIRECTS + 1):
        answer = _once(request, url, token if same_origin(url, endpoint) else None, clock, silence)
        if answer.status not in _MOVED:
            return answer
        url = _next(request, url, answer, endpoint)
    raise ForeignAnswerError(
        f"could not {request.what}: expected at most {_REDIRECTS} redirects, got more", hint="check HF_ENDPOINT"
    )


def _next(request: Request, url: str, answer: Answer, endpoint: str) -> str:
    target = urljoin(url, answer.headers.get("location", ""))
    scheme = urlsplit(target).scheme
    inside = same_origin(target, endpoint)
    downgraded = urlsplit(url).scheme == "https" and scheme != "https"
    if scheme not in {"http", "https"} or downgraded or (not inside and not request.leaves):
        host = urlsplit(target).netloc.rpartition("@")[2]
        raise ForeignAnswerError(
            f"could not {request.what}: expected an answer of {endpoint}, got a redirect to {scheme}://{host[:120]}",
            hint="check HF_ENDPOINT, or take the repository's new name",
        )
    return target


def _once(request: Request, url: str, token: str | None, clock: Clock, silence: float) -> Answer:
    headers = {"Accept-Encoding": "identity", "User-Agent": "rasura", **request.headers}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    stream = get_session().stream(
        request.method,
        url,
        headers=headers,
        content=request.content,
        timeout=max(0.001, min(silence, clock.left)),
        follow_redirects=False,
    )
    with stream as response:
        found = {str(name).lower(): str(value) for name, value in response.headers.items()}
        body = _read(request, response, found, clock)
        return Answer(int(response.status_code), found, body, url)


def _read(request: Request, response: Any, headers: Mapping[str, str], clock: Clock) -> bytes:
    good = HTTPStatus.OK <= response.status_code < HTTPStatus.MULTIPLE_CHOICES
    if good and headers.get("content-encoding", "identity").lower() not in {"", "identity"}:
        raise ForeignAnswerError(
            f"could not {request.what}: expected an answer as it is, got one compressed as "
            f"{headers['content-encoding'][:40]!a}",
            hint="check HF_ENDPOINT and the proxy",
        )
    data = bytearray()
    try:
        _collect(request, response.iter_raw(), data, clock, limit=request.limit if good else None)
    except RasuraError:
        raise
    except Exception as error:
        if "ProtocolError" not in type(error).__name__ and "ReadError" not in type(error).__name__:
            raise
        raise CutOffError(
            f"could not {request.what}: the connection was cut after {len(data)} bytes of the answer",
            hint="repeat later, or from another network; a proxy in between may end long downloads",
            status=0,
        ) from error
    return bytes(data)


def _collect(request: Request, pieces: Iterable[bytes], data: bytearray, clock: Clock, *, limit: int | None) -> None:
    """Gather pieces as they come; a chunk size would wait for a full chunk. No limit: only a complaint's beginning."""
    for piece in pieces:
        data += piece
        if limit is None and len(data) > _COMPLAINT:
            return
        if limit is not None and len(data) > limit:
            raise FormatError(f"{request.what}: expected at most {limit} bytes, got more")
        if not clock.left:
            raise late(request.what, clock.seconds)
