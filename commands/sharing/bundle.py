"""`rasura bundle`: patches for a colleague in one file."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rasura.commands._shared.asking import DRY
from rasura.commands._shared.command import Order, command, open_registry
from rasura.commands._shared.documents import write_document
from rasura.commands._shared.output import Result, line, short, table
from rasura.commands._shared.views import format_new_signers

if TYPE_CHECKING:
    from rasura.registry.stacks.bundles.bundle_contents import Bundle

_PATH = click.Path(path_type=Path)
_FILE = click.argument("file", type=_PATH)


@click.group()
def bundle() -> None:
    """Patches for a colleague in one file: make, show, add."""


@command(bundle, "make")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--stack", "stack_name", metavar="NAME", help="A stack's patches, and its lock.")
@click.option("--no-evaluations", is_flag=True, help="Leave out what was drawn with the patches.")
@click.option("-o", "--output", type=_PATH, required=True, metavar="FILE", help="Where to write it.")
def make(
    ids: tuple[str, ...], stack_name: str | None, output: Path, registry_at: str | None, *, no_evaluations: bool
) -> Result:
    """Write patches, the public keys of their signers, and evaluations into one file."""
    from rasura.registry.stacks.bundles.bundle import make_bundle

    if not ids and stack_name is None:
        raise click.UsageError("expected patches or --stack NAME")
    with open_registry(registry_at) as registry:
        found = [registry.resolve_patch(i) for i in ids]
        data = make_bundle(registry, found, stack=stack_name, evaluations=not no_evaluations)
    write_document(output, data)
    return Result({"file": str(output), "size": len(data)}, lambda: line(f"wrote {output}, {len(data)} bytes"))


@command(bundle, "show")
@_FILE
def show(file: Path, registry_at: str | None) -> Result:
    """Show what a bundle holds and whose keys signed it; nothing is registered."""
    from rasura.registry.stacks.bundles.bundle import read_bundle

    with open_registry(registry_at) as registry:
        found = read_bundle(registry, file)
    return Result(_data(found), lambda: _print(found))


@command(bundle, "add", mutating=True)
@_FILE
@click.option("--trust", multiple=True, metavar="KEY", help="Trust this key of the bundle, by its id; repeatable.")
@click.option("--lock", "lock_at", type=_PATH, metavar="FILE", help="Write the bundle's lock here.")
@click.option("--evaluations", is_flag=True, help="Record the sender's evaluations, too: claims, drawn by nobody here.")
@DRY
def add(
    file: Path,
    trust: tuple[str, ...],
    lock_at: Path | None,
    *,
    order: Order,
    evaluations: bool,
    dry_run: bool,
) -> Result:
    """Verify every patch in a bundle and register all of them, or none."""
    from rasura.evaluation.report.recorded import record_evaluation
    from rasura.registry.stacks.bundles.bundle import add_bundle

    with order.open() as registry:
        found = add_bundle(registry, file, order.draft("patch.add"), trust=trust, dry_run=dry_run)
        reports = (found.bundle.files.evaluations or {}).values() if evaluations and not dry_run else ()
        noted = order.draft("evaluation.add", details={"bundle": file.name})
        recorded = [record_evaluation(registry, report, noted)[1] for report in reports]
    if lock_at is not None and not dry_run and found.bundle.files.lock is not None:
        write_document(lock_at, found.bundle.files.lock)
    new = {patch_id: is_new for patch_id, is_new in found.added if is_new}
    trusting, fresh = ("would trust", "would be new") if dry_run else ("trusting", "is new")
    lines = [f"{trusting} {short(key_id)}" for key_id in found.trusted]
    lines += [f"{short(p)} {fresh if is_new else 'was here already'}" for p, is_new in found.added]
    lines += [f"{short(p)} {format_new_signers(keys)}" for p, keys in found.signed.items()]
    lines += [f"recorded {len(recorded)} evaluations as the sender has them"] if recorded else []
    data = {
        **_data(found.bundle),
        "added": dict(found.added),
        "signed": {patch_id: list(keys) for patch_id, keys in found.signed.items()},
        "trusted": list(found.trusted),
        "recorded": len(recorded),
        "dry_run": dry_run,
    }
    changed = not dry_run and bool(new or found.signed or found.trusted or any(recorded))
    return Result(data, lambda: line("\n".join(lines)), changed=changed)


def _data(found: "Bundle") -> dict[str, Any]:
    return {
        "patches": [
            {"id": p.patch_id, "concept": p.concept, "method": p.method, "key": p.key_id, "signers": list(p.signers)}
            for p in found.patches
        ],
        "keys": [{"id": k.key_id, "name": k.name, "standing": k.standing, "sent": k.sent} for k in found.keys],
        "lock": None if found.lock is None else found.lock.stack,
        "evaluations": sorted(found.files.evaluations or {}),
    }


def _print(found: "Bundle") -> None:
    table(("patch", "concept", "method", "signed by"), [_row(p) for p in found.patches])
    table(("key", "here", "the sender's name"), [(k.key_id, k.standing, k.name) for k in found.keys])
    if found.lock is not None:
        line(f"lock of stack {found.lock.stack}, {len(found.lock.patches)} patches")
    for digest in sorted(found.files.evaluations or {}):
        line(f"evaluation {short(digest)}")


def _row(patch: Any) -> tuple[str, str, str, str]:
    return short(patch.patch_id), patch.concept, patch.method, ", ".join(map(short, patch.signers))
