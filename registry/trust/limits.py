"""The limits that hold: the registry's policy, and whatever makes it stricter. Needs no torch."""

from __future__ import annotations

from rasura.patches.checks.policy import Policy, combine_policies
from rasura.registry.registry import Registry

__all__ = ["merge_policies"]


def merge_policies(registry: Registry, stricter: Policy | None) -> Policy:
    """The policy in force, and another one that can only make it stricter."""
    found = registry.policy()
    return found if stricter is None else combine_policies(found, stricter)
