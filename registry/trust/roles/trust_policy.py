"""The trust policy: whose approval counts for what, how much of it is asked for where, and who may change that.

    envelope   DSSE    base64 of the payload, `application/vnd.rasura.trust+json`, a signature of each who signed
    payload    JSON    {"format":"rasura-trust/1", "origin":"<log>", "version":2, "expires":"<time>", "threshold":2,
                        "keys":[{"id","name","pem","roles":["approve","policy"],"concepts":["*"],"bases":[]}, …],
                        "protect":[{"stack":"brand","approvals":2}, {"base":"<digest>","approvals":1}]}

It changes as a TUF root does (https://theupdateframework.github.io/specification/latest/#update-root): version n+1
counts if as many keys with the role `policy` have signed it as version n asks for *and* as it asks for itself, and if
it is about the same log. Where it expired, nothing that it protects is moved until there is a newer one.

A key's identity is computed from the key; a key that is listed twice counts once.
"""

from __future__ import annotations

import fnmatch
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Any, Final

from rasura.patches._io import canonical_json
from rasura.patches._io.canonical_json import Fields
from rasura.patches._io.json_fields import JsonValue, show
from rasura.patches.errors import FormatError, InputError, RasuraError, SignatureError
from rasura.patches.format.signatures.dsse_envelope import check_signature, encode_joined, join_signature, read_joined
from rasura.patches.format.signatures.signing_key import PublicKey, SigningKey
from rasura.patches.types import SHORT, Digest, KeyId
from rasura.registry._storage.digests import sha256
from rasura.registry._storage.records.choices import check_stack_name
from rasura.registry._storage.records.validation import check_digest, check_name, from_instant, instant

__all__ = [
    "APPLY",
    "APPROVE",
    "ERASE",
    "MAX_TRUST_BYTES",
    "POLICY",
    "Protected",
    "SignedTrust",
    "TrustPolicy",
    "TrustedKey",
    "check_next",
]

