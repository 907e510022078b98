"""Answers about accounts and repositories: who am I, create, delete, move, settings, list, info."""

from typing import Any

import yaml
from support.hubserver.routes import HUB
from support.hubserver.state import FRONT_MATTER, Hub, Repository, now, tags
from support.hubserver.wire import HttpError, Request, Response, reply


@HUB.on("GET", "/api/whoami-v2")
def whoami(hub: Hub, request: Request) -> Response:
    user = hub.user(request)
    if user is None:
        raise HttpError(401, "Invalid username or password.")
    orgs = [{"type": "org", "id": name, "name": name, "fullname": name} for name in hub.namespaces[user] - {user}]
    token = {"accessToken": {"displayName": "test", "role": "write"}}
    about = {"type": "user", "id": user, "name": user, "fullname": user, "email": f"{user}@localhost"}
    return reply({**about, "orgs": orgs, "auth": token})


@HUB.on("POST", "/api/validate-yaml")
def validate_yaml(hub: Hub, request: Request) -> Response:
    match = FRONT_MATTER.match(request.json()["content"].encode())
    problem = {"message": "empty or missing yaml metadata in repo card"}
    if match is None:
        return reply({"errors": [], "warnings": [problem]})
    try:
        card = yaml.safe_load(match[1])
    except yaml.YAMLError as error:
        return reply({"errors": [{"message": str(error)}], "warnings": []}, status=400)
    errors = [] if isinstance(card, dict) else [{"message": "the front matter is not a mapping"}]
    return reply({"errors": errors, "warnings": []}, status=400 if errors else 200)


@HUB.on("POST", "/api/repos/create")
def create(hub: Hub, request: Request) -> Response:
    asked = request.json()
    owner = asked.get("organization") or hub.user(request) or ""
    user, kind = hub.writer(request, owner), f"{asked.get('type') or 'model'}s"
    private = bool(asked.get("private")) or asked.get("visibility") == "private"
    with hub.lock:
        if known := hub.repositories.get((kind, f"{owner}/{asked['name']}")):
            raise HttpError(409, "You already created this model repo", url=f"{hub.url}/{known.prefix}{known.id}")
        made = hub.create(kind, owner, asked["name"], private=private, author=user)
    return reply({"url": f"{hub.url}/{made.prefix}{made.id}", "name": made.id, "id": made.id})


@HUB.on("DELETE", "/api/repos/delete")
def delete(hub: Hub, request: Request) -> Response:
    asked = request.json()
    owner = asked.get("organization") or hub.user(request) or ""
    hub.writer(request, owner)
    found = _named(hub, asked, f"{owner}/{asked['name']}")
    with hub.lock:
        del hub.repositories[found.kind, found.id]
    return reply({})


@HUB.on("POST", "/api/repos/move")
def move(hub: Hub, request: Request) -> Response:
    asked = request.json()
    kind, (owner, name) = f"{asked.get('type') or 'model'}s", asked["toRepo"].split("/")
    for namespace in (owner, asked["fromRepo"].split("/")[0]):
        hub.writer(request, namespace)
    found = _named(hub, asked, asked["fromRepo"])
    with hub.lock:
        if (kind, asked["toRepo"]) in hub.repositories:
            raise HttpError(409, "A repository with this name exists")
        del hub.repositories[kind, found.id]
        found.owner, found.name = owner, name
        hub.repositories[kind, found.id] = found
    return reply({})


def _named(hub: Hub, asked: dict[str, Any], name: str) -> Repository:
    if found := hub.repositories.get((f"{asked.get('type') or 'model'}s", name)):
        return found
    raise HttpError(404, "Repository not found", "RepoNotFound")


@HUB.on("PUT", "/api/{kind}/{owner}/{name}/settings")
def settings(hub: Hub, request: Request) -> Response:
    (_, found), asked = hub.writable(request), request.json()
    if "private" in asked or "visibility" in asked:
        found.private = bool(asked.get("private")) or asked.get("visibility") == "private"
    if "gated" in asked:
        found.gated = asked["gated"] not in {False, None}
    return reply({})


@HUB.on("GET", "/api/{kind}")
def listing(hub: Hub, request: Request) -> Response:
    kind = request.at["kind"]
    wanted = set(request.query.get("filter", [])) | set(request.query.get("pipeline_tag", []))
    rows = [info(hub, found, found.commit("HEAD")) for found in hub.visible(request, kind)]
    rows = [row for row in rows if wanted <= {*row["tags"], row["pipeline_tag"]}]
    rows = [row for row in rows if request.one("author") in {"", row["author"]} and request.one("search") in row["id"]]
    limit = int(request.one("limit") or 1000)
    start = int(request.one("p") or 0)
    headers = {}
    if len(rows) > start + limit and not request.one("limit"):
        headers["Link"] = f'<{hub.url}/api/{kind}?p={start + limit}>; rel="next"'
    return reply(rows[start : start + limit], headers=headers)


@HUB.on("GET", "/api/{kind}/{owner}/{name}")
@HUB.on("GET", "/api/{kind}/{owner}/{name}/revision/{revision}")
def information(hub: Hub, request: Request) -> Response:
    found = hub.repository(request)
    return reply(info(hub, found, found.commit(request.at.get("revision", "HEAD")), blobs=request.flag("blobs")))


def info(hub: Hub, found: Repository, commit: str, *, blobs: bool = False) -> dict[str, Any]:
    """What the Hub says of a repository at a commit."""
    card = found.card(commit)
    head = found.git.log(commit)[0]
    about = {"_id": found.id, "id": found.id, "modelId": found.id, "author": found.owner, "sha": commit}
    state = {"private": found.private, "gated": "manual" if found.gated else False, "disabled": False}
    times = {"createdAt": found.created, "lastModified": head.date or now(), "downloads": 0, "likes": 0}
    facts = {"tags": tags(card), "cardData": card, "library_name": card.get("library_name")}
    files = [entry for entry in found.git.entries(commit).values() if entry.kind == "blob"]
    siblings = [_sibling(found, commit, entry.path, entry.oid, entry.size, blobs=blobs) for entry in files]
    return {**about, **state, **times, **facts, "pipeline_tag": card.get("pipeline_tag"), "siblings": siblings}


def _sibling(found: Repository, commit: str, path: str, oid: str, size: int, *, blobs: bool) -> dict[str, Any]:
    if not blobs:
        return {"rfilename": path}
    row = {"rfilename": path, "size": size, "blobId": oid}
    if pointer := found.pointer(commit, path):
        row |= {"size": pointer.size, "lfs": {"sha256": pointer.oid, "size": pointer.size, "pointerSize": size}}
    return row
