"""`plan.json`: what moving a model would change, and everything that this rests on, so that it can be done as told.

Canonical JSON, format 1:

    {"format":"rasura-plan/1", "registry":{"origin":"rasura/log/…", "size":8, "root":"<hex>"}, "source":"brand",
     "host":{"id":"<uuid>", "location":"/models/sd"}, "base":"<digest>",
     "before":{"patches":{"<id>":16}, "state":"<digest>"}, "after":{"patches":{…}, "state":"<digest>"},
     "parameters":32, "bytes":37748736, "policy":{"sha256":"<digest>", "toml":"[limits]…"}, "keys":["<key id>"]}

Strengths are sixteenths; states are tensor-set digests of all parameters that the set before or the set after touches.
`host.id` is left out for a model that the registry has not met. A plan is stale as soon as something that it names is
otherwise; then nothing of it is done. Only `source` may be a comment: a lock file's path, or a name that no stack has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rasura.patches._io import canonical_json
from rasura.patches._io.files import read_regular
from rasura.patches._io.json_fields import Fields, JsonValue
from rasura.patches.algebra.stack import Stack, StackDiff
from rasura.patches.checks.policy import MAX_POLICY_BYTES, Policy
from rasura.patches.errors import FormatError, NotFoundError, RasuraError
from rasura.patches.types import Digest, KeyId
from rasura.registry._storage.digests import sha256
from rasura.registry._storage.records.validation import check_text, check_uuid

__all__ = ["FORMAT", "MAX_PLAN_BYTES", "Plan", "Side", "read_plan"]

FORMAT: Final = "rasura-plan/1"
MAX_PLAN_BYTES: Final = 16 * 1024**2
_WHAT: Final = "plan"
_MAX_KEYS: Final = 10_000
_ROOT: Final = r"[0-9a-f]{64}"


@dataclass(frozen=True, slots=True)
class Side:
    """The model before or after: its set, and the digest of what the motion touches."""

    patches: Stack
    state: Digest


@dataclass(frozen=True, slots=True)
class Plan:
    """The whole document. Equal plans have equal bytes, and only they.

    Attributes:
        origin: the registry's log.
        size: entries of the log when the plan was made.
        root: its Merkle root then, hexadecimal.
        source: the stack or lock file that was asked for.
        host: the model's identity, None where the registry had not met it.
        location: the model's folder.
        base: of the set.
        before: the model as it was found.
        after: the model as it will be.
        parameters: how many parameters the motion touches.
        size_bytes: how many bytes differ and will be written.
        policy: digest of the registry's policy.
        limits: the policy that the set was checked by, as TOML: that one, or a stricter one.
        keys: who signed the patches of the set, sorted.
    """

    origin: str
    size: int
    root: str
    source: str
    host: str | None
    location: str
    base: Digest
    before: Side
    after: Side
    parameters: int
    size_bytes: int
    policy: Digest
    limits: str
    keys: tuple[KeyId, ...]

    @property
    def diff(self) -> StackDiff:
        """What comes, goes, and stays with another strength."""
        return self.before.patches.diff(self.after.patches)

    @property
    def digest(self) -> Digest:
        """SHA-256 of the file."""
        return sha256(self.to_bytes())

    def to_bytes(self) -> bytes:
        """The file."""
        host: dict[str, JsonValue] = {"location": self.location, **({} if self.host is None else {"id": self.host})}
        value: dict[str, JsonValue] = {
            "format": FORMAT,
            "registry": {"origin": self.origin, "size": self.size, "root": self.root},
            "source": self.source,
            "host": host,
            "base": self.base,
            "before": _side_json(self.before),
            "after": _side_json(self.after),
            "parameters": self.parameters,
            "bytes": self.size_bytes,
            "policy": {"sha256": self.policy, "toml": self.limits},
            "keys": list(self.keys),
        }
        return canonical_json.dumps(value)

    @classmethod
    def from_bytes(cls, data: bytes) -> Plan:
        """Read a plan strictly; `from_bytes(x).to_bytes() == x`.

        Raises:
            FormatError: not canonical JSON, another format, unknown or missing fields, a value out of range.
        """
        fields = Fields.of(canonical_json.loads(data, what=_WHAT, limit=MAX_PLAN_BYTES), _WHAT)
        if (found := fields.text("format")) != FORMAT:
            raise FormatError(
                f"{_WHAT}: expected format {FORMAT!r}, got {found!r}", hint="pip install --upgrade rasura"
            )
        try:
            plan = _read(fields)
            fields.done()
            _check(plan)
        except FormatError:
            raise
        except RasuraError as error:
            raise FormatError(f"{_WHAT}: {error.message}") from None
        return plan


def read_plan(path: Path) -> Plan:
    """The plan in a file.

    Raises:
        NotFoundError: there is none.
        FormatError: it breaks its format, or is no regular file.
    """
    try:
        return Plan.from_bytes(read_regular(path, MAX_PLAN_BYTES))
    except NotFoundError:
        raise NotFoundError(
            f"plan {path} does not exist", hint=f"rasura plan --stack NAME --model MODEL -o {path}"
        ) from None


def _read(fields: Fields) -> Plan:
    registry, host, policy = (fields.fields(name) for name in ("registry", "host", "policy"))
    plan = Plan(
        registry.text("origin", limit=255),
        registry.integer("size", 1, canonical_json.MAX_INTEGER),
        registry.text("root", _ROOT),
        fields.text("source"),
        host.optional("id", lambda name: host.text(name, limit=36)),
        host.text("location", limit=2048),
        fields.digest("base"),
        _read_side(fields.fields("before")),
        _read_side(fields.fields("after")),
        fields.integer("parameters", 0, canonical_json.MAX_INTEGER),
        fields.integer("bytes", 0, canonical_json.MAX_INTEGER),
        policy.digest("sha256"),
        policy.text("toml", limit=MAX_POLICY_BYTES),
        _read_keys(fields.texts("keys", _MAX_KEYS, 64)),
    )
    for part in (registry, host, policy):
        part.done()
    return plan


def _check(plan: Plan) -> None:
    if plan.host is not None:
        check_uuid("host", plan.host)
    check_text("location", plan.location, limit=2048)
    check_text("source", plan.source)
    if Policy.parse(plan.limits.encode()).to_toml() != plan.limits:
        raise FormatError(f"{_WHAT}: policy: expected the TOML that rasura writes, got another spelling")


def _read_keys(texts: Sequence[str]) -> tuple[KeyId, ...]:
    fields = Fields({text: text for text in texts}, f"{_WHAT}: keys")
    if sorted(set(texts)) != list(texts):
        raise FormatError(f"{_WHAT}: keys: expected each once and sorted")
    return tuple(KeyId(fields.digest(text)) for text in texts)


def _side_json(side: Side) -> dict[str, JsonValue]:
    return {"patches": side.patches.to_json(), "state": side.state}


def _read_side(fields: Fields) -> Side:
    side = Side(Stack.parse(fields.fields("patches"), _WHAT), fields.digest("state"))
    fields.done()
    return side
