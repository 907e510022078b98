"""The base behind a check across sites: its text encoder, its weights, and the words of retain sets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from rasura.patches.checks.across import Across, reads_across_sites
from rasura.patches.checks.encoder_effects import Prompts, Site, check_encoder_effects
from rasura.patches.checks.policy import Policy
from rasura.patches.errors import NotFoundError
from rasura.patches.format.member import Member
from rasura.patches.format.patch import Patch
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.hosts.interface import Host
from rasura.patches.models.base_identity import check_touched
from rasura.patches.models.text_encoders.text_encoder import TextEncoder
from rasura.patches.prompts.concept_prompts import prompts_of
from rasura.patches.prompts.retain_set import naming
from rasura.patches.types import ParamName
from rasura.registry.registry import Registry
from rasura.registry.trust.retain_words import find_retained

Progress = Callable[[str, int, int], None]


def look_across(
    registry: Registry,
    stack: Sequence[Member],
    policy: Policy,
    *,
    host: Host | None = None,
    progress: Progress | None = None,
) -> Across:
    """Redo the checks of a stack behind its patched text encoder, where it has patches of both kinds.

    Args:
        registry: where the words of retain sets and the bases' folders are known.
        stack: the patches.
        policy: the limits.
        host: a model folder with the stack's base; None, a live model or a single file: the folder that the base was
            added from.
        progress: told what is going on.

    Raises:
        NotFoundError: the base's folder is not here (any more).
        BaseMismatchError, UnsupportedHostError: the folder holds another model.
    """
    if not reads_across_sites(stack):
        return Across()
    # A live model or a single file has no tokenizer beside it: there the base's own folder answers.
    mine = None if host is None else host.model_folder()
    folder = CheckpointHost.open(_source(registry, stack) if mine is None else mine)
    encoder = TextEncoder.pristine(folder)
    touched: dict[ParamName, None] = dict.fromkeys(name for m in stack for name in m.patch.tensors.increments)
    originals = folder.originals(touched)
    for member in stack:
        check_touched(member.patch.manifest.base.parameters, originals, folder.location)
    site = Site(encoder, originals, _prompts(registry))
    return check_encoder_effects(stack, policy, site, progress or (lambda *_: None))


def _source(registry: Registry, stack: Sequence[Member]) -> Path:
    base = registry.base(stack[0].patch.manifest.base.sha256)
    if not Path(base.source).is_dir():
        raise NotFoundError(
            f"{base.source} is no folder: expected base {base.name!r} there, because the stack patches its encoder "
            "and what reads from it",
            hint="rasura base add DIR",
        )
    return Path(base.source)


def _prompts(registry: Registry) -> Prompts:
    def prompts(patch: Patch) -> Sequence[str] | None:
        concept, protected = patch.manifest.concept, patch.manifest.protected
        if protected.retain is None:
            return [""]
        try:
            kept = find_retained(registry, protected.retain)
        except NotFoundError:
            return None
        names_target = naming((concept.text, *protected.concepts))
        found = (p for text in kept.concepts for p in prompts_of(text, protected.retain.templates))
        return [prompt for prompt in found if not names_target(prompt)] or [""]

    return prompts
