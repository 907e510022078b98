"""`rasura evaluation`: what bases drew with and without patches, as it was recorded."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import click

from rasura.commands._shared.command import Verbs, command, open_registry
from rasura.commands._shared.output import Result, clean, fields, line, short, table
from rasura.commands._shared.views import FIRST_SCORES, encode_evaluation
from rasura.patches.algebra.strength import ONE, Strength

if TYPE_CHECKING:
    from rasura.evaluation.report.recorded import Report
    from rasura.patches._io.json_fields import JsonValue
    from rasura.patches.types import PatchId
    from rasura.registry._storage.records.records import EvaluationRecord

_NONE: Final = "-"


@click.group(cls=Verbs)
def evaluation() -> None:
    """Evaluation results: list, show."""


@command(evaluation, "list")
@click.option("--patch", "patch_ref", metavar="ID", help="Only those of stacks that this patch is in.")
def list_(patch_ref: str | None, registry_at: str | None) -> Result:
    """List the recorded evaluations, the newest first."""
    with open_registry(registry_at) as registry:
        found = registry.evaluations(None if patch_ref is None else registry.resolve_patch(patch_ref))
        names = {p.patch_id: ", ".join(p.concepts) for p in registry.patches()}
    rows = [
        (short(e.digest), _stack(e, names), e.judge, *(e.summary.get(s, _NONE) for s in FIRST_SCORES)) for e in found
    ]
    headers = ("evaluation", "concepts", "judge", *map(_words, FIRST_SCORES))
    return Result(
        {"evaluations": [encode_evaluation(e) for e in found]},
        lambda: table(headers, rows) if rows else line("no evaluations"),
    )


@command(evaluation, "show")
@click.argument("digest", metavar="DIGEST")
def show(digest: str, registry_at: str | None) -> Result:
    """Show one evaluation: the digest of its report or an abbreviation."""
    from rasura.evaluation.report.recorded import Report, read_report

    with open_registry(registry_at) as registry:
        record = registry.evaluation(digest)
        report = Report.from_bytes(read_report(registry, record.digest))
        names = {p: ", ".join(registry.patch(p).concepts) for p in record.patches}
    pairs = [
        ("evaluation", record.digest),
        ("base", record.base),
        *(("patch", f"{p} {_entry(names[p], strength)}") for p, strength in record.patches.items()),
        ("judge", record.judge),
        *((_words(name), record.summary[name]) for name in _ordered(record.summary)),
        ("added", f"{record.added_at:%Y-%m-%d %H:%M:%S} UTC"),
    ]

    def text() -> None:
        fields(pairs)
        _print_scores(report)

    return Result({**encode_evaluation(record), "body": dict(report.body)}, text)


def _print_scores(report: "Report") -> None:
    names = list(dict.fromkeys(name for row in report.scores for name in row))
    if not names:
        return
    line("")
    table([clean(_words(name)) for name in names], [[_cell(row.get(name)) for name in names] for row in report.scores])


def _cell(value: "JsonValue") -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return _NONE if value is None else str(value)


def _stack(record: "EvaluationRecord", names: "Mapping[PatchId, str]") -> str:
    return "; ".join(_entry(names[p], sixteenths) for p, sixteenths in record.patches.items())


def _entry(concepts: str, sixteenths: int) -> str:
    """The concepts, and the strength where it is another than 1."""
    strength = Strength(sixteenths)
    return concepts if strength == ONE else f"{concepts} × {strength}"


def _ordered(summary: Mapping[str, str]) -> list[str]:
    return [name for name in FIRST_SCORES if name in summary] + sorted(set(summary) - set(FIRST_SCORES))


def _words(name: str) -> str:
    return name.replace("_", " ")
