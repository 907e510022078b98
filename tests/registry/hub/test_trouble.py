"""A Hub in trouble, or one that is none: one sentence each, in bounded time, bytes and requests, and no token leaves."""

import contextlib
import gzip
import hashlib
import itertools
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.hubserver import TOKEN, Failure, HubServer, Request, Response, contents, reply
from support.registries.workshop import Workshop, workshop  # noqa: F401

from rasura.patches.errors import (
    CutOffError,
    ForeignAnswerError,
    FormatError,
    HubError,
    RasuraError,
    RateLimitError,
    TooLargeError,
)
from rasura.patches.format.signatures.model_signature import PrivateKey, read_statement, sign
from rasura.patches.types import Digest, PatchId
from rasura.registry.hub import http
from rasura.registry.hub.card.facts import BaseFacts, CardFacts, PatchFacts
from rasura.registry.hub.client import Patience, Wire
from rasura.registry.hub.pull import Fetched, fetch, resolve_revision
from rasura.registry.hub.push import PatchFiles, PushReceipt, push

REPO = "acme/delta"
KEY = PrivateKey.generate()
QUICK = Patience(attempts=3, wait=0.01, longest=0.05, deadline=5.0)
SHORT = Patience(attempts=3, wait=0.01, longest=0.05, deadline=0.6, silence=0.3, download=0.6)
BASE = BaseFacts(Digest("b" * 64), "tiny", "SD 1.x", "acme/base")
MEBIBYTE = 1 << 20


def patch(number: int) -> PatchFiles:
    files = {"manifest.json": json.dumps({"number": number}).encode(), "weights.safetensors": bytes([0, number]) * 99}
    patch_id = PatchId(hashlib.sha256(files["manifest.json"]).hexdigest())
    return PatchFiles(patch_id, {**files, "model.sig": sign(files, name=patch_id, key=KEY)})


def send(hub: HubServer, number: int = 1, patience: Patience = QUICK) -> PushReceipt:
    sent = patch(number)
    facts = CardFacts("0.1.0", (PatchFacts(sent.patch_id, (f"concept {number}",), "nullspace", BASE),), "mit")
    return push([sent], REPO, endpoint=hub.url, token=TOKEN, message="Add", card=facts, patience=patience)


def get(hub: HubServer, patience: Patience = QUICK, token: str | None = TOKEN) -> Fetched:
    pinned = resolve_revision(REPO, endpoint=hub.url, token=token, patience=patience)
    return fetch(
        pinned,
        open_bundle=lambda bundle: read_statement(bundle, [KEY.public]).files,
        endpoint=hub.url,
        token=token,
        patience=patience,
    )


@pytest.fixture
def full(plain_hub: HubServer) -> HubServer:
    """A Hub with one patch, and a log that begins now."""
    send(plain_hub)
    plain_hub.log.clear()
    return plain_hub


PULLS = ["/revision/", "/tree/", r"/resolve/.*model\.sig"]
PUSHES = ["/revision/", "/tree/", "/preupload/", "objects/batch", "/upload/", "objects/verify", "/commit/"]


# --- one layer of retries, one deadline -----------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", PULLS)
def test_a_hub_that_keeps_failing_is_asked_as_often_as_we_say(full: HubServer, pattern: str) -> None:
    full.faults.fail(500, pattern, times=99)
    with pytest.raises(HubError, match=r"the Hub failed \(500") as caught:
        get(full)
    assert len(full.asked("GET", pattern.rsplit(".*", maxsplit=1)[-1].replace("\\", ""))) == QUICK.attempts
    assert caught.value.details["status"] == 500


@pytest.mark.parametrize("pattern", PUSHES)
def test_every_step_of_a_push_is_asked_as_often_as_we_say(full: HubServer, pattern: str) -> None:
    full.faults.fail(503, pattern, times=99)
    with pytest.raises(HubError, match="503"):
        send(full, 2)
    asked = [request for request in full.log if pattern in request.path]
    # After a commit that failed, the branch is looked at once: the answer may have been lost.
    assert len(asked) == QUICK.attempts


def test_with_the_patience_of_a_command_it_is_over_in_seconds(full: HubServer) -> None:
    full.faults.fail(500, "/tree/", times=99)
    begun = time.monotonic()
    with pytest.raises(HubError):
        get(full, Patience())
    assert len(full.asked("GET", "/tree/")) == Patience().attempts == 4
    assert time.monotonic() - begun < 10


