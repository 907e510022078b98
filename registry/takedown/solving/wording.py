"""In which words a takedown is solved: what is erased in the end, in which prompts, what each becomes, what is kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from rasura.patches.format.manifest import Manifest
from rasura.patches.models.text_encoders.plain_text import normal
from rasura.patches.prompts.concept_prompts import AUTO, GENERIC_TEMPLATES, Target, prompts_of
from rasura.patches.prompts.retain_set import RetainSet, naming
from rasura.patches.types import PatchId
from rasura.registry.takedown.ground import Ground
from rasura.registry.takedown.wanted import WantedConcept, keep_unnamed

__all__ = ["Wording"]


@dataclass(frozen=True, slots=True, eq=False)
class Wording:
    """What is there, what goes, and what is wanted, as prompts; the same in every attempt.

    Attributes:
        ground: what is there.
        gone: patches of the ground that are to go.
        wanted: what is to be erased besides.
        retain: what to keep, besides what the older patches keep; None: only that.
        templates: prompts with one `{}` for what brings none of its own; empty: those of the ground's patches.
    """

    ground: Ground
    gone: frozenset[PatchId]
    wanted: tuple[WantedConcept, ...]
    retain: RetainSet | None
    templates: tuple[str, ...]

    @property
    def staying(self) -> Iterator[PatchId]:
        """The patches that are not to go; what they erase stays erased."""
        return (i for i in self.ground.patches if i not in self.gone)

    @property
    def erased(self) -> list[str]:
        """Everything that is erased in the end, by all its names."""
        return [*self.ground.spoken(self.gone), *(name for item in self.wanted for name in item.spoken)]

    def becomes_erased(self, manifest: Manifest) -> bool:
        """Whether what a patch shows in place of its concept is erased in the end: that would be drawn again."""
        return naming(self._others((manifest.concept.text, *manifest.names)))(manifest.concept.anchor)

    def becomes_wanted(self, manifest: Manifest) -> bool:
        """Whether what a patch shows in place of its concept is to be erased now."""
        return naming(name for item in self.wanted for name in item.spoken)(manifest.concept.anchor)

    def general(self, words: RetainSet | None) -> tuple[str, ...]:
        """What anything may become: what is kept and stays."""
        if words is None or words.whole:
            return ()
        stays = naming(self.erased)
        return tuple(word for word in words.concepts if not stays(word))

    def target(self, item: WantedConcept) -> Target:
        """What is wanted, in the prompts that name nothing else that is erased."""
        templates = item.templates or self.templates or self._shared_templates()
        own = keep_unnamed(templates, item.concept, self._others(item.spoken))
        return Target(item.concept, item.anchor, own, item.names)

    def target_again(self, patch_id: PatchId) -> Target:
        """What an older patch erases, in those of its prompts that name nothing else that is erased now."""
        manifest = self.ground.patches[patch_id].manifest
        concept = manifest.concept
        templates = keep_unnamed(concept.templates, concept.text, self._others((concept.text, *manifest.names)))
        return Target(concept.text, self._anchor_again(manifest), templates, manifest.names)

    def all_templates(self, again: Sequence[PatchId]) -> tuple[str, ...]:
        """The templates of these older patches and of what is wanted, each once: retained words stand in all."""
        old = [self.target_again(i).templates for i in again]
        new = [self.target(item).templates for item in self.wanted]
        return tuple(dict.fromkeys(template for own in (*old, *new) for template in own))

    def words(self, again: Sequence[PatchId]) -> RetainSet | None:
        """What is asked for and what the older patches keep, less what is erased in the end.

        Words keep their first place, so that the same lists in the same order give the same digest.

        Args:
            again: the older patches in whose templates words stand where lists of prompts are among the others.
        """
        sets = [found for i in sorted(self.ground.patches) if (found := self.ground.words(i)) is not None]
        if self.retain is not None:
            sets.append(self.retain)
        if not sets:
            return None
        whole = any(own.whole for own in sets)
        if whole:  # lists of prompts and lists of concepts: all as prompts
            templates = self.all_templates(again)
            sets = [own if own.whole else _as_prompts(own, templates) for own in sets]
        concepts = tuple(dict.fromkeys(word for own in sets for word in own.concepts))
        source = ", ".join(dict.fromkeys(name for own in sets for name in own.source.split(", ")))
        first = self.retain or sets[0]
        # A promise to keep what is erased could not be held.
        cut = max(own.cut for own in sets)
        return replace(first, source=source, concepts=concepts, whole=whole, cut=cut).without(self.erased)

    def _others(self, own: Sequence[str]) -> list[str]:
        """What else is erased in the end than what is called so."""
        mine = set(map(normal, own))
        return [name for name in self.erased if normal(name) not in mine]

    def _anchor_again(self, manifest: Manifest) -> str:
        """What it became; where that is to be erased now, what that becomes."""
        concept, spoken = manifest.concept, (manifest.concept.text, *manifest.names)
        for item in self.wanted:
            if naming(item.spoken)(concept.anchor):
                return item.anchor if normal(item.anchor) not in map(normal, spoken) else AUTO
        return AUTO if self.becomes_erased(manifest) else concept.anchor

    def _shared_templates(self) -> tuple[str, ...]:
        """Those of the patches that are there, if they agree; else the generic ones."""
        known = {patch.manifest.concept.templates for patch in self.ground.patches.values()}
        return known.pop() if len(known) == 1 else GENERIC_TEMPLATES


def _as_prompts(words: RetainSet, templates: Sequence[str]) -> RetainSet:
    prompts = tuple(dict.fromkeys(prompt for word in words.concepts for prompt in prompts_of(word, templates)))
    return replace(words, concepts=prompts, whole=True)
