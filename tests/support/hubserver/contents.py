"""Answers about what is in a repository: tree, paths, refs, commits, and the files themselves."""

import re
from typing import Any
from urllib.parse import parse_qs, quote

from support.hubserver.gitrepo import Entry, Pointer
from support.hubserver.routes import HUB, STORAGE
from support.hubserver.state import Hub, Repository
from support.hubserver.wire import HttpError, Request, Response, reply

PAGE = 1000  # rows of a tree in one answer
RANGE = re.compile(r"bytes=(\d*)-(\d*)")


@HUB.on("GET", "/api/{kind}/{owner}/{name}/tree/{revision}")
@HUB.on("GET", "/api/{kind}/{owner}/{name}/tree/{revision}/{path:rest}")
def tree(hub: Hub, request: Request) -> Response:
    found = hub.repository(request)
    commit = found.commit(request.at["revision"])
    path = request.at.get("path", "").rstrip("/")
    folder = f"{path}/" if path else ""
    if folder:
        found.entry(commit, path)
    below = [e for e in found.git.entries(commit).values() if e.path.startswith(folder)]
    if not request.flag("recursive"):
        below = [e for e in below if "/" not in e.path[len(folder) :]]
    start = int(request.one("cursor") or 0)
    rows = [row(hub, found, commit, entry, expand=request.flag("expand")) for entry in below[start : start + PAGE]]
    return reply(rows, headers=_next(hub, request, start, len(below)))


def _next(hub: Hub, request: Request, start: int, total: int) -> dict[str, str]:
    if start + PAGE >= total:
        return {}
    asked = f"recursive={request.one('recursive')}&expand={request.one('expand')}&cursor={start + PAGE}"
    return {"Link": f'<{hub.url}{request.path}?{asked}>; rel="next"'}


@HUB.on("POST", "/api/{kind}/{owner}/{name}/paths-info/{revision}")
def paths_info(hub: Hub, request: Request) -> Response:
    found = hub.repository(request)
    commit = found.commit(request.at["revision"])
    if "json" in request.headers.get("content-type", ""):
        asked = request.json()
        paths, expand = asked["paths"], bool(asked.get("expand"))
    else:
        form = parse_qs(request.body.decode())
        paths, expand = form.get("paths", []), form.get("expand") == ["True"]
    entries = found.git.entries(commit)
    known = [entries[path.rstrip("/")] for path in paths if path.rstrip("/") in entries]
    return reply([row(hub, found, commit, entry, expand=expand) for entry in known])


def row(hub: Hub, found: Repository, commit: str, entry: Entry, *, expand: bool) -> dict[str, Any]:
    """What the Hub says of one file or folder."""
    if entry.kind == "tree":
        about: dict[str, Any] = {"type": "directory", "path": entry.path, "oid": entry.oid, "size": 0}
    else:
        about = {"type": "file", "path": entry.path, "oid": entry.oid, "size": entry.size}
    if pointer := found.pointer(commit, entry.path):
        about["lfs"] = {"oid": pointer.oid, "size": pointer.size, "pointerSize": entry.size}
        about["size"] = pointer.size
    if xet := hub.xet_hash(pointer):
        about["xetHash"] = xet
    if expand:
        last = found.git.log(commit)[0]
        about["lastCommit"] = {"id": last.oid, "title": last.title, "date": last.date}
    return about


@HUB.on("GET", "/api/{kind}/{owner}/{name}/refs")
def refs(hub: Hub, request: Request) -> Response:
    git = hub.repository(request).git

    def rows(prefix: str) -> list[dict[str, str]]:
        found = git.refs(prefix).items()
        return [{"name": ref.removeprefix(prefix), "ref": ref, "targetCommit": oid} for ref, oid in found]

    answer = {"branches": rows("refs/heads/"), "tags": rows("refs/tags/"), "converts": []}
    return reply({**answer, "pullRequests": rows("refs/pr/")} if request.flag("include_prs") else answer)


@HUB.on("GET", "/api/{kind}/{owner}/{name}/commits/{revision}")
def commits(hub: Hub, request: Request) -> Response:
    found = hub.repository(request)
    rows = [
        {"id": c.oid, "title": c.title, "message": c.message, "date": c.date, "authors": [{"user": c.author}]}
        for c in found.git.log(found.commit(request.at["revision"]))
    ]
    return reply(rows)


@HUB.on("GET", "/{owner}/{name}/resolve/{revision}/{path:rest}")
@HUB.on("GET", "/{kind}/{owner}/{name}/resolve/{revision}/{path:rest}")
def resolve(hub: Hub, request: Request) -> Response:
    found = hub.repository(request)
    path = request.at["path"]
    commit = found.commit(request.at["revision"])
    entry = found.entry(commit, path)
    headers = {"X-Repo-Commit": commit, "ETag": f'"{entry.oid}"', "Accept-Ranges": "bytes"}
    pointer = found.pointer(commit, path)
    if pointer is None:
        return _ranged(request, found.git.blob(entry.oid), {**headers, "X-Test-Path": path})
    headers |= {"X-Linked-Etag": f'"{pointer.oid}"', "X-Linked-Size": str(pointer.size)}
    if xet := hub.xet_hash(pointer):
        token = f"{hub.url}/api/{found.kind}/{found.id}/xet-read-token/{commit}"
        headers |= {"X-Xet-Hash": xet, "Link": f'<{token}>; rel="xet-auth"'}
    place = f"{hub.storage_url}/file/{pointer.oid}/{pointer.size}/{quote(path)}"
    return Response(302, {**headers, "Location": place, "Content-Type": "text/plain"}, b"Found")


@STORAGE.on("GET", "/file/{oid}/{size}/{path:rest}")
def large_file(hub: Hub, request: Request) -> Response:
    oid, size, path = (request.at[key] for key in ("oid", "size", "path"))
    if "authorization" in request.headers:
        raise HttpError(400, "a Hub token has left the Hub")
    if not hub.stored(oid):
        raise HttpError(404, "no such object")
    content = hub.large(Pointer(oid, int(size)))
    return _ranged(request, content, {"ETag": f'"{oid}"', "Accept-Ranges": "bytes", "X-Test-Path": path})


def _ranged(request: Request, content: bytes, headers: dict[str, str]) -> Response:
    headers = {**headers, "Content-Type": "application/octet-stream"}
    match = RANGE.fullmatch(request.headers.get("range", ""))
    if match is None or match.group() == "bytes=-":
        return Response(200, headers, content)
    low, high = match.groups()
    start = int(low) if low else max(0, len(content) - int(high))
    stop = min(len(content), int(high) + 1) if low and high else len(content)
    if start >= stop:
        return Response(416, {**headers, "Content-Range": f"bytes */{len(content)}"})
    return Response(206, {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{len(content)}"}, content[start:stop])
