"""The statement that a model signature signs: in-toto Statement v1 with the predicate of OpenSSF Model Signing v1.0.

It lists the name and SHA-256 of every file. Its root digest, SHA-256 over the files' raw digests in the order of their
names, is the identity of what was signed. `read_payload` demands more than the format: one flat folder of plainly named
files, SHA-256, no links, nothing left out that could ever be loaded.

Format: https://github.com/ossf/model-signing-spec/blob/main/spec/v1.0.md.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from rasura.patches._io import canonical_json
from rasura.patches._io.canonical_json import Fields
from rasura.patches._io.sha256 import digest_of
from rasura.patches.errors import FormatError
from rasura.patches.format.file_names import SIGNATURE
from rasura.patches.types import Digest, KeyId

MAX_FILES: Final = 1000
"""Most files of one statement. A patch has three."""

FILE_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
"""What a signed file may be called: no folders, no hidden files, nothing that differs in case only."""

MAX_PAYLOAD_BYTES: Final = 512 * 1024
"""Longest statement read. One over 1000 files has 0.2 MB."""

_STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
_PREDICATE_TYPE: Final = "https://model_signing/signature/v1.0"

_SUBJECT: Final = 255  # characters of the signed folder's name

_IGNORED: Final = (SIGNATURE, ".git", ".gitattributes", ".github", ".gitignore")
"""What OMS v1.0 leaves out by default, and the most that a signer may leave out: none of it is ever loaded."""


@dataclass(frozen=True, slots=True)
class Statement:
    """What a verified signature says."""

    key_id: KeyId
    """The key that signed."""
    root: Digest
    """SHA-256 over the files' raw digests, in order of names: the identity of what was signed."""
    files: Mapping[str, Digest]
    """SHA-256 of each file's bytes, by name, sorted by code point."""


def payload(files: Mapping[str, bytes], name: str) -> bytes:
    """The statement's canonical JSON over these files; `read_payload` accepts it.

    Raises:
        FormatError: no files, too many, or a name that verifiers refuse.
    """
    if not files or len(files) > MAX_FILES:
        raise FormatError(f"expected 1 to {MAX_FILES} files to sign, got {len(files)}")
    for file in files:
        if not FILE_NAME.fullmatch(file) or file == SIGNATURE:
            raise FormatError(f"expected file names like {FILE_NAME.pattern}, got {file[:120]!a}")
    if len(name) > _SUBJECT:
        raise FormatError(f"expected a name of at most {_SUBJECT} characters, got {len(name)}")
    return canonical_json.dumps(_statement({n: digest_of(files[n]) for n in sorted(files)}, name))


def _statement(digests: Mapping[str, Digest], name: str) -> dict[str, canonical_json.JsonValue]:
    return {
        "_type": _STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": _root(digests)}}],
        "predicateType": _PREDICATE_TYPE,
        "predicate": {
            "resources": [{"name": n, "algorithm": "sha256", "digest": d} for n, d in digests.items()],
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": list(_IGNORED),
            },
        },
    }


def _root(digests: Mapping[str, Digest]) -> Digest:
    return digest_of(b"".join(bytes.fromhex(digest) for digest in digests.values()))


def read_payload(data: bytes, key_id: KeyId) -> Statement:
    """The statement of bytes whose signature by `key_id` has been verified.

    Raises:
        FormatError: no v1.0 statement, one over other things than plain files, or one whose root is not theirs.
    """
    what = f"{SIGNATURE}: statement"
    top = Fields.of(canonical_json.parse(data, what=what, limit=MAX_PAYLOAD_BYTES), what)
    top.choice("_type", (_STATEMENT_TYPE,))
    top.choice("predicateType", (_PREDICATE_TYPE,))
    root = _read_subject(top)
    predicate = top.fields("predicate")
    top.done()
    _check_serialization(predicate.fields("serialization"))
    files = _read_resources(predicate)
    predicate.done()
    if (expected := _root(files)) != root:
        raise FormatError(f"{what}: expected the root digest {expected} of its files, got {root}")
    return Statement(key_id, root, files)


def _read_subject(statement: Fields) -> Digest:
    subjects = list(statement.records("subject", limit=1))
    if len(subjects) != 1:
        raise FormatError(f"{SIGNATURE}: expected one subject, got none")
    subjects[0].text("name", limit=_SUBJECT)
    digest = subjects[0].fields("digest")
    subjects[0].done()
    root = digest.digest("sha256")
    digest.done()
    return root


def _check_serialization(serialization: Fields) -> None:
    """Plain files and SHA-256; a signer may leave out nothing that could ever be loaded."""
    serialization.choice("method", ("files",))
    serialization.choice("hash_type", ("sha256",))
    if serialization.flag("allow_symlinks"):
        raise FormatError(f"{SIGNATURE}: allow_symlinks: expected false, got true")
    ignored = serialization.optional("ignore_paths", serialization.texts) or ()
    serialization.done()
    if holes := sorted(set(ignored) - set(_IGNORED)):
        raise FormatError(f"{SIGNATURE}: ignore_paths: expected only {', '.join(_IGNORED)}, got {holes[0]!a}")


def _read_resources(predicate: Fields) -> dict[str, Digest]:
    files: dict[str, Digest] = {}
    previous = ""
    for resource in predicate.records("resources", limit=MAX_FILES):
        name = resource.text("name", FILE_NAME)
        if name <= previous or name == SIGNATURE:
            raise FormatError(f"{SIGNATURE}: expected files once, by code point, after {previous!r}, got {name!r}")
        resource.choice("algorithm", ("sha256",))
        files[name] = resource.digest("digest")
        resource.done()
        previous = name
    if not files:
        raise FormatError(f"{SIGNATURE}: expected at least one signed file, got none")
    return files
