"""Which entries somebody wants to see: chosen a page at a time, so that memory does not grow with the log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from rasura.patches.errors import InputError, NotFoundError
from rasura.patches.models.text_encoders.plain_text import normal
from rasura.patches.types import PatchId
from rasura.registry._storage.records.records import EntryRecord
from rasura.registry.log.entries.stored_entries import EntryFilter
from rasura.registry.log.writer import name_cases
from rasura.registry.registry import Registry

__all__ = ["EVERYTHING", "EntryChoice", "choose_entries", "parse_moment", "prepare_choice"]

_PAGE: Final = 500
_AGO: Final = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_FAR: Final = 100_000


@dataclass(frozen=True, slots=True)
class EntryChoice:
    """What an entry must be; what is None does not matter.

    Attributes:
        since: not earlier.
        until: earlier than this.
        actor: by this name.
        patch: that names this patch.
        concept: that names a patch which erases this concept, however it is spelt.
        model: about this model: its location, or its UUID.
        type: what was done: `patch.apply`, or a noun alone for all that it does.
        case: that belongs to this case.
    """

    since: datetime | None = None
    until: datetime | None = None
    actor: str | None = None
    patch: PatchId | None = None
    concept: str | None = None
    model: str | None = None
    type: str | None = None
    case: str | None = None


EVERYTHING: Final = EntryChoice()


def choose_entries(
    registry: Registry, choice: EntryChoice, *, newest: bool = True, limit: int | None = None
) -> Iterator[EntryRecord]:
    """The entries that fit, one after the other.

    Raises:
        NotFoundError: no such model or case, or no patch of this concept.
    """
    fits = prepare_choice(registry, choice)
    which = EntryFilter(
        patch=choice.patch, host=_find_host(registry, choice.model), since=choice.since, case=choice.case
    )
    after, left = None, limit
    while left is None or left > 0:
        page = registry.entries(which, newest=newest, limit=_PAGE, after=after)
        for entry in page:
            if fits(entry):
                yield entry
                left = None if left is None else left - 1
                if left == 0:
                    return
        if len(page) < _PAGE:
            return
        after = page[-1].index


def prepare_choice(registry: Registry, choice: EntryChoice) -> Callable[[EntryRecord], bool]:
    """What says whether an entry fits; names are looked up once.

    Raises:
        NotFoundError: no such model, or no patch of this concept.
    """
    host, patches = _find_host(registry, choice.model), _find_patches(registry, choice.concept)
    if choice.case is not None:
        registry.case(choice.case)

    def fits(entry: EntryRecord) -> bool:
        return (
            (choice.since is None or entry.time >= choice.since)
            and (choice.until is None or entry.time < choice.until)
            and (choice.actor is None or entry.actor == choice.actor)
            and (choice.patch is None or choice.patch in entry.patches)
            and (patches is None or not patches.isdisjoint(entry.patches))
            and (host is None or entry.host == host)
            and (choice.case is None or choice.case in name_cases(entry.details))
            and (choice.type is None or entry.action == choice.type or entry.action.startswith(f"{choice.type}."))
        )

    return fits


def parse_moment(text: str, now: datetime) -> datetime:
    """The time that a person means: `2026-11-29`, `2026-11-29T14:00`, with `Z` or an offset, else UTC; or `3d`: ago.

    Raises:
        InputError: none of these.
    """
    number, unit = text[:-1], text[-1:]
    if number.isascii() and number.isdecimal() and unit in _AGO and int(number[:7]) <= _FAR:
        return now - timedelta(**{_AGO[unit]: int(number)})
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(
            f"time: expected 2026-11-29, 2026-11-29T14:00Z, or 3d (ago; m, h, d, w), got {text[:40]!r}"
        ) from None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def _find_host(registry: Registry, model: str | None) -> str | None:
    if model is None:
        return None
    for host in registry.hosts():
        if model in {host.host_id, host.location}:
            return host.host_id
    raise NotFoundError(f"no model {model} is known here", hint="rasura host list")


def _find_patches(registry: Registry, concept: str | None) -> frozenset[PatchId] | None:
    if concept is None:
        return None
    wanted = normal(concept)
    found = frozenset(p.patch_id for p in registry.patches() if wanted in map(normal, p.concepts))
    if not found:
        raise NotFoundError(f"no patch here erases {concept!r}", hint="rasura patch list")
    return found
