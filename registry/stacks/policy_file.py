"""Policies in files: the limits that somebody wrote down, for the registry or for one command."""

from __future__ import annotations

from pathlib import Path

from rasura.patches._io.files import read_regular
from rasura.patches.checks.policy import MAX_POLICY_BYTES, Policy
from rasura.patches.errors import InputError, NotFoundError
from rasura.registry._storage.records.records import Draft
from rasura.registry.apply.receipt import Actor
from rasura.registry.registry import Registry

__all__ = ["put_in_force", "read_policy"]


def read_policy(path: Path) -> Policy:
    """The policy in a TOML file.

    Raises:
        NotFoundError: no such file.
        InputError: no policy.
        FormatError: no regular file.
    """
    try:
        return Policy.parse(read_regular(path, MAX_POLICY_BYTES))
    except NotFoundError:
        raise NotFoundError(f"policy file {path} does not exist", hint=f"rasura policy show -o {path}") from None
    except InputError as error:
        raise InputError(f"{path}: {error.message}", hint=error.hint) from None


def put_in_force(registry: Registry, policy: Policy, actor: Actor, *, dry_run: bool = False) -> bool:
    """Make a policy the registry's; False where it is already. With `dry_run`, nothing is written."""
    if dry_run:
        return registry.policy() != policy
    return registry.set_policy(policy, Draft(actor.name, actor.reason, "policy.set", "success"))
