"""Files into one commit, as the Hub's interface wants it: what goes how, the large ones by Git LFS, then the commit.

    (1) preupload: the Hub says which files it keeps in git and which apart
    (2) LFS batch: it says where the large ones go, if it does not hold them already
    (3) PUT each, whole or in parts, and have it verified
    (4) the commit, as lines of JSON, on top of the commit that was looked at

Large files go by Git LFS, which every Hub takes, those with Xet included: hf_xet tries again on its own clock, which a
command with a deadline cannot have.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Final
from urllib.parse import quote, urljoin, urlsplit

from rasura.patches.errors import ForeignAnswerError
from rasura.registry._storage.digests import sha256
from rasura.registry.hub.client import Wire
from rasura.registry.hub.http import same_origin

__all__ = ["commit_files"]

_SAMPLE: Final = 512  # bytes by which the Hub judges what a file is
_CHUNK: Final = 256  # files asked about at a time
_LFS: Final = {"Accept": "application/vnd.git-lfs+json", "Content-Type": "application/vnd.git-lfs+json"}


@dataclass(frozen=True, slots=True)
class _Target:
    """A repository's branch on a Hub."""

    wire: Wire
    repo: str
    revision: str

    @property
    def what(self) -> str:
        return f"push to {self.repo}"

    def odd(self, got: str) -> ForeignAnswerError:
        return ForeignAnswerError(
            f"could not {self.what}: expected instructions for an upload, got {got}", hint="check HF_ENDPOINT"
        )


def commit_files(
    wire: Wire,
    repo: str,
    revision: str,
    files: Mapping[str, bytes],
    *,
    message: str,
    parent: str,
    removed: Sequence[str] = (),
) -> str:
    """Write files by path, and remove others, in one commit on top of `parent`; returns the commit.

    Raises:
        ConflictError: the branch is no longer at `parent`.
        HubError: the Hub failed, refused or was not reached.
    """
    target = _Target(wire, repo, revision)
    large = _large(target, files)
    _upload(target, {sha256(files[path]): files[path] for path in large})
    header = {"summary": message, "description": "", "parentCommit": parent}
    lines: list[dict[str, object]] = [{"key": "header", "value": header}]
    for path, data in files.items():
        if path in large:
            stored = {"path": path, "algo": "sha256", "oid": sha256(data), "size": len(data)}
            lines.append({"key": "lfsFile", "value": stored})
        else:
            content = base64.b64encode(data).decode()
            lines.append({"key": "file", "value": {"content": content, "path": path, "encoding": "base64"}})
    lines += [{"key": "deletedFile", "value": {"path": path}} for path in removed]
    body = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    path = f"/api/models/{repo}/commit/{quote(revision, safe='')}"
    answer = wire.post(path, target.what, repo, body, headers={"Content-Type": "application/x-ndjson"})
    if not isinstance(answer, dict) or not isinstance(answer.get("commitOid"), str):
        raise target.odd("an answer without a commit")
    return str(answer["commitOid"])


def _large(target: _Target, files: Mapping[str, bytes]) -> frozenset[str]:
    """(1) The paths that go by LFS; an empty file never does."""
    found: set[str] = set()
    paths = list(files)
    for start in range(0, len(paths), _CHUNK):
        asked = [
            {"path": p, "sample": base64.b64encode(files[p][:_SAMPLE]).decode(), "size": len(files[p])}
            for p in paths[start : start + _CHUNK]
        ]
        where = f"/api/models/{target.repo}/preupload/{quote(target.revision, safe='')}"
        answer = target.wire.post(where, target.what, target.repo, {"files": asked})
        rows = answer.get("files") if isinstance(answer, dict) else None
        for row in rows if isinstance(rows, list) else ():
            match row:
                case {"path": str(path), "uploadMode": "lfs"} if files.get(path):
                    found.add(path)
    return frozenset(found)


def _upload(target: _Target, objects: Mapping[str, bytes]) -> None:
    """(2), (3)."""
    if not objects:
        return
    body = {
        "operation": "upload",
        "transfers": ["basic", "multipart"],
        "objects": [{"oid": oid, "size": len(data)} for oid, data in objects.items()],
        "hash_algo": "sha256",
        "ref": {"name": target.revision},
    }
    where = f"/{target.repo}.git/info/lfs/objects/batch"
    answer = target.wire.post(where, target.what, target.repo, body, headers=_LFS)
    rows = answer.get("objects") if isinstance(answer, dict) else None
    if not isinstance(rows, list):
        raise target.odd("an answer without a list of files")
    for row in rows:
        match row:
            case {"oid": str(oid), "error": {"message": str(message)}} if oid in objects:
                raise target.odd(f"{message[:200]!a} for a file of {len(objects[oid])} bytes")
            case {"oid": str(oid), **rest} if oid in objects:
                _put(target, oid, objects[oid], rest.get("actions"))
            case _:
                raise target.odd("a row for a file that was not asked about")


def _put(target: _Target, oid: str, data: bytes, actions: Any) -> None:
    if not actions:
        return  # the Hub holds it
    if not isinstance(actions, dict):
        raise target.odd("no instructions for a file")
    if upload := actions.get("upload"):
        _put_all(target, oid, data, upload)
    if verify := actions.get("verify"):
        _tell(target, _href(target, verify), {"oid": oid, "size": len(data)}, {})


def _put_all(target: _Target, oid: str, data: bytes, upload: Any) -> None:
    url = _href(target, upload)
    header = upload.get("header")
    size = header.get("chunk_size") if isinstance(header, dict) else None
    if size is None:
        target.wire.put(_outside(target, url), target.what, target.repo, data)
        return
    chunk = int(size) if str(size).isascii() and str(size).isdigit() else 0
    parts = sorted((int(k), v) for k, v in header.items() if k.isascii() and k.isdigit() and isinstance(v, str))
    if chunk < 1 or len(parts) != ceil(len(data) / chunk):
        raise target.odd("parts that do not make up the file")
    done = []
    for number, (_, place) in enumerate(parts):
        piece = data[number * chunk : (number + 1) * chunk]
        answer = target.wire.put(_outside(target, place), target.what, target.repo, piece)
        if not answer.headers.get("etag"):
            raise target.odd("a part without a tag")
        done.append({"partNumber": number + 1, "etag": answer.headers["etag"]})
    _tell(target, url, {"oid": oid, "parts": done}, _LFS)


def _tell(target: _Target, url: str, body: object, headers: Mapping[str, str]) -> None:
    """A call about a file; it carries the token, so it must be the Hub's."""
    if not same_origin(url, target.wire.endpoint):
        raise target.odd("the address of another server")
    target.wire.post(url, target.what, target.repo, body, headers=headers)


def _href(target: _Target, action: Any) -> str:
    href = action.get("href") if isinstance(action, dict) else None
    if not isinstance(href, str):
        raise target.odd("no address")
    return urljoin(f"{target.wire.endpoint}/", href)


def _outside(target: _Target, url: str) -> str:
    """Where bytes go: anywhere that the Hub says, but not from https to http."""
    scheme = urlsplit(url).scheme
    if scheme not in {"http", "https"} or (scheme == "http" and target.wire.endpoint.startswith("https:")):
        raise target.odd("the address of a place without https")
    return url
