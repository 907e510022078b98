"""What a person asks for: which concepts become what, what must stay, and how to solve it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rasura.patches.base import LAYERS
from rasura.patches.concepts import (
    GENERIC_TEMPLATES,
    HELD_OUT,
    TOKEN_CHOICES,
    Target,
    check_template,
    normal,
    prompts_of,
)
from rasura.patches.erasers.nullspace import NullSpaceOptions
from rasura.patches.errors import ConceptError, InputError
from rasura.patches.names import PatchId
from rasura.patches.retain import RetainSet, naming
from rasura.patches.subspace import RankRule

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class EraseRequest:
    """Everything that decides a patch, besides the model.

    Attributes:
        targets: concepts and what each becomes.
        retain: what must stay as it is, without the targets.
        templates: prompts with one `{}`, for targets without templates of their own; retained and held-out concepts
            stand in all templates of the request.
        tokens: which tokens stand for the concept.
        layers: "k", "v" or "kv".
        rule: where the retained spectrum is cut.
        options: choices of the method.
        held_out: concepts on which leak is only measured.
        guarded: rows [m, d] of registered patches' targets that must not be touched either, by patch.
        licence: SPDX id or name for the patch.
    """

    targets: tuple[Target, ...]
    retain: RetainSet | None
    templates: tuple[str, ...] = GENERIC_TEMPLATES
    tokens: str = "tail"
    layers: str = "v"
    rule: RankRule = field(default_factory=RankRule)
    options: NullSpaceOptions = field(default_factory=NullSpaceOptions)
    held_out: tuple[str, ...] = HELD_OUT
    guarded: Mapping[PatchId, torch.Tensor] = field(default_factory=dict)
    licence: str = ""

    def __post_init__(self) -> None:
        if not self.targets:
            raise ConceptError("no concept to erase: expected at least one", hint="--concept TEXT")
        names = [normal(target.concept) for target in self.targets]
        if len(set(names)) != len(names):
            named = ", ".join(target.concept for target in self.targets)
            raise ConceptError(f"a concept is named twice: {named}", hint="--concept TEXT")
        if self.tokens not in TOKEN_CHOICES:
            raise InputError(f"token choice {self.tokens!r}: expected one of {', '.join(TOKEN_CHOICES)}")
        if self.layers not in LAYERS:
            raise InputError(f"layers {self.layers!r}: expected one of {', '.join(LAYERS)}")
        if not self.templates:
            raise ConceptError("no template: expected at least one", hint="--template '{}'")
        for template in self.templates:
            check_template(template)

    @property
    def all_templates(self) -> tuple[str, ...]:
        """The templates of every target, each once."""
        return tuple(dict.fromkeys(t for target in self.targets for t in self.templates_of(target)))

    def templates_of(self, target: Target) -> tuple[str, ...]:
        """The target's own templates, or the request's."""
        return target.templates or self.templates

    def prompts(self, concepts: Iterable[str]) -> list[str]:
        """Concepts in every template of the request; no prompt that names a target."""
        names_target = naming(target.concept for target in self.targets)
        return [p for c in concepts for p in prompts_of(c, self.all_templates) if not names_target(p)]
