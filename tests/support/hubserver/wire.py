"""HTTP as the handlers see it: a request value in, a response value out."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

MAX_BODY = 256 << 20  # bytes; a test never sends more


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `path` is still URL-quoted, the segments in `at` are not; `query` maps a name to all its values."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes
    at: Mapping[str, str] = field(default_factory=dict)

    def json(self) -> Any:
        """The body as JSON.

        Raises:
            HttpError: 400, when it is none.
        """
        try:
            return json.loads(self.body or b"{}")
        except ValueError as error:
            raise HttpError(400, "the body is not JSON") from error

    def flag(self, name: str) -> bool:
        """Whether a query parameter is set to something that means yes."""
        return self.query.get(name, [""])[0].lower() in {"1", "true"}

    def one(self, name: str) -> str:
        """The first value of a query parameter, or ""."""
        return self.query.get(name, [""])[0]


@dataclass(frozen=True, slots=True)
class Response:
    """One answer; an iterator as body is sent in chunks, without a length."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Iterator[bytes] = b""


class HttpError(Exception):
    """An answer that says no: status, sentence and the Hub's error code."""

    def __init__(self, status: int, message: str, code: str = "", **body: object) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.body = status, message, code, body

    def response(self) -> Response:
        """The answer with the headers from which clients pick their exception."""
        headers = {"X-Error-Message": self.message, "X-Request-Id": "test-request"}
        if self.code:
            headers["X-Error-Code"] = self.code
        return replace_headers(reply({"error": self.message, **self.body}, status=self.status), headers)


@dataclass(slots=True)
class Failure:
    """The next `times` requests that match answer `status` instead of what they asked for.

    Attributes:
        status: HTTP status of the answer.
        times: how many requests are hit; counts down.
        method: only this method, or "" for all.
        pattern: regular expression searched in the unquoted path.
        message: what the answer says.
        code: the Hub's X-Error-Code, or "".
        headers: further headers, such as Retry-After.
        after: carry the request out first and lose only its answer.
    """

    status: int
    times: int = 1
    method: str = ""
    pattern: str = ""
    message: str = "made to fail by the test"
    code: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    after: bool = False

    def hits(self, request: Request) -> bool:
        """Whether this request is to fail; one hit fewer is left if so."""
        if self.times <= 0 or self.method not in {"", request.method}:
            return False
        if not re.search(self.pattern, unquote(request.path)):
            return False
        self.times -= 1
        return True

    def response(self) -> Response:
        """The failing answer."""
        return replace_headers(HttpError(self.status, self.message, self.code).response(), self.headers)


def reply(value: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer."""
    body = json.dumps(value).encode()
    return Response(status, {"Content-Type": "application/json; charset=utf-8", **(headers or {})}, body)


def replace_headers(response: Response, headers: Mapping[str, str]) -> Response:
    """The same answer with more headers."""
    return Response(response.status, {**response.headers, **headers}, response.body)


Handler = Callable[[Any, Request], Response]


class Router:
    """Addresses to functions. `{x}` is one quoted segment, `{x:rest}` all that follows, `{kind}` a kind of repository."""

    def __init__(self) -> None:
        self._routes: list[tuple[str, re.Pattern[str], Handler]] = []

    def on(self, method: str, pattern: str) -> Callable[[Handler], Handler]:
        """Register a function for an address; the segments become the request's `at`."""
        named = re.sub(r"\{(\w+):rest\}", r"(?P<\1>.+)", pattern)
        named = named.replace("{kind}", "(?P<kind>models|datasets|spaces)")
        named = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", named)
        compiled = re.compile(named + "/?")

        def register(handler: Handler) -> Handler:
            self._routes.append((method, compiled, handler))
            return handler

        return register

    def find(self, method: str, path: str) -> tuple[Handler, dict[str, str]]:
        """The function for a request and its unquoted segments.

        Raises:
            HttpError: 404 or 405.
        """
        wanted, known = {"HEAD": "GET"}.get(method, method), False
        for its_method, pattern, handler in self._routes:
            if match := pattern.fullmatch(path):
                known = True
                if its_method == wanted:
                    return handler, {key: unquote(value) for key, value in match.groupdict().items()}
        if known:
            raise HttpError(405, f"{method} is not allowed here")
        raise HttpError(404, "Sorry, we can't find the page you are looking for.")


class Origin(ThreadingHTTPServer):
    """One loopback address with its port; `answer` turns requests into responses."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, answer: Callable[[Request], Response]) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.answer = answer

    @property
    def url(self) -> str:
        """Scheme, host and port."""
        return f"http://127.0.0.1:{self.server_port}"


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body leave in one packet
    disable_nagle_algorithm = True
    timeout = 30  # seconds an idle connection is kept

    def do(self) -> None:
        assert isinstance(self.server, Origin)
        parts = urlsplit(self.path)
        body = self._body()
        query = parse_qs(parts.query, keep_blank_values=True)
        headers = {key.lower(): value for key, value in self.headers.items()}
        self._send(self.server.answer(Request(self.command, parts.path, query, headers, body)))

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do  # noqa: N815 (the names that http.server looks for)

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            return b"".join(self._chunks())
        return self.rfile.read(min(int(self.headers.get("Content-Length") or 0), MAX_BODY))

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().split(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass

    def _send(self, response: Response) -> None:
        self.send_response(response.status)
        for key, value in response.headers.items():
            self.send_header(key, value)
        if isinstance(response.body, bytes):
            if "Content-Length" not in response.headers:
                self.send_header("Content-Length", str(len(response.body)))
            self.end_headers()
            self.wfile.write(b"" if self.command == "HEAD" else response.body)
        else:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self._stream(response.body)

    def _stream(self, body: Iterator[bytes]) -> None:
        if self.command == "HEAD":
            return
        try:
            for piece in body:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.close_connection = True  # the client had enough, which is what an endless body is for

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class's name)
        """Requests are kept in `HubServer.log`, not printed."""
