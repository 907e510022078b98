"""How a concept is solved in a takedown: its method with all choices, and how a patch that is there was solved.

A takedown solves older patches anew beside the new one. Each keeps the method and the choices that its manifest tells
of: whoever erased a concept with `span` did not ask for `null-space`. What is alike is solved together; the others are
solved one after the other, each beside the targets of the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, cast

from rasura.patches.algebra.rank_rule import RankRule
from rasura.patches.erasers.catalogue import METHODS
from rasura.patches.erasers.closed_form.null_space import NullSpace
from rasura.patches.erasers.interface import Eraser
from rasura.patches.erasers.options import encode_options
from rasura.patches.errors import InputError
from rasura.patches.format.manifest import Manifest
from rasura.patches.prompts.concept_prompts import GENERIC_TEMPLATES
from rasura.patches.solving.from_manifest import eraser_of, is_trained

__all__ = ["GUARDS", "Recipe", "check_method", "encode_recipe", "make_recipe", "read_recipe"]

GUARDS: Final = (0.9999, 0.999, 0.99, 0.95)
"""Shares of each other concept's free energy to hold, from the careful to the loose; the composer judges what comes."""
_LAYERS: Final = "layers"


@dataclass(frozen=True, slots=True)
class Recipe:
    """A method with its choices, and what of model and prompts it works on.

    Attributes:
        eraser: the method with all its choices.
        layers: which layers, in the method's words.
        tokens: which tokens stand for the concept.
        rule: where the retained spectrum is cut.
    """

    eraser: Eraser
    layers: str
    tokens: str
    rule: RankRule

    @property
    def templates(self) -> tuple[str, ...]:
        """The prompts that a named version of a method has of its own; empty where it takes any."""
        own = self.eraser.defaults.templates
        return () if own == GENERIC_TEMPLATES else own

    @property
    def loosens(self) -> bool:
        """Whether it can hold less of the other concepts, where room is short."""
        return hasattr(self.eraser, "guard")

    @property
    def together(self) -> bool:
        """Whether what it made must be solved anew whenever something is added, for nothing is left alone exactly."""
        return bool(getattr(self.eraser, "together", False))

    def loosen(self, guard: float) -> Recipe:
        """The same, holding at most this share of the others' energy; the first of `GUARDS` changes nothing."""
        if not self.loosens or guard == GUARDS[0]:
            return self
        chosen: float = cast("Any", self.eraser).guard
        return replace(self, eraser=replace(cast("Any", self.eraser), guard=min(chosen, guard)))


def make_recipe(
    eraser: Eraser | None = None,
    *,
    layers: str | None = None,
    tokens: str | None = None,
    rank_rule: str | None = None,
) -> Recipe:
    """What somebody chose, with the method's own defaults where nothing was said.

    Args:
        eraser: the method; None: `null-space`.
        layers: which layers.
        tokens: which tokens stand for the concept.
        rank_rule: cut of the retained spectrum.

    Raises:
        InputError: a method that a takedown cannot solve, or a rank rule that is none.
    """
    method = NullSpace() if eraser is None else eraser
    check_method(method.name)
    own = method.defaults
    return Recipe(method, layers or own.layers, tokens or own.tokens, RankRule.parse(rank_rule or own.rule))


def read_recipe(manifest: Manifest) -> Recipe | None:
    """How a patch was solved; None where nothing here can solve it again.

    The share of the others that it holds is a takedown's to choose: where it is one of `GUARDS` it was chosen for want
    of room, which there may be now.
    """
    layers = manifest.eraser.options.get(_LAYERS)
    if layers is None or is_trained(manifest.eraser):
        return None
    try:
        eraser: Any = eraser_of(manifest.eraser)
    except InputError:
        return None
    if getattr(eraser, "guard", None) in GUARDS:
        eraser = replace(eraser, guard=type(eraser)().guard)
    basis = manifest.protected.basis
    # What promises nothing cuts no spectrum, and tells of no rule.
    rule = RankRule.parse(basis.rule if basis.rank else eraser.defaults.rule)
    return Recipe(eraser, layers, manifest.concept.tokens, rule)


def encode_recipe(recipe: Recipe) -> list[tuple[str, str]]:
    """The recipe as options of a command, each with its value: the method, and what is not its default."""
    default: Any = type(recipe.eraser)()
    mine, its = encode_options(recipe.eraser), encode_options(default)
    seed = getattr(recipe.eraser, "seed", None)
    own = default.defaults
    chosen = [("--set", f"{name}={text}") for name, text in mine.items() if its[name] != text]
    chosen += [("--seed", str(seed))] if seed != getattr(default, "seed", None) else []
    texts = (
        ("--layers", recipe.layers, own.layers),
        ("--tokens", recipe.tokens, own.tokens),
        ("--rank-rule", str(recipe.rule), own.rule),
    )
    return [("--method", recipe.eraser.name), *chosen, *((name, text) for name, text, usual in texts if text != usual)]


def check_method(name: str) -> None:
    """Refuse a method whose patches no takedown can solve anew when the next one comes.

    Raises:
        InputError: it trains, or changes the text encoder; those that would do are named.
    """
    known: Sequence[str] = [method.name for method in METHODS.values() if method.closed_form]
    if name not in known:
        raise InputError(
            f"method {name} cannot be taken down with: expected one of {', '.join(known)}; each takedown solves what "
            "stands beside it anew, in closed form and for the base's embeddings",
            hint=f"rasura erase --base MODEL --concept TEXT --method {name}",
            method=name,
            training=True,
        )
