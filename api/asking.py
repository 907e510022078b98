"""What may be asked and said from Python before a registry is there: methods, their choices, a request, a probe."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rasura.api.arguments import Lines, read_held_out, read_lines
from rasura.api.hints import in_python
from rasura.patches.erasers.catalogue import METHODS, eraser, load_method
from rasura.patches.erasers.options import options_of
from rasura.patches.lists.role import ANCHORS
from rasura.patches.prompts.retain_set import load_retain_set

if TYPE_CHECKING:
    from rasura.patches.erasers.catalogue import Method
    from rasura.patches.erasers.options import Option
    from rasura.patches.erasers.request import EraseRequest
    from rasura.patches.models.probe.trace import Trace
    from rasura.patches.prompts.concept_prompts import Target
    from rasura.patches.prompts.retain_set import RetainSet

__all__ = ["methods", "options", "probe", "request"]


@in_python
def methods() -> Mapping[str, Method]:
    """The erasers, by the name that `request` takes."""
    return METHODS


@in_python
def options(method: str) -> tuple[Option, ...]:
    """The choices of an eraser, for `request(settings=…)`.

    Raises:
        InputError: no such method.
    """
    return tuple(options_of(load_method(method)))


@in_python
def probe(model: object) -> Trace:
    """Find what of a model reads text alone, by running a small random twin of its denoiser.

    Args:
        model: a diffusers folder, a live pipeline, or a denoiser; its own weights are neither read nor run.

    Raises:
        NotFoundError: a folder without a denoiser.
        UnsupportedHostError: a class that a probe cannot run, with what was seen; or one that reads text otherwise than
            the family that it looks like.
    """
    from rasura.patches.models.probe.agreement import probe_model
    from rasura.patches.models.probe.probe import probe_live

    return probe_model(Path(model))[0] if isinstance(model, str | Path) else probe_live(model)


@in_python
def request(
    targets: str | Target | Iterable[str | Target],
    *,
    anchor: str = "",
    retain: RetainSet | str | Path | None = None,
    retain_column: str | None = None,
    strict: bool = False,
    method: str = "null-space",
    settings: Mapping[str, str] | None = None,
    layers: str | None = None,
    tokens: str | None = None,
    rank_rule: str | None = None,
    templates: Lines = (),
    held_out: Lines = (),
    truncate: bool = False,
    anchors: Lines = (),
    licence: str = "",
) -> EraseRequest:
    """What to erase and how, with the method's own defaults where nothing else is said.

    Args:
        targets: concepts, or `Target` where one has an anchor, templates or further names of its own.
        anchor: what concepts that are given as text become; "" is nothing, "auto" the nearest of `anchors`.
        retain: what to keep: a set, or a file, perhaps with `:COLUMN` behind its name (docs/lists.md). Concepts of
            `targets` are taken out of it.
        retain_column: the same as a column behind the file's name.
        strict: refuse a retain set that names a target or repeats itself.
        method: an eraser, see `methods`.
        settings: choices of the method, see `options`.
        layers: which layers, such as `k`, `v`, `kv`, `text`; None: the method's.
        tokens: which tokens stand for the concept: `last`, `subject`, `tail`, `end`; None: the method's.
        rank_rule: cut of the retained spectrum; None: the method's.
        templates: prompts with one `{}`; empty: generic ones.
        held_out: concepts on which leak is only measured; empty: everyday words.
        truncate: cut texts of these files that are longer than the model reads.
        anchors: general concepts among which the anchor `auto` is looked for; empty: everyday words.
        licence: SPDX id or name for the patch.

    Raises:
        InputError: no such method or choice, or no concept.
        NotFoundError: a file is missing.
        RetainSetError: a file is empty or unreadable, or a method needs `retain` and got none.
    """
    from rasura.patches.erasers.request_for import request_for
    from rasura.patches.prompts.concept_prompts import Target

    given = [targets] if isinstance(targets, str | Target) else list(targets)
    return request_for(
        eraser(method, settings or {}),
        tuple(target if isinstance(target, Target) else Target(target, anchor) for target in given),
        load_retain_set(retain, retain_column, truncate=truncate) if isinstance(retain, str | Path) else retain,
        strict=strict,
        layers=layers,
        tokens=tokens,
        rank_rule=rank_rule,
        templates=read_lines(templates),
        held_out=read_held_out(held_out, truncate=truncate),
        anchors=read_lines(anchors, ANCHORS),
        licence=licence,
    )
