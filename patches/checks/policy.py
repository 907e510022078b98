"""How much of each relation is allowed: named limits, and the small TOML file that carries them.

    [limits]
    own = 0.001        # a patch on what it promised itself
    pair = 0.05        # a patch on what another one erases
    stack = 0.02       # all together on what any of them promised
    kept = 0.7         # from which share on an erased concept counts as one that another patch had promised to keep
    residual = inf     # what the stack leaves of any target
    capacity = 1.0     # share of the dimensions that may be taken
    site = 0.05        # how much of a patch's effect a text encoder's patches may move
    alike = 0.32       # how like its target an anchor may be when a patch is made

    [require]
    separable = false  # refuse patches whose effect on other prompts is measured, not proved
    reason = false     # refuse to change anything without a reason for the log

What a file leaves out has its default. Several policies hold together as their strictest limits: `all_of`.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Self

from rasura.patches._io.json_fields import show
from rasura.patches.errors import InputError

MAX_POLICY_BYTES: Final = 65_536
_LIMITS: Final = "limits"
_REQUIRE: Final = "require"
_HINT: Final = "rasura policy show"
_REQUIREMENTS: Final = ("separable", "reason")
_LATER: Final = ("alike",)


@dataclass(frozen=True, slots=True)
class Policy:
    """Named limits. A relation may be at most its limit.

    Attributes:
        own: most leak of a patch on its own protected set.
        pair: most share of another patch's effect that a patch may disturb.
        stack: most leak of the whole stack on any protected set.
        kept: from which share on an erased concept counts as one that the other patch had promised to keep.
        residual: most that a stack may leave of any target, as a share of what erasing it asks for.
        capacity: most share of the text embedding's dimensions that a stack may take.
        site: most share of a patch's effect that patches of the text encoder may move.
        alike: most that an anchor may be like its target when a patch is made: 1 is the target itself
            (`rasura.patches.checks.erasing`).
        separable: whether patches must prove what they leave alone.
        reason: whether whoever changes something must say why.
    """

    own: float = 1e-3
    pair: float = 0.05
    stack: float = 0.02
    kept: float = 0.7
    residual: float = math.inf
    capacity: float = 1.0
    site: float = 0.05
    alike: float = 0.32
    separable: bool = False
    reason: bool = False

    def __post_init__(self) -> None:
        for name in list_limit_names():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value) or value < 0:
                raise InputError(f"policy: {name}: expected a number of 0 or more, got {show(value)}", hint=_HINT)
        for name in _REQUIREMENTS:
            if not isinstance(value := getattr(self, name), bool):
                raise InputError(f"policy: {name}: expected true or false, got {show(value)}", hint=_HINT)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the TOML file strictly.

        Raises:
            InputError: no UTF-8 TOML, too long, an unknown table or name, a limit that is no number of 0 or more.
        """
        document = _document(data)
        limits, require = _table(document, _LIMITS), _table(document, _REQUIRE)
        _known(document, (_LIMITS, _REQUIRE), "table")
        _known(limits, list_limit_names(), "limit")
        _known(require, _REQUIREMENTS, "requirement")
        return cls(**{**limits, **require})

    def to_toml(self) -> str:
        """The file that says this; `parse(p.to_toml().encode()) == p`.

        What came later is said only where it is not the default: older policies keep their bytes and digests.
        """
        said = [n for n in list_limit_names() if n not in _LATER or getattr(self, n) != getattr(DEFAULT_POLICY, n)]
        limits = [f"{name} = {_number(getattr(self, name))}" for name in said]
        require = [f"separable = {str(self.separable).lower()}"]
        require += ["reason = true"] if self.reason else []
        return "\n".join([f"[{_LIMITS}]", *limits, "", f"[{_REQUIRE}]", *require, ""])


def list_limit_names() -> tuple[str, ...]:
    """The names of all limits, in the file's order."""
    return tuple(field.name for field in fields(Policy) if field.name not in _REQUIREMENTS)


DEFAULT_POLICY: Final = Policy()


def combine_policies(*policies: Policy) -> Policy:
    """The policy that holds where all of these do: the strictest of each limit.

    Raises:
        InputError: no policy, which would allow everything.
    """
    if not policies:
        raise InputError("policy: expected at least one to combine, got none, which would allow everything", hint=_HINT)
    limits: dict[str, Any] = {name: min(getattr(policy, name) for policy in policies) for name in list_limit_names()}
    # Where fewer count as ending another's promise, more of them are judged.
    limits["kept"] = max(policy.kept for policy in policies)
    required = {name: any(getattr(policy, name) for policy in policies) for name in _REQUIREMENTS}
    return Policy(**limits, **required)


def _document(data: bytes) -> Mapping[str, object]:
    if len(data) > MAX_POLICY_BYTES:
        raise InputError(f"policy: expected at most {MAX_POLICY_BYTES} bytes, got {len(data)}", hint=_HINT)
    try:
        return tomllib.loads(data.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"policy: expected TOML, got something else: {error}", hint=_HINT) from None


def _table(document: Mapping[str, object], name: str) -> Mapping[str, Any]:
    found = document.get(name, {})
    if not isinstance(found, dict):
        raise InputError(f"policy: {name}: expected a table, got {show(found)}", hint=_HINT)
    return found


def _known(found: Mapping[str, object], names: tuple[str, ...], what: str) -> None:
    if odd := sorted(found.keys() - set(names)):
        raise InputError(f"policy: expected {what}s named {', '.join(names)}, got {show(odd[0])}", hint=_HINT)


def _number(value: float) -> str:
    return "inf" if math.isinf(value) else repr(float(value))
