"""What a model is, as a signed in-toto statement: its files, its base, its patches, the parameters that they touch.

    subject        every file of the model, by its path and SHA-256
    predicateType  urn:rasura:model-state:v1
    predicate      {"format":"rasura-model/1", "base":{…}, "patches":[…], "touched":[…], "compared":712, "record":"…",
                    "proof":"…", "time":"…", "means":"…"}

`patches` names what is applied by its identity, which is the root digest of its signed files. `touched` has the digest
of each parameter that they change, as it is now. `compared` counts the other parameters that were hashed and are the
base's. `record` is what the registry says of the model, as the JSON whose digest the log's entry about it
gives; `proof` a C2SP tlog-proof of that entry. Who has the log's key sees that the entry is about this very state.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from rasura.patches._io import canonical_json
from rasura.patches._io.canonical_json import Fields
from rasura.patches._io.json_fields import JsonValue
from rasura.patches.algebra.strength import Strength
from rasura.patches.errors import FormatError, HostError
from rasura.patches.types import Digest, ParamName, PatchId
from rasura.registry.evidence.proofs.proof_file import MAX_PROOF_BYTES

__all__ = ["MEANS", "ModelStatement", "StatedParameter", "StatedPatch", "hash_files"]

MEANS: Final = (
    "The weights are the base's with these patches composed. A patch suppresses what a model draws of a concept, as "
    "far as its evaluations measured it; it deletes nothing from what the model has learnt."
)

Progress = Callable[[str, int, int], None]

_TYPE: Final = "https://in-toto.io/Statement/v1"
_PREDICATE: Final = "urn:rasura:model-state:v1"
_FORMAT: Final = "rasura-model/1"
_WHAT: Final = "attestation"
_MAX_PAYLOAD: Final = 48 * 1024**2
_MAX_FILES: Final = 10_000
_MAX_PATCHES: Final = 100_000
_MAX_PARAMETERS: Final = 100_000
_MAX_RECORD: Final = 16 * 1024**2


@dataclass(frozen=True, slots=True)
class StatedPatch:
    """A patch that is applied: its identity, what it erases, its strength, and the key that signed it."""

    patch_id: PatchId
    concepts: tuple[str, ...]
    strength: Strength
    signer: str


@dataclass(frozen=True, slots=True)
class StatedParameter:
    """A parameter that a patch touches, and the digest of its raw little-endian bytes."""

    name: ParamName
    dtype: str
    shape: tuple[int, ...]
    sha256: Digest


@dataclass(frozen=True, slots=True)
class ModelStatement:
    """What is signed.

    Attributes:
        files: SHA-256 by path inside the model; of a single file, by its name.
        base: digest of the base.
        base_name: what the registry calls it.
        patches: what is applied, by identity.
        touched: what they touch, by name.
        compared: how many other parameters were found to be the base's.
        record: what the registry says of the model: the JSON that the log's entry has the digest of.
        proof: of the log's entry that changed that record last.
        time: when it was looked at, RFC 3339 in UTC.
    """

    files: Mapping[str, Digest]
    base: Digest
    base_name: str
    patches: tuple[StatedPatch, ...]
    touched: tuple[StatedParameter, ...]
    compared: int
    record: str
    proof: str
    time: str

    def to_payload(self) -> bytes:
        """The statement's RFC 8785 JSON."""
        subject: list[JsonValue] = [{"name": n, "digest": {"sha256": d}} for n, d in sorted(self.files.items())]
        patches: list[JsonValue] = [
            {"id": p.patch_id, "concepts": list(p.concepts), "strength": str(p.strength), "signer": p.signer}
            for p in self.patches
        ]
        touched: list[JsonValue] = [
            {"name": p.name, "dtype": p.dtype, "shape": list(p.shape), "sha256": p.sha256} for p in self.touched
        ]
        predicate: dict[str, JsonValue] = {
            "format": _FORMAT,
            "base": {"name": self.base_name, "digest": self.base},
            "patches": patches,
            "touched": touched,
            "compared": self.compared,
            "record": self.record,
            "proof": self.proof,
            "time": self.time,
            "means": MEANS,
        }
        return canonical_json.dumps(
            {"_type": _TYPE, "subject": subject, "predicateType": _PREDICATE, "predicate": predicate}
        )

    @classmethod
    def parse(cls, payload: bytes) -> ModelStatement:
        """Read a payload whose signature was verified.

        Raises:
            FormatError: it is no such statement.
        """
        top = Fields.of(canonical_json.loads(payload, what=_WHAT, limit=_MAX_PAYLOAD), _WHAT)
        top.choice("_type", (_TYPE,))
        top.choice("predicateType", (_PREDICATE,))
        files: dict[str, Digest] = {}
        for subject in top.records("subject", limit=_MAX_FILES):
            digests = subject.fields("digest")
            files[subject.text("name", limit=1024)] = digests.digest("sha256")
            digests.done()
            subject.done()
        said = top.fields("predicate")
        top.done()
        said.choice("format", (_FORMAT,))
        base = said.fields("base")
        statement = cls(
            files,
            base.digest("digest"),
            base.text("name", limit=255),
            tuple(map(_read_patch, said.records("patches", limit=_MAX_PATCHES))),
            tuple(map(_read_parameter, said.records("touched", limit=_MAX_PARAMETERS))),
            said.integer("compared", 0, canonical_json.MAX_INTEGER),
            said.text("record", limit=_MAX_RECORD),
            said.text("proof", limit=MAX_PROOF_BYTES),
            said.text("time", limit=32),
        )
        said.text("means", limit=1024)
        base.done()
        said.done()
        if not files:
            raise FormatError(f"{_WHAT}: expected at least one file, got none")
        return statement


