"""Asking the composer about a set of registered patches, under the policy in force."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rasura.patches._io.tensor_bytes import Storable, as_tensor, digest_tensors, dtype_name
from rasura.patches.algebra.strength import Strength
from rasura.patches.checks.across import Across, reads_across_sites, with_across
from rasura.patches.checks.check import check
from rasura.patches.checks.kernels.capacity import Capacity
from rasura.patches.checks.kernels.weigh import Originals
from rasura.patches.checks.one_space import check_one_space
from rasura.patches.checks.policy import Policy
from rasura.patches.checks.removal import check_revert
from rasura.patches.checks.verdict import Accepted, Reason, Refused, Relation, Verdict
from rasura.patches.errors import NotFoundError, RasuraError, VerificationError
from rasura.patches.format.manifest_parts import TensorIdentity
from rasura.patches.format.member import Member
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.hosts.interface import Host
from rasura.patches.obstacles import Obstacles
from rasura.patches.types import SHORT, KeyId, ParamName, PatchId
from rasura.registry.registry import Registry
from rasura.registry.trust.verified_patch import load_signed

__all__ = [
    "Judged",
    "Loaded",
    "Worst",
    "find_worst",
    "judge_loaded",
    "judge_registered",
    "load_readable",
    "load_stack",
]

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Worst:
    """Of one kind of check, the number that is nearest to its limit, or farthest beyond it."""

    value: float
    limit: float


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """A set of patches, verified anew, and what the composer says of it.

    Attributes:
        stack: the patches.
        verdict: accepted, or why not.
        keys: who signed each patch.
        unknown: patches whose retained prompts could not be encoded again behind a patched text encoder.
        weighed: whether leaks are shares of what the base's own weights give; else of an estimate from the patches
            (`rasura.patches.checks.kernels.weigh`).
    """

    stack: tuple[Member, ...]
    verdict: Verdict
    keys: Mapping[PatchId, KeyId]
    unknown: tuple[PatchId, ...] = ()
    weighed: bool = False

    @property
    def capacity(self) -> Capacity | None:
        """The room that the set takes, as it was computed for the verdict; None where nothing reads text embeddings."""
        return self.verdict.room


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A set of patches, verified anew, and who signed each.

    Attributes:
        stack: the patches.
        keys: whose signature counts, of each.
        revoked: of those that are in force and that no key which counts has signed: who once did.
    """

    stack: tuple[Member, ...]
    keys: Mapping[PatchId, KeyId]
    revoked: Mapping[PatchId, KeyId] = field(default_factory=dict)


def load_stack(
    registry: Registry,
    patches: Mapping[PatchId, Strength],
    progress: Progress = lambda *_: None,
    *,
    in_force: Collection[PatchId] = (),
    obstacles: Obstacles | None = None,
) -> Loaded:
    """Verify every patch of a set.

    Args:
        registry: where they are.
        patches: the set.
        progress: told what is going on.
        in_force: those of them that are applied already and stay as they are; a key that was revoked since takes none
            of them out, and keeps nobody from moving others (`rasura.registry.trust.verified_patch.verify_files`).
        obstacles: gets what is raised; then those that are good are given.

    Raises:
        VerificationError: a signature, digest or number is not good, or a key does not count here.
        NotFoundError: a patch or its files are not here.
        RasuraError: the first of these, with the others in `others`.
    """
    stack, found = [], Obstacles() if obstacles is None else obstacles
    keys: dict[PatchId, KeyId] = {}
    revoked: dict[PatchId, KeyId] = {}
    for done, (patch_id, strength) in enumerate(patches.items()):
        progress("verifying patches", done, len(patches))
        try:
            verified = load_signed(registry, patch_id, in_force=patch_id in in_force)
        except RasuraError as error:
            error.say_of(f"patch {patch_id[:SHORT]}")
            found.add(error)
            continue
        stack.append(Member(verified.patch, strength))
        (keys if verified.counts else revoked)[patch_id] = verified.key_id
    with found.noting():
        check_one_space(stack)
    if obstacles is None:
        found.refuse()
    return Loaded(tuple(stack), keys, revoked)


def judge_registered(
    registry: Registry,
    patches: Mapping[PatchId, Strength],
    policy: Policy,
    *,
    leaving: Mapping[PatchId, Strength] | None = None,
    progress: Progress = lambda *_: None,
) -> Judged:
    """Verify every patch of a set and have the composer check the set, across sites where it has patches of both.

    Args:
        registry: where they are.
        patches: the set.
        policy: the limits.
        leaving: what is taken out to get to this set; what it breaks anew refuses (`rasura.patches.checks.removal`).
        progress: told what is going on.

    Raises:
        VerificationError: a signature, digest or number is not good, or a key does not count here.
        NotFoundError: a patch or its files are not here.
    """
    loaded = load_stack(registry, patches, progress)
    gone = load_readable(registry, leaving or {})
    originals = find_originals(registry, [*loaded.stack, *gone])
    return judge_loaded(registry, loaded, policy, gone=gone, originals=originals, progress=progress)


