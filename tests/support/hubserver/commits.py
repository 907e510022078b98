"""Answers that write: what to upload how, commits, branches, tags, pull requests."""

import base64
import json
from fnmatch import fnmatch
from typing import Any

from support.hubserver.gitrepo import Pointer
from support.hubserver.routes import HUB
from support.hubserver.state import Hub, PullRequest, Repository, now
from support.hubserver.wire import HttpError, Request, Response, reply

LARGE = 10 << 20  # bytes from which a file is stored apart whatever its name

Changes = dict[str, bytes | None]


@HUB.on("POST", "/api/{kind}/{owner}/{name}/preupload/{revision}")
def preupload(hub: Hub, request: Request) -> Response:
    _, found = hub.writable(request)
    commit = found.commit(request.at["revision"])
    patterns = _large_patterns(found, commit)
    return reply({"files": [_upload(found, commit, patterns, asked) for asked in request.json()["files"]]})


def _large_patterns(found: Repository, commit: str) -> list[str]:
    entry = found.git.entries(commit).get(".gitattributes")
    lines = found.git.blob(entry.oid).decode().splitlines() if entry else []
    return [line.split()[0] for line in lines if "filter=lfs" in line]


def _upload(found: Repository, commit: str, patterns: list[str], asked: dict[str, Any]) -> dict[str, Any]:
    path, sample = asked["path"], base64.b64decode(asked.get("sample") or "")
    named = any(fnmatch(path.rsplit("/", 1)[-1], pattern) for pattern in patterns)
    large = asked["size"] > 0 and (named or asked["size"] >= LARGE or b"\0" in sample)
    entry, pointer = found.git.entries(commit).get(path), found.pointer(commit, path)
    oid = pointer.oid if pointer else entry.oid if entry else None
    return {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": oid}


@HUB.on("POST", "/api/{kind}/{owner}/{name}/commit/{revision}")
def commit(hub: Hub, request: Request) -> Response:
    user, found = hub.writable(request)
    revision = request.at["revision"]
    header, operations = _parse(request)
    with hub.lock:
        head = found.commit(request.at["revision"])
        if header.get("parentCommit") not in {None, head}:
            raise HttpError(412, "A commit has happened since. Please refresh and try again.")
        changes = _changes(hub, found, head, operations)
        pull = _open_pull(found, header["summary"], user) if request.flag("create_pr") else None
        ref = f"refs/pr/{pull.num}" if pull else _writable(found, revision)
        message = "\n\n".join(filter(None, (header["summary"], header.get("description"))))
        oid = found.git.commit(ref, head, changes, author=user, message=message)
    page = f"{hub.url}/{found.prefix}{found.id}"
    answer: dict[str, object] = {"success": True, "commitOid": oid, "commitUrl": f"{page}/commit/{oid}"}
    return reply({**answer, "pullRequestUrl": f"{page}/discussions/{pull.num}"} if pull else answer)


def _parse(request: Request) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    try:
        lines = [json.loads(line) for line in request.body.splitlines() if line.strip()]
        headers = [line["value"] for line in lines if line["key"] == "header"]
        if len(headers) != 1 or not headers[0].get("summary"):
            raise HttpError(400, "a commit needs one header with a summary")
        return headers[0], [line for line in lines if line["key"] != "header"]
    except (ValueError, KeyError, TypeError) as error:
        raise HttpError(400, "the commit is not newline-delimited JSON") from error


def _changes(hub: Hub, found: Repository, head: str, operations: list[dict[str, Any]]) -> Changes:
    changes: Changes = {}
    for operation in operations:
        value, path = operation["value"], operation["value"]["path"].rstrip("/")
        if any(part in {"", ".", "..", ".git"} for part in path.split("/")):
            raise HttpError(400, f"the path {path!r} is not allowed")
        match operation["key"]:
            case "file":
                changes[path] = base64.b64decode(value["content"])
            case "lfsFile":
                changes[path] = _pointer(hub, value).to_bytes()
            case "deletedFile" | "deletedFolder" if path in found.git.entries(head):
                changes[path] = None
            case "deletedFile" | "deletedFolder":
                raise HttpError(404, "A file with this name doesn't exist", "EntryNotFound")
            case key:
                raise HttpError(400, f"unknown operation {key}")
    return changes


def _pointer(hub: Hub, value: dict[str, Any]) -> Pointer:
    oid = value["oid"]
    if not hub.stored(oid):
        raise HttpError(400, f"the object {oid} was never uploaded")
    if "size" in value:
        return Pointer(oid, int(value["size"]))
    copied = (p for r in hub.repositories.values() for p in r.git.pointers(r.commit("HEAD")).values() if p.oid == oid)
    return next(copied)


def _writable(found: Repository, revision: str) -> str:
    refs = found.git.refs("refs/")
    for ref in (revision, f"refs/heads/{revision}"):
        if ref in refs:
            return ref
    raise HttpError(403, f"{revision} is not a branch")


def _open_pull(found: Repository, title: str, user: str) -> PullRequest:
    found.pulls.append(PullRequest(len(found.pulls) + 1, title, user, now()))
    return found.pulls[-1]


@HUB.on("POST", "/api/{kind}/{owner}/{name}/branch/{branch}")
def create_branch(hub: Hub, request: Request) -> Response:
    start = request.json().get("startingPoint") or "HEAD"
    return _create_ref(hub, request, f"refs/heads/{request.at['branch']}", start)


@HUB.on("POST", "/api/{kind}/{owner}/{name}/tag/{revision}")
def create_tag(hub: Hub, request: Request) -> Response:
    return _create_ref(hub, request, f"refs/tags/{request.json()['tag']}", request.at["revision"])


def _create_ref(hub: Hub, request: Request, ref: str, start: str) -> Response:
    _, found = hub.writable(request)
    with hub.lock:
        if ref in found.git.refs("refs/"):
            raise HttpError(409, f"Reference already exists: {ref}")
        found.git.set_ref(ref, found.commit(start))
    return reply({})


@HUB.on("DELETE", "/api/{kind}/{owner}/{name}/branch/{branch}")
def delete_branch(hub: Hub, request: Request) -> Response:
    return _delete_ref(hub, request, f"refs/heads/{request.at['branch']}")


@HUB.on("DELETE", "/api/{kind}/{owner}/{name}/tag/{tag}")
def delete_tag(hub: Hub, request: Request) -> Response:
    return _delete_ref(hub, request, f"refs/tags/{request.at['tag']}")


def _delete_ref(hub: Hub, request: Request, ref: str) -> Response:
    _, found = hub.writable(request)
    with hub.lock:
        if ref not in found.git.refs("refs/"):
            raise HttpError(404, f"no such reference: {ref}", "RevisionNotFound")
        found.git.set_ref(ref, None)
    return reply({})


@HUB.on("GET", "/api/{kind}/{owner}/{name}/discussions")
def discussions(hub: Hub, request: Request) -> Response:
    found = hub.repository(request)
    rows = [_pull_row(found, pull) for pull in found.pulls]
    return reply({"count": len(rows), "start": 0, "discussions": rows if request.one("p") in {"", "0"} else []})


@HUB.on("GET", "/api/{kind}/{owner}/{name}/discussions/{num}")
def discussion(hub: Hub, request: Request) -> Response:
    found = hub.repository(request)
    changes = {"base": "refs/heads/main", "mergeCommitId": None}
    return reply(
        {
            **_pull_row(found, _pull(found, request.at["num"])),
            "events": [],
            "changes": changes,
            "filesWithConflicts": [],
        }
    )


@HUB.on("POST", "/api/{kind}/{owner}/{name}/discussions/{num}/merge")
def merge(hub: Hub, request: Request) -> Response:
    _, found = hub.writable(request)
    pull = _pull(found, request.at["num"])
    with hub.lock:
        found.git.set_ref("refs/heads/main", found.commit(f"refs/pr/{pull.num}"))
        pull.status = "merged"
    return reply({})


def _pull(found: Repository, num: str) -> PullRequest:
    match = [pull for pull in found.pulls if str(pull.num) == num]
    if not match:
        raise HttpError(404, "Discussion not found", "EntryNotFound")
    return match[0]


def _pull_row(found: Repository, pull: PullRequest) -> dict[str, object]:
    about = {"title": pull.title, "num": pull.num, "author": {"name": pull.author}, "createdAt": pull.created}
    repo = {"name": found.id, "type": found.kind.removesuffix("s")}
    return {**about, "status": pull.status, "repo": repo, "isPullRequest": True}