def test_the_deadline_ends_what_the_attempts_would_not(full: HubServer) -> None:
    full.faults.fail(500, "/tree/", times=999)
    begun = time.monotonic()
    with pytest.raises(HubError):
        get(full, Patience(attempts=999, wait=0.1, longest=0.1, deadline=0.5))
    assert time.monotonic() - begun < 3
    assert len(full.asked("GET", "/tree/")) < 10


# --- each its own sentence ------------------------------------------------------------------------------------------


def page(_: Request) -> Response:
    return Response(200, {"Content-Type": "text/html; charset=utf-8"}, b"<!doctype html><h1>Hotel Wi-Fi: log in</h1>")


@pytest.mark.parametrize("pattern", PULLS)
def test_a_web_page_is_no_answer_of_a_hub(full: HubServer, pattern: str) -> None:
    full.faults.instead[pattern] = page
    with pytest.raises(ForeignAnswerError, match="got a web page") as caught:
        get(full)
    assert "login page" in caught.value.hint
    assert (caught.value.code, len(full.log)) == ("foreign_answer", PULLS.index(pattern) + 1)


@pytest.mark.parametrize("pattern", ["/preupload/", "objects/batch", "objects/verify", "/commit/"])
def test_a_web_page_in_the_middle_of_a_push_is_told_too(full: HubServer, pattern: str) -> None:
    full.faults.instead[pattern] = page
    with pytest.raises(ForeignAnswerError, match="got a web page"):
        send(full, 2)


@pytest.mark.parametrize("pattern", ["/upload/", "/commit/", "/preupload/"])
def test_what_is_too_large_is_said_to_be_and_not_tried_again(full: HubServer, pattern: str) -> None:
    full.faults.fail(413, pattern, times=99)
    with pytest.raises(TooLargeError, match="nothing as large as this") as caught:
        send(full, 2)
    assert "fewer patches" in caught.value.hint
    assert len([request for request in full.log if pattern in request.path]) == 1


def limited(seconds: int, header: str, times: int) -> Failure:
    value = {"RateLimit": f'"api";r=0;t={seconds}', "Retry-After": str(seconds)}[header]
    headers = {header: value, "RateLimit-Policy": '"fixed window";"api";q=500;w=300'}
    return Failure(429, times, "GET", "/tree/", headers=headers)


@pytest.mark.parametrize("header", ["RateLimit", "Retry-After"])
def test_a_limit_that_ends_soon_is_waited_for(full: HubServer, header: str) -> None:
    full.faults.failures.append(limited(1, header, 1))
    begun = time.monotonic()
    assert len(get(full).patches) == 1
    assert 1 <= time.monotonic() - begun < 5


@pytest.mark.parametrize("header", ["RateLimit", "Retry-After"])
def test_a_limit_that_outlasts_the_deadline_is_told_at_once(full: HubServer, header: str) -> None:
    full.faults.failures.append(limited(300, header, 99))
    begun = time.monotonic()
    with pytest.raises(RateLimitError, match="slow down") as caught:
        get(full)
    assert caught.value.hint == "wait 300 s and repeat the command"
    assert caught.value.details["retry_after"] == 300
    assert len(full.asked("GET", "/tree/")) == 1
    assert time.monotonic() - begun < 2


def cut(body: bytes) -> Callable[[Request], Response]:
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body) * 2), "Connection": "close"}
    return lambda _: Response(200, headers, body)


@pytest.mark.parametrize("pattern", PULLS)
def test_a_connection_that_is_always_cut_in_the_middle(full: HubServer, pattern: str) -> None:
    full.faults.instead[pattern] = cut(b'[{"type":')
    with pytest.raises(CutOffError, match=r"cut after 9 bytes") as caught:
        get(full)
    assert caught.value.code == "cut_off"
    assert len(full.log) == PULLS.index(pattern) + QUICK.attempts


# --- bounds ---------------------------------------------------------------------------------------------------------


def endless(start: bytes, kind: str = "application/json") -> Callable[[Request], Response]:
    def pieces() -> Iterator[bytes]:
        yield start
        while True:
            yield b" " * 65536

    return lambda _: Response(200, {"Content-Type": kind}, pieces())


def drip(start: bytes) -> Callable[[Request], Response]:
    def pieces() -> Iterator[bytes]:
        yield start
        for _ in range(600):
            time.sleep(0.05)
            yield b" "

    return lambda _: Response(200, {"Content-Type": "application/json"}, pieces())


