"""The server: a Hub behind two loopback origins, everything logged, anything breakable."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import unquote

from support.hubserver import commits, contents, repositories, transfers
from support.hubserver.routes import HUB, STORAGE
from support.hubserver.state import Hub
from support.hubserver.wire import Failure, HttpError, Origin, Request, Response, Router

__all__ = ["Faults", "HubServer"]
_HANDLERS = (commits, contents, repositories, transfers)  # importing them fills the routing tables


@dataclass(slots=True)
class Faults:
    """What goes wrong. Tests change the fields while the server runs.

    Attributes:
        failures: requests that are answered with an error.
        before: called with every request before it is carried out, for what happens between two calls.
        swapped: path in a repository to the bytes that are served in place of the right ones.
        endless: paths in a repository that are served without an end.
        dripping: paths that are served one byte at a time, ten a second.
        instead: pattern in the address to what is answered in place of everything else.
    """

    failures: list[Failure] = field(default_factory=list)
    before: Callable[[Request], None] | None = None
    swapped: dict[str, bytes] = field(default_factory=dict)
    endless: set[str] = field(default_factory=set)
    dripping: set[str] = field(default_factory=set)
    instead: dict[str, Callable[[Request], Response]] = field(default_factory=dict)

    def fail(self, status: int, pattern: str = "", *, times: int = 1, method: str = "", after: bool = False) -> Failure:
        """Make the next `times` matching requests answer `status`."""
        self.failures.append(Failure(status, times, method, pattern, after=after))
        return self.failures[-1]


class HubServer(Hub):
    """A Hub that runs while the `with` block does.

    Args:
        root: an existing folder for everything that it stores.
        xet: whether it knows Xet; without, the token addresses answer 404 as on a server that never heard of it.
    """

    def __init__(self, root: Path, *, xet: bool = True) -> None:
        super().__init__(root)
        self.xet_enabled = xet
        self.faults = Faults()
        self.log: list[Request] = []
        self._origins = (Origin(lambda r: self._answer(HUB, r)), Origin(lambda r: self._answer(STORAGE, r)))
        self.url, self.storage_url = (origin.url for origin in self._origins)

    def __enter__(self) -> Self:
        for origin in self._origins:
            threading.Thread(target=origin.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for origin in self._origins:
            origin.shutdown()
            origin.server_close()

    def asked(self, method: str, part: str) -> list[Request]:
        """The requests so far with this method and `part` in their address."""
        return [request for request in self.log if request.method == method and part in request.path]

    def _answer(self, router: Router, request: Request) -> Response:
        self.log.append(request)
        if self.faults.before:
            self.faults.before(request)
        for pattern, answer in self.faults.instead.items():
            if re.search(pattern, unquote(request.path)):
                return answer(request)
        failure = next((f for f in self.faults.failures if f.hits(request)), None)
        if failure and not failure.after:
            return failure.response()
        try:
            handler, segments = router.find(request.method, request.path)
            response = handler(self, replace(request, at=segments))
        except HttpError as error:
            response = error.response()
        return failure.response() if failure else self._spoil(response)

    def _spoil(self, response: Response) -> Response:
        path = response.headers.get("X-Test-Path", "")
        if path in self.faults.endless:
            return Response(200, {"Content-Type": "application/octet-stream"}, _endless())
        if path in self.faults.dripping and isinstance(response.body, bytes):
            return Response(200, {"Content-Type": "application/octet-stream"}, _dripping(response.body))
        if path in self.faults.swapped:
            return Response(200, {"Content-Type": "application/octet-stream"}, self.faults.swapped[path])
        return response


def _dripping(content: bytes) -> Iterator[bytes]:
    for at in range(len(content)):
        yield content[at : at + 1]
        time.sleep(0.1)


def _endless() -> Iterator[bytes]:
    while True:
        yield b"\0" * 65536
