"""`rasura.lock`: a stack pinned so that another registry, or a reviewer, can tell whether it is the same.

The file is JSON with one spelling: fields in a fixed order, two spaces a level, patches by concept and id, so that two
locks differ where the stacks do. It holds what was agreed on, not when:

    {"format": "rasura-lock/1", "stack": "…",
     "base": {"sha256": "…", "text_encoder": "…", "tokenizer": "…", "touched": "<tensor-set digest>"},
     "policy": {"sha256": "…", "limits": {"own": "0.001", …}, "separable": false},
     "verdict": {"accepted": true, "worst": {"pair": {"value": "1.20e-03", "limit": "5.00e-02"}, …}},
     "patches": [{"concept": "…", "id": "…", "strength": "1", "key": "…", "files": {"manifest.json": "…", …}}, …]}

The numbers of the verdict are a comment: what the composer said when the lock was written. Whoever uses a lock computes
them anew. Everything else is exact, and is compared with what is here before a lock is used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from rasura.patches._io import canonical_json
from rasura.patches._io.json_fields import Fields, JsonValue, is_decimal
from rasura.patches.algebra.stack import Stack
from rasura.patches.algebra.strength import Strength
from rasura.patches.checks.policy import Policy, list_limit_names
from rasura.patches.errors import FormatError, RasuraError
from rasura.patches.types import Digest, KeyId, PatchId
from rasura.registry._storage.records.choices import check_stack_name

__all__ = ["FORMAT", "MAX_LOCK_BYTES", "LockFile", "LockedBase", "LockedPatch"]

FORMAT: Final = "rasura-lock/1"
MAX_LOCK_BYTES: Final = 16 * 1024**2
"""Most bytes of a lock; one of ten thousand patches has seven million."""
MAX_PATCHES: Final = 20_000
_WHAT: Final = "lock file"
_CHECK: Final = r"[a-z][a-z-]{0,31}"
_FILE: Final = 255


@dataclass(frozen=True, slots=True)
class LockedPatch:
    """A patch of a lock: which, at what strength, signed by whom, of which bytes."""

    concept: str
    patch_id: PatchId
    strength: Strength
    key_id: KeyId
    files: Mapping[str, Digest]


@dataclass(frozen=True, slots=True)
class LockedBase:
    """The base of a lock; `touched` is the tensor-set digest of the parameters that its patches touch."""

    sha256: Digest
    text_encoder: Digest
    tokenizer: Digest
    touched: Digest


@dataclass(frozen=True, slots=True)
class LockFile:
    """The whole file. Equal locks have equal bytes, and only they."""

    stack: str
    base: LockedBase
    policy_sha256: Digest
    limits: Mapping[str, str]
    separable: bool
    worst: Mapping[str, tuple[str, str]]
    """Of each check the worst number and its limit."""
    patches: tuple[LockedPatch, ...]

    @property
    def policy(self) -> Policy:
        """The limits under which the stack was accepted.

        Raises:
            FormatError: one of them is no limit that this program knows.
        """
        if odd := sorted(set(self.limits) - set(list_limit_names())):
            raise FormatError(f"{_WHAT}: expected limits that rasura knows, got {odd[0]!r}", hint=hint_lock(self.stack))
        limits: dict[str, Any] = {name: float(number) for name, number in self.limits.items()}
        return Policy(**limits, separable=self.separable)

    @property
    def members(self) -> Stack:
        """The patches and their strengths."""
        return Stack({patch.patch_id: patch.strength for patch in self.patches})

    def to_bytes(self) -> bytes:
        """The file."""
        return (json.dumps(_json(self), indent=2, ensure_ascii=False) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> LockFile:
        """Read a lock strictly; `from_bytes(x).to_bytes() == x`.

        Raises:
            FormatError: no JSON, another format, unknown or missing fields, a value out of range, another spelling.
        """
        fields = Fields.of(canonical_json.parse(data, what=_WHAT, limit=MAX_LOCK_BYTES), _WHAT)
        if (found := fields.text("format")) != FORMAT:
            raise FormatError(
                f"{_WHAT}: expected format {FORMAT!r}, got {found!r}", hint="pip install --upgrade rasura"
            )
        lock = _read(fields)
        if lock.to_bytes() != data:
            raise FormatError(
                f"{_WHAT}: expected the layout that rasura writes, got another", hint=hint_lock(lock.stack)
            )
        return lock


def _json(lock: LockFile) -> dict[str, JsonValue]:
    base = {name: getattr(lock.base, name) for name in LockedBase.__slots__}
    worst: dict[str, JsonValue] = {
        check: {"value": value, "limit": limit} for check, (value, limit) in sorted(lock.worst.items())
    }
    return {
        "format": FORMAT,
        "stack": lock.stack,
        "base": base,
        "policy": {"sha256": lock.policy_sha256, "limits": dict(lock.limits), "separable": lock.separable},
        "verdict": {"accepted": True, "worst": worst},
        "patches": [
            {
                "concept": patch.concept,
                "id": patch.patch_id,
                "strength": str(patch.strength),
                "key": patch.key_id,
                "files": dict(sorted(patch.files.items())),
            }
            for patch in lock.patches
        ],
    }


def _read(fields: Fields) -> LockFile:
    base, policy, verdict = (fields.fields(name) for name in ("base", "policy", "verdict"))
    limits, worst = policy.fields("limits"), verdict.fields("worst")
    try:
        check_stack_name(name := fields.text("stack"))
        lock = LockFile(
            name,
            LockedBase(*(base.digest(part) for part in LockedBase.__slots__)),
            policy.digest("sha256"),
            {limit: _read_number(limits, limit) for limit in limits.names()},
            policy.flag("separable"),
            {check: _read_worst(worst, check) for check in worst.names()},
            tuple(map(_read_patch, fields.records("patches", MAX_PATCHES))),
        )
    except FormatError:
        raise
    except RasuraError as error:
        raise FormatError(f"{_WHAT}: {error.message}") from None
    if not verdict.flag("accepted"):
        raise FormatError(f"{_WHAT}: expected an accepted stack, got one that was not")
    _check(lock)
    for part in (fields, base, policy, verdict):
        part.done()
    return lock


def _check(lock: LockFile) -> None:
    if len(lock.members) != len(lock.patches):
        raise FormatError(f"{_WHAT}: expected each patch once, got one twice")
    if list(lock.patches) != sorted(lock.patches, key=find_place):
        raise FormatError(f"{_WHAT}: expected patches by concept and id, got another order")
    if any(patch.strength.sixteenths == 0 for patch in lock.patches):
        raise FormatError(f"{_WHAT}: expected no patch of strength 0, got one")


def find_place(patch: LockedPatch) -> tuple[str, PatchId]:
    """Where it stands: by concept, then by identity."""
    return patch.concept, patch.patch_id


def _read_patch(fields: Fields) -> LockedPatch:
    files = fields.fields("files")
    patch = LockedPatch(
        fields.text("concept"),
        PatchId(fields.digest("id")),
        Strength.parse(fields.text("strength", limit=8)),
        KeyId(fields.digest("key")),
        {name: files.digest(name) for name in files.names() if len(name) <= _FILE},
    )
    files.done()
    fields.done()
    return patch


def _read_worst(fields: Fields, check: str) -> tuple[str, str]:
    inside = fields.fields(check)
    found = _read_number(inside, "value"), _read_number(inside, "limit")
    inside.done()
    return found


def _read_number(fields: Fields, name: str) -> str:
    text = fields.text(name, limit=64)
    if text != "inf" and not is_decimal(text):
        raise FormatError(f"{_WHAT}: {name}: expected a decimal number as text or inf, got something else")
    return text


def spell_limit(value: float) -> str:
    """A limit, so that it is read as the same float."""
    return repr(float(value))


def spell_measured(value: float) -> str:
    """A measured number with the digits that count."""
    return f"{value:.2e}"


def hint_lock(stack: str) -> str:
    """The command that writes the lock anew."""
    return f"rasura stack lock {stack} -o FILE"
