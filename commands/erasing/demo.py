"""`rasura demo`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from rasura.commands._shared.command import Order, command
from rasura.commands._shared.output import Result, line, short, table, verdict
from rasura.commands._shared.progress import progress
from rasura.registry.apply.receipt import Actor

if TYPE_CHECKING:
    from rasura.evaluation.demo import DemoReport

_REFERENCE = Path(__file__).resolve().parents[2] / "examples" / "reference_model"


@command(None, "demo", mutating=True)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("rasura-demo"),
    show_default=True,
    metavar="DIR",
    help="Folder for all that is made.",
)
@click.option(
    "--model", type=click.Path(path_type=Path), metavar="DIR", help="Reference model [default: the shipped one]."
)
def demo(out: Path, model: Path | None, order: Order) -> Result:
    """Erase an object and a style from a small real model, look, take both back, and prove it. Needs no registry."""
    from rasura.evaluation.demo import run_demo

    with progress() as tell:
        report = run_demo(model or _REFERENCE, out, Actor(order.name, order.reason or "demo"), tell)
    return Result(_data(report), lambda: _print(report), changed=True, exit_code=0 if report.restored else 1)


def _data(report: "DemoReport") -> dict[str, object]:
    from rasura.patches.checks.check import Accepted

    return {
        "folder": str(report.folder),
        "picture": str(report.picture),
        "patches": {item.patch.patch_id: item.patch.manifest.concept.text for item in report.patches},
        "accepted": isinstance(report.verdict, Accepted),
        "scores": [{"name": s.name, "n": s.n, "before": s.before, "after": s.after} for s in report.scores],
        "restored": report.restored,
        "log_entries": report.entries,
    }


def _print(report: "DemoReport") -> None:
    from rasura.commands.checking.check import print_relations
    from rasura.patches.checks.check import Accepted

    for item in report.patches:
        manifest = item.patch.manifest
        size = sum(map(len, item.patch.files().values()))
        what = f"{manifest.concept.text!r} -> {manifest.concept.anchor!r}"
        line(f"erased {what}: patch {short(item.patch.patch_id)}, {size} bytes")
    names = {item.patch.patch_id: item.patch.manifest.concept.text for item in report.patches}
    print_relations(report.verdict.relations, names, everything=True)
    accepted = isinstance(report.verdict, Accepted)
    verdict("accepted" if accepted else "REFUSED", good=accepted)
    table(
        ("classifier accuracy", "n", "before", "after"),
        [(s.name, str(s.n), f"{s.before / s.n:.1%}", f"{s.after / s.n:.1%}") for s in report.scores],
    )
    how = f"all {report.files} files are the originals again" if report.restored else "FILES DIFFER"
    verdict(f"reverted both: {how}", good=report.restored)
    verdict(f"the log is whole: {report.entries} entries", good=True)
    line(f"see {report.picture}")
