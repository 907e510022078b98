"""What people chose to have: stacks of patches by name, the policy in force, and what they retired."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Final

from rasura.patches._io.json_fields import show
from rasura.patches.checks.policy import Policy
from rasura.patches.errors import InputError
from rasura.patches.types import Digest, PatchId
from rasura.registry._storage.digests import sha256
from rasura.registry._storage.records.validation import check_digest, check_name, check_stack, check_time

__all__ = ["REGISTRY", "RETIRE", "UNRETIRE", "PolicyRecord", "StackRecord", "check_stack_name", "digest_policy"]

REGISTRY: Final = "registry"
"""The scope of the policy that holds for everything in a registry; there is no other."""

RETIRE: Final = "patch.retire"
UNRETIRE: Final = "patch.unretire"
"""Actions of the log that say which patches are retired: no table does."""

MAX_STACK_NAME: Final = 64  # as long as the identifiers that the log's changes carry
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9._-]*")
_HEXADECIMAL: Final = re.compile(r"[0-9A-Fa-f]{4,}")
_HINT: Final = "rasura stack list"
_FILES: Final = (".lock", ".json")


def check_stack_name(name: str) -> None:
    """Refuses what is no name of a stack, or could be taken for a patch or a file.

    Raises:
        InputError: anything but a letter and up to 63 letters, digits, dots, dashes and underscores; an abbreviation of
            an identifier; a name that ends as lock files and plans do.
    """
    if len(name) > MAX_STACK_NAME or not _NAME.fullmatch(name):
        raise InputError(
            "stack name: expected a letter and at most 63 letters, digits, dots, dashes or underscores, "
            f"got {show(name)}",
            hint=_HINT,
        )
    if _HEXADECIMAL.fullmatch(name):
        raise InputError(f"stack name: expected a name, got {name}, which reads as a patch id", hint=_HINT)
    if name.lower().endswith(_FILES):
        raise InputError(f"stack name: expected a name, got {name}, which reads as a file", hint=_HINT)


@dataclass(frozen=True, slots=True)
class StackRecord:
    """A named set of patches with strengths, all of one base. Which patches they are never changes by itself."""

    name: str
    base: Digest
    patches: Mapping[PatchId, int]
    """Strengths in sixteenths, never 0; may be empty."""
    created_at: datetime
    updated_at: datetime

    def __post_init__(self) -> None:
        check_stack_name(self.name)
        check_digest("base", self.base)
        check_stack(f"stack {self.name}", self.patches)
        check_time("created_at", self.created_at)
        check_time("updated_at", self.updated_at)
        object.__setattr__(self, "patches", MappingProxyType(dict(self.patches)))


@dataclass(frozen=True, slots=True)
class PolicyRecord:
    """The policy in force; its TOML lies in the blob store."""

    scope: str
    """What it holds for: `registry`."""
    digest: Digest
    """Of the TOML's bytes, as `Policy.to_toml` spells it."""
    set_at: datetime

    def __post_init__(self) -> None:
        check_name("scope of the policy", self.scope)
        check_digest("policy digest", self.digest)
        check_time("set_at", self.set_at)


def digest_policy(policy: Policy) -> Digest:
    """SHA-256 of the TOML that says this policy: equal limits have equal digests, however a file spelled them."""
    return sha256(policy.to_toml().encode())
