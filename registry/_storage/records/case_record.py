"""A case: one request with its clock. What people said lies elsewhere; this is what the log tells of.

A case's identifier, its times and its commitments are in an append-only log and stay for ever. Who asked, what they
wrote and what pictures show lies in the vault (`rasura.registry._storage.files.vault`) and can be deleted.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Final

from rasura.patches._io.json_fields import show
from rasura.patches.errors import InputError
from rasura.patches.types import Digest
from rasura.registry._storage.records.validation import check_count, check_digest, check_name, check_time

__all__ = ["MAX_CASE_ID", "MAX_ITEMS", "CaseRecord", "check_case_id"]

MAX_CASE_ID: Final = 64  # as long as the identifiers that the log's changes carry
MAX_ITEMS: Final = 64
"""Most things that one case keeps in the vault."""

_ID: Final = re.compile(r"[A-Za-z0-9#][A-Za-z0-9._/#-]*")
_ITEM: Final = re.compile(r"[a-z][a-z0-9-]{0,31}")


def check_case_id(case_id: str) -> None:
    """Refuses what is no identifier of a case: entries of the log list several with spaces between.

    Raises:
        InputError: anything but up to 64 letters, digits, and `. _ / # -`.
    """
    if len(case_id) > MAX_CASE_ID or not _ID.fullmatch(case_id):
        raise InputError(
            f"case: expected a ticket's number of at most {MAX_CASE_ID} letters, digits and ._/#-, got {show(case_id)}",
            hint="rasura case list",
        )


def check_item(name: str) -> None:
    """Refuses what is no name of something in the vault.

    Raises:
        InputError: anything but a small letter and up to 31 small letters, digits and dashes.
    """
    if not _ITEM.fullmatch(name):
        raise InputError(f"item of a case: expected a short name in small letters, got {show(name)}")


@dataclass(frozen=True, slots=True)
class CaseRecord:
    """One request, from when it came to when it was closed."""

    case_id: str
    received_at: datetime
    due_at: datetime | None
    """Until when something must be done; None: nobody set a limit."""
    opened_at: datetime
    closed_at: datetime | None
    held: bool
    """Whether a legal hold keeps its personal data from being deleted."""
    forgotten_at: datetime | None
    """When its personal data was deleted; None: it lies in the vault."""
    commitments: Mapping[str, Digest]
    """For each thing in the vault, HMAC-SHA256 under a key that is deleted with it."""

    def __post_init__(self) -> None:
        check_case_id(self.case_id)
        for what in ("received_at", "due_at", "opened_at", "closed_at", "forgotten_at"):
            if getattr(self, what) is not None:
                check_time(what, getattr(self, what))
        check_count("number of items", len(self.commitments), high=MAX_ITEMS)
        for name, digest in self.commitments.items():
            check_name("item of a case", name)
            check_item(name)
            check_digest(f"commitment to {name}", digest)
        object.__setattr__(self, "commitments", MappingProxyType(dict(self.commitments)))
