"""What went wrong at the Hub, in our words: one table from status to error and the next command to type."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, cast

from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from rasura.patches.errors import (
    ConflictError,
    CutOffError,
    ForeignAnswerError,
    GatedError,
    HubError,
    NotFoundError,
    RasuraError,
    RateLimitError,
    TooLargeError,
)
from rasura.registry.hub.http import Answer

MAX_MESSAGE = 300  # characters of somebody else's sentence in ours
PASSING = frozenset({408, 429, 500, 502, 503, 504})

LOGIN = "hf auth login"
_UNAVAILABLE: Final = ("the Hub failed", "repeat later; https://status.huggingface.co says how huggingface.co is")
SENTENCES: dict[int, tuple[type[RasuraError], str, str]] = {
    HTTPStatus.UNAUTHORIZED: (HubError, "the Hub does not know this token", LOGIN),
    HTTPStatus.FORBIDDEN: (HubError, "this token may not do that", f"{LOGIN}   (with a token that may write)"),
    HTTPStatus.CONFLICT: (ConflictError, "it exists already, or somebody is writing", "rasura push   (again)"),
    HTTPStatus.PRECONDITION_FAILED: (
        ConflictError,
        "the branch has moved since it was read",
        "rasura push   (again)",
    ),
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: (
        TooLargeError,
        "the Hub, or a proxy before it, takes nothing as large as this",
        "push fewer patches at a time, or past the proxy",
    ),
    HTTPStatus.TOO_MANY_REQUESTS: (
        RateLimitError,
        "the Hub asks to slow down",
        "wait a minute and repeat the command",
    ),
}
# `RateLimit: "api";r=0;t=55` says that nothing is left for 55 s (draft-ietf-httpapi-ratelimit-headers).
_LEFT = re.compile(r"[;,]\s*r=0\b")
_RESET = re.compile(r"[;,]\s*t=(\d{1,6})\b")


@dataclass(frozen=True, slots=True)
class Fault:
    """A failure, taken apart.

    Attributes:
        status: HTTP status, or 0 when no answer came.
        code: the Hub's own name for it (`X-Error-Code`), or "".
        said: its sentence.
        retry_after: seconds that the Hub asked to wait, 0 when it did not.
        may_pass: whether the same call may work a moment later.
        offline: whether the Hub was not reached at all.
        error: the exception, where one was raised.
    """

    status: int
    code: str
    said: str
    retry_after: float
    may_pass: bool
    offline: bool
    error: Exception | None = None

    @classmethod
    def of(cls, error: Exception) -> "Fault":
        """Take an exception of the HTTP library apart."""
        transport = HfHubHTTPError.__mro__[1]  # httpx's or httpx2's HTTPError, whichever is installed
        offline = isinstance(error, OfflineModeIsEnabled)
        unreached = isinstance(error, (transport, ConnectionError, TimeoutError))
        said = str(error) or type(error).__name__
        passing = (unreached and not offline) or isinstance(error, CutOffError)
        return cls(0, "", said, 0.0, may_pass=passing, offline=offline or unreached, error=error)

    @classmethod
    def of_answer(cls, answer: Answer) -> "Fault":
        """Take an answer that says no apart."""
        said = answer.headers.get("x-error-message", "") or _reason(answer)
        code = answer.headers.get("x-error-code", "")
        return cls(answer.status, code, said, _asked_wait(answer.headers), answer.status in PASSING, offline=False)

    def cause(self, token: str | None) -> Exception | None:
        """The exception to chain, unless a traceback of it would print the token."""
        chain, error = "", cast("BaseException | None", self.error)
        while error is not None:
            chain, error = f"{chain}\n{error!r}\n{error}", error.__cause__ or error.__context__
        return None if token and token in chain else self.error


def translate(fault: Fault, what: str, token: str | None, endpoint: str, repo: str = "") -> RasuraError:
    """The error of ours for a fault met while doing `what` in a repository."""
    said = _shown(fault.said, token)
    facts = {"status": fault.status, "endpoint": endpoint}
    if fault.offline:
        hint = "unset HF_HUB_OFFLINE, or check the network and HF_ENDPOINT"
        return HubError(f"could not {what}: {endpoint} was not reached ({said})", hint=hint, **facts)
    if fault.code == "GatedRepo":
        page = f"{endpoint}/{repo}" if repo else endpoint
        return GatedError(
            f"could not {what}: access has to be granted first", hint=f"ask for it at {page}, then {LOGIN}", **facts
        )
    if missing := _missing(fault, known=bool(token) or not repo):
        return NotFoundError(f"could not {what}: {missing}", hint=f"check the name, or {LOGIN}", **facts)
    kind, sentence, hint = SENTENCES.get(fault.status, (HubError, *_UNAVAILABLE))
    if fault.retry_after:
        hint = f"wait {fault.retry_after:g} s and repeat the command"
        facts["retry_after"] = fault.retry_after
    about = f"{fault.status}, {said}" if fault.status else said
    return kind(f"could not {what}: {sentence} ({about})", hint=hint, **facts)


def foreign_page(what: str, endpoint: str) -> ForeignAnswerError:
    """The error of a web page where the Hub's answer was expected."""
    return ForeignAnswerError(
        f"could not {what}: expected an answer of a Hub, got a web page",
        hint="a proxy or the network's login page answers in its place: open it in a browser; or check HF_ENDPOINT",
        status=int(HTTPStatus.OK),
        endpoint=endpoint,
    )


def _missing(fault: Fault, *, known: bool) -> str:
    """What is not there; `known` when the Hub was told who asks, or no repository was asked for."""
    names = {"RepoNotFound": "repository", "RevisionNotFound": "revision", "EntryNotFound": "file"}
    hidden = fault.status == HTTPStatus.UNAUTHORIZED and not known  # so it answers about what is private, or not there
    if fault.status == HTTPStatus.NOT_FOUND or fault.code in names or hidden:
        return f"no such {names.get(fault.code, 'repository')}, or none that this token may see"
    return ""


def _asked_wait(headers: Mapping[str, str]) -> float:
    asked = headers.get("retry-after", "")
    if asked.isascii() and asked.isdigit() and len(asked) < 7:  # noqa: PLR2004
        return float(asked)
    limit = headers.get("ratelimit", "")
    reset = _RESET.search(limit)
    return float(reset[1]) if reset and _LEFT.search(limit) else 0.0


def _reason(answer: Answer) -> str:
    """What the answer's body says, where it is the Hub's JSON; else the status in words."""
    try:
        found = json.loads(answer.body)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, dict) and isinstance(found.get("error"), str):
        return str(found["error"])
    try:
        return HTTPStatus(answer.status).phrase
    except ValueError:
        return "no reason given"


def _shown(said: str, token: str | None) -> str:
    redacted = said.replace(token, "[token]") if token else said
    shown = " ".join("".join(c if c.isprintable() else " " for c in redacted).split())
    return shown if len(shown) <= MAX_MESSAGE else shown[: MAX_MESSAGE - 1] + "…"
