"""A request made again from what a patch says of itself, so that it can be solved anew under other conditions.

A manifest names everything that decides a patch but three things: the words of the retain set (the caller has them),
the tensors of the patches that it left alone (likewise), and the held-out concepts, on which leak is only measured.
Solved again under the same conditions, the request gives the same increments, bit for bit on the same machine.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from rasura.patches.algebra.rank_rule import RankRule
from rasura.patches.erasers.catalogue import load_method
from rasura.patches.erasers.interface import Eraser
from rasura.patches.erasers.options import older_options, with_options
from rasura.patches.erasers.request import EraseRequest
from rasura.patches.errors import FormatError, InputError
from rasura.patches.format.manifest import NAMES, Manifest
from rasura.patches.format.manifest_parts import EraserSpec
from rasura.patches.prompts.concept_prompts import HELD_OUT, Target
from rasura.patches.prompts.retain_set import HeldOut, RetainSet
from rasura.patches.types import SHORT

__all__ = ["DERIVED", "eraser_of", "is_trained", "request_of", "request_prompts"]

DERIVED: Final = "derived"
"""Options whose names start so tell how a patch was made of another; no method has such a choice."""
_LAYERS: Final = "layers"
_GIVEN: Final = ("sepme", "all-but-one", "adopted")


def is_trained(spec: EraserSpec) -> bool:
    """Whether the responses were trained through the UNet or came from elsewhere: nothing here can solve them again."""
    return spec.name in _GIVEN or spec.options.get("values") == "guided"


def eraser_of(spec: EraserSpec) -> Eraser:
    """The method with the choices that the manifest names, each of them.

    Raises:
        InputError: a method or choice that this program does not know, or has and the manifest does not name.
    """
    own = {
        name: text
        for name, text in spec.options.items()
        if name not in {_LAYERS, NAMES} and not name.startswith(DERIVED)
    }
    method = load_method(spec.name)
    known = {field.name for field in dataclasses.fields(method)} - {"seed"}
    own = older_options(method) | own
    if set(own) != known:
        raise InputError(
            f"the patch was made by {spec.name} with the choices {', '.join(sorted(own)) or 'none'}: expected "
            f"{', '.join(sorted(known))}; {_differing(set(own), known)}",
            hint=f"rasura methods {spec.name}",
        )
    made: Eraser = with_options(method, own | ({} if spec.seed is None else {"seed": str(spec.seed)}))
    return made


def request_of(manifests: Sequence[Manifest], retain: RetainSet | None, held_out: HeldOut = HELD_OUT) -> EraseRequest:
    """The request that erases the concepts of these patches together, each superseding its own.

    Args:
        manifests: of the patches, at least one.
        retain: the retain set that they name, without what names one of their concepts.
        held_out: concepts on which leak is measured, or the list that they were read from.

    Raises:
        InputError: they were not made in the same way, or in a way that this program does not know.
        ConceptError: two of them erase one concept.
    """
    for manifest in manifests[1:]:
        if differing := list(_differences(manifests[0], manifest)):
            raise InputError(
                f"patches {manifests[0].patch_id[:SHORT]} and {manifest.patch_id[:SHORT]} cannot be solved together: "
                f"expected the same {' and '.join(name for name, _, _ in differing)}, got "
                + "; ".join(f"{mine} and {other}" for _, mine, other in differing),
                hint=f"rasura patch show {manifest.patch_id[:SHORT]}",
                differing=[name for name, _, _ in differing],
            )
    return replace(
        request_prompts(manifests, retain, held_out),
        eraser=eraser_of(manifests[0].eraser),
        rule=RankRule.parse(manifests[0].protected.basis.rule),
    )


def request_prompts(
    manifests: Sequence[Manifest], retain: RetainSet | None, held_out: HeldOut = HELD_OUT
) -> EraseRequest:
    """The same request with a method of its own: for its prompts, on which a patch is measured."""
    first, spec = manifests[0], manifests[0].protected.retain
    return EraseRequest(
        tuple(Target(m.concept.text, m.concept.anchor, m.concept.templates, m.names) for m in manifests),
        retain,
        templates=first.concept.templates,
        tokens=first.concept.tokens,
        layers=_layers(first),
        held_out=held_out.concepts if isinstance(held_out, RetainSet) else held_out,
        held_out_from=held_out if isinstance(held_out, RetainSet) else None,
        licence=first.licence,
        retained_in=() if spec is None or (retain is not None and retain.whole) else spec.templates,
        unnamed=tuple(dict.fromkeys(name for m in manifests for name in m.protected.concepts)),
        supersedes={m.concept.text: (m.patch_id,) for m in manifests},
    )


def _layers(manifest: Manifest) -> str:
    """Which layers the patch was asked for.

    Raises:
        FormatError: it does not say; the format lets a writer leave options out.
    """
    found = manifest.eraser.options.get(_LAYERS)
    if found is None:
        raise FormatError(
            f"patch {manifest.patch_id[:SHORT]}: expected eraser.options.{_LAYERS}, got none: what it was asked for is "
            "not known, so it cannot be solved or measured again",
            hint="rasura erase --base BASE --concept TEXT",
        )
    return found


def _differences(one: Manifest, other: Manifest) -> Iterator[tuple[str, str, str]]:
    """What the two must share and do not, with either's."""
    for name, mine, its in (
        ("base", one.base.sha256[:SHORT], other.base.sha256[:SHORT]),
        ("method", one.eraser.name, other.eraser.name),
        ("seed", str(one.eraser.seed), str(other.eraser.seed)),
        ("tokens", one.concept.tokens, other.concept.tokens),
        ("rank rule", one.protected.basis.rule, other.protected.basis.rule),
        ("retain file", _source(one), _source(other)),
        ("retained templates", _templates(one), _templates(other)),
        ("licence", one.licence, other.licence),
    ):
        if mine != its:
            yield name, mine, its
    options, others = (
        {k: v for k, v in m.eraser.options.items() if k != NAMES and not k.startswith(DERIVED)} for m in (one, other)
    )
    for name in sorted(set(options) | set(others)):
        if options.get(name) != others.get(name):
            yield name, options.get(name, "none"), others.get(name, "none")


def _source(manifest: Manifest) -> str:
    """The retain file; its digest is the caller's to compare, because lines that name a target are not in it."""
    spec = manifest.protected.retain
    return "none" if spec is None else spec.source


def _templates(manifest: Manifest) -> str:
    spec = manifest.protected.retain
    return "none" if spec is None or not spec.templates else ", ".join(spec.templates)


def _differing(found: set[str], known: set[str]) -> str:
    missing, extra = sorted(known - found), sorted(found - known)
    parts = [f"{', '.join(missing)} came later"] if missing else []
    return "; ".join(parts + ([f"{', '.join(extra)} is no longer known"] if extra else []))
