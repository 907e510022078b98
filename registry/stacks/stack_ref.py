"""What people name when they say which set of patches they mean: a stack, a lock file, or what a model has.

brand            the stack of this name
rasura.lock      a lock file: anything with a slash, or that ends with .lock
@the/model       what is applied to the model folder
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from rasura.patches._io.files import read_regular
from rasura.patches.algebra.stack import Stack
from rasura.patches.checks.verdict import SHORT
from rasura.patches.errors import DigestMismatchError, NotFoundError
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.registry.apply.goal import Goal
from rasura.registry.apply.hosts.host_state import applied_of, sight_host
from rasura.registry.registry import Registry
from rasura.registry.stacks.lock_file import MAX_LOCK_BYTES, LockFile
from rasura.registry.stacks.lock_stack import check_claims

__all__ = ["goal_of", "read_lock", "side_of"]

_MODEL: Final = "@"


def goal_of(registry: Registry, source: str) -> Goal:
    """The set of a stack or a lock file.

    Raises:
        NotFoundError: no such stack or file, or the lock names a base or patch that is not in this registry.
        FormatError: a lock file that breaks its format.
        DigestMismatchError: the registry holds other bytes of a patch than the lock names.
        ConflictError: something else that the lock says of its base, patches or policy is not so.
    """
    if not _is_file(source):
        stack = registry.stack(source)
        return Goal(source, stack.base, Stack.of_sixteenths(stack.patches))
    lock = read_lock(Path(source))
    _check_here(registry, lock)
    return Goal(source, lock.base.sha256, lock.members, lock.policy)


def side_of(registry: Registry, source: str) -> Goal:
    """One side of a comparison: as `goal_of`, and `@MODEL` for what is applied to a model on disk.

    A lock file is taken as it is: what it names need not be here.

    Raises:
        DriftError: the model is not what the registry last wrote.
        Otherwise as `goal_of`.
    """
    if source.startswith(_MODEL):
        record = sight_host(registry, CheckpointHost.open(Path(source.removeprefix(_MODEL))))
        return Goal(source, record.base if record else None, applied_of(record))
    if _is_file(source):
        lock = read_lock(Path(source))
        return Goal(source, lock.base.sha256, lock.members)
    return goal_of(registry, source)


def read_lock(path: Path) -> LockFile:
    """The lock file at a path.

    Raises:
        NotFoundError: there is none.
        FormatError: it breaks its format, or is no regular file.
    """
    try:
        return LockFile.from_bytes(read_regular(path, MAX_LOCK_BYTES))
    except NotFoundError:
        raise NotFoundError(f"lock file {path} does not exist", hint="rasura stack lock NAME -o FILE") from None


def _is_file(source: str) -> bool:
    return "/" in source or source.lower().endswith((".lock", ".json"))


def _check_here(registry: Registry, lock: LockFile) -> None:
    if all(known.digest != lock.base.sha256 for known in registry.bases()):
        raise NotFoundError(
            f"the base {lock.base.sha256[:SHORT]} of the lock is not in this registry", hint="rasura base add DIR"
        )
    for patch in lock.patches:
        try:
            record = registry.patch(patch.patch_id)
        except NotFoundError:
            raise NotFoundError(
                f"patch {patch.patch_id[:SHORT]} of the lock is not in this registry", hint="rasura pull REPO"
            ) from None
        if dict(record.files) != dict(patch.files):
            raise DigestMismatchError(
                f"patch {patch.patch_id[:SHORT]}: the registry holds other files than those the lock names",
                hint=f"rasura patch verify {patch.patch_id[:SHORT]}",
            )
    check_claims(registry, lock)
