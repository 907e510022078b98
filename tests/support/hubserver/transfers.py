"""Large files: the Git LFS batch protocol with its multipart form, and the tokens for Xet."""

import time
from typing import Any

from support.hubserver.routes import HUB, STORAGE
from support.hubserver.state import Hub
from support.hubserver.wire import HttpError, Request, Response, reply

PART = 1 << 20  # bytes of a part; a file that is larger goes up in several
TOKEN_SECONDS = 3600


@HUB.on("POST", "/{owner}/{name}.git/info/lfs/objects/batch")
@HUB.on("POST", "/{kind}/{owner}/{name}.git/info/lfs/objects/batch")
def batch(hub: Hub, request: Request) -> Response:
    asked = request.json()
    found = hub.repository(request)
    if asked["operation"] == "download":
        return reply({"transfer": "basic", "objects": [_download(hub, item) for item in asked["objects"]]})
    hub.writer(request, found.owner)
    large = "multipart" in asked.get("transfers", []) and any(item["size"] > PART for item in asked["objects"])
    objects = [_upload(hub, f"{found.prefix}{found.id}", item, multipart=large) for item in asked["objects"]]
    return reply({"transfer": "multipart" if large else "basic", "objects": objects})


def _download(hub: Hub, item: dict[str, Any]) -> dict[str, Any]:
    if not hub.stored(item["oid"]):
        return {**item, "error": {"code": 404, "message": "no such object"}}
    return {**item, "actions": {"download": {"href": f"{hub.storage_url}/file/{item['oid']}/{item['size']}/lfs"}}}


def _upload(hub: Hub, repo: str, item: dict[str, Any], *, multipart: bool) -> dict[str, Any]:
    oid, size = item["oid"], item["size"]
    if hub.stored(oid):
        return {"oid": oid, "size": size}
    place = f"{hub.storage_url}/upload/{oid}"
    upload: dict[str, object] = {"href": place, "header": {}}
    if multipart and size > PART:
        parts = {str(n + 1): f"{place}/{n + 1}" for n in range(-(-size // PART))}
        upload = {"href": f"{hub.url}/{repo}.git/complete/{oid}", "header": {"chunk_size": str(PART), **parts}}
    verify = {"href": f"{hub.url}/{repo}.git/info/lfs/objects/verify"}
    return {"oid": oid, "size": size, "actions": {"upload": upload, "verify": verify}}


@STORAGE.on("PUT", "/upload/{oid}")
def put(hub: Hub, request: Request) -> Response:
    _no_token(request)
    if not hub.objects.put(request.at["oid"], request.body):
        raise HttpError(400, "the bytes are not those of the name")
    return Response()


@STORAGE.on("PUT", "/upload/{oid}/{part}")
def put_part(hub: Hub, request: Request) -> Response:
    _no_token(request)
    etag = hub.objects.put_part(request.at["oid"], int(request.at["part"]), request.body)
    return Response(200, {"ETag": f'"{etag}"'})


def _no_token(request: Request) -> None:
    if "authorization" in request.headers:
        raise HttpError(400, "a Hub token has left the Hub")


@HUB.on("POST", "/{repo:rest}.git/complete/{oid}")
def complete(hub: Hub, request: Request) -> Response:
    if not hub.objects.join(request.at["oid"], [part["partNumber"] for part in request.json()["parts"]]):
        raise HttpError(400, "the parts are not the file")
    return reply({})


@HUB.on("POST", "/{repo:rest}.git/info/lfs/objects/verify")
def verify(hub: Hub, request: Request) -> Response:
    asked = request.json()
    if not hub.objects.has(asked["oid"]) or hub.objects.path(asked["oid"]).stat().st_size != asked["size"]:
        raise HttpError(404, "the object did not arrive whole")
    return reply({})


@HUB.on("GET", "/api/{kind}/{owner}/{name}/xet-read-token/{revision}")
def read_token(hub: Hub, request: Request) -> Response:
    hub.repository(request)
    return _token(hub)


@HUB.on("GET", "/api/{kind}/{owner}/{name}/xet-write-token/{revision}")
def write_token(hub: Hub, request: Request) -> Response:
    hub.writable(request)
    return _token(hub)


def _token(hub: Hub) -> Response:
    if not hub.xet_enabled:
        raise HttpError(404, "Sorry, we can't find the page you are looking for.")
    expires = int(time.time()) + TOKEN_SECONDS
    body = {"casUrl": hub.xet.url, "accessToken": "xet", "exp": expires}
    headers = {"X-Xet-Cas-Url": hub.xet.url, "X-Xet-Access-Token": "xet", "X-Xet-Token-Expiration": str(expires)}
    return reply(body, headers=headers)
