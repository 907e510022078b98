"""What is erased already on the model, or in the stack, that a takedown comes to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rasura.patches.errors import UnsupportedHostError
from rasura.patches.prompts.concept_prompts import normal
from rasura.patches.types import SHORT, PatchId
from rasura.registry.erase.base_models import OpenBase, open_base
from rasura.registry.stacks.stack_ref import side_of
from rasura.registry.trust.retain_words import retained
from rasura.registry.trust.verified_patch import load_verified

if TYPE_CHECKING:
    from rasura.patches.algebra.stack import Stack
    from rasura.patches.format.patch import Patch
    from rasura.patches.prompts.retain_set import RetainSet
    from rasura.registry._storage.records import Draft
    from rasura.registry.registry import Registry

__all__ = ["Ground", "Place", "stand_on"]

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a takedown goes: a model on disk, or a stack by name; one of the two.

    Attributes:
        model: folder of the model.
        stack: name of the stack.
    """

    model: Path | None = None
    stack: str | None = None

    @property
    def source(self) -> str:
        """As people name it."""
        return f"@{self.model}" if self.stack is None else self.stack


@dataclass(frozen=True, slots=True, eq=False)
class Ground:
    """The patches that are there, verified anew, and their base, open.

    Attributes:
        registry: where they are kept.
        place: the model or the stack.
        base: the base with its weights and text encoder.
        patches: by identifier.
        strengths: of each.
    """

    registry: Registry
    place: Place
    base: OpenBase
    patches: Mapping[PatchId, Patch]
    strengths: Stack

    def erasing(self, concept: str) -> PatchId | None:
        """The patch that erases this concept by name."""
        wanted = normal(concept)
        return next((i for i, p in self.patches.items() if normal(p.manifest.concept.text) == wanted), None)

    def names(self, without: Iterable[PatchId] = ()) -> list[str]:
        """What is erased, besides by these patches."""
        gone = set(without)
        return [patch.manifest.concept.text for i, patch in self.patches.items() if i not in gone]

    def words(self, patch_id: PatchId) -> RetainSet | None:
        """The retain set that a patch was made with.

        Raises:
            NotFoundError: its words are not here.
        """
        protected = self.patches[patch_id].manifest.protected
        if protected.retain is None:
            return None
        names = (self.patches[patch_id].manifest.concept.text, *protected.concepts)
        return retained(self.registry, protected.retain, names=names)


def stand_on(registry: Registry, place: Place, draft: Draft, progress: Progress) -> Ground:
    """Look at what is there, open the base, verify every patch.

    Raises:
        NotFoundError: no such model or stack.
        DriftError: the model is not what the registry last wrote.
        UnsupportedHostError: a patch of the text encoder is applied: beside it, other embeddings count.
        VerificationError: a patch that does not count here.
    """
    goal = side_of(registry, place.source)
    base = open_base(registry, str(goal.base) if place.model is None else str(place.model), draft, progress)
    patches = {patch_id: load_verified(registry, patch_id) for patch_id in sorted(goal.patches)}
    for patch_id, patch in patches.items():
        if any(name.partition(".")[0].startswith("text_encoder") for name in patch.tensors.increments):
            raise UnsupportedHostError(
                f"{place.source} holds patch {patch_id[:SHORT]} ({patch.manifest.concept.text}), which changes the "
                "text encoder: expected patches of what reads it; a takedown is solved for the base's embeddings",
                hint=f"rasura erase --base MODEL --concept TEXT --protect {patch_id[:SHORT]}",
            )
    return Ground(registry, place, base, patches, goal.patches)
