"""Which concepts become what, and what must stay: what a person asks for, without the method."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch

from rasura.patches.algebra.rank_rule import RankRule
from rasura.patches.errors import ConceptError, InputError
from rasura.patches.models.text_encoders.plain_text import normal
from rasura.patches.prompts.concept_prompts import (
    GENERIC_TEMPLATES,
    HELD_OUT,
    TOKEN_CHOICES,
    Target,
    check_template,
    prompts_of,
)
from rasura.patches.prompts.retain_set import RetainSet, naming
from rasura.patches.types import PatchId


@dataclass(frozen=True, slots=True)
class ConceptRequest:
    """Everything that decides a patch, besides the model and the method.

    Attributes:
        targets: concepts and what each becomes.
        retain: what must stay as it is, without the targets.
        templates: prompts with one `{}`, for targets without templates of their own; retained and held-out concepts
            stand in all templates of the request.
        tokens: which tokens stand for the concept.
        layers: which layers, in the eraser's words.
        rule: where the retained spectrum is cut.
        held_out: concepts on which leak is only measured.
        held_out_from: the list that they were read from; its texts may be whole prompts, which stand in no template.
        guarded: rows [m, d] of registered patches' targets that must not be touched either, by patch.
        guarded_apart: the same rows as further spaces of text have them, by patch and space.
        guarded_prompts: the prompts of those patches' concepts, for methods that protect whole prompts.
        licence: SPDX id or name for the patch.
        anchors: general concepts among which the anchor `auto` is looked for; empty: everyday words.
        retained_in: templates in which retained and held-out concepts stand; empty: those of all targets.
        unnamed: further concepts that no retained and no held-out prompt may name.
        supersedes: patches that a concept's new one takes the place of, by concept.
    """

    targets: tuple[Target, ...]
    retain: RetainSet | None
    templates: tuple[str, ...] = GENERIC_TEMPLATES
    tokens: str = "tail"
    layers: str = "v"
    rule: RankRule = field(default_factory=RankRule)
    held_out: tuple[str, ...] = HELD_OUT
    guarded: Mapping[PatchId, torch.Tensor] = field(default_factory=dict)
    guarded_apart: Mapping[PatchId, Mapping[str, torch.Tensor]] = field(default_factory=dict)
    guarded_prompts: Mapping[PatchId, tuple[str, ...]] = field(default_factory=dict)
    licence: str = ""
    anchors: tuple[str, ...] = ()
    retained_in: tuple[str, ...] = ()
    unnamed: tuple[str, ...] = ()
    supersedes: Mapping[str, tuple[PatchId, ...]] = field(default_factory=dict)
    held_out_from: RetainSet | None = None

    def __post_init__(self) -> None:
        if not self.targets:
            raise ConceptError("no concept to erase: expected at least one", hint="--concept TEXT")
        names = [normal(name) for target in self.targets for name in target.spoken]
        if len(set(names)) != len(names):
            named = ", ".join(name for target in self.targets for name in target.spoken)
            twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
            raise ConceptError(f"a concept is named twice: {named}", hint="--concept TEXT", repeated=twice)
        if self.tokens not in TOKEN_CHOICES:
            raise InputError(f"token choice {self.tokens!r}: expected one of {', '.join(TOKEN_CHOICES)}")
        if not self.templates:
            raise ConceptError("no template: expected at least one", hint="--template '{}'")
        for template in (*self.templates, *self.retained_in):
            check_template(template)

    @property
    def all_templates(self) -> tuple[str, ...]:
        """The templates of retained and held-out prompts: by default those of every target, each once."""
        return self.retained_in or tuple(dict.fromkeys(t for own in self.targets for t in self.templates_of(own)))

    def templates_of(self, target: Target) -> tuple[str, ...]:
        """The target's own templates, or the request's."""
        return target.templates or self.templates

    @property
    def names(self) -> tuple[str, ...]:
        """The concepts to erase."""
        return tuple(target.concept for target in self.targets)

    @property
    def spoken(self) -> tuple[str, ...]:
        """The concepts to erase by all their names: no prompt that is kept or only measured may hold one."""
        return tuple(name for target in self.targets for name in target.spoken)

    def prompts(self, concepts: Iterable[str]) -> Iterator[str]:
        """Concepts in every template of the request; no prompt that names a target."""
        return (prompt for prompt, _ in self._phrases(concepts, self.all_templates))

    @property
    def retained_templates(self) -> tuple[str, ...]:
        """In which templates the retain set's lines stand: whole prompts stand alone."""
        return ("{}",) if self.retain and self.retain.whole else self.all_templates

    @property
    def retained_count(self) -> int:
        """How many retained prompts there are at most."""
        return len(self.retain.concepts) * len(self.retained_templates) if self.retain else 0

    @property
    def held_out_templates(self) -> tuple[str, ...]:
        """In which templates the held-out texts stand."""
        return ("{}",) if self.held_out_from and self.held_out_from.whole else self.all_templates

    def retained_phrases(self) -> Iterator[tuple[str, str]]:
        """Every retained prompt with the phrase that stands in it; one after the other, never all in memory."""
        return self._phrases(self.retain.concepts if self.retain else (), self.retained_templates)

    def retained_prompts(self) -> Iterator[str]:
        """Every retained prompt."""
        return (prompt for prompt, _ in self.retained_phrases())

    def held_out_prompts(self) -> Iterator[str]:
        """Every prompt on which leak is only measured: of no target and of nothing that is retained."""
        known = {normal(name) for name in (*self.spoken, *(self.retain.concepts if self.retain else ()))}
        left = (concept for concept in self.held_out if normal(concept) not in known)
        return (prompt for prompt, _ in self._phrases(left, self.held_out_templates))

    def _phrases(self, concepts: Iterable[str], templates: tuple[str, ...]) -> Iterator[tuple[str, str]]:
        names_target = naming((*self.spoken, *self.unnamed))
        return ((p, c) for c in concepts for p in prompts_of(c, templates) if not names_target(p))
