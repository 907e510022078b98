"""What somebody wants taken down, as a person or a file says it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rasura.patches.errors import InputError
from rasura.patches.models.text_encoders.plain_text import normal
from rasura.patches.prompts.concept_prompts import AUTO, Target, check_template
from rasura.patches.prompts.retain_set import find_named, naming

__all__ = ["TICKET", "WantedConcept", "check_anchors_stay", "check_wanted", "keep_unnamed", "list_wanted"]

TICKET: Final = ("ticket", "received_at", "requester", "deadline")
"""What a request may say of itself; goes into the log as it stands."""
MAX_TEXT: Final = 200
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2})?(Z|[+-]\d{2}:\d{2})?)?")


@dataclass(frozen=True, slots=True)
class WantedConcept:
    """One concept to take down.

    Attributes:
        concept: what no picture shall show any more.
        anchor: what it becomes; `auto` takes the nearest of the retain list that is not erased itself.
        templates: prompts with one `{}`; empty takes those of the call.
        ticket: number or link of the request.
        received_at: when it came, a date or time of ISO 8601.
        requester: who asked.
        deadline: until when, a date or time of ISO 8601.
        names: what else it is called; see `rasura.patches.prompts.concept_prompts.Target`.
    """

    concept: str
    anchor: str = AUTO
    templates: tuple[str, ...] = ()
    ticket: str = ""
    received_at: str = ""
    requester: str = ""
    deadline: str = ""
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", Target(self.concept, self.anchor, (), self.names).names)
        for template in self.templates:
            check_template(template)
        for name in TICKET:
            text = getattr(self, name)
            if len(text) > MAX_TEXT or not text.isprintable():
                raise InputError(
                    f"{name} of {self.concept!r}: expected at most {MAX_TEXT} printable characters, got {len(text)}"
                )
        for name in ("received_at", "deadline"):
            text = getattr(self, name)
            if text and not _DATE.fullmatch(text):
                raise InputError(f"{name} of {self.concept!r}: expected a date such as 2026-11-28, got {text!r}")

    @property
    def spoken(self) -> tuple[str, ...]:
        """Everything that it is called, the concept first."""
        return (self.concept, *self.names)

    @property
    def details(self) -> dict[str, str]:
        """What of the ticket was said, for the log."""
        return {name: text for name in TICKET if (text := getattr(self, name))}


def list_wanted(
    concepts: Sequence[str],
    anchors: Sequence[str],
    templates: Sequence[tuple[str, ...]],
    names: Sequence[tuple[str, ...]] = (),
) -> tuple[WantedConcept, ...]:
    """What was said on one line: anchors and templates are one for all, or one each, or none; names are one set each.

    Raises:
        InputError: another number of them.
    """
    for what, given in (("anchors", anchors), ("sets of templates", templates)):
        if len(given) not in {0, 1, len(concepts)}:
            raise InputError(f"{len(concepts)} concepts and {len(given)} {what}: expected one for all, or one each")
    own = [*templates] if len(templates) == len(concepts) else [templates[0] if templates else ()] * len(concepts)
    becomes = [*anchors] if len(anchors) == len(concepts) else [anchors[0] if anchors else AUTO] * len(concepts)
    called = names or [()] * len(concepts)
    return tuple(
        WantedConcept(concept, anchor, prompts, names=others)
        for concept, anchor, prompts, others in zip(concepts, becomes, own, called, strict=True)
    )


def check_wanted(wanted: Sequence[WantedConcept]) -> None:
    """Refuse a list that names a concept twice, by whatever name, or as the anchor of another one.

    Raises:
        InputError: naming all of them.
    """
    names = [normal(name) for item in wanted for name in item.spoken]
    flaws = [f"{name} is named twice" for name in dict.fromkeys(names) if names.count(name) > 1]
    for item in wanted:
        erased = naming(name for other in wanted if other is not item for name in other.spoken)
        if item.anchor not in {AUTO, ""} and erased(item.anchor):
            flaws.append(f"{item.concept} would become {item.anchor}, which is to be erased, too")
    if flaws:
        said = "; ".join(flaws) + ": expected each concept once, and anchors that stay"
        raise InputError(said, hint="--anchor auto", repeated=flaws)


def check_anchors_stay(wanted: Sequence[WantedConcept], erased: Mapping[str, str]) -> None:
    """Refuse anchors that name what is erased already: the concept would be drawn again, under another word.

    Args:
        wanted: what is asked for.
        erased: by every name of what is erased, what does it, as people are told; at whatever strength that stands.

    Raises:
        InputError: naming all of them.
    """
    flaws = []
    for item in wanted:
        named = None if item.anchor in {AUTO, ""} else find_named(item.anchor, erased, item.spoken)
        if named is not None:
            flaws.append(f"{item.concept} would become {item.anchor}, and {named} is what {erased[named]} erases")
    if flaws:
        raise InputError("; ".join(flaws) + ": expected anchors that are still drawn", hint="--anchor auto")


def keep_unnamed(templates: Sequence[str], concept: str, others: Sequence[str]) -> tuple[str, ...]:
    """The templates that name none of the other erased concepts: in such prompts two erasures would meet.

    "a cat in {} style" is no place to erase a style where cats are erased, too: its target would hold the cat.

    Raises:
        InputError: none is left.
    """
    named = naming(others)
    left = tuple(template for template in templates if not named(template))
    if not left:
        raise InputError(
            f"every template of {concept} names another erased concept: expected at least one that does not, got "
            f"{len(templates)} such as {templates[0]!r}",
            hint="--templates FILE",
        )
    return left
