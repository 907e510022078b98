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
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from rasura.patches._io import canonical_json
from rasura.patches._io.json_fields import Fields, JsonValue, is_decimal
from rasura.patches._io.tensor_bytes import digest_tensor_set
from rasura.patches.algebra.stack import Stack
from rasura.patches.algebra.strength import Strength
from rasura.patches.checks.policy import Policy, list_limit_names
from rasura.patches.checks.verdict import SHORT, require
from rasura.patches.errors import ConflictError, FormatError, RasuraError
from rasura.patches.types import Digest, KeyId, PatchId
from rasura.registry._storage.records.choices import StackRecord, check_stack_name, digest_policy
from rasura.registry.registry import Registry
from rasura.registry.trust.register_patch import find_signers
from rasura.registry.trust.verified_patch import manifest_of

__all__ = [
    "FORMAT",
    "MAX_LOCK_BYTES",
    "LockFile",
    "LockedBase",
    "LockedPatch",
    "check_claims",
    "check_lock",
    "lock_stack",
]

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
            raise FormatError(f"{_WHAT}: expected limits that rasura knows, got {odd[0]!r}", hint=_again(self.stack))
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
            raise FormatError(f"{_WHAT}: expected the layout that rasura writes, got another", hint=_again(lock.stack))
        return lock


def lock_stack(registry: Registry, stack: StackRecord) -> LockFile:
    """What the lock of a stack says, everything verified anew.

    Raises:
        CheckRefusedError: the composer does not accept the stack under the policy in force.
        VerificationError, NotFoundError: a patch is not good, or not here.
    """
    from rasura.registry.trust.check import find_worst, judge_registered  # needs torch; reading a lock does not

    policy, members = registry.policy(), Stack.of_sixteenths(stack.patches)
    found = judge_registered(registry, members, policy)
    worst = find_worst(require(found.verdict))
    patches = (
        LockedPatch(registry.patch(p).concepts[0], p, strength, found.keys[p], dict(registry.patch(p).files))
        for p, strength in members.items()
    )
    return LockFile(
        stack.name,
        _base(registry, stack.base, stack.patches),
        digest_policy(_told_of(policy)),
        {name: _number(getattr(policy, name)) for name in list_limit_names()},
        policy.separable,
        {check: (_short(number.value), _short(number.limit)) for check, number in worst.items()},
        tuple(sorted(patches, key=_place)),
    )


def _told_of(policy: Policy) -> Policy:
    """Of a policy what a lock says: what its patches are held to, and not what people are."""
    return Policy(**{name: getattr(policy, name) for name in list_limit_names()}, separable=policy.separable)


def check_lock(registry: Registry, stack: StackRecord, lock: LockFile) -> LockFile:
    """The lock of a stack as it would be written now, if it is the same but for the verdict's numbers.

    Raises:
        ConflictError: it is not; `details["differences"]` says where.
        CheckRefusedError: the composer does not accept the stack any more.
        VerificationError, NotFoundError: a patch is not good, or not here.
    """
    now = lock_stack(registry, stack)
    differences = [*_differences(lock, now)]
    if differences:
        raise ConflictError(
            f"the lock is not what stack {stack.name} is: {'; '.join(differences)}",
            hint=_again(stack.name),
            differences=differences,
        )
    return now


def check_claims(registry: Registry, lock: LockFile) -> None:
    """Refuse a lock that says of its base, patches or policy what is not so here: people read it before they use it.

    Raises:
        ConflictError: `details["differences"]` says what.
        NotFoundError: its base or a patch is not in this registry.
    """
    found = [] if digest_policy(lock.policy) == lock.policy_sha256 else ["its limits are not the policy that it names"]
    base = _base(registry, lock.base.sha256, lock.members)
    found += [
        f"another base: {name}" for name in LockedBase.__slots__ if getattr(lock.base, name) != getattr(base, name)
    ]
    for patch in lock.patches:
        record = registry.patch(patch.patch_id)
        for what, told, here in (
            ("concept", patch.concept, (record.concepts[0],)),
            ("key", patch.key_id, find_signers(registry, patch.patch_id)),
        ):
            if told not in here:
                found.append(f"{patch.patch_id[:SHORT]} has another {what}")
    if found:
        raise ConflictError(
            f"the lock of stack {lock.stack} says what is not so here: {'; '.join(found)}",
            hint=_again(lock.stack),
            differences=found,
        )


def _differences(old: LockFile, new: LockFile) -> list[str]:
    found = [] if old.stack == new.stack else [f"it locks stack {old.stack}"]
    found += [
        f"another base: {name}" for name in LockedBase.__slots__ if getattr(old.base, name) != getattr(new.base, name)
    ]
    if (old.policy_sha256, old.limits, old.separable) != (new.policy_sha256, new.limits, new.separable):
        found.append(f"policy {old.policy_sha256[:SHORT]}, now {new.policy_sha256[:SHORT]}")
    before, after = ({patch.patch_id: patch for patch in lock.patches} for lock in (old, new))
    for patch_id in sorted({*before, *after}):
        if patch_id not in after or patch_id not in before:
            found.append(f"{patch_id[:SHORT]} is only in {'the lock' if patch_id in before else 'the stack'}")
        elif before[patch_id] != after[patch_id]:
            found.append(f"{patch_id[:SHORT]} has another strength, key, concept or files")
    return found


def _base(registry: Registry, digest: Digest, patches: Iterable[PatchId]) -> LockedBase:
    record = registry.base(digest)
    touched = {
        (p.name, p.dtype, p.shape, p.sha256)
        for patch_id in patches
        for p in manifest_of(registry, patch_id).base.parameters
    }
    return LockedBase(digest, record.text_encoder, record.tokenizer, digest_tensor_set(touched))


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
    if list(lock.patches) != sorted(lock.patches, key=_place):
        raise FormatError(f"{_WHAT}: expected patches by concept and id, got another order")
    if any(patch.strength.sixteenths == 0 for patch in lock.patches):
        raise FormatError(f"{_WHAT}: expected no patch of strength 0, got one")


def _place(patch: LockedPatch) -> tuple[str, PatchId]:
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


def _number(value: float) -> str:
    return repr(float(value))


def _short(value: float) -> str:
    return f"{value:.2e}"


def _again(stack: str) -> str:
    return f"rasura stack lock {stack} -o FILE"
