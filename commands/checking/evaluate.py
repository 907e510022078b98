"""`rasura evaluate`."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rasura.commands._shared.asking import DRY
from rasura.commands._shared.command import Order, command
from rasura.commands._shared.output import Result, line, table
from rasura.commands._shared.progress import progress
from rasura.commands.checking.evaluate_request import evaluation_options, limit_options, read_evaluation_request
from rasura.commands.checking.evaluate_views import encode_evaluated, print_evaluated
from rasura.patches.errors import RefusedError

if TYPE_CHECKING:
    from rasura.evaluation.evaluate import PlannedEvaluation
    from rasura.registry._storage.records.records import Draft
    from rasura.registry.registry import Registry

_PATH = click.Path(path_type=Path)


@command(None, "evaluate", mutating=True)
@evaluation_options
@click.option("--out", type=_PATH, metavar="DIR", help="Folder for report.json, scores.csv and grid.png.")
@limit_options
@click.option("--keep-pictures", is_flag=True, help="Write every picture to --out, too.")
@DRY
def evaluate(
    *,
    out: Path | None,
    keep_pictures: bool,
    order: Order,
    dry_run: bool,
    **choices: Any,
) -> Result:
    """Draw the same prompts with and without patches, have a classifier judge them, and record what it saw.

    With --min and --max, exit code 3 if a number misses its limit.
    """
    from rasura.evaluation.evaluate import evaluate as run
    from rasura.evaluation.evaluate import plan_evaluation
    from rasura.evaluation.evidence_report.kept_pictures import keep_with_cases
    from rasura.evaluation.report.write_outputs import check_folder, write_outputs

    if keep_pictures and out is None:
        raise click.UsageError("--keep-pictures needs --out DIR")
    if out is not None:
        check_folder(out)
    draft = order.draft("base.add")
    with order.open() as registry, progress() as tell:
        if dry_run:
            return _planned(plan_evaluation(registry, read_evaluation_request(registry, **choices), draft, tell))
        found = run(registry, read_evaluation_request(registry, **choices), draft, tell)
        if out is not None:
            write_outputs(out, found, keep_pictures=keep_pictures)
        digest, new = _recorded(registry, found.report, order.draft("evaluation.add"))
        keep_with_cases(registry, found, order.actor)
    code = RefusedError.exit_code if found.missed else 0
    return Result(
        encode_evaluated(found, digest, new, out),
        lambda: print_evaluated(found, digest, out),
        changed=new,
        exit_code=code,
    )


def _planned(plan: "PlannedEvaluation") -> Result:
    counts = Counter((each.group, each.kind) for each in plan.asked)
    rows = [(group.replace("_", " "), kind, str(n)) for (group, kind), n in counts.items()]
    data = {
        "base": plan.base,
        "judge": plan.judge,
        "questions": [{"group": group, "kind": kind, "n": n} for (group, kind), n in counts.items()],
        "limits": plan.limits,
        "attacks": [{"attack": c.attack, "calls": c.calls, "gradients": c.gradients} for c in plan.costs],
        "dry_run": True,
    }

    def text() -> None:
        line(f"would be judged by {plan.judge}")
        table(("group", "kind", "n"), rows)
        line(f"would draw at most {2 * len(plan.asked)} pictures, half of them with the patches, besides any attack")
        if plan.costs:
            costs = [(cost.attack, str(cost.calls), str(cost.gradients)) for cost in plan.costs]
            table(("attack, for each concept and model", "calls of the denoiser", "with a gradient"), costs)
        line("dry run: nothing was drawn or recorded")

    return Result(data, text)


def _recorded(registry: "Registry", report: bytes, draft: "Draft") -> tuple[str, bool]:
    """Record the report; its digest, and whether it is new here."""
    from rasura.evaluation.report.recorded import record_evaluation

    record, new = record_evaluation(registry, report, draft)
    return record.digest, new