def judge_loaded(
    registry: Registry,
    loaded: Loaded,
    policy: Policy,
    *,
    gone: Sequence[Member] = (),
    originals: Originals | None = None,
    host: Host | None = None,
    progress: Progress = lambda *_: None,
) -> Judged:
    """As `judge_registered`, of patches that are loaded.

    Args:
        registry: where retain sets and bases are known.
        loaded: the set.
        policy: the limits.
        gone: what is taken out to get to this set.
        originals: the base's weights of all that these touch; None: estimated.
        host: the model that the set is for, if there is one.
        progress: told what is going on.
    """
    progress("checking", 0, 1)
    stack, left = loaded.stack, [member.patch_id for member in gone]
    if gone:
        verdict: Verdict = check_revert([*stack, *gone], left, policy, originals)
    else:
        verdict = check(stack, policy, originals)
    touched = {name for member in stack for name in member.patch.arrays.increments}
    weighed = originals is not None and touched <= originals.keys()
    try:
        if reads_across_sites(stack):
            from rasura.registry.trust.encoder_check import look_across  # runs a text encoder; few stacks need one

            found = look_across(registry, stack, policy, host=host, progress=progress)
        else:
            found = Across()
    except NotFoundError as error:
        return Judged(stack, _unseen(verdict, error), loaded.keys, weighed=weighed)
    progress("checking", 1, 1)
    return Judged(stack, with_across(verdict, found, stack), loaded.keys, found.unknown, weighed)


def find_originals(registry: Registry, stack: Sequence[Member]) -> Originals | None:
    """The base's weights of all that a stack touches, where the folder or file that the base was added from has them.

    What does not have the digests that the patches name is not the base, and is not used.
    """
    if not stack:
        return None
    expected = {p.name: p for member in stack for p in member.patch.manifest.base.parameters}
    try:
        source = Path(registry.base(stack[0].patch.manifest.base.sha256).source)
        if not source.is_absolute() or not source.exists():
            return None
        host = CheckpointHost.open(source)
        if not expected.keys() <= host.parameters().keys():
            return None
        found = host.untouched(expected)
        _check_base(expected, found, host.location)
    except RasuraError:
        return None
    return found


def _check_base(expected: Mapping[ParamName, TensorIdentity], found: Mapping[ParamName, Storable], where: str) -> None:
    digests = digest_tensors(found)
    odd = [p for name, p in expected.items() if TensorIdentity(name, *_describe(found[name]), digests[name]) != p]
    # Numbers are looked at only where bytes differ, to see whether they are the same in a wider type.
    if odd:
        from rasura.patches.models.base_identity import check_touched  # needs torch

        check_touched(odd, {p.name: as_tensor(found[p.name]) for p in odd}, where)


def _describe(value: Storable) -> tuple[str, tuple[int, ...]]:
    return dtype_name(value.dtype), tuple(value.shape)


def find_worst(verdict: Verdict) -> dict[str, Worst]:
    """The worst number of each kind of check, by the check's name, sorted."""
    found: dict[str, Worst] = {}
    for relation in sorted(verdict.relations, key=lambda r: (r.check, _share(r), r.value)):
        found[relation.check] = Worst(relation.value, relation.limit)  # the last one is the worst
    return found


def load_readable(registry: Registry, leaving: Mapping[PatchId, Strength]) -> list[Member]:
    """What leaves, as far as it can be verified: a revoked key is a reason to take a patch out, not to keep it in."""
    found = []
    for patch_id, strength in leaving.items():
        try:
            found.append(Member(load_signed(registry, patch_id).patch, strength))
        except (VerificationError, NotFoundError):
            return []
    return found


def _unseen(verdict: Verdict, error: NotFoundError) -> Verdict:
    """Refused: the stack cannot be checked behind its patched text encoder, and nothing is assumed of it."""
    known = () if isinstance(verdict, Accepted) else verdict.reasons
    return Refused(verdict.relations, (*known, Reason(error.message, error.hint)), verdict.room)


def _share(relation: Relation) -> float:
    """How much of its limit a number takes; without a limit, nothing."""
    if relation.limit == 0:
        return math.inf if relation.value > 0 else 0.0
    return 0.0 if math.isinf(relation.limit) else relation.value / relation.limit
