"""What is erased already on the model, or in the stack, that a takedown comes to."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from rasura.patches.algebra.stack import Stack
from rasura.patches.algebra.strength import ONE
from rasura.patches.errors import RasuraError, UnsupportedHostError
from rasura.patches.format.patch import Patch
from rasura.patches.models.text_encoders.plain_text import normal
from rasura.patches.obstacles import Obstacles
from rasura.patches.prompts.retain_set import RetainSet
from rasura.patches.types import SHORT, PatchId
from rasura.registry._storage.records.records import Draft
from rasura.registry.apply.goal import Goal
from rasura.registry.erase.base_models import OpenBase, open_base
from rasura.registry.erase.encoded_texts import with_memory
from rasura.registry.registry import Registry
from rasura.registry.stacks.stack_ref import side_of
from rasura.registry.trust.check import Loaded, load_stack
from rasura.registry.trust.retain_words import find_retained

__all__ = ["Ground", "Place", "Sighted", "sight", "stand_on"]

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

    @property
    def option(self) -> str:
        """As a command is told."""
        return (
            f"--stack {shlex.quote(str(self.stack))}"
            if self.model is None
            else f"--model {shlex.quote(str(self.model))}"
        )


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

    def at_one(self, raised: Iterable[PatchId]) -> Ground:
        """The same with these patches at strength 1, at which they erase what they were made to erase."""
        return replace(self, strengths=Stack({**self.strengths, **dict.fromkeys(raised, ONE)}))

    def names(self, without: Iterable[PatchId] = ()) -> list[str]:
        """What is erased, besides by these patches."""
        gone = set(without)
        return [patch.manifest.concept.text for i, patch in self.patches.items() if i not in gone]

    def spoken(self, without: Iterable[PatchId] = ()) -> list[str]:
        """What is erased by all its names, besides by these patches."""
        gone = set(without)
        manifests = [patch.manifest for i, patch in self.patches.items() if i not in gone]
        return [name for manifest in manifests for name in (manifest.concept.text, *manifest.names)]

    def words(self, patch_id: PatchId) -> RetainSet | None:
        """The retain set that a patch was made with.

        Raises:
            NotFoundError: its words are not here.
        """
        protected = self.patches[patch_id].manifest.protected
        if protected.retain is None:
            return None
        names = (self.patches[patch_id].manifest.concept.text, *protected.concepts)
        return find_retained(self.registry, protected.retain, names=names)


@dataclass(frozen=True, slots=True, eq=False)
class Sighted:
    """What is there, with every patch verified anew, before anything of the base is read."""

    goal: Goal
    loaded: Loaded


def sight(registry: Registry, place: Place, obstacles: Obstacles) -> Sighted | None:
    """Look at what is there; what is found wrong is noted, all of it. None where there is no such place."""
    try:
        goal = side_of(registry, place.source)
    except RasuraError as error:
        obstacles.add(error)
        return None
    loaded = load_stack(registry, goal.patches, in_force=goal.patches, obstacles=obstacles)
    for member in loaded.stack:
        patch, patch_id = member.patch, member.patch_id
        if any(name.partition(".")[0].startswith("text_encoder") for name in patch.tensors.increments):
            obstacles.add(
                UnsupportedHostError(
                    f"{place.source} holds patch {patch_id[:SHORT]} ({patch.manifest.concept.text}), which changes the "
                    "text encoder: expected patches of what reads it; a takedown is solved for the base's embeddings",
                    hint=f"rasura erase --base MODEL --concept TEXT --protect {patch_id[:SHORT]}",
                )
            )
    return Sighted(goal, loaded)


def stand_on(
    registry: Registry, place: Place, draft: Draft, progress: Progress, sighted: Sighted | None = None
) -> Ground:
    """Look at what is there, verify every patch, open the base.

    Args:
        registry: which says what is there.
        place: the model or the stack.
        draft: of a base that is seen first.
        progress: told what is going on.
        sighted: what somebody saw there just now.

    Raises:
        NotFoundError: no such model or stack.
        DriftError: the model is not what the registry last wrote.
        UnsupportedHostError: a patch of the text encoder is applied: beside it, other embeddings count.
        VerificationError: a patch that does not count here.
        RasuraError: of several of these the first, with the others in `others`.
    """
    obstacles = Obstacles()
    seen = sighted or sight(registry, place, obstacles)
    obstacles.refuse()
    assert seen is not None
    goal = seen.goal
    base = open_base(registry, str(goal.base) if place.model is None else str(place.model), draft, progress)
    return Ground(
        registry, place, with_memory(registry, base), {m.patch_id: m.patch for m in seen.loaded.stack}, goal.patches
    )
