"""Concepts as prompts, prompts as token embeddings, and which tokens of a prompt stand for the concept.

A diffusion model of the Stable Diffusion family reads all 77 positions of the text encoder's last hidden state (after
the final layer norm, no attention mask). CLIP's attention is causal, so every position from the subject's first token
on knows the concept: the end-of-text and padding positions too. Which of them an erasure maps is a choice:

    last     the last subject token only (what SPEED's code does); the positions after it still carry the concept
    subject  all tokens of the subject
    tail     the subject and every position after it, aligned with the anchor's by distance from the last subject token;
             where a T5 reads the prompt, which looks ahead, the positions before it, too
    end      the last subject token and every position after it (what UCE's first code does)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch

from rasura.patches._io.json_fields import show
from rasura.patches.errors import ConceptError
from rasura.patches.format.manifest import NAMES_SIGN
from rasura.patches.models.text_encoders.clip_or_t5 import PhrasePosition
from rasura.patches.models.text_encoders.plain_text import check_plain, normal
from rasura.patches.models.text_encoders.text_encoder import TextEncoder

TOKEN_CHOICES: Final = ("last", "subject", "tail", "end")
SLOT: Final = "{}"
AUTO: Final = "auto"
"""In place of an anchor: the nearest general concept that draws something else. A car, too, may be called so."""
_NAMES_LIMIT: Final = 4096  # characters of a text in a manifest
BARE: Final = (SLOT,)
"""The concept alone, as most published code erases it."""
GENERIC_TEMPLATES: Final = (
    "{}",
    "a {}",
    "a photo of a {}",
    "an image of a {}",
    "a picture of {}",
    "a drawing of a {}",
    "the {}",
    "{} style",
)

HELD_OUT: Final = (
    "tree", "river", "mountain", "chair", "table", "clock", "book", "lamp", "window", "bridge", "boat", "train",
    "horse", "elephant", "fish", "bird", "bread", "cheese", "shoe", "hat", "phone", "computer", "cloud", "sun",
    "child", "woman", "man", "crowd", "city", "beach", "forest", "garden",
)  # fmt: skip
"""Everyday words on which leak is measured when a request names no held-out concepts of its own."""


@dataclass(frozen=True, slots=True)
class Target:
    """A concept to erase and the concept that it becomes.

    Attributes:
        concept: what no picture shall show any more.
        anchor: what prompts of the concept show instead; "" is nothing.
        templates: prompts with one `{}` in which this concept stands; empty takes those of the request.
        names: what else it is called: synonyms, translations, descriptive names. Kept sorted, each once, so that
            whoever lists them in another order asks for the same.
    """

    concept: str
    anchor: str
    templates: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_concept(self.concept)
        self._sort_names()
        for template in self.templates:
            check_template(template)
        check_plain(self.anchor)
        if self.anchor != AUTO and normal(self.concept) == normal(self.anchor):
            raise ConceptError(
                f"concept {show(self.concept)} equals its anchor: expected another, more general concept",
                hint="--anchor TEXT",
            )

    @property
    def spoken(self) -> tuple[str, ...]:
        """Everything that it is called, the concept first."""
        return (self.concept, *self.names)

    def _sort_names(self) -> None:
        """Refuse names that are none, and put the others into an order of their own.

        Raises:
            ConceptError: an empty name, one with the sign that separates names in a manifest, or the anchor; one text
                in place of a tuple, whose letters would be names.
        """
        given: object = self.names
        if isinstance(given, str):
            raise ConceptError(
                f"the names of {show(self.concept)} are one text: expected a tuple such as ({given!r},)",
                hint="--also-called NAME",
            )
        found: dict[str, str] = {}
        for name in sorted(self.names):
            if not name.strip():
                raise ConceptError(
                    f"a name of {show(self.concept)} is empty: expected a word or phrase", hint="--also-called NAME"
                )
            check_concept(name)
            if NAMES_SIGN in name:
                raise ConceptError(f"name {show(name)} holds {NAMES_SIGN!r}: expected a word or phrase without it")
            if self.anchor != AUTO and normal(name) == normal(self.anchor):
                raise ConceptError(
                    f"{show(name)} is named as {show(self.concept)} and as its anchor: expected one of both",
                    hint="--anchor TEXT",
                )
            found.setdefault(normal(name), " ".join(name.split()))
        found.pop(normal(self.concept), None)
        if (size := len(NAMES_SIGN.join(found.values()))) > _NAMES_LIMIT:
            raise ConceptError(
                f"the names of {show(self.concept)} have {size} characters together: expected at most {_NAMES_LIMIT}"
            )
        object.__setattr__(self, "names", tuple(found[key] for key in sorted(found)))


def check_concept(text: str) -> None:
    """Refuse what no prompt can name.

    Raises:
        ConceptError: empty, or with control characters.
    """
    if not text.strip():
        raise ConceptError("the concept is empty: expected a word or phrase", hint="--concept TEXT")
    check_plain(text)


def check_template(template: str) -> None:
    """Refuse a template that does not hold exactly one `{}`.

    Raises:
        ConceptError: otherwise, or with control characters.
    """
    if template.count(SLOT) != 1:
        raise ConceptError(
            f"template {show(template)} holds {template.count(SLOT)} times {{}}: expected once",
            hint="--template 'a photo of a {}'",
        )
    check_plain(template)


def prompts_of(concept: str, templates: Sequence[str]) -> tuple[str, ...]:
    """The concept in each template; an empty concept leaves the template's own words."""
    return tuple(" ".join(template.replace(SLOT, concept).split()) for template in templates)


