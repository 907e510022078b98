"""`rasura base`: the models that patches are computed on."""

from pathlib import Path

import click

from rasura.commands._shared.asking import DRY
from rasura.commands._shared.command import Order, Verbs, command, open_registry
from rasura.commands._shared.output import Result, fields, line, short, table, warn
from rasura.commands._shared.progress import progress


@click.group(cls=Verbs)
def base() -> None:
    """Base models: add, list, show."""


@command(base, "add", mutating=True)
@click.argument("model", metavar="MODEL", type=click.Path(path_type=Path))
@click.option("--name", help="Name for the base [default: the folder's name].")
@DRY
def add(model: Path, name: str | None, order: Order, *, dry_run: bool) -> Result:
    """Hash every patchable parameter of MODEL (a diffusers folder) and register it."""
    from rasura.registry.erase.base_models import add_base

    with order.open() as registry, progress() as tell:
        draft = order.draft("base.add")
        opened, new = add_base(registry, model, name, draft, tell, dry_run=dry_run)
    record = opened.record
    uncovered = opened.host.uncovered()
    data = {
        "digest": record.digest,
        "name": record.name,
        "source": record.source,
        "parameters": len(record.parameters),
        "uncovered": list(uncovered),
    }
    said = "is registered already:" if not new else "would add" if dry_run else "added"
    changed = new and not dry_run

    def text() -> None:
        line(f"{said} {record.name} ({short(record.digest)})")
        for each in uncovered:
            warn(each)

    return Result(data, text, changed=changed)


@command(base, "list")
def list_(registry_at: str | None) -> Result:
    """List the registered bases."""
    with open_registry(registry_at) as registry:
        found = registry.bases()
    rows = [(b.name, short(b.digest), f"{b.added_at:%Y-%m-%d %H:%M}", b.source) for b in found]
    headers = ("name", "base", "added", "source")
    data = [{"digest": b.digest, "name": b.name, "source": b.source, "added_at": b.added_at.isoformat()} for b in found]
    return Result(
        {"bases": data}, lambda: table(headers, rows) if rows else line("no bases yet: rasura base add MODEL")
    )


@command(base, "show")
@click.argument("base_ref", metavar="BASE")
def show(base_ref: str, registry_at: str | None) -> Result:
    """Show one base: its name, digest or an abbreviation."""
    with open_registry(registry_at) as registry:
        record = registry.base(base_ref)
    parameters = [
        {"name": p.name, "dtype": p.dtype, "shape": list(p.shape), "sha256": p.sha256} for p in record.parameters
    ]
    pairs = [
        ("name", record.name),
        ("base", record.digest),
        ("source", record.source),
        ("parameters", str(len(parameters))),
        ("dtypes", ", ".join(sorted({p.dtype for p in record.parameters}))),
        ("cross-attention", str(sum(1 for p in record.parameters if ".attn2.to_" in p.name and p.casts))),
        ("text encoder", record.text_encoder),
        ("tokenizer", record.tokenizer),
        ("added", f"{record.added_at:%Y-%m-%d %H:%M:%S} UTC"),
    ]
    return Result({**dict(pairs), "parameters": parameters}, lambda: fields(pairs))
