"""`rasura doctor`: find what processes that died left behind, and put it right."""

from pathlib import Path

import click

from rasura.commands._shared.command import Order, command
from rasura.commands._shared.output import Result, line, verdict
from rasura.commands._shared.progress import progress
from rasura.patches.errors import DriftError, NotFoundError


@command(None, "doctor", mutating=True)
@click.option(
    "--model",
    "models",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="MODEL",
    help="Look at this model; may be repeated [default: all that the registry knows].",
)
@click.option("--dry-run", is_flag=True, help="Only say what would be repaired.")
def doctor(*, models: tuple[Path, ...], dry_run: bool, order: Order) -> Result:
    """Find what processes that died left behind, and put it right.

    Half-written models, motions without an end in the log, originals that nothing needs, dead bisections, temporary
    files. Exit code 6 if a model is not what it should be and only a person can say what to do, 8 if one that was named
    is not there.
    """
    from rasura.registry.doctor import examine

    with order.open() as registry, progress() as tell:
        found = examine(registry, models, order.actor, dry_run=dry_run, progress=tell)
    data = {
        "dry_run": dry_run,
        "findings": [
            {"kind": f.kind, "where": f.where, "said": f.said, "outcome": f.outcome, "hint": f.hint} for f in found
        ],
    }

    def text() -> None:
        for finding in found:
            said = f"{finding.outcome}: {finding.where}: {finding.said}"
            if finding.outcome in {"repaired", "hopeless"}:
                verdict(said, good=finding.outcome == "repaired")
            else:
                line(said)
            if finding.hint:
                line(f"  {finding.hint}")
        if not found:
            verdict("nothing to repair", good=True)

    hopeless = any(finding.outcome == "hopeless" for finding in found)
    changed = any(finding.outcome == "repaired" for finding in found)
    gone = bool(models) and any(finding.kind == "missing" for finding in found)
    code = DriftError.exit_code if hopeless else NotFoundError.exit_code if gone else 0
    return Result(data, text, changed=changed, exit_code=code)
