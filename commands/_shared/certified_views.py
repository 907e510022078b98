"""What `--certify` computed, as sentences for people and as data for machines."""

from collections.abc import Sequence
from dataclasses import asdict
from decimal import ROUND_CEILING, ROUND_FLOOR, Context
from typing import TYPE_CHECKING, Any, Final

import click

from rasura.commands._shared.output import many, short
from rasura.commands._shared.progress import progress
from rasura.patches.plain_numbers import say_number

if TYPE_CHECKING:
    from rasura.patches.checks.kernels.certificate import Certificate, Mixtures
    from rasura.patches.types import PatchId
    from rasura.registry.erase.certify import Certified
    from rasura.registry.registry import Registry

CERTIFY: Final = click.option(
    "--certify", is_flag=True, help="Compute from the base how much of a concept can come back at most."
)
_DIGITS: Final = 3
NOT_COVERED: Final = (
    "other words, layers that the patch does not touch, and what attention makes of a share: docs/certificates.md"
)


def certify_one(
    registry: "Registry", patch_id: "PatchId", also: tuple[str, ...], ball: float | None, *, wanted: bool
) -> "Certified | None":
    """What one patch leaves, where that was asked for.

    Raises:
        UsageError: a set without being asked to certify anything.
    """
    if not wanted:
        if also or ball is not None:
            raise click.UsageError("--also and --ball say what to certify: add --certify")
        return None
    from rasura.patches.format.member import Member
    from rasura.registry.erase.certify import Covered, certify_patches
    from rasura.registry.trust.verified_patch import load_verified

    with progress() as tell:
        return certify_patches(registry, [Member(load_verified(registry, patch_id))], Covered(also, ball), tell)


def encode_certified(found: "Certified") -> dict[str, Any]:
    """For machines: every number, and what was not looked at."""
    return {"certificates": [asdict(each) for each in found.certificates], "missing": list(found.missing)}


def list_certified(found: "Certified", *, named: bool = False) -> list[tuple[str, str]]:
    """For people: pairs of what and sentence; `named` says whose each is."""
    rows: list[tuple[str, str]] = []
    for each in found.certificates:
        whose = f"{short(each.patch)} " if named else ""
        said = _sentences(each)
        rows += [("certified" if not i else "", f"{'' if i else whose}{text}") for i, text in enumerate(said)]
    rows += [("not looked at", text) for text in found.missing]
    return [*rows, ("not covered", NOT_COVERED)] if found.certificates else rows


def _sentences(found: "Certificate") -> list[str]:
    where = "" if found.space == "text" else f", as {found.space} reads them"
    of = f"{many(found.columns, 'column')} of {_join(found.words)}{where}"
    if found.span is None:
        return [f"{of}: nothing there responds"]
    worst = max(layer.span or 0.0 for layer in found.layers)
    silent = f", {found.silent} left out that hardly respond" if found.silent else ""
    which = f"{many(found.directions, 'direction')}{silent}"
    said = [
        f"at most {_above(found.span)} of the response in the span of {of} ({which}); in a single layer {_above(worst)}"
    ]
    if found.mixtures is None:
        return [*said, "of mixtures nothing is known: only combinations of the columns are stored"]
    return said + _mixed(found.mixtures)


def _mixed(found: "Mixtures") -> list[str]:
    said = [f"{_bound(found.bound)} in mixtures of them; a column has {_say(found.attained)}"]
    if found.ball is not None:
        said.append(f"{_bound(found.ball.bound)} within {_say(found.ball.radius)} of these")
    if found.radius > 0:
        way = f" ({_below(found.radius / found.apart)} of the way to what it becomes)" if found.apart > 0 else ""
        said.append(f"nothing within {_below(found.radius)} of these{way} gets all of it back")
    else:
        said.append("no distance from these is proved to be safe")
    if (blind := found.blind) is not None:
        far = f"{_say(blind.distance)} away ({_say(blind.multiple)} of the way)"
        said.append(f"{far} the patches see nothing; the base has {_say(blind.carries)} of the response there")
    return said


def _bound(share: float | None) -> str:
    return "no bound is proved" if share is None else f"at most {_above(share)}"


def _above(number: float) -> str:
    """A bound, rounded upwards: what is said must hold as well."""
    return _round(number, ROUND_CEILING)


def _below(number: float) -> str:
    """A distance that is safe, rounded downwards."""
    return _round(number, ROUND_FLOOR)


def _round(number: float, how: str) -> str:
    return say_number(float(Context(prec=_DIGITS, rounding=how).create_decimal_from_float(number)), _DIGITS)


def _say(number: float) -> str:
    return say_number(number, _DIGITS)


def _join(words: Sequence[str]) -> str:
    return ", ".join(map(repr, words))