FORMAT: Final = "rasura-trust/1"
PAYLOAD_TYPE: Final = "application/vnd.rasura.trust+json"
APPLY: Final = "apply"
APPROVE: Final = "approve"
ERASE: Final = "erase"
POLICY: Final = "policy"
ROLES: Final = (APPLY, APPROVE, ERASE, POLICY)
MAX_TRUST_BYTES: Final = 1024 * 1024
"""Most bytes of the file; one of a hundred keys has 60,000."""
_MOST: Final = 64  # keys, and approvals that can be asked for
_RULES: Final = 1000
_WHAT: Final = "trust policy"


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A person's key, and what it may do.

    Attributes:
        public: the key.
        name: what people call it here.
        roles: of `ROLES`.
        concepts: names of concepts that its roles are for, `*` and `?` as in file names, whatever the case; none: all.
        bases: digests of bases whose patches its roles are for; none: all.
    """

    public: PublicKey
    name: str
    roles: tuple[str, ...]
    concepts: tuple[str, ...] = ()
    bases: tuple[Digest, ...] = ()

    def covers(self, concepts: Iterable[str], base: Digest) -> bool:
        """Whether patches of these concepts and this base are within what its roles are for."""
        if self.bases and base not in self.bases:
            return False
        wanted = [pattern.casefold() for pattern in self.concepts]
        return not wanted or all(any(fnmatch.fnmatchcase(c.casefold(), p) for p in wanted) for c in concepts)


@dataclass(frozen=True, slots=True)
class Protected:
    """What is moved only with approvals, a stack by its name or every model of a base, and how many must approve."""

    approvals: int
    stack: str | None = None
    base: Digest | None = None


@dataclass(frozen=True, slots=True)
class TrustPolicy:
    """What the policy says; see the module's docstring."""

    origin: str
    version: int
    expires: datetime
    threshold: int
    keys: tuple[TrustedKey, ...]
    protect: tuple[Protected, ...]

    def with_role(self, role: str) -> dict[KeyId, TrustedKey]:
        """The keys that have this role."""
        return {key.public.key_id: key for key in self.keys if role in key.roles}

    def to_payload(self) -> bytes:
        """The bytes that are signed."""
        keys: list[JsonValue] = [
            {
                "id": key.public.key_id,
                "name": key.name,
                "pem": key.public.pem,
                "roles": list(key.roles),
                "concepts": list(key.concepts),
                "bases": list(key.bases),
            }
            for key in self.keys
        ]
        rules: list[JsonValue] = [
            {"stack": rule.stack, "approvals": rule.approvals}
            if rule.stack is not None
            else {"base": rule.base, "approvals": rule.approvals}
            for rule in self.protect
        ]
        return canonical_json.dumps(
            {
                "format": FORMAT,
                "origin": self.origin,
                "version": self.version,
                "expires": instant(self.expires),
                "threshold": self.threshold,
                "keys": keys,
                "protect": rules,
            }
        )

    @classmethod
    def from_payload(cls, payload: bytes) -> TrustPolicy:
        """Read a policy strictly.

        Raises:
            FormatError: not canonical JSON, another format, unknown or missing fields, a value out of range, a
                threshold that its keys cannot reach.
        """
        fields = Fields.of(canonical_json.loads(payload, what=_WHAT, limit=MAX_TRUST_BYTES), _WHAT)
        if (found := fields.text("format")) != FORMAT:
            raise FormatError(
                f"{_WHAT}: expected format {FORMAT!r}, got {found!r}", hint="pip install --upgrade rasura"
            )
        try:
            policy = cls(
                fields.text("origin", limit=255),
                fields.integer("version", 1, canonical_json.MAX_INTEGER),
                from_instant(fields.text("expires", limit=27)),
                fields.integer("threshold", 1, _MOST),
                tuple(map(_read_key, fields.records("keys", limit=_MOST))),
                tuple(map(_read_rule, fields.records("protect", limit=_RULES))),
            )
            fields.done()
            _check(policy)
        except FormatError:
            raise
        except RasuraError as error:
            raise FormatError(f"{_WHAT}: {error.message}") from None
        return policy

    @classmethod
    def from_toml(
        cls,
        data: bytes,
        *,
        origin: str,
        version: int,
        find_key: Callable[[str], PublicKey],
        find_base: Callable[[str], Digest],
    ) -> TrustPolicy:
        """The policy that somebody wrote down with the names of keys and bases.

        Args:
            data: the TOML text; see docs/approvals.md.
            origin: the log that it is about.
            version: its version.
            find_key: from a key's name to the key.
            find_base: from a base's name to its digest.

        Raises:
            InputError: it is none; the field is named.
            NotFoundError: no such key or base.
        """
        try:
            table = tomllib.loads(data.decode())
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise InputError(f"{_WHAT}: expected TOML, got: {error}", hint=_HINT) from None
        _only(table, {"expires", "threshold", "keys", "protect"}, "the file")
        keys = _tables(table, "keys", dict)
        policy = cls(
            origin,
            version,
            _expiry(table.get("expires")),
            _number(table, "threshold", "the file"),
            tuple(_toml_key(name, _checked(keys[name], f"keys.{name}"), find_key, find_base) for name in sorted(keys)),
            tuple(_toml_rule(_checked(rule, "protect"), find_base) for rule in _tables(table, "protect", list)),
        )
        try:
            _check(policy)
        except FormatError as error:
            raise InputError(error.message, hint=_HINT) from None
        return policy


