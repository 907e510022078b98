"""How far a bisection is: a small strict file in the registry's folder, so that it survives its process.

    {"format":"rasura-bisect/1", "stack":"brand", "base":"<digest>", "location":"/models/sd", "before":{"<id>":16},
     "order":[{"id":"<id>", "strength":16}, …], "good":0, "bad":8, "skipped":[4], "testing":3, "reached":true}

The stack's patches stand in an order in which each comes after those that it requires. The first `good` of them leave
the model good, the first `bad` of them make it bad, and `testing` of them are applied to it, once `reached`. `testing`
is left out when it is over: then the model goes back to `before`, and has, once `reached`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rasura.patches._io import canonical_json
from rasura.patches._io.json_fields import Fields, JsonValue
from rasura.patches.algebra.stack import Stack
from rasura.patches.algebra.strength import Strength
from rasura.patches.errors import FormatError, InputError, NotFoundError
from rasura.patches.types import Digest, PatchId
from rasura.registry._storage.files.durable_files import read_own_file, sync_folder, translated, write_atomic
from rasura.registry._storage.records.validation import MAX_SIXTEENTHS, check_stack, check_text
from rasura.registry.registry import Registry

__all__ = ["FORMAT", "Bisection", "load_bisection", "remove_bisection", "save_bisection"]

FORMAT: Final = "rasura-bisect/1"
FILE: Final = "bisect.json"
MAX_BYTES: Final = 4 * 1024**2
_WHAT: Final = "bisection"
_MAX_PATCHES: Final = 20_000
_HINT: Final = "rasura patch bisect start STACK --model MODEL"


@dataclass(frozen=True, slots=True)
class Bisection:
    """A bisection between two steps; what the fields mean stands above."""

    stack: str
    base: Digest
    location: str
    before: Stack
    order: tuple[tuple[PatchId, Strength], ...]
    good: int
    bad: int
    skipped: frozenset[int] = frozenset()
    testing: int | None = None
    reached: bool = False

    @property
    def over(self) -> bool:
        """Whether there is nothing left to try."""
        return self.testing is None

    @property
    def subset(self) -> Stack:
        """The patches that the model has, or is being given."""
        return self.before if self.testing is None else Stack(dict(self.order[: self.testing]))

    @property
    def suspects(self) -> tuple[PatchId, ...]:
        """The patches of which one turned the model from good to bad; at the end one, unless some were skipped."""
        return tuple(patch_id for patch_id, _ in self.order[self.good : self.bad])

    def next(self) -> int | None:
        """How many patches to try next: the middle, or what is nearest to it and was not skipped; None at the end."""
        middle = (self.good + self.bad) // 2
        left = [count for count in range(self.good + 1, self.bad) if count not in self.skipped]
        return min(left, key=lambda count: (abs(count - middle), count), default=None)

    def to_bytes(self) -> bytes:
        """The file."""
        value: dict[str, JsonValue] = {
            "format": FORMAT,
            "stack": self.stack,
            "base": self.base,
            "location": self.location,
            "before": self.before.to_json(),
            "order": [{"id": patch_id, "strength": strength.sixteenths} for patch_id, strength in self.order],
            "good": self.good,
            "bad": self.bad,
            "skipped": sorted(self.skipped),
            "reached": self.reached,
        }
        return canonical_json.dumps(value if self.testing is None else {**value, "testing": self.testing})

    @classmethod
    def from_bytes(cls, data: bytes) -> Bisection:
        """Read strictly; `from_bytes(x).to_bytes() == x`.

        Raises:
            FormatError: not canonical JSON, another format, unknown or missing fields, a value out of range.
        """
        fields = Fields.of(canonical_json.loads(data, what=_WHAT, limit=MAX_BYTES), _WHAT)
        if (found := fields.text("format")) != FORMAT:
            raise FormatError(
                f"{_WHAT}: expected format {FORMAT!r}, got {found!r}", hint="pip install --upgrade rasura"
            )
        try:
            state = _read(fields)
        except InputError as error:
            raise FormatError(f"{_WHAT}: {error.message}") from None
        fields.done()
        return state


def load_bisection(registry: Registry) -> Bisection:
    """The bisection that is going on, or over and not put away.

    Raises:
        NotFoundError: there is none.
        FormatError: the file breaks its format.
    """
    try:
        return Bisection.from_bytes(read_own_file(_path(registry), limit=MAX_BYTES, what=_WHAT))
    except NotFoundError:
        raise NotFoundError("no bisection is going on", hint=_HINT) from None


def save_bisection(registry: Registry, state: Bisection) -> Bisection:
    """Write it down, durably, and give it back."""
    write_atomic(_path(registry), state.to_bytes())
    return state


def remove_bisection(registry: Registry) -> None:
    """Put the file away; there may be none."""
    path = _path(registry)
    with translated(f"remove {path}"):
        path.unlink(missing_ok=True)
        sync_folder(path.parent)


def _path(registry: Registry) -> Path:
    return registry.location.folder / FILE


def _read(fields: Fields) -> Bisection:
    order = tuple(map(_read_member, fields.records("order", _MAX_PATCHES)))
    count = len(order)
    bad = fields.integer("bad", 1, max(count, 1))
    good = fields.integer("good", 0, bad - 1)
    if len(dict(order)) != count or count == 0:
        raise FormatError(f"{_WHAT}: order: expected at least one patch, and each once")
    state = Bisection(
        fields.text("stack", limit=64),
        fields.digest("base"),
        fields.text("location", limit=2048),
        Stack.parse(fields.fields("before"), _WHAT),
        order,
        good,
        bad,
        frozenset(skipped := fields.integers("skipped", _MAX_PATCHES, 1, count)),
        fields.optional("testing", lambda name: fields.integer(name, good + 1, bad - 1)),
        fields.flag("reached"),
    )
    check_text("location", state.location, limit=2048)
    if sorted(state.skipped) != list(skipped):
        raise FormatError(f"{_WHAT}: skipped: expected each once and sorted")
    return state


def _read_member(fields: Fields) -> tuple[PatchId, Strength]:
    member = PatchId(fields.digest("id")), fields.integer("strength", -MAX_SIXTEENTHS, MAX_SIXTEENTHS)
    fields.done()
    check_stack(_WHAT, dict([member]))
    return member[0], Strength(member[1])