def find_token_positions(encoder: TextEncoder, prompt: str, phrase: str, tokens: str) -> list[int]:
    """Positions of a prompt that stand for a phrase in it, in rising order.

    Args:
        encoder: the model's text encoder.
        prompt: the whole prompt.
        phrase: what stands in it.
        tokens: one of `TOKEN_CHOICES`.

    Raises:
        ConceptError: the phrase does not stand in the prompt as tokens of its own.
    """
    return [position for place in encoder.places(prompt, phrase) for position in _chosen(place, tokens)]


def _chosen(place: PhrasePosition, tokens: str) -> range:
    own = place.subject
    match tokens:
        case "last":
            return range(own[-1], own[-1] + 1)
        case "subject":
            return own
        case "end":
            return range(own[-1], place.stop)
        case _:
            return range(place.start, place.stop)


def align_columns(
    encoder: TextEncoder, target: Target, templates: Sequence[str], tokens: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings to erase and embeddings they become, column by column.

    Positions are paired by distance from the last subject token; where the anchor has fewer subject tokens, its first
    stands in for the missing ones. Every name of the concept stands in every template.

    Args:
        encoder: the model's text encoder.
        target: concept, its other names, and anchor.
        templates: texts with one `{}` each.
        tokens: one of `TOKEN_CHOICES`.

    Returns:
        C1 and C*, each [d, n] float64.
    """
    sources = [(prompt, name) for name in target.spoken for prompt in prompts_of(name, templates)]
    goals = prompts_of(target.anchor, templates)
    hidden, wanted = encoder.encode_all([prompt for prompt, _ in sources]), encoder.encode_all(goals)
    pairs = [
        list(_pairs(encoder.places(*source), encoder.places(goals[i % len(goals)], target.anchor), tokens))
        for i, source in enumerate(sources)
    ]
    C1 = torch.cat([hidden[i, [a for a, _ in pair]] for i, pair in enumerate(pairs)])
    C_star = torch.cat([wanted[i % len(goals), [b for _, b in pair]] for i, pair in enumerate(pairs)])
    return C1.T.contiguous(), C_star.T.contiguous()


def _pairs(
    sources: Sequence[PhrasePosition], goals: Sequence[PhrasePosition], tokens: str
) -> Iterator[tuple[int, int]]:
    for source, goal in zip(sources, goals, strict=True):
        yield from pair_positions(source, goal, tokens)


def pair_positions(source: PhrasePosition, goal: PhrasePosition, tokens: str) -> list[tuple[int, int]]:
    """Which position of a prompt becomes which of its anchor's."""
    own, theirs = source.subject, goal.subject
    last, end = own[-1], theirs[-1]
    if tokens == "last":
        return [(last, end)]
    subject = [(position, max(theirs[0], end - (last - position))) for position in own]
    if tokens == "subject":
        return subject
    known = [(position, min(position, theirs[0])) for position in range(source.start, own[0])]  # the same words
    before = [*known, *subject] if tokens == "tail" else [(last, end)]
    return before + [(last + j, end + j) for j in range(1, min(source.stop - last, goal.stop - end))]