@dataclass(frozen=True, slots=True)
class SignedTrust:
    """A trust policy and the signatures over it; whose they are is what the envelope says until `check_next`."""

    policy: TrustPolicy
    payload: bytes
    signatures: Mapping[KeyId, bytes]

    @classmethod
    def parse(cls, data: bytes) -> SignedTrust:
        """Read the file.

        Raises:
            FormatError: no envelope of a trust policy.
        """
        payload, signatures = read_joined(data, PAYLOAD_TYPE, _WHAT, limit=MAX_TRUST_BYTES)
        return cls(TrustPolicy.from_payload(payload), payload, signatures)

    @classmethod
    def unsigned(cls, policy: TrustPolicy) -> SignedTrust:
        """A policy that nobody has signed yet."""
        return cls(policy, policy.to_payload(), {})

    def signed_by(self, key: SigningKey) -> SignedTrust:
        """The same with this key's signature, too."""
        signature = join_signature(self.payload, PAYLOAD_TYPE, key)
        return SignedTrust(self.policy, self.payload, {**self.signatures, key.public.key_id: signature})

    def to_bytes(self) -> bytes:
        """The file."""
        return encode_joined(self.payload, PAYLOAD_TYPE, self.signatures)

    @property
    def digest(self) -> Digest:
        """SHA-256 of the file."""
        return sha256(self.to_bytes())

    def signers(self, among: Mapping[KeyId, TrustedKey]) -> tuple[KeyId, ...]:
        """Those of these keys that have signed it.

        Raises:
            SignatureError: a signature that names one of them does not verify.
        """
        found = [key_id for key_id in self.signatures if key_id in among]
        for key_id in found:
            check_signature(among[key_id].public, self.payload, self.signatures[key_id], _WHAT, PAYLOAD_TYPE)
        return tuple(found)


def check_next(current: TrustPolicy | None, new: SignedTrust, origin: str) -> None:
    """Refuse a policy that does not follow the one in force by the rules that both state.

    Raises:
        SignatureError: about another log, not the next version, too few of either's policy keys have signed it, or a
            signature that does not verify.
    """
    policy, version = new.policy, 1 if current is None else current.version + 1
    if policy.origin != origin:
        raise SignatureError(f"{_WHAT}: expected one of the log {origin}, got one of {show(policy.origin)}")
    if policy.version != version:
        raise SignatureError(f"{_WHAT}: expected version {version}, got {policy.version}", hint="rasura trust show")
    for which in (policy, current):
        if which is None:
            continue
        allowed = which.with_role(POLICY)
        signers = new.signers(allowed)
        if len(signers) < which.threshold:
            names = ", ".join(sorted(key.name for key in allowed.values()))
            raise SignatureError(
                f"{_WHAT}: version {which.version} asks for {which.threshold} signatures of {names}: expected so many "
                f"on version {policy.version}, got {len(signers)}",
                hint="rasura trust sign FILE --key NAME",
            )


_HINT: Final = "rasura trust sign FILE --key NAME"


def _check(policy: TrustPolicy) -> None:
    ids = [key.public.key_id for key in policy.keys]
    names = [key.name for key in policy.keys]
    if len(set(ids)) < len(ids) or len(set(names)) < len(names):
        raise FormatError(f"{_WHAT}: expected each key once, got one twice")
    if len(policy.with_role(POLICY)) < policy.threshold:
        raise FormatError(
            f"{_WHAT}: threshold: expected at least {policy.threshold} keys with the role policy, got "
            f"{len(policy.with_role(POLICY))}"
        )
    most = len(policy.with_role(APPROVE))
    for rule in policy.protect:
        if rule.approvals > most:
            what = f"stack {rule.stack}" if rule.stack else f"base {str(rule.base)[:SHORT]}"
            raise FormatError(f"{_WHAT}: {what}: expected at most the {most} keys that approve, got {rule.approvals}")


def _read_key(fields: Fields) -> TrustedKey:
    key_id, name, pem = fields.digest("id"), fields.text("name", limit=64), fields.text("pem")
    roles = fields.texts("roles", limit=len(ROLES), characters=16)
    concepts, bases = fields.texts("concepts", limit=_RULES, characters=512), fields.texts("bases", limit=_RULES)
    fields.done()
    check_name("key name", name)
    _check_roles(name, roles)
    for base in bases:
        check_digest("base", base)
    public = PublicKey.load(pem)
    if public.key_id != KeyId(key_id) or public.pem != pem:
        raise FormatError(f"{_WHAT}: key {name}: expected the identity {public.key_id}, got {key_id}")
    return TrustedKey(public, name, roles, concepts, tuple(map(Digest, bases)))


