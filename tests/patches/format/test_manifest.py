"""The manifest as bytes: golden vectors of format 1, and one refusal for each way to break it.

`UPDATE_GOLDENS=1 pytest tests/patches/format/test_manifest.py` writes the vectors again; a changed vector is a changed
format, and needs another number.
"""

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.values.goldens import golden

from rasura.patches._io import canonical_json
from rasura.patches.errors import FormatError
from rasura.patches.format.manifest import FORMATS, MANIFEST_LIMIT, Manifest
from rasura.patches.format.manifest_parts import MAX_DIMENSION
from rasura.patches.format.patch import CONTENT, MANIFEST, Patch, read_folder

VECTORS = Path(__file__).parents[2] / "vectors" / "patch_v1"


@pytest.fixture(scope="module", autouse=True)
def _update() -> None:
    if os.environ.get("UPDATE_GOLDENS"):
        VECTORS.mkdir(parents=True, exist_ok=True)
        for name, data in golden().files().items():
            (VECTORS / name).write_bytes(data)
        (VECTORS / "patch_id").write_text(golden().patch_id + "\n")


@pytest.mark.parametrize("name", CONTENT)
def test_files_of_format_1_have_these_bytes(name: str) -> None:
    assert golden().files()[name] == (VECTORS / name).read_bytes()


def test_a_folder_of_format_1_can_be_read_for_ever() -> None:
    patch = Patch.from_files(read_folder(VECTORS))
    assert patch.patch_id == (VECTORS / "patch_id").read_text().strip()
    assert patch.manifest == golden().manifest
    assert patch.files() == golden().files()


def test_the_identity_is_the_hash_of_the_file() -> None:
    assert hashlib.sha256((VECTORS / MANIFEST).read_bytes()).hexdigest() == golden().patch_id


@pytest.mark.parametrize("folder", ["patch_v1", "patch_v2", "patch_v3"])
def test_a_manifest_that_was_read_has_the_identity_of_what_it_would_write(folder: str) -> None:
    data = (VECTORS.parent / folder / MANIFEST).read_bytes()
    found = Manifest.from_bytes(data)
    assert found.patch_id == hashlib.sha256(found.to_bytes()).hexdigest() == hashlib.sha256(data).hexdigest()
    other = replace(found, licence="another")
    assert other.patch_id == hashlib.sha256(other.to_bytes()).hexdigest() != found.patch_id


def test_manifests_hold_neither_time_nor_place() -> None:
    text = (VECTORS / MANIFEST).read_text()
    assert not any(word in text for word in ("time", "date", "host", "user", str(Path.home()), os.uname().nodename))


DOCUMENT: dict[str, Any] = json.loads(golden().manifest.to_bytes())
LONG = "x" * 5000


def put(path: str, value: object) -> bytes:
    """The golden document with one field changed, in canonical bytes; `...` takes the field out."""
    document: Any = json.loads(json.dumps(DOCUMENT))
    *parents, last = path.split("/")
    at = document
    for name in parents:
        at = at[int(name) if name.isdigit() else name]
    if value is ...:
        del at[last]
    else:
        at[int(last) if last.isdigit() else last] = value
    return canonical_json.dumps(document)


BAD: dict[str, tuple[str, object]] = {
    "of a later format": ("format", "rasura-patch/2"),
    "of no format": ("format", ...),
    "with an unknown field": ("made_at", "2026-01-01"),
    "with an unknown field inside": ("concept/note", ""),
    "without a concept": ("concept", ...),
    "a concept that is a list": ("concept", []),
    "a concept too long": ("concept/text", LONG),
    "a token choice with spaces": ("concept/tokens", "all of them"),
    "templates that are a text": ("concept/templates", "{}"),
    "templates that are numbers": ("concept/templates", [1]),
    "options that are numbers": ("eraser/options", {"ridge": 1}),
    "a negative seed": ("eraser/seed", -1),
    "a seed that is true": ("eraser/seed", True),
    "a digest in capitals": ("base/sha256", "AB" * 32),
    "a digest too short": ("base/sha256", "ab" * 31),
    "a parameter that is a path": ("base/parameters/0/name", "../../etc/passwd"),
    "a parameter without a name": ("base/parameters/0/name", ""),
    "a dtype of quantised weights": ("base/parameters/0/dtype", "I8"),
    "a shape too large": ("base/parameters/0/shape", [MAX_DIMENSION + 1, 1]),
    "a negative shape": ("base/parameters/0/shape", [-1, 2]),
    "nine dimensions": ("base/parameters/0/shape", [1] * 9),
    "more rank than dimensions": ("protected/basis/rank", 4),
    "more invariants than dimensions": ("protected/basis/invariants", 4),
    "no dimension": ("protected/basis/dimension", 0),
    "a spectrum of words": ("protected/basis/spectrum", {"largest": "big"}),
    "a retain set of minus one": ("protected/retain/count", -1),
    "a patch that is no id": ("protected/patches", ["abc"]),
    "a patch id in capitals": ("supersedes", ["AB" * 32]),
    "a measured number that is a number": ("measured", {"residual": 1}),
    "a measured NaN": ("measured", {"residual": "nan"}),
    "a measured infinity": ("measured", {"residual": "1e999"}),
    "a file that is a path": ("tensors/0/file", "../manifest.json"),
    "a hidden file": ("tensors/0/file", ".git"),
    "a licence that is null": ("licence", None),
}


@pytest.mark.parametrize("flaw", BAD)
def test_a_manifest_is_refused_that_is(flaw: str) -> None:
    path, value = BAD[flaw]
    with pytest.raises(FormatError) as caught:
        Manifest.from_bytes(put(path, value))
    assert caught.value.message.startswith("manifest.json")
    assert len(caught.value.message) < 400


def test_a_later_format_says_how_to_read_it() -> None:
    with pytest.raises(FormatError, match=f"'{FORMATS[-1]}', got 'rasura-patch/4'") as caught:
        Manifest.from_bytes(put("format", "rasura-patch/4"))
    assert caught.value.hint == "pip install --upgrade rasura"


GOOD = golden().manifest.to_bytes()
SPELLINGS: dict[str, bytes] = {
    "nothing": b"",
    "an empty object": b"{}",
    "a list": b"[]",
    "a byte order mark": b"\xef\xbb\xbf" + GOOD,
    "a newline at the end": GOOD + b"\n",
    "indented": json.dumps(DOCUMENT, indent=1).encode(),
    "keys in another order": json.dumps(dict(reversed(DOCUMENT.items())), separators=(",", ":")).encode(),
    "escapes where none are needed": json.dumps(DOCUMENT, separators=(",", ":"), sort_keys=True).encode(),
    "one key twice": GOOD[:-1] + b',"licence":"MIT"}',
    "a float": GOOD.replace(b'"seed":7', b'"seed":7.0'),
    "UTF-16": GOOD.decode().encode("utf-16"),
    "half": GOOD[: len(GOOD) // 2],
    "too long": GOOD[:-1] + b" " * MANIFEST_LIMIT + b"}",
    "too deep": b'{"format":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_manifest_has_one_spelling_and_is_refused_as(spelling: str) -> None:
    assert Manifest.from_bytes(GOOD) == golden().manifest
    with pytest.raises(FormatError):
        Manifest.from_bytes(SPELLINGS[spelling])
