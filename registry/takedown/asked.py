"""What is asked for against what is there: what is erased already, what takes an older patch's place, what is new.

A patch erases at strength 1; at any other it does less, more or the opposite, and its concept is not erased.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rasura.patches.algebra.strength import ONE
from rasura.patches.errors import ConceptError
from rasura.patches.models.text_encoders.plain_text import normal
from rasura.patches.prompts.concept_prompts import AUTO
from rasura.patches.types import SHORT, PatchId
from rasura.registry.takedown.coverage import Cover
from rasura.registry.takedown.ground import Ground
from rasura.registry.takedown.solving.recipe import Recipe, make_recipe, read_recipe
from rasura.registry.takedown.wanted import WantedConcept

__all__ = ["Asked", "sort_out"]


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """What is to be done of what was asked for.

    Attributes:
        already: concepts that are erased as they are wanted, and by which patch.
        raised: wanted concepts whose patches are as they are wanted, but not at strength 1, which they get now.
        changed: older patches of wanted concepts that get another anchor, further names or another method.
        new: what is to be erased, with what those older patches say where nobody said otherwise.
        recipes: how each of these is solved, by its concept in one spelling.
    """

    already: Mapping[str, PatchId]
    raised: Mapping[WantedConcept, PatchId]
    changed: frozenset[PatchId]
    new: tuple[WantedConcept, ...]
    recipes: Mapping[str, Recipe]


def sort_out(
    ground: Ground, covered: Sequence[Cover], wanted: Sequence[WantedConcept], recipe: Recipe | None = None
) -> Asked:
    """Tell what is erased already from what is not, or not so.

    Args:
        ground: what is there.
        covered: concepts that are erased by others' patches there.
        wanted: what was asked for.
        recipe: how, where somebody said it; a concept that is there then takes it, too.

    Raises:
        ConceptError: another name of a concept that a patch of another one erases already.
    """
    _check_names(ground, wanted)
    known = {normal(cover.wanted.concept): cover.patch for cover in covered}
    already: dict[str, PatchId] = {}
    raised: dict[WantedConcept, PatchId] = {}
    changed: set[PatchId] = set()
    new: list[WantedConcept] = []
    recipes: dict[str, Recipe] = {}
    for item in wanted:
        name, found = normal(item.concept), ground.erasing(item.concept)
        own = None if found is None else read_recipe(ground.patches[found].manifest)
        as_wanted = known.get(name)
        if as_wanted is None and found is not None and _is_so(ground, found, item) and recipe in {None, own}:
            as_wanted = found
        if as_wanted is not None and ground.strengths[as_wanted] == ONE:
            already[item.concept] = as_wanted
        elif as_wanted is not None:
            raised[item] = as_wanted
        elif found is None:
            recipes[name] = recipe or make_recipe()
            new.append(_with_templates(item, recipe))
        else:
            changed.add(found)
            recipes[name] = recipe or own or make_recipe()
            new.append(_with_templates(_as_it_was(ground, found, item), recipe))
    return Asked(already, raised, frozenset(changed), tuple(new), recipes)


def _is_so(ground: Ground, patch_id: PatchId, item: WantedConcept) -> bool:
    """Whether a patch erases the concept to this anchor, by all these names."""
    manifest = ground.patches[patch_id].manifest
    named = {normal(name) for name in (manifest.concept.text, *manifest.names)}
    same = item.anchor == AUTO or normal(item.anchor) == normal(manifest.concept.anchor)
    return same and named.issuperset(map(normal, item.names))


def _as_it_was(ground: Ground, patch_id: PatchId, item: WantedConcept) -> WantedConcept:
    """What is wanted, with the anchor and the names of the patch that is there, where none were said."""
    manifest = ground.patches[patch_id].manifest
    anchor = manifest.concept.anchor if item.anchor == AUTO and manifest.concept.anchor else item.anchor
    names = tuple(name for name in (*item.names, *manifest.names) if normal(name) != normal(anchor))
    return replace(item, anchor=anchor, names=names)


def _with_templates(item: WantedConcept, recipe: Recipe | None) -> WantedConcept:
    """A method that was named brings its own prompts, where it has any."""
    return replace(item, templates=item.templates or (recipe.templates if recipe else ()))


def _check_names(ground: Ground, wanted: Sequence[WantedConcept]) -> None:
    """Two patches of one word would each be another's target: no detector sees one and not the other."""
    owners = {
        normal(name): patch_id
        for patch_id, patch in ground.patches.items()
        for name in (patch.manifest.concept.text, *patch.manifest.names)
    }
    for item in wanted:
        for name in item.names:
            patch_id = owners.get(normal(name))
            concept = "" if patch_id is None else ground.patches[patch_id].manifest.concept.text
            if patch_id is not None and normal(concept) != normal(item.concept):
                raise ConceptError(
                    f"{item.concept} is to be called {name}, too, which patch {patch_id[:SHORT]} ({concept}) erases "
                    f"already: expected names that no other concept has; leave {name} out, or take {concept} back "
                    "first",
                    hint=f"rasura withdraw {shlex.quote(concept)} {ground.place.option}",
                )
