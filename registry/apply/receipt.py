"""Who moves a host, and what a motion did: values, for which nothing has to be computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rasura.patches.types import Digest, PatchId

if TYPE_CHECKING:
    from rasura.patches.algebra.stack import Stack
    from rasura.patches.checks.verdict import Relation

__all__ = ["Actor", "Receipt"]


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does something, and why; both go into the audit log."""

    name: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a motion did.

    Attributes:
        location: the host.
        applied: the set that is applied now.
        parameters: how many parameters the motion touched.
        before: tensor-set digest of those parameters before.
        after: the same after; equal to what was predicted.
        pristine: whether nothing is applied any more.
        changed: whether anything was written; a switch to what is applied already writes nothing.
        beside: how many of them run as a side branch now, because they are quantised
            (`rasura.registry.apply.hosts.side_branches`).
        crossing: what patches that were taken out meant to those that stay (`rasura.patches.checks.removal`).
        revoked: patches that stay as they were although no key that counts has signed them any more.
    """

    location: str
    applied: Stack
    parameters: int
    before: Digest
    after: Digest
    pristine: bool
    changed: bool = True
    crossing: tuple[Relation, ...] = ()
    beside: int = 0
    revoked: tuple[PatchId, ...] = ()
