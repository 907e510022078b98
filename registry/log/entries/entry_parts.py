"""What an entry has beside its draft: its place in the log, the rows that changed, and the limits of the format."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from rasura.patches.types import Digest, PatchId

__all__ = ["ACTION", "MAX_ENTRY_BYTES", "MAX_LISTED", "OUTCOMES", "VERSION", "Placement", "RowChange"]

VERSION: Final = 1
MAX_ENTRY_BYTES: Final = 65_535
MAX_LISTED: Final = 128
"""Patches that an entry spells out; more become a number and a digest."""

OUTCOMES: Final = ("success", "refused", "failed", "begun", "done")
ACTION: Final = re.compile(r"[a-z][a-z0-9_-]{0,31}(\.[a-z][a-z0-9_-]{0,31}){0,3}")


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
