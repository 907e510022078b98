"""What an entry has beside its draft: its place in the log, the rows that changed, and the limits of the format."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from rasura.patches.types import Digest, PatchId
from rasura.registry._storage.records.records import Outcome

__all__ = [
    "ACTION",
    "MAX_CHANGES",
    "MAX_ENTRY_BYTES",
    "MAX_LISTED",
    "OUTCOMES",
    "REMOVABLE",
    "VERSION",
    "Deed",
    "Placement",
    "RowChange",
]

VERSION: Final = 1
MAX_ENTRY_BYTES: Final = 65_535
MAX_LISTED: Final = 128
"""Patches that an entry spells out; more become a number and a digest."""

MAX_CHANGES: Final = 64
"""Rows that one entry may change."""

REMOVABLE: Final = frozenset({"stack"})
"""Kinds of records that may be removed; all others stay for ever."""

OUTCOMES: Final = ("success", "refused", "failed", "begun", "done")
ACTION: Final = re.compile(r"[a-z][a-z0-9_-]{0,31}(\.[a-z][a-z0-9_-]{0,31}){0,3}")


class Deed(Protocol):
    """What an entry says was done: a whole record of it, or as much of it as verifying a log needs."""

    @property
    def index(self) -> int:
        """Its place in the log."""

    @property
    def action(self) -> str:
        """What was done, such as `patch.apply`."""

    @property
    def outcome(self) -> Outcome:
        """How it ended."""

    @property
    def details(self) -> Mapping[str, str | int]:
        """What else it says."""


@dataclass(frozen=True, slots=True)
class RowChange:
    """One row after a transaction: what it is, and the digest of all that it says."""

    kind: str
    id: str
    record: Digest | None
    """None: the row is gone."""
    applied: Mapping[PatchId, int] | None = None
    """Of hosts and stacks: new strengths in sixteenths of the patches that moved, 0 for those taken off."""


@dataclass(frozen=True, slots=True)
class Placement:
    """What the log gives to a draft: its place."""

    log: str
    index: int
    entry_id: str
    time: datetime
