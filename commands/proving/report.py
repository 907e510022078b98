"""`rasura report`: what was done, for people who have no registry."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from rasura import __version__
from rasura.commands._shared.command import command, open_registry
from rasura.commands._shared.documents import write_document
from rasura.commands._shared.output import Result, line, many, warn
from rasura.patches.errors import FormatError

if TYPE_CHECKING:
    from rasura.evaluation.evidence_report.make_report import MadeReport

_PATH: Final = click.Path(path_type=Path)


@command(None, "report")
@click.option("--case", metavar="ID", help="Of a case.")
@click.option("--stack", metavar="NAME", help="Of a named stack.")
@click.option("--model", metavar="DIR", help="Of a model on disk.")
@click.option(
    "-o", "--output", type=_PATH, required=True, metavar="FILE.html", help="The page; FILE.json lies beside it."
)
@click.option("--pdf", type=_PATH, metavar="FILE", help="Print it, too: needs Chromium.")
@click.option("--key", metavar="NAME", help="Key that signs beside the log's.")
@click.option("--withhold", is_flag=True, help="Leave out who asked, what they wrote, and pictures.")
def report(
    *,
    case: str | None,
    stack: str | None,
    model: str | None,
    output: Path,
    pdf: Path | None,
    key: str | None,
    withhold: bool,
    registry_at: str | None,
) -> Result:
    """Write what was asked, done and measured, for a reader who knows nothing of models: one page, signed.

    Beside it lies the same for machines. Models are read back on the way. It needs no script and loads nothing.
    """
    from rasura.evaluation.evidence_report.gather import About
    from rasura.evaluation.evidence_report.make_report import make_report
    from rasura.evaluation.evidence_report.print_pdf import print_pdf

    named = [About(kind, name) for kind, name in (("case", case), ("stack", stack), ("model", model)) if name]  # type: ignore[arg-type]
    if len(named) != 1:
        raise click.UsageError("expected one of --case, --stack and --model")
    if output.suffix.lower() not in {".html", ".htm"}:
        raise click.UsageError("expected a name that ends in .html for the page: -o report.html")
    twin = output.with_suffix(".json")
    with open_registry(registry_at) as registry:
        made = make_report(
            registry, named[0], version=__version__, names=(output.name, twin.name), key=key, withhold=withhold
        )
        vkey = registry.log_vkey()
    write_document(output, made.page, _check_old)
    write_document(twin, made.twin, _check_old)
    if pdf is not None:
        write_document(pdf, print_pdf(made.page), _check_pdf)
    data = {"page": str(output), "twin": str(twin), "pdf": str(pdf) if pdf else None, "key": vkey}
    counts = {"entries": made.entries, "evaluations": made.evaluations, "models": made.places}

    def text() -> None:
        line(f"wrote {output} and {twin}: {_count(made)}" + (f"; printed {pdf}" if pdf else ""))
        line(f"who has the log's key checks them: rasura verify {output} --vkey {vkey}")
        if not made.evaluations:
            warn("nobody has looked at pictures: the report says that nothing was measured")

    return Result({**data, **counts}, text, changed=True)


def _count(made: "MadeReport") -> str:
    seen = f"{many(made.evaluations, 'evaluation')}, {many(made.places, 'model')}"
    return f"{many(made.entries, 'entry', 'entries')}, {seen}"


def show_report(file: Path, data: bytes, keys: tuple[Any, ...], vkey: Any) -> Result:
    """Check a page or its twin, without a registry."""
    from rasura.evaluation.evidence_report.signed_report import verify_report

    found = verify_report(data, vkey=vkey, keys=keys)
    about: Any = found.document["about"]
    shown = {
        "file": str(file),
        "about": about,
        "page": found.page,
        "key": str(found.key),
        "pinned": found.pinned,
        "signer": None if found.signer is None else found.signer.key_id,
        "entries": found.entries,
        "size": found.checkpoint.size,
        "root": found.checkpoint.root.hex(),
    }

    def text() -> None:
        what = "page" if found.page else "report"
        line(f"{file.name} is the {what} that was signed about {about['kind']} {about['name']}: every byte of it")
        line(f"{found.entries} of {found.checkpoint.size} entries of the log, each proved; signed by {found.key}")
        if found.signer is not None:
            line(f"signed by key {found.signer.key_id}, too")
        if not found.pinned:
            warn("no key was given from outside (--vkey): whoever forges a whole report passes this")

    return Result(shown, text)


def _check_old(data: bytes) -> object:
    from rasura.evaluation.evidence_report.signed_report import verify_report

    return verify_report(data)


def _check_pdf(data: bytes) -> object:
    if not data.startswith(b"%PDF-"):
        raise FormatError("expected a PDF")
    return data
