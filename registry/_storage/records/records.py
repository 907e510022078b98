"""What leaves the registry, and what enters it: frozen values that know no database.

Every record checks its fields when it is made, so whoever holds one can trust it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from rasura.patches.errors import InputError
from rasura.patches.types import Digest, KeyId, PatchId
from rasura.registry._storage.records.validation import (
    check_count,
    check_decimal,
    check_digest,
    check_name,
    check_stack,
    check_text,
    check_time,
    check_uuid,
)

__all__ = [
    "Draft",
    "EntryRecord",
    "EvaluationRecord",
    "HostRecord",
    "KeyRecord",
    "Outcome",
    "PatchOutline",
    "PatchRecord",
    "SignatureRecord",
]

Outcome: TypeAlias = Literal["success", "refused", "failed", "begun", "done"]
"""How an action ended. `begun` waits for `done` or `failed`; the others stand alone."""

MAX_SCORES: Final = 64
"""Most names in the summary of an evaluation; details belong into its report."""


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A public key that signs patches."""

    key_id: KeyId
    name: str
    pem: str
    """SubjectPublicKeyInfo, PEM."""
    owned: bool
    """Whether the private key lies in this registry's `keys` folder."""
    trusted: bool
    revoked_at: datetime | None
    added_at: datetime

    def __post_init__(self) -> None:
        check_digest("key id", self.key_id)
        check_name("key name", self.name)
        check_text("key", self.pem)
        check_time("added_at", self.added_at)
        if self.revoked_at is not None:
            check_time("revoked_at", self.revoked_at)


@dataclass(frozen=True, slots=True)
class PatchRecord:
    """A patch that the registry holds; its files lie in the blob store."""

    patch_id: PatchId
    concepts: tuple[str, ...]
    anchor: str
    method: str
    base: Digest
    """The base it was computed on, which this registry may not know (yet)."""
    basis: Digest | None
    retain_set: Digest | None
    key_id: KeyId | None
    """Who signed it, where that was verified."""
    files: Mapping[str, Digest]
    size: int
    """Bytes of all files together."""
    added_at: datetime
    source: str

    def __post_init__(self) -> None:
        check_digest("patch id", self.patch_id)
        for concept in self.concepts:
            check_text("concept", concept, limit=512)
        check_text("anchor", self.anchor, empty=True)
        check_name("method", self.method)
        for what in ("base", "basis", "retain_set", "key_id"):
            if getattr(self, what) is not None:
                check_digest(what, getattr(self, what))
        for name, digest in self.files.items():
            check_name("file name", name)
            check_digest(f"digest of {name}", digest)
        check_count("size", self.size)
        check_time("added_at", self.added_at)
        check_text("source", self.source, empty=True)
        object.__setattr__(self, "files", MappingProxyType(dict(self.files)))


@dataclass(frozen=True, slots=True)
class PatchOutline:
    """The little of a patch that is needed to say which of several came last."""

    patch_id: PatchId
    base: Digest
    added_at: datetime


@dataclass(frozen=True, slots=True)
class SignatureRecord:
    """A further signature over a patch; the first is the patch's own `model.sig`."""

    digest: Digest
    """Of the bundle's bytes, which lie in the blob store."""
    patch_id: PatchId
    key_id: KeyId
    """Whose it is: verified when it came."""
    added_at: datetime

    def __post_init__(self) -> None:
        check_digest("signature digest", self.digest)
        check_digest("patch id", self.patch_id)
        check_digest("key id", self.key_id)
        check_time("added_at", self.added_at)


@dataclass(frozen=True, slots=True)
class HostRecord:
    """A model that patches are applied to, as it was last written."""

    host_id: str
    """A UUID: the location may change, this does not."""
    location: str
    base: Digest
    applied: Mapping[PatchId, int]
    """The stack: strengths in sixteenths, never 0."""
    state: Digest
    """Of the tensor set of the touched parameters, as last written."""
    updated_at: datetime

    def __post_init__(self) -> None:
        check_uuid("host id", self.host_id)
        check_text("location", self.location, limit=2048)
        check_digest("base", self.base)
        check_digest("state", self.state)
        check_time("updated_at", self.updated_at)
        check_stack("host", self.applied)
        object.__setattr__(self, "applied", MappingProxyType(dict(self.applied)))


@dataclass(frozen=True, slots=True)
class EvaluationRecord:
    """What a base drew with and without a stack, as a classifier judged it; the whole report lies in the blob store."""

    digest: Digest
    """Of the report's bytes."""
    base: Digest
    patches: Mapping[PatchId, int]
    """The stack: strengths in sixteenths, never 0. Never empty."""
    judge: str
    """Name of the classifier."""
    summary: Mapping[str, str]
    """Decimal texts by name: `{"forget": "0.979", "retain": "1.000", …}`."""
    added_at: datetime

    def __post_init__(self) -> None:
        check_digest("report digest", self.digest)
        check_digest("base", self.base)
        check_stack("evaluation", self.patches)
        if not self.patches:
            raise InputError("evaluation: expected at least one patch, got none")
        check_name("judge", self.judge)
        check_count("number of scores", len(self.summary), high=MAX_SCORES)
        for name, value in self.summary.items():
            check_name("name of a score", name)
            check_decimal(f"score {name}", value)
        check_time("added_at", self.added_at)
        object.__setattr__(self, "patches", MappingProxyType(dict(self.patches)))
        object.__setattr__(self, "summary", MappingProxyType(dict(self.summary)))


@dataclass(frozen=True, slots=True)
class Draft:
    """An audit entry before the log gives it an index and a time: who does what, why, and how it went."""

    actor: str
    reason: str
    action: str
    """What was done, noun.verb: `patch.add`, `stack.apply`."""
    outcome: Outcome
    patches: tuple[PatchId, ...] = ()
    base: Digest | None = None
    host: str | None = None
    before: Digest | None = None
    """State of the host before, a tensor-set digest."""
    after: Digest | None = None
    details: Mapping[str, str | int] = field(default_factory=dict)
    error: str | None = None
    """`code` of the error that ended a refused or failed action."""
    closes: int | None = None
    """Index of the `begun` entry that this one ends. A `done` without one ends its host's latest."""


@dataclass(frozen=True, slots=True)
class EntryRecord:
    """One line of the audit log."""

    index: int
    time: datetime
    actor: str
    action: str
    outcome: Outcome
    reason: str
    patches: tuple[PatchId, ...]
    base: Digest | None
    host: str | None
    before: Digest | None
    after: Digest | None
    details: Mapping[str, str | int]
    leaf_hash: bytes
    """RFC 6962 leaf hash of the entry's bytes: 32 bytes."""
    error: str | None = None
    closes: int | None = None
    entry_id: str = ""
    """A UUID, the same wherever the entry is copied to."""
    actor_key: KeyId | None = None
    """Whose signature the entry carries as that of who acts; None: who acted is what they said."""
