"""What went wrong at the Hub, in our words: one table from status to error and the next command to type."""

from dataclasses import dataclass
from http import HTTPStatus
from typing import cast

from rasura.patches.errors import ConflictError, HubError, NotFoundError, RasuraError

MAX_MESSAGE = 300  # characters of somebody else's sentence in ours
PASSING = frozenset({408, 429, 500, 502, 503, 504})

LOGIN = "hf auth login"
SENTENCES: dict[int, tuple[str, str]] = {
    HTTPStatus.UNAUTHORIZED: ("the Hub does not know this token", LOGIN),
    HTTPStatus.FORBIDDEN: ("this token may not do that", f"{LOGIN}   (with a token that may write)"),
    HTTPStatus.CONFLICT: ("it exists already, or somebody is writing", "rasura push   (again)"),
    HTTPStatus.PRECONDITION_FAILED: ("the branch has moved since it was read", "rasura push   (again)"),
    HTTPStatus.TOO_MANY_REQUESTS: ("the Hub asks to slow down", "wait a minute and repeat the command"),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """A foreign exception, taken apart.

    Attributes:
        error: the exception.
        status: HTTP status, or 0 when no answer came.
        kind: name of the exception's class.
        retry_after: seconds that the Hub asked to wait, 0 when it did not.
        may_pass: whether the same call may work a moment later.
        offline: whether the Hub was not reached at all.
    """

    error: Exception
    status: int
    kind: str
    retry_after: float
    may_pass: bool
    offline: bool

    @classmethod
    def of(cls, error: Exception) -> "Fault":
        """Take an exception of huggingface_hub, httpx or hf_xet apart; a wrapped one counts as what it wraps."""
        from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

        inner = error.__cause__ if type(error) is RuntimeError and isinstance(error.__cause__, Exception) else error
        response = inner.response if isinstance(inner, HfHubHTTPError) else None
        status = int(response.status_code) if response is not None else 0
        asked = response.headers.get("Retry-After", "") if response is not None else ""
        transport = HfHubHTTPError.__mro__[1]  # httpx's or httpx2's HTTPError, whichever is installed
        offline = isinstance(inner, OfflineModeIsEnabled)
        unreached = not status and isinstance(inner, (transport, ConnectionError, TimeoutError))
        passing = status in PASSING or (unreached and not offline)
        after = float(asked) if asked.isascii() and asked.isdigit() and len(asked) < 5 else 0.0  # noqa: PLR2004
        return cls(inner, status, type(inner).__name__, after, passing, offline or unreached)

    def cause(self, token: str | None) -> Exception | None:
        """The exception to chain, unless a traceback of it would print the token."""
        chain, error = "", cast("BaseException | None", self.error)
        while error is not None:
            chain, error = f"{chain}\n{error!r}\n{error}", error.__cause__ or error.__context__
        return None if token and token in chain else self.error


def translate(fault: Fault, what: str, token: str | None, endpoint: str) -> RasuraError:
    """The error of ours for a fault met while doing `what`."""
    said = _said(fault, token)
    facts = {"status": fault.status, "endpoint": endpoint}
    if fault.offline:
        hint = "unset HF_HUB_OFFLINE, or check the network and HF_ENDPOINT"
        return HubError(f"could not {what}: {endpoint} was not reached ({said})", hint=hint, **facts)
    if fault.kind == "GatedRepoError":
        return HubError(f"could not {what}: access has to be granted first", hint=f"ask for it at {endpoint}", **facts)
    if fault.kind in {"RepositoryNotFoundError", "RevisionNotFoundError", "RemoteEntryNotFoundError"}:
        return NotFoundError(f"could not {what}: {_missing(fault.kind)}", hint=f"check the name, or {LOGIN}", **facts)
    sentence, hint = SENTENCES.get(fault.status, ("", ""))
    kind = ConflictError if fault.status in {HTTPStatus.CONFLICT, HTTPStatus.PRECONDITION_FAILED} else HubError
    about = f"{fault.status}, {said}" if fault.status else said
    return kind(f"could not {what}: {sentence or 'the Hub failed'} ({about})", hint=hint or "repeat later", **facts)


def _missing(kind: str) -> str:
    names = {"RepositoryNotFoundError": "repository", "RevisionNotFoundError": "revision"}
    return f"no such {names.get(kind, 'file')}, or none that this token may see"


def _said(fault: Fault, token: str | None) -> str:
    message = getattr(fault.error, "server_message", None) or str(fault.error) or fault.kind
    redacted = message.replace(token, "[token]") if token else message
    shown = " ".join("".join(c if c.isprintable() else " " for c in redacted).split())
    return shown if len(shown) <= MAX_MESSAGE else shown[: MAX_MESSAGE - 1] + "…"
