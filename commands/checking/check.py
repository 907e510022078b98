"""`rasura patch check`: whether patches keep their promises and leave each other alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from rasura.commands._shared.certified_views import CERTIFY, encode_certified, list_certified
from rasura.commands._shared.command import command, open_registry
from rasura.commands._shared.output import Result, fields, line, short, table, verdict
from rasura.commands._shared.progress import progress
from rasura.commands._shared.views import encode_capacity, format_capacity, format_number, format_removal
from rasura.patches.algebra.stack import Stack
from rasura.patches.algebra.strength import ONE, Strength
from rasura.patches.checks.verdict import CROSSING, Accepted, NeedsRebase
from rasura.patches.errors import CheckRefusedError
from rasura.patches.plain_numbers import say_beside

if TYPE_CHECKING:
    from rasura.patches.checks.verdict import Reason, Relation
    from rasura.patches.types import PatchId, Progress
    from rasura.registry.erase.certify import Certified
    from rasura.registry.registry import Registry
    from rasura.registry.trust.check import Judged

_PATH: Final = click.Path(path_type=Path)
_SHOWN: Final = 40  # relations of a table that nobody asked to be whole
_WHOLE: Final = frozenset({"bound", "capacity"})
_ON: Final = frozenset({"stack", "residual", "moved-stack"})


@command(None, "check")
@click.argument("ids", nargs=-1, metavar="[ID...]")
@click.option("--stack", "stack_name", metavar="NAME", help="Check a stack, together with any patches named.")
@click.option("--policy", "policy_file", type=_PATH, metavar="FILE", help="Judge by this file's limits, too.")
@click.option("--revert", "leaving", multiple=True, metavar="ID", help="Judge taking this one out; repeatable.")
@click.option("--layers", is_flag=True, help="Show each pair parameter by parameter.")
@click.option("--angles", is_flag=True, help="Show the principal angles of each pair's detectors.")
@CERTIFY
@click.option("--all", "everything", is_flag=True, help="Show every relation, not only those nearest their limits.")
@click.option("--plot", type=_PATH, metavar="FILE", help="Draw who disturbs whom, as .png or .svg.")
def check(
    *,
    ids: tuple[str, ...],
    stack_name: str | None,
    policy_file: Path | None,
    leaving: tuple[str, ...],
    layers: bool,
    angles: bool,
    certify: bool,
    everything: bool,
    plot: Path | None,
    registry_at: str | None,
) -> Result:
    """Check that patches keep their promises and do not disturb each other. Exit code 3 if they do."""
    from rasura.registry.stacks.policy_file import read_policy
    from rasura.registry.trust.check import judge_registered
    from rasura.registry.trust.limits import merge_policies

    if plot is not None:
        from rasura.evaluation.plots.save_figure import check_plot

        check_plot(plot)
    with open_registry(registry_at) as registry, progress() as tell:
        staying, out = _find_asked(registry, ids, stack_name, leaving)
        policy = merge_policies(registry, read_policy(policy_file) if policy_file else None)
        checked = judge_registered(registry, staying, policy, leaving=out, progress=tell)
        names = {patch_id: ", ".join(registry.patch(patch_id).concepts) for patch_id in (*staying, *out)}
        certified = _certify(registry, checked, tell) if certify else None
    details: dict[str, Any] = {}
    if layers or angles:
        from rasura.commands.checking.check_pairs import list_pairs  # needs torch; checking does not

        details = list_pairs(checked, layers=layers, angles=angles)
    if certified:
        details["certified"] = encode_certified(certified)
    if plot is not None:
        from rasura.commands.checking.check_pairs import draw_pairs  # as above

        draw_pairs(checked, plot)
    return _result(checked, names, details, certified, everything=everything, plot=plot)


def _find_asked(
    registry: Registry, ids: tuple[str, ...], stack_name: str | None, leaving: tuple[str, ...]
) -> tuple[dict[PatchId, Strength], dict[PatchId, Strength]]:
    """The patches to check with their strengths, and those of them whose leaving is judged."""
    named = dict.fromkeys((registry.resolve_patch(i) for i in ids), ONE)
    wanted = {**Stack.of_sixteenths(registry.stack(stack_name).patches if stack_name else {}), **named}
    if not wanted:
        raise click.UsageError("name the patches to check, or --stack NAME")
    if len(named) < len(ids):
        raise click.UsageError("a patch is named twice")
    gone = [registry.resolve_patch(i) for i in leaving]
    if odd := next((patch_id for patch_id in gone if patch_id not in wanted), None):
        raise click.UsageError(f"--revert {short(odd)} is not among the patches to check")
    staying = {patch_id: strength for patch_id, strength in wanted.items() if patch_id not in gone}
    return staying, {patch_id: wanted[patch_id] for patch_id in gone}


def _certify(registry: Registry, checked: Judged, tell: Progress) -> Certified:
    from rasura.registry.erase.certify import certify_patches  # needs torch; checking does not

    return certify_patches(registry, checked.stack, progress=tell)


def _result(
    checked: Judged,
    names: Mapping[PatchId, str],
    details: dict[str, Any],
    certified: Certified | None,
    *,
    everything: bool,
    plot: Path | None,
) -> Result:
    found = checked.verdict
    reasons = () if isinstance(found, Accepted) else found.reasons
    notices = _notices(checked, names)
    data = {
        "accepted": not reasons,
        "relations": [_relation(relation) for relation in found.relations],
        "reasons": [{"text": reason.text, "hint": reason.hint} for reason in reasons],
        "rebase": [{"patch": p, "protect": list(others)} for p, others in found.moves]
        if isinstance(found, NeedsRebase)
        else [],
        "capacity": encode_capacity(checked.capacity),
        "notices": notices,
        "plot": str(plot) if plot else None,
        **details,
    }

    def text() -> None:
        print_relations(found.relations, names, everything=everything)
        _print_details(details, names)
        if certified:
            fields(list_certified(certified, named=True))
        for notice in notices:
            line(notice)
        _print_verdict(reasons)

    return Result(data, text, exit_code=CheckRefusedError.exit_code if reasons else 0)


def print_relations(relations: Sequence[Relation], names: Mapping[PatchId, str], *, everything: bool) -> None:
    """A table of what was measured, against its limits; without `everything`, of the nearest to them."""
    shown = list(relations)
    if not everything and len(shown) > _SHOWN:
        nearest = sorted(shown, key=_nearness, reverse=True)[:_SHOWN]
        shown = [relation for relation in relations if relation in nearest]
    rows = [
        (
            r.check,
            "all" if r.check in _WHOLE | _ON else f"{short(r.patch)} {names[r.patch]}",
            "" if r.check in _WHOLE | {"own", "moved-own"} else f"{short(r.other)} {names[r.other]}",
            *((format_number(r.value), "-") if math.isinf(r.limit) else say_beside(r.value, r.limit)),
            ("ok" if r.limit < math.inf else "shown") if r.holds else "REFUSED",
        )
        for r in shown
    ]
    if rows:
        table(("check", "patch", "on", "value", "limit", "verdict"), rows)
    if len(shown) < len(relations):
        line(f"… and {len(relations) - len(shown)} more, further from their limits: --all")


def _nearness(relation: Relation) -> float:
    return relation.value / relation.limit if relation.limit > 0 else math.inf


def _print_details(details: Mapping[str, Any], names: Mapping[PatchId, str]) -> None:
    for pair in details.get("layers", ()):
        line(f"{_pair(pair, names, 'on')}:")
        table(("parameter", "share"), [(name, format_number(value)) for name, value in pair["parameters"].items()])
    rows = [
        (_pair(pair, names, "and"), " ".join(f"{cosine:.3f}" for cosine in pair["cosines"][:8]))
        for pair in details.get("angles", ())
    ]
    if rows:
        table(("pair", "cosines of the principal angles"), rows)


def _pair(pair: Mapping[str, Any], names: Mapping[PatchId, str], word: str) -> str:
    p, q = pair["patch"], pair["other"]
    return f"{short(p)} {names[p]} {word} {short(q)} {names[q]}"


def _print_verdict(reasons: Sequence[Reason]) -> None:
    for reason in reasons[:_SHOWN]:
        verdict(f"refused: {reason.text}", good=False)
        line(f"  {reason.hint}")
    if len(reasons) > _SHOWN:
        line(f"… and {len(reasons) - _SHOWN} more")
    if not reasons:
        verdict("accepted", good=True)


def _notices(checked: Judged, names: Mapping[PatchId, str]) -> list[str]:
    from rasura.patches.checks.kernels.footprint import find_measured_only

    found = [format_removal(r, names) for r in checked.verdict.relations if r.check in CROSSING]
    for member in checked.stack:
        if bare := find_measured_only(member.patch):
            what = f"{len(bare)} of {len(member.patch.tensors.increments)} parameters"
            found.append(f"measured only, not proved: {what} of {short(member.patch_id)} {names[member.patch_id]}")
    if checked.stack and not checked.weighed:
        found.append(
            "the base's weights are not at hand: leaks are weighed by the patches' own effects; apply weighs anew"
        )
    for patch_id in checked.unknown:
        words = (
            "the words of its retain set are not here; behind the patched text encoder only the null prompt is judged"
        )
        found.append(f"{short(patch_id)} {names[patch_id]}: {words}")
    if checked.capacity is not None:
        found.append(format_capacity(checked.capacity))
    return found


def _relation(relation: Relation) -> dict[str, Any]:
    return {
        "check": relation.check,
        "patch": relation.patch,
        "other": relation.other,
        "value": _finite(relation.value),
        "limit": _finite(relation.limit),
        "holds": relation.holds,
    }


def _finite(number: float) -> float | None:
    """JSON has no infinity."""
    return number if math.isfinite(number) else None
