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
    moved = 0.3        # how far a patch must take its target when it is made
    leak = 1.0         # how far it may move, as measured then, what it is to keep

    [require]
    separable = false  # refuse patches whose effect on other prompts is measured, not proved
    reason = false     # refuse to change anything without a reason for the log
    actor_signature = false  # refuse to change anything that who does it has not signed

    [evaluation]
    required = false   # refuse to apply a set that was not evaluated (`rasura evaluate`) on its base
    min_forget = 0.0   # least share of the erased concepts' pictures that must be gone in it
    min_retain = 0.0   # least share of what is to stay that must be there still

    [log]
    checkpoint_age = "7 days"  # refuse to make or apply patches where the last checkpoint that was given out is older

    [retention]
    takedown = "30 days to 180 days"  # how long what was said in a case is kept (`rasura.patches.checks.retention`)

What a file leaves out has its default. Several policies hold together as their strictest limits: `all_of`.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Self

from rasura.patches._io.json_fields import show
from rasura.patches.checks.retention import Retention, read_retentions, stricter
from rasura.patches.errors import InputError

_MAX_BITS: Final = 1023  # of an integer that a float can hold
MAX_POLICY_BYTES: Final = 65_536
_LIMITS: Final = "limits"
_REQUIRE: Final = "require"
_EVALUATION: Final = "evaluation"
_LOG: Final = "log"
_RETENTION: Final = "retention"
_AGE: Final = "checkpoint_age"
_ANY_AGE: Final = "any"
_AGE_FORM: Final = re.compile(r"([1-9][0-9]{0,4}) (hour|day|week)s?", re.ASCII)
_HOURS: Final = {"hour": 1, "day": 24, "week": 7 * 24}
_MAX_AGE: Final = 10 * 366 * 24
_SHARES: Final = ("min_forget", "min_retain")
_HINT: Final = "rasura policy show"
_REQUIREMENTS: Final = ("separable", "reason", "actor_signature")
_LATER: Final = ("alike", "moved", "leak")
_LEAST: Final = ("kept", "moved")
"""Limits of which the larger is the stricter."""


def _is_number(value: object) -> bool:
    """Whether it is a number that a float can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, float) or value.bit_length() <= _MAX_BITS


@dataclass(frozen=True, slots=True)
class Policy:
    """Named limits. A relation may be at most its limit, but for `moved`, which is a least.

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
        moved: least that a patch must take its target when it is made: 1 is what usually lies between two concepts.
        leak: most that a patch may move what it is to keep, as measured when it is made: 1 is as much as the base
            itself makes of it.
        separable: whether patches must prove what they leave alone.
        reason: whether whoever changes something must say why.
        actor_signature: whether the entries of whatever changes something must be signed by who does it.
        evaluated: whether a set must have been evaluated on its base before it is applied.
        min_forget: least that such an evaluation must say of `forget`, 0 to 1.
        min_retain: the same of `retain`.
        checkpoint_age: hours within which somebody must have been given a checkpoint of the log, for patches to be made
            or applied; None: it does not matter.
        retention: how long what was said in cases is kept, by class.
    """

    own: float = 1e-3
    pair: float = 0.05
    stack: float = 0.02
    kept: float = 0.7
    residual: float = math.inf
    capacity: float = 1.0
    site: float = 0.05
    alike: float = 0.32
    moved: float = 0.3
    leak: float = 1.0
    separable: bool = False
    reason: bool = False
    actor_signature: bool = False
    evaluated: bool = False
    min_forget: float = 0.0
    min_retain: float = 0.0
    checkpoint_age: int | None = None
    retention: tuple[Retention, ...] = ()

    def __post_init__(self) -> None:
        for name in list_limit_names():
            value = getattr(self, name)
            if not _is_number(value) or math.isnan(value) or value < 0:
                raise InputError(f"policy: {name}: expected a number of 0 or more, got {show(value)}", hint=_HINT)
        for name in _SHARES:
            value = getattr(self, name)
            if not _is_number(value) or not 0 <= value <= 1:
                raise InputError(f"policy: {name}: expected a share from 0 to 1, got {show(value)}", hint=_HINT)
        for name in (*_REQUIREMENTS, "evaluated"):
            if not isinstance(value := getattr(self, name), bool):
                said = "required" if name == "evaluated" else name
                raise InputError(f"policy: {said}: expected true or false, got {show(value)}", hint=_HINT)
        if (age := self.checkpoint_age) is not None and (type(age) is not int or not 1 <= age <= _MAX_AGE):
            raise InputError(f"policy: {_AGE}: expected 1 to {_MAX_AGE} hours, got {show(age)}", hint=_HINT)
        if not self.evaluated and (self.min_forget or self.min_retain):
            raise InputError(
                "policy: evaluation: expected required = true beside its limits, or they would hold nobody", hint=_HINT
            )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the TOML file strictly.

        Raises:
            InputError: no UTF-8 TOML, too long, an unknown table or name, a limit that is no number of 0 or more.
        """
        document = _document(data)
        tables = _LIMITS, _REQUIRE, _EVALUATION, _LOG, _RETENTION
        limits, require, evaluation, log, retention = (_table(document, name) for name in tables)
        _known(document, tables, "table")
        _known(limits, list_limit_names(), "limit")
        _known(require, _REQUIREMENTS, "requirement")
        _known(evaluation, ("required", *_SHARES), "demand")
        _known(log, (_AGE,), "demand")
        demanded = {"evaluated" if name == "required" else name: value for name, value in evaluation.items()}
        age = _read_age(log[_AGE]) if log else None
        return cls(**{**limits, **require, **demanded, _AGE: age, _RETENTION: read_retentions(retention)})

    def to_toml(self, *, whole: bool = False) -> str:
        """The file that says this; `parse(p.to_toml().encode()) == p`.

        What came later is said only where it is not the default, so that older policies keep their bytes and digests;
        `whole` says all, for people.
        """
        said = [
            n for n in list_limit_names() if whole or n not in _LATER or getattr(self, n) != getattr(DEFAULT_POLICY, n)
        ]
        limits = [f"{name} = {_number(getattr(self, name))}" for name in said]
        require = [f"separable = {str(self.separable).lower()}"]
        later = [name for name in _REQUIREMENTS[1:] if whole or getattr(self, name)]
        require += [f"{name} = {str(getattr(self, name)).lower()}" for name in later]
        lines = [f"[{_LIMITS}]", *limits, "", f"[{_REQUIRE}]", *require, ""]
        if whole or self.evaluated:
            shares = [f"{name} = {_number(getattr(self, name))}" for name in _SHARES]
            lines += [f"[{_EVALUATION}]", f"required = {str(self.evaluated).lower()}", *shares, ""]
        if whole or self.checkpoint_age is not None:
            age = _ANY_AGE if self.checkpoint_age is None else show_age(self.checkpoint_age)
            lines += [f"[{_LOG}]", f'{_AGE} = "{age}"', ""]
        if self.retention:
            lines += [f"[{_RETENTION}]", *(f'{each.name} = "{each}"' for each in self.retention), ""]
        return "\n".join(lines)


