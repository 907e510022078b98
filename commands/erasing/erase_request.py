"""What was asked of `rasura erase`: its options as a request, with everything that is wrong with them said at once."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from rasura.commands._shared.command import find_patches
from rasura.commands.erasing.method_options import read_method

if TYPE_CHECKING:
    from rasura.patches.erasers.request import EraseRequest
    from rasura.patches.obstacles import Obstacles
    from rasura.patches.prompts.concept_prompts import Target
    from rasura.patches.prompts.retain_set import HeldOut
    from rasura.patches.types import PatchId
    from rasura.registry.registry import Registry


_T = TypeVar("_T")


def read_targets(
    concepts: tuple[str, ...],
    anchors: tuple[str, ...],
    template_files: tuple[Path, ...],
    names: "Sequence[tuple[str, ...]]",
    obstacles: "Obstacles",
) -> "tuple[Target, ...]":
    """The concepts, each with its anchor and what else it is called."""
    from rasura.patches.lists.role import TEMPLATES
    from rasura.patches.prompts.concept_prompts import Target
    from rasura.patches.prompts.retain_set import load_texts

    for what, given in (("anchors", anchors), ("template files", template_files)):
        if len(given) not in {0, 1, len(concepts)}:
            raise click.UsageError(
                f"{len(concepts)} concepts and {len(given)} {what}: expected one for all, or one each"
            )
    templates: list[tuple[str, ...]] = []
    for path in template_files:
        with obstacles.noting():
            templates.append(load_texts(path, TEMPLATES))
    if len(templates) < len(template_files):
        templates = []
    return tuple(
        Target(concept, anchor, own, called)
        for concept, anchor, own, called in zip(
            concepts, _spread(anchors, "", len(concepts)), _spread(templates, (), len(concepts)), names, strict=True
        )
    )


def _spread(given: "Sequence[_T]", default: "_T", count: int) -> "list[_T]":
    """One for all, or one each."""
    return list(given) if len(given) == count else [given[0] if given else default] * count


def read_request(
    targets: "tuple[Target, ...]",
    anchor_file: Path | None,
    obstacles: "Obstacles",
    *,
    retain: Path | None,
    retain_column: str | None,
    strict: bool,
    held_out: Path | None,
    truncate: bool,
    templates: tuple[str, ...],
    rank_rule: str | None,
    layers: str | None,
    tokens: str | None,
    licence: str,
    method: str,
    settings: tuple[str, ...],
    seed: int | None,
) -> "EraseRequest | None":
    """What was asked for; None where something of it could not be read."""
    from rasura.patches.erasers.request_for import request_for
    from rasura.patches.lists.role import ANCHORS
    from rasura.patches.prompts.retain_set import load_held_out, load_retain_set, load_texts

    kept, eraser = None, None
    aside: HeldOut = ()
    general: tuple[str, ...] = ()
    with obstacles.noting():
        eraser = read_method(method, settings, seed)
    if eraser is not None and retain is None and eraser.defaults.needs_retain:
        raise click.UsageError(f"method {method} needs to know what to keep: --retain FILE")
    with obstacles.noting():
        kept = load_retain_set(retain, retain_column, truncate=truncate) if retain else None
    with obstacles.noting():
        aside = load_held_out(held_out, truncate=truncate) if held_out else ()
    with obstacles.noting():
        general = load_texts(anchor_file, ANCHORS) if anchor_file else ()
    if obstacles or eraser is None:
        return None
    with obstacles.noting():
        return request_for(
            eraser,
            targets,
            kept,
            strict=strict,
            layers=layers,
            tokens=tokens,
            rank_rule=rank_rule,
            templates=templates,
            held_out=aside,
            anchors=general,
            licence=licence,
        )
    return None


def find_protected(
    registry: "Registry", protect: tuple[str, ...], onto_stack: str | None, obstacles: "Obstacles"
) -> "list[PatchId]":
    """The patches that `--protect` and `--onto-stack` name; `all` is not one of them."""
    from rasura.registry.stacks.stack_ref import side_of

    named = find_patches(registry, [ref for ref in protect if ref != "all"], obstacles)
    with obstacles.noting():
        named += side_of(registry, onto_stack).patches if onto_stack else ()
    return named