def _check_roles(name: str, roles: tuple[str, ...]) -> None:
    if not roles or list(roles) != sorted(set(roles)) or set(roles) - set(ROLES):
        raise FormatError(f"{_WHAT}: key {name}: expected roles of {', '.join(ROLES)}, sorted, got {show(list(roles))}")


def _read_rule(fields: Fields) -> Protected:
    approvals = fields.integer("approvals", 1, _MOST)
    stack = fields.text("stack", limit=64) if fields.has("stack") else None
    base = None if stack is not None else fields.digest("base")
    fields.done()
    if stack is not None:
        check_stack_name(stack)
    return Protected(approvals, stack, base)


def _toml_key(
    name: str, table: dict[str, Any], find_key: Callable[[str], PublicKey], find_base: Callable[[str], Digest]
) -> TrustedKey:
    where = f"keys.{name}"
    _only(table, {"roles", "concepts", "bases"}, where)
    roles = _texts(table, "roles", where)
    if not roles or set(roles) - set(ROLES):
        raise InputError(f"{_WHAT}: {where}: expected roles of {', '.join(ROLES)}, got {show(list(roles))}", hint=_HINT)
    bases = tuple(sorted(map(find_base, _texts(table, "bases", where))))
    return TrustedKey(find_key(name), name, tuple(sorted(set(roles))), _texts(table, "concepts", where), bases)


def _toml_rule(table: dict[str, Any], find_base: Callable[[str], Digest]) -> Protected:
    _only(table, {"stack", "base", "approvals"}, "protect")
    approvals, stack, base = _number(table, "approvals", "protect"), table.get("stack"), table.get("base")
    if isinstance(stack, str) and base is None:
        check_stack_name(stack)
        return Protected(approvals, stack=stack)
    if isinstance(base, str) and stack is None:
        return Protected(approvals, base=find_base(base))
    raise InputError(f"{_WHAT}: protect: expected the name of a stack or of a base, got neither or both", hint=_HINT)


def _only(table: Mapping[str, Any], allowed: set[str], where: str) -> None:
    if odd := sorted(set(table) - allowed):
        raise InputError(f"{_WHAT}: {where}: expected {', '.join(sorted(allowed))}, got {show(odd[0])}", hint=_HINT)


def _checked(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{_WHAT}: {where}: expected a table, got {show(value)}", hint=_HINT)
    return value


def _tables(table: Mapping[str, Any], name: str, kind: type) -> Any:
    value: Any = table.get(name, kind())
    if type(value) is not kind or len(table.get(name, ())) > _RULES:
        raise InputError(f"{_WHAT}: {name}: expected tables, got {show(value)}", hint=_HINT)
    return value


def _texts(table: Mapping[str, Any], name: str, where: str) -> tuple[str, ...]:
    value = table.get(name, [])
    if not isinstance(value, list) or any(not isinstance(each, str) for each in value):
        raise InputError(f"{_WHAT}: {where}.{name}: expected a list of texts, got {show(value)}", hint=_HINT)
    return tuple(value)


def _number(table: Mapping[str, Any], name: str, where: str) -> int:
    value = table.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _MOST:
        raise InputError(f"{_WHAT}: {where}: {name}: expected 1 to {_MOST}, got {show(value)}", hint=_HINT)
    return value


def _expiry(value: object) -> datetime:
    if isinstance(value, datetime):
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
    if isinstance(value, date):
        return datetime.combine(value, time(), UTC)
    raise InputError(f"{_WHAT}: expires: expected a date such as 2027-03-01, got {show(value)}", hint=_HINT)
