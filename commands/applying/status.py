"""`rasura patch status`: what is applied to a model on disk."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rasura.commands._shared.command import command, open_registry
from rasura.commands._shared.output import Result, line, many, short, table, verdict, warn
from rasura.commands._shared.progress import progress
from rasura.commands.applying.apply import MODEL, UNSIGNED
from rasura.patches.errors import DriftError

if TYPE_CHECKING:
    from rasura.patches.types import PatchId
    from rasura.registry.apply.status import Survey

_SHOWN = 10  # parameters that drifted


@command(None, "status")
@MODEL
@click.option("--deep", is_flag=True, help="Hash every patchable parameter and recompute the touched ones.")
def status(model: Path, registry_at: str | None, *, deep: bool) -> Result:
    """Say what is applied to a model, by hashing what is there. Exit code 6 if it is something else."""
    from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
    from rasura.registry.apply.status import survey
    from rasura.registry.trust.keys.revocation import find_uncounted

    with open_registry(registry_at) as registry, progress() as tell:
        host = CheckpointHost.open(model)
        report = survey(registry, host, deep=deep, progress=tell)
        cast = host.cast_since()
        way_back = "" if cast is None else host.say_way_back(*cast)
        names = {p: ", ".join(registry.patch(p).concepts) for p in report.applied}
        uncounted = list(find_uncounted(registry, report.applied))
    data = {
        "location": report.location,
        "applied": {p: str(s) for p, s in report.applied.items()},
        "touched": report.touched,
        "hashed": report.hashed,
        "drifted": list(report.drifted),
        "exact": report.exact,
        "interrupted": report.interrupted,
        "beside": list(report.beside),
        "revoked": uncounted,
        "uncovered": list(report.uncovered),
    }

    exit_code = DriftError.exit_code if report.drifted else 0
    return Result(data, lambda: _print_status(report, names, uncounted, model, way_back), exit_code=exit_code)


def _print_status(
    report: "Survey", names: "Mapping[PatchId, str]", uncounted: "Sequence[PatchId]", model: Path, way_back: str
) -> None:
    rows = [(short(p), names[p], str(strength)) for p, strength in report.applied.items()]
    if rows:
        table(("patch", "concept", "strength"), rows)
    else:
        line("nothing is applied")
    for patch_id in uncounted:
        line(f"{short(patch_id)} is in force, though {UNSIGNED} {short(patch_id)}")
    if report.interrupted is not None:
        line(f"entry {report.interrupted} of the log was interrupted: the next apply, switch or revert ends it")
    odd = f"{len(report.drifted)} not as they should be" if report.exact else "not all as they should be"
    said = f"{many(report.touched, 'parameter')} touched; {report.hashed} hashed, {odd}"
    verdict(said, good=not report.drifted)
    for uncovered in report.uncovered:
        warn(uncovered)
    if report.beside:
        line(f"{len(report.beside)} parameters are quantised: what is applied runs beside them")
    if report.exact:
        _list(report.drifted)
    else:
        line(f"which of them: rasura patch status --deep --model {shlex.quote(str(model))}")
    if way_back:
        line(f"it was saved in another type than when it was patched: {way_back}")
    elif rows and report.drifted:
        line(f"to put the originals back: rasura patch revert --all --force --model {shlex.quote(str(model))}")


def _list(names: Sequence[str]) -> None:
    for name in names[:_SHOWN]:
        line(f"  {name}")
    if len(names) > _SHOWN:
        line(f"  … and {len(names) - _SHOWN} more")
