"""A request with the eraser's own defaults where nothing else is said: for the command line and for Python alike."""

from __future__ import annotations

from rasura.patches.algebra.rank_rule import RankRule
from rasura.patches.erasers.interface import Eraser
from rasura.patches.erasers.request import EraseRequest
from rasura.patches.errors import InputError, RetainSetError
from rasura.patches.prompts.concept_prompts import HELD_OUT, Target
from rasura.patches.prompts.retain_set import HeldOut, RetainSet

__all__ = ["request_for"]


def request_for(
    eraser: Eraser,
    targets: tuple[Target, ...],
    retain: RetainSet | None,
    *,
    strict: bool = False,
    layers: str | None = None,
    tokens: str | None = None,
    rank_rule: str | None = None,
    templates: tuple[str, ...] = (),
    held_out: HeldOut = (),
    anchors: tuple[str, ...] = (),
    licence: str = "",
) -> EraseRequest:
    """What to erase with this eraser; None and empty take its defaults.

    Args:
        eraser: the method and its choices.
        targets: what to erase.
        retain: what to keep; the targets' concepts are taken out of it.
        strict: refuse a retain set that names a target or repeats itself, instead.
        layers: which layers.
        tokens: which tokens stand for the concept.
        rank_rule: cut of the retained spectrum.
        templates: prompts with one `{}`; empty: the method's.
        held_out: concepts on which leak is only measured, or the list that they were read from.
        anchors: general concepts among which the anchor `auto` is looked for.
        licence: SPDX id or name for the patch.

    Raises:
        RetainSetError: the eraser needs to know what to keep, or `strict` refuses.
        InputError: a choice that is none, or other names of a concept for a method that does not read them.
    """
    if not eraser.defaults.names and (named := next((target for target in targets if target.names), None)):
        raise InputError(
            f"method {eraser.name} reads {named.concept!r} alone: expected no other names of it, got "
            f"{', '.join(named.names)}",
            hint="--method span",
        )
    if retain is None and eraser.defaults.needs_retain:
        raise RetainSetError(f"method {eraser.name} needs to know what to keep", hint="--retain FILE")
    spoken = [name for target in targets for name in target.spoken]
    return EraseRequest(
        targets,
        None if retain is None else retain.without(spoken, strict=strict),
        templates=templates or eraser.defaults.templates,
        tokens=tokens or eraser.defaults.tokens,
        layers=layers or eraser.defaults.layers,
        rule=RankRule.parse(rank_rule or eraser.defaults.rule),
        eraser=eraser,
        held_out=(held_out.concepts if isinstance(held_out, RetainSet) else held_out) or HELD_OUT,
        held_out_from=held_out if isinstance(held_out, RetainSet) else None,
        licence=licence,
        anchors=anchors,
    )