def hash_files(model: Path, progress: Progress) -> dict[str, Digest]:
    """SHA-256 of every file of a model folder by its path in it, or of the one file; hidden ones are left out.

    Raises:
        HostError: a file or folder cannot be read, or a folder is a link, behind which nobody would look.
    """
    paths = dict(_list_files(model)) if model.is_dir() else {model.name: model}
    found: dict[str, Digest] = {}
    for done, (name, path) in enumerate(sorted(paths.items())):
        progress("hashing files", done, len(paths))
        try:
            with path.open("rb") as file:
                found[name] = Digest(hashlib.file_digest(file, "sha256").hexdigest())
        except OSError as error:
            raise HostError(f"{path}: expected a readable file, got {error.strerror}") from None
    progress("hashing files", len(paths), len(paths))
    return found


def _list_files(model: Path) -> list[tuple[str, Path]]:
    """Regular files, also behind links as in a cache of the Hub; nothing whose path has a hidden part."""
    found = []
    for folder, below, names in os.walk(model, onerror=_refuse_unreadable):
        below[:] = [name for name in below if not name.startswith(".")]
        for link in (Path(folder) / name for name in below if (Path(folder) / name).is_symlink()):
            raise HostError(f"{link}: expected a folder, got a link to one: what is behind it would not be covered")
        for name in names:
            path = Path(folder) / name
            if not name.startswith(".") and path.is_file():
                found.append((path.relative_to(model).as_posix(), path))
    return found


def _refuse_unreadable(error: OSError) -> NoReturn:
    raise HostError(f"{error.filename}: expected a readable folder, got {error.strerror}") from None


def _read_patch(fields: Fields) -> StatedPatch:
    patch = StatedPatch(
        PatchId(fields.digest("id")),
        fields.texts("concepts", limit=1000, characters=512),
        Strength.parse(fields.text("strength", limit=32)),
        fields.digest("signer"),
    )
    fields.done()
    return patch


def _read_parameter(fields: Fields) -> StatedParameter:
    parameter = StatedParameter(
        ParamName(fields.text("name", limit=512)),
        fields.text("dtype", limit=16),
        fields.integers("shape", 16, 0, canonical_json.MAX_INTEGER),
        fields.digest("sha256"),
    )
    fields.done()
    return parameter