def read_by(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes that each request read, as it goes."""
    seen: list[int] = []
    real = http._collect

    def counting(request: http.Request, pieces: Iterator[bytes], data: bytearray, *more: object, **how: object) -> None:
        try:
            real(request, pieces, data, *more, **how)  # type: ignore[arg-type]
        finally:
            seen.append(len(data))

    monkeypatch.setattr(http, "_collect", counting)
    assert hub.url
    return seen


@pytest.mark.parametrize("pattern", ["/revision/", "/tree/"])
def test_an_answer_without_an_end_is_read_to_its_limit(
    full: HubServer, pattern: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    full.faults.instead[pattern] = endless(b"[")
    seen = read_by(full, monkeypatch)
    with pytest.raises(FormatError, match="expected at most 8388608 bytes"):
        get(full)
    assert max(seen) < 9 * MEBIBYTE


@pytest.mark.parametrize("pattern", ["/preupload/", "objects/batch", "/commit/"])
def test_nor_does_a_push_read_more(full: HubServer, pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    full.faults.instead[pattern] = endless(b"{")
    seen = read_by(full, monkeypatch)
    with pytest.raises(FormatError, match="expected at most"):
        send(full, 2)
    assert max(seen) < 9 * MEBIBYTE


def test_a_complaint_without_an_end_is_read_to_a_beginning(full: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = endless(b"no")
    full.faults.instead["/tree/"] = lambda request: Response(400, {}, answer(request).body)
    seen = read_by(full, monkeypatch)
    with pytest.raises(HubError, match="400"):
        get(full)
    assert max(seen) < MEBIBYTE


def test_a_compressed_answer_is_refused_before_it_grows(full: HubServer) -> None:
    bomb = gzip.compress(b"[" + b" " * (64 * MEBIBYTE))
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    full.faults.instead["/tree/"] = lambda _: Response(200, headers, bomb)
    with pytest.raises(ForeignAnswerError, match="compressed as 'gzip'"):
        get(full)
    assert all(request.headers["accept-encoding"] == "identity" for request in full.log)


@pytest.mark.parametrize("pattern", ["/revision/", "/tree/", "/preupload/", "/commit/"])
def test_an_answer_that_drips_is_given_up_at_the_deadline(full: HubServer, pattern: str) -> None:
    full.faults.instead[pattern] = drip(b"{")
    begun = time.monotonic()
    with pytest.raises(HubError, match=r"within 0\.6 s"):
        send(full, 2, SHORT)
    assert time.monotonic() - begun < 4


@pytest.mark.usefixtures("plain_hub")  # for its settings of huggingface_hub
def test_headers_that_drip_are_given_up_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        stop = threading.Event()

        def serve() -> None:
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):  # the client has had enough
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\n")
                for number in itertools.count():
                    if stop.wait(0.05):
                        return
                    connection.sendall(b"X-%d: y\r\n" % number)

        threading.Thread(target=serve, daemon=True).start()
        begun = time.monotonic()
        try:
            with pytest.raises(HubError, match=r"within 0\.6 s"):
                resolve_revision(REPO, endpoint=f"http://127.0.0.1:{server.getsockname()[1]}", patience=SHORT)
        finally:
            stop.set()
    assert time.monotonic() - begun < 4


def test_a_listing_without_an_end_is_given_up(full: HubServer) -> None:
    numbers = itertools.count()

    def more(request: Request) -> Response:
        following = f'<{full.url}{request.path}?cursor={next(numbers)}>; rel="next"'
        return reply([], headers={"Link": following})

    full.faults.instead["/tree/"] = more
    with pytest.raises(FormatError, match="at most 200 pages"):
        get(full, Patience())
    assert len(full.asked("GET", "/tree/")) == 200


def test_a_listing_of_several_pages_is_read(full: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "PAGE", 2)
    assert len(get(full).patches) == 1
    assert len(full.asked("GET", "/tree/")) > 1


@pytest.mark.parametrize("body", [b"[" * 100_000, b"nothing", b'{"a": 1}', b'["x"]', b'[{"type":"file"}]', b""])
def test_a_listing_that_is_none(full: HubServer, body: bytes) -> None:
    full.faults.instead["/tree/"] = lambda _: Response(200, {"Content-Type": "application/json"}, body)
    with pytest.raises((ForeignAnswerError, FormatError)):
        get(full)


# --- no token to strangers ------------------------------------------------------------------------------------------


@pytest.fixture
def stranger(tmp_path: Path) -> Iterator[HubServer]:
    """Another server, which keeps what it is sent."""
    (tmp_path / "stranger").mkdir()
    with HubServer(tmp_path / "stranger", xet=False) as server:
        yield server


def test_a_next_page_on_another_server_is_not_asked_for(full: HubServer, stranger: HubServer) -> None:
    link = {"Link": f'<{stranger.url}/api/models/{REPO}/tree/main?cursor=1>; rel="next"'}
    full.faults.instead["/tree/"] = lambda _: reply([], headers=link)
    with pytest.raises(ForeignAnswerError, match="next page is another server's"):
        get(full)
    assert stranger.log == []


@pytest.mark.parametrize("pattern", ["/revision/", "/tree/", "/preupload/", "/commit/"])
def test_a_call_is_not_redirected_to_another_server(full: HubServer, stranger: HubServer, pattern: str) -> None:
    full.faults.instead[pattern] = lambda request: Response(307, {"Location": f"{stranger.url}{request.path}"})
    with pytest.raises(ForeignAnswerError, match="redirect to"):
        send(full, 2)
    assert stranger.log == []


def test_a_file_may_come_from_elsewhere_without_the_token(full: HubServer, stranger: HubServer) -> None:
    full.faults.instead["/resolve/"] = lambda request: Response(302, {"Location": f"{stranger.url}{request.path}"})
    with pytest.raises(RasuraError):
        get(full)
    assert stranger.log
    assert not [request for request in stranger.log if "authorization" in request.headers]


def test_a_repository_that_was_renamed_is_followed_on_the_same_hub(full: HubServer) -> None:
    there = f"{full.url}/api/models/{REPO}/revision/main"
    full.faults.instead["/acme/old/revision/"] = lambda _: Response(307, {"Location": there})
    assert (
        resolve_revision("acme/old", endpoint=full.url, patience=QUICK).commit
        == resolve_revision(REPO, endpoint=full.url).commit
    )


def test_redirects_in_a_circle_end(full: HubServer) -> None:
    full.faults.instead["/revision/"] = lambda request: Response(302, {"Location": request.path})
    with pytest.raises(ForeignAnswerError, match="redirects"):
        get(full)
    assert len(full.log) == 6


@pytest.mark.parametrize("action", ["verify", "upload"])
def test_an_upload_tells_nobody_else_the_token(full: HubServer, stranger: HubServer, action: str) -> None:
    def batch(request: Request) -> Response:
        rows = []
        for item in json.loads(request.body)["objects"]:
            place = f"{full.storage_url}/upload/{item['oid']}"
            actions = {"upload": {"href": place}, action: {"href": f"{stranger.url}/x/{item['oid']}"}}
            rows.append({**item, "actions": actions})
        return reply({"objects": rows})

    full.faults.instead["objects/batch"] = batch
    with pytest.raises(RasuraError):
        send(full, 2)
    assert not [request for request in stranger.log if "authorization" in request.headers]
    assert bool(stranger.log) is (action == "upload")


def test_https_is_never_left_for_http() -> None:
    ask = http.Request("GET", "https://hub.example/x", "download x", 9, leaves=True)
    moved = http.Answer(302, {"location": "http://cdn.example/x"}, b"", ask.url)
    with pytest.raises(ForeignAnswerError):
        http._next(ask, ask.url, moved, "https://hub.example")
    assert http.same_origin("https://hub.example:443/a", "https://HUB.example")
    assert not http.same_origin("https://hub.example:8443/a", "https://hub.example")
    assert not http.same_origin("https://hub.example@evil.example/a", "https://hub.example")


# --- a quiet terminal -----------------------------------------------------------------------------------------------


def test_nothing_of_the_library_is_printed(workshop: Workshop, plain_hub: HubServer, tmp_path: Path) -> None:  # noqa: F811
    hidden = {"HF_HUB_DISABLE_PROGRESS_BARS", "HF_HUB_VERBOSITY"}
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    environment |= {"HF_ENDPOINT": plain_hub.url, "HF_TOKEN": TOKEN, "PYTHONPATH": os.pathsep.join(sys.path)}

    def rasura(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "rasura", *arguments]
        return subprocess.run(
            command, cwd=workshop.folder, env=environment, capture_output=True, text=True, check=False, timeout=120
        )

    plain_hub.faults.fail(500, "/preupload/")
    done = rasura("push", workshop.dog, REPO, "--license", "mit")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert len(done.stdout.splitlines()) == 1
    done = rasura("pull", REPO)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{workshop.dog[:12]} was here already\n", "")
    plain_hub.faults.fail(429, "/tree/", times=99).headers = {"RateLimit": '"api";r=0;t=299'}
    done = rasura("pull", REPO)
    assert done.returncode == 1
    assert done.stderr.splitlines()[0].startswith(f"error: could not list {REPO}: the Hub asks to slow down")
    assert done.stderr.splitlines()[1:] == ["hint: wait 299 s and repeat the command"]


def test_a_wire_shows_its_token_to_nobody() -> None:
    assert TOKEN not in repr(Wire("http://127.0.0.1:9", TOKEN, QUICK))
