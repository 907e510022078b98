"""Concepts that another one's patch erases already: a red car where cars are erased.

Such a concept cannot have a patch of its own beside the other's: no detector sees one and not the other. It needs none,
either, for as long as the other's stands. The log remembers it (`takedown.cover`), so that it gets a patch of its own
when the other is withdrawn, and is never un-erased in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

import torch

from rasura.patches.algebra.strength import ONE, Strength
from rasura.patches.errors import CheckRefusedError
from rasura.patches.format.manifest import NAMES_SIGN
from rasura.patches.format.patch import Patch
from rasura.patches.models.text_encoders.plain_text import normal
from rasura.patches.plain_numbers import say_over
from rasura.patches.prompts.concept_prompts import AUTO, Target, align_columns
from rasura.patches.prompts.retain_set import naming
from rasura.patches.types import PatchId
from rasura.registry._storage.records.records import Draft
from rasura.registry.log.entries.stored_entries import EntryFilter
from rasura.registry.registry import Registry
from rasura.registry.takedown.ground import Ground
from rasura.registry.takedown.wanted import TICKET, WantedConcept

__all__ = [
    "COVER",
    "LEFT",
    "UNCOVER",
    "Cover",
    "check_covers",
    "draft_cover",
    "find_cover",
    "find_covered",
    "find_covered_by",
]

COVER: Final = "takedown.cover"
UNCOVER: Final = "takedown.uncover"
_NAMES: Final = "names"
LEFT: Final = 0.3
"""At most this share of the way to the anchor may be left, for a concept to count as covered."""


@dataclass(frozen=True, slots=True)
class Cover:
    """A concept that is erased by another one's patch.

    Attributes:
        wanted: the concept.
        patch: whose patch erases it.
        by: what that one erases by name.
        left: ‖(W+Δ)T − WC*‖ / ‖W(T − C*)‖ on the concept's own prompts T and that patch's anchor C*.
    """

    wanted: WantedConcept
    patch: PatchId
    by: str
    left: float


def find_cover(ground: Ground, wanted: WantedConcept) -> Cover | None:
    """The patch that erases this concept at strength 1; asked of those that it names, as a red car names a car."""
    for patch_id, patch in ground.patches.items():
        concept, names_it = patch.manifest.concept, naming([patch.manifest.concept.text, *patch.manifest.names])
        same = wanted.anchor in {AUTO, concept.anchor} and normal(concept.anchor) not in map(normal, wanted.names)
        if same and all(map(names_it, wanted.spoken)):
            left = measure_left(ground, patch, ONE, wanted)
            if left <= LEFT:
                return Cover(wanted, patch_id, concept.text, left)
    return None


def measure_left(ground: Ground, patch: Patch, strength: Strength, wanted: WantedConcept) -> float:
    """How much of the way to the patch's anchor it leaves of another concept; see `Cover.left`."""
    concept = patch.manifest.concept
    target = Target(wanted.concept, concept.anchor, (), wanted.names)
    layers, touched = patch.manifest.eraser.options.get("layers", ""), sorted(patch.tensors.increments)
    left = asked = 0.0
    for space, reading in ground.base.encoder.reading_by_space(layers, touched):
        targets, anchors = align_columns(reading, target, concept.templates, concept.tokens)  # [d, n] each
        for name, weight in ground.base.host.originals(space.names).items():
            increment = patch.tensors.increments[name]
            aim = weight.to(torch.float64) @ (anchors - targets)
            moved = increment.B.to(torch.float64) @ (increment.A.to(torch.float64) @ targets)
            left += float((strength.value * moved - aim).square().sum())
            asked += float(aim.square().sum())
    return (left / asked) ** 0.5 if asked > 0 else 1.0


def find_covered(registry: Registry, ground: Ground) -> tuple[Cover, ...]:
    """What is erased by others' patches on this ground, as the log has it."""
    found: dict[str, Cover] = {}
    for wanted, by, covers in _remembered(registry, ground):
        patch = ground.erasing(by)
        if not covers or patch is None or ground.erasing(wanted.concept) is not None:
            found.pop(normal(wanted.concept), None)
        else:
            left = measure_left(ground, ground.patches[patch], ground.strengths[patch], wanted)
            found[normal(wanted.concept)] = Cover(wanted, patch, by, left)
    return tuple(found.values())


def find_covered_by(registry: Registry, ground: Ground, gone: Iterable[PatchId]) -> tuple[WantedConcept, ...]:
    """What needs a patch of its own where these go: with the templates and the anchor of the patch that erased it."""
    lost = set(gone)
    covers = [cover for cover in find_covered(registry, ground) if cover.patch in lost]
    concepts = [ground.patches[cover.patch].manifest.concept for cover in covers]
    return tuple(
        replace(cover.wanted, templates=own.templates, anchor=own.anchor)
        for cover, own in zip(covers, concepts, strict=True)
    )


def check_covers(ground: Ground, covers: Iterable[Cover], anew: Mapping[str, tuple[Patch, Strength]]) -> None:
    """Refuse patches that no longer erase what the ones in whose place they come had erased besides.

    Args:
        ground: what is there.
        covers: what is erased by others' patches.
        anew: patches that were solved again with their strengths, by their concepts in one spelling.

    Raises:
        CheckRefusedError: naming every concept that would be seen again.
    """
    lost = []
    for cover in covers:
        patch, strength = anew.get(normal(cover.by), (None, None))
        if patch is not None and strength is not None:
            left = measure_left(ground, patch, strength, cover.wanted)
            if left > LEFT:
                lost.append(
                    f"{cover.wanted.concept} (erased with {cover.by}; what would be left of it: {say_over(left, LEFT)})"
                )
    if lost:
        raise CheckRefusedError(
            f"solved anew, patches would no longer erase what they cover: {'; '.join(lost)}; expected each covered "
            "concept to stay erased",
            hint="rasura takedown --anchor TEXT",
        )


def draft_cover(cover: Cover, ground: Ground, draft: Draft, *, ends: bool = False) -> Draft:
    """The entry that remembers a cover, or that it ended."""
    details = {
        "concept": cover.wanted.concept,
        "by": cover.by,
        "anchor": cover.wanted.anchor,
        "place": name_place(ground),
        **({_NAMES: NAMES_SIGN.join(cover.wanted.names)} if cover.wanted.names else {}),
        **cover.wanted.details,
    }
    return replace(
        draft,
        action=UNCOVER if ends else COVER,
        patches=(cover.patch,),
        base=ground.base.record.digest,
        details=details,
    )


def name_place(ground: Ground) -> str:
    """Where the ground is, in one spelling."""
    model = ground.place.model
    return f"stack {ground.place.stack}" if model is None else f"model {model.resolve()}"


def _remembered(registry: Registry, ground: Ground) -> Iterator[tuple[WantedConcept, str, bool]]:
    """Covers and their ends on this ground, the oldest first."""
    place = name_place(ground)
    entries = [e for action in (COVER, UNCOVER) for e in registry.entries(EntryFilter(action=action))]
    for entry in sorted(entries, key=lambda entry: entry.index):
        if entry.details.get("place") == place:
            said = {name: str(text) for name, text in entry.details.items()}
            ticket, received, requester, deadline = (said.get(name, "") for name in TICKET)
            names = tuple(filter(None, said.get(_NAMES, "").split(NAMES_SIGN)))
            wanted = WantedConcept(said["concept"], said["anchor"], (), ticket, received, requester, deadline, names)
            yield wanted, said["by"], entry.action == COVER