def show_age(hours: int) -> str:
    """A time as a policy spells it: in days where it is whole days."""
    count, unit = (hours // _HOURS["day"], "day") if hours % _HOURS["day"] == 0 else (hours, "hour")
    return f"{count} {unit}" + ("" if count == 1 else "s")


def _read_age(said: object) -> int | None:
    if said == _ANY_AGE:
        return None
    found = _AGE_FORM.fullmatch(said) if isinstance(said, str) else None
    if found is None:
        raise InputError(f'policy: {_AGE}: expected "7 days", "12 hours" or "any", got {show(said)}', hint=_HINT)
    return int(found[1]) * _HOURS[found[2]]


def list_limit_names() -> tuple[str, ...]:
    """The names of all limits, in the file's order."""
    others = {*_REQUIREMENTS, "evaluated", *_SHARES, _AGE, _RETENTION}
    return tuple(field.name for field in fields(Policy) if field.name not in others)


DEFAULT_POLICY: Final = Policy()


def combine_policies(*policies: Policy) -> Policy:
    """The policy that holds where all of these do: the strictest of each limit.

    Raises:
        InputError: no policy, which would allow everything.
    """
    if not policies:
        raise InputError("policy: expected at least one to combine, got none, which would allow everything", hint=_HINT)
    # Of `kept`, too: where fewer count as ending another's promise, more of them are judged.
    limits: dict[str, Any] = {
        name: (max if name in _LEAST else min)(getattr(policy, name) for policy in policies)
        for name in list_limit_names()
    }
    required = {name: any(getattr(policy, name) for policy in policies) for name in (*_REQUIREMENTS, "evaluated")}
    shares = {name: max(getattr(policy, name) for policy in policies) for name in _SHARES}
    ages = [policy.checkpoint_age for policy in policies if policy.checkpoint_age is not None]
    classes: dict[str, Retention] = {}
    for each in (one for policy in policies for one in policy.retention):
        classes[each.name] = stricter(classes[each.name], each) if each.name in classes else each
    kept = tuple(classes[name] for name in sorted(classes))
    return Policy(**limits, **required, **shares, checkpoint_age=min(ages, default=None), retention=kept)


def _document(data: bytes) -> Mapping[str, object]:
    if len(data) > MAX_POLICY_BYTES:
        raise InputError(f"policy: expected at most {MAX_POLICY_BYTES} bytes, got {len(data)}", hint=_HINT)
    try:
        return tomllib.loads(data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"policy: expected TOML, got something else: {error}", hint=_HINT) from None
    except (ValueError, RecursionError):  # a number of thousands of digits, tables in tables in tables
        raise InputError("policy: expected TOML with numbers of a sensible length and no nesting", hint=_HINT) from None


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
