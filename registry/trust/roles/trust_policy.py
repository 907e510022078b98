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
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from rasura.patches._io import canonical_json
from rasura.patches._io.canonical_json import Fields
from rasura.patches._io.json_fields import JsonValue, show
from rasura.patches.errors import FormatError, InputError, RasuraError
from rasura.patches.format.signatures.signing_key import PublicKey
from rasura.patches.types import SHORT, Digest, KeyId
from rasura.registry._storage.records.choices import check_stack_name
from rasura.registry._storage.records.validation import check_digest, check_name, from_instant, instant
from rasura.registry.trust.roles.policy_toml import (
    HINT,
    MOST,
    MOST_RULES,
    WHAT,
    read_expiry,
    read_number,
    read_table,
    read_tables,
    read_texts,
    refuse_others,
)

__all__ = ["APPLY", "APPROVE", "ERASE", "MAX_TRUST_BYTES", "POLICY", "Protected", "TrustPolicy", "TrustedKey"]

FORMAT: Final = "rasura-trust/1"
PAYLOAD_TYPE: Final = "application/vnd.rasura.trust+json"
APPLY: Final = "apply"
APPROVE: Final = "approve"
ERASE: Final = "erase"
POLICY: Final = "policy"
ROLES: Final = (APPLY, APPROVE, ERASE, POLICY)
MAX_TRUST_BYTES: Final = 1024 * 1024
"""Most bytes of the file; one of a hundred keys has 60,000."""


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
        fields = Fields.of(canonical_json.loads(payload, what=WHAT, limit=MAX_TRUST_BYTES), WHAT)
        if (found := fields.text("format")) != FORMAT:
            raise FormatError(f"{WHAT}: expected format {FORMAT!r}, got {found!r}", hint="pip install --upgrade rasura")
        try:
            policy = cls(
                fields.text("origin", limit=255),
                fields.integer("version", 1, canonical_json.MAX_INTEGER),
                from_instant(fields.text("expires", limit=27)),
                fields.integer("threshold", 1, MOST),
                tuple(map(_read_key, fields.records("keys", limit=MOST))),
                tuple(map(_read_rule, fields.records("protect", limit=MOST_RULES))),
            )
            fields.done()
            _check(policy)
        except FormatError:
            raise
        except RasuraError as error:
            raise FormatError(f"{WHAT}: {error.message}") from None
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
            raise InputError(f"{WHAT}: expected TOML, got: {error}", hint=HINT) from None
        refuse_others(table, {"expires", "threshold", "keys", "protect"}, "the file")
        keys = read_tables(table, "keys", dict)
        policy = cls(
            origin,
            version,
            read_expiry(table.get("expires")),
            read_number(table, "threshold", "the file"),
            tuple(
                _toml_key(name, read_table(keys[name], f"keys.{name}"), find_key, find_base) for name in sorted(keys)
            ),
            tuple(_toml_rule(read_table(rule, "protect"), find_base) for rule in read_tables(table, "protect", list)),
        )
        try:
            _check(policy)
        except FormatError as error:
            raise InputError(error.message, hint=HINT) from None
        return policy


def _check(policy: TrustPolicy) -> None:
    ids = [key.public.key_id for key in policy.keys]
    names = [key.name for key in policy.keys]
    if len(set(ids)) < len(ids) or len(set(names)) < len(names):
        raise FormatError(f"{WHAT}: expected each key once, got one twice")
    if len(policy.with_role(POLICY)) < policy.threshold:
        raise FormatError(
            f"{WHAT}: threshold: expected at least {policy.threshold} keys with the role policy, got "
            f"{len(policy.with_role(POLICY))}"
        )
    most = len(policy.with_role(APPROVE))
    for rule in policy.protect:
        if rule.approvals > most:
            what = f"stack {rule.stack}" if rule.stack else f"base {str(rule.base)[:SHORT]}"
            raise FormatError(f"{WHAT}: {what}: expected at most the {most} keys that approve, got {rule.approvals}")


def _read_key(fields: Fields) -> TrustedKey:
    key_id, name, pem = fields.digest("id"), fields.text("name", limit=64), fields.text("pem")
    roles = fields.texts("roles", limit=len(ROLES), characters=16)
    concepts, bases = (
        fields.texts("concepts", limit=MOST_RULES, characters=512),
        fields.texts("bases", limit=MOST_RULES),
    )
    fields.done()
    check_name("key name", name)
    _check_roles(name, roles)
    for base in bases:
        check_digest("base", base)
    public = PublicKey.load(pem)
    if public.key_id != KeyId(key_id) or public.pem != pem:
        raise FormatError(f"{WHAT}: key {name}: expected the identity {public.key_id}, got {key_id}")
    return TrustedKey(public, name, roles, concepts, tuple(map(Digest, bases)))


def _check_roles(name: str, roles: tuple[str, ...]) -> None:
    if not roles or list(roles) != sorted(set(roles)) or set(roles) - set(ROLES):
        raise FormatError(f"{WHAT}: key {name}: expected roles of {', '.join(ROLES)}, sorted, got {show(list(roles))}")


def _read_rule(fields: Fields) -> Protected:
    approvals = fields.integer("approvals", 1, MOST)
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
    refuse_others(table, {"roles", "concepts", "bases"}, where)
    roles = read_texts(table, "roles", where)
    if not roles or set(roles) - set(ROLES):
        raise InputError(f"{WHAT}: {where}: expected roles of {', '.join(ROLES)}, got {show(list(roles))}", hint=HINT)
    bases = tuple(sorted(map(find_base, read_texts(table, "bases", where))))
    return TrustedKey(find_key(name), name, tuple(sorted(set(roles))), read_texts(table, "concepts", where), bases)


def _toml_rule(table: dict[str, Any], find_base: Callable[[str], Digest]) -> Protected:
    refuse_others(table, {"stack", "base", "approvals"}, "protect")
    approvals, stack, base = read_number(table, "approvals", "protect"), table.get("stack"), table.get("base")
    if isinstance(stack, str) and base is None:
        check_stack_name(stack)
        return Protected(approvals, stack=stack)
    if isinstance(base, str) and stack is None:
        return Protected(approvals, base=find_base(base))
    raise InputError(f"{WHAT}: protect: expected the name of a stack or of a base, got neither or both", hint=HINT)
