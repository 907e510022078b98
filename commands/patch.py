"""`rasura patch`: what is registered, whether it may be applied, and where it is applied."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rasura.commands.frame import command, open_registry
from rasura.commands.output import Result, fields, line, progress, short, table

if TYPE_CHECKING:
    from rasura.patches.names import PatchId
    from rasura.patches.projection import Verdict
    from rasura.registry.deploy import Receipt

_SHOWN = 10  # parameters that drifted
_IDS = click.argument("ids", nargs=-1, required=True, metavar="ID...")
_MODEL = click.option("--model", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Model folder.")


@click.group()
def patch() -> None:
    """Patches: list, show, verify, check, apply, revert, status."""


@command(patch, "list")
def list_(registry_at: str | None) -> Result:
    """List the registered patches, the oldest first."""
    with open_registry(registry_at) as registry:
        found, names = registry.patches(), {b.digest: b.name for b in registry.bases()}
    rows = [
        (
            short(p.patch_id),
            ", ".join(p.concepts),
            p.anchor or "(nothing)",
            p.method,
            names.get(p.base, short(p.base)),
            f"{p.size / 1000:.0f} kB",
            f"{p.added_at:%Y-%m-%d %H:%M}",
        )
        for p in found
    ]
    data = [
        {
            "id": p.patch_id,
            "concepts": list(p.concepts),
            "anchor": p.anchor,
            "method": p.method,
            "base": p.base,
            "key_id": p.key_id,
            "size": p.size,
            "source": p.source,
            "added_at": p.added_at.isoformat(),
        }
        for p in found
    ]
    headers = ("patch", "concept", "becomes", "method", "base", "size", "added")
    return Result({"patches": data}, lambda: table(headers, rows))


@command(patch, "show")
@click.argument("patch_ref", metavar="ID")
def show(patch_ref: str, registry_at: str | None) -> Result:
    """Show what a patch says of itself."""
    import json

    from rasura.registry.intake import manifest_of

    with open_registry(registry_at) as registry:
        record = registry.patch(patch_ref)
        manifest = manifest_of(registry, record.patch_id)
        signer = next((k.name for k in registry.keys() if k.key_id == record.key_id), "unknown")
    basis, retain = manifest.protected.basis, manifest.protected.retain
    pairs = [
        ("patch", record.patch_id),
        ("concept", manifest.concept.text),
        ("becomes", manifest.concept.anchor or "(nothing)"),
        (
            "method",
            f"{manifest.eraser.name}, tokens {manifest.concept.tokens}, layers {manifest.eraser.options['layers']}",
        ),
        ("base", record.base),
        ("touches", f"{len(manifest.base.parameters)} parameters, rank {manifest.measured.get('rank', '?')}"),
        ("protects", f"{basis.rank} of {basis.dimension} dimensions ({basis.invariants} exact, {basis.rule})"),
        ("retain set", f"{retain.source}, {retain.count} concepts, {short(retain.sha256)}" if retain else "none"),
        (
            "protects too",
            ", ".join([*manifest.protected.concepts, *map(short, manifest.protected.patches)]) or "nothing",
        ),
        *((name.replace("_", " "), value) for name, value in sorted(manifest.measured.items())),
        ("signed by", f"{signer} ({short(record.key_id or '')})"),
        ("size", f"{record.size} bytes in {len(record.files)} files"),
        ("source", record.source),
        ("added", f"{record.added_at:%Y-%m-%d %H:%M:%S} UTC"),
    ]
    data = {"id": record.patch_id, "signer": signer, "manifest": json.loads(manifest.to_bytes())}
    return Result({**data, "files": dict(record.files)}, lambda: fields(pairs))


@command(patch, "export")
@click.argument("patch_ref", metavar="ID")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, metavar="DIR", help="New folder.")
def export(patch_ref: str, output: Path, registry_at: str | None) -> Result:
    """Write a patch as a folder that diffusers' load_lora_weights reads and `model_signing verify` accepts."""
    from rasura.patches.file import write_folder

    with open_registry(registry_at) as registry:
        patch_id = registry.resolve_patch(patch_ref)
        write_folder(output, registry.patch_files(patch_id))
    return Result({"id": patch_id, "folder": str(output)}, lambda: line(f"wrote {output}"), changed=True)


@command(patch, "verify")
@_IDS
def verify(ids: tuple[str, ...], registry_at: str | None) -> Result:
    """Verify signatures, trust, digests and numbers of patches, from the stored bytes."""
    from rasura.registry.intake import load_verified

    with open_registry(registry_at) as registry:
        found = [registry.resolve_patch(i) for i in ids]
        concepts = [load_verified(registry, patch_id).manifest.concept.text for patch_id in found]
    lines = [f"{short(p)} is good: {c}" for p, c in zip(found, concepts, strict=True)]
    return Result({"verified": found}, lambda: line("\n".join(lines)))


@command(patch, "check")
@_IDS
def check(ids: tuple[str, ...], registry_at: str | None) -> Result:
    """Check that patches keep their promises and do not disturb each other. Exit code 3 if they do."""
    from rasura.patches.projection import Member
    from rasura.patches.projection import check as judge
    from rasura.registry.intake import load_verified

    with open_registry(registry_at) as registry:
        members = [Member(load_verified(registry, registry.resolve_patch(i))) for i in ids]
    verdict = judge(members)
    names = {m.patch_id: m.patch.manifest.concept.text for m in members}
    return _verdict(verdict, names)


@command(patch, "apply", mutating=True)
@_IDS
@_MODEL
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Patch a copy in DIR instead.")
@click.option("--strength", default="1", show_default=True, metavar="S", help="Multiple of 1/16 from -4 to 4.")
def apply(
    *,
    ids: tuple[str, ...],
    model: Path,
    out: Path | None,
    strength: str,
    registry_at: str | None,
    reason: str,
    actor: str,
) -> Result:
    """Apply patches to a model folder, together with those that are applied already: all or nothing."""
    from rasura.patches.increment import Strength
    from rasura.registry import deploy
    from rasura.registry.deploy import Actor

    factor = Strength.parse(strength)
    with open_registry(registry_at) as registry, progress() as tell:
        found = [registry.resolve_patch(i) for i in ids]
        tell("applying", 0, 1)
        receipt = deploy.apply_to_folder(registry, model, found, Actor(actor, reason), strength=factor, out=out)
        tell("applying", 1, 1)
    return _receipt(receipt, f"applied {len(found)} to {receipt.location}")


@command(patch, "revert", mutating=True)
@click.argument("ids", nargs=-1, metavar="ID...")
@click.option("--all", "everything", is_flag=True, help="Revert everything.")
@click.option("--force", is_flag=True, help="With --all: put the originals back even if something else was changed.")
@_MODEL
def revert(
    *,
    ids: tuple[str, ...],
    everything: bool,
    force: bool,
    model: Path,
    registry_at: str | None,
    reason: str,
    actor: str,
) -> Result:
    """Take patches out of a model folder; with the last one, every byte is the original again."""
    from rasura.patches.hosts.checkpoint import CheckpointHost
    from rasura.registry import deploy
    from rasura.registry.deploy import Actor

    if everything == bool(ids):
        raise click.UsageError("name the patches to revert, or --all")
    if force and not everything:
        raise click.UsageError("--force goes with --all")
    with open_registry(registry_at) as registry, progress() as tell:
        found = None if everything else [registry.resolve_patch(i) for i in ids]
        tell("reverting", 0, 1)
        receipt = deploy.revert(registry, CheckpointHost.open(model), found, Actor(actor, reason), force=force)
        tell("reverting", 1, 1)
    said = "everything" if found is None else str(len(found))
    return _receipt(receipt, f"reverted {said} in {receipt.location}")


@command(patch, "status")
@_MODEL
@click.option("--deep", is_flag=True, help="Hash every patchable parameter and recompute the touched ones.")
def status(model: Path, registry_at: str | None, *, deep: bool) -> Result:
    """Say what is applied to a model folder, by hashing what is there. Exit code 6 if it is something else."""
    from rasura.patches.errors import DriftError
    from rasura.patches.hosts.checkpoint import CheckpointHost
    from rasura.registry.survey import survey

    with open_registry(registry_at) as registry, progress() as tell:
        report = survey(registry, CheckpointHost.open(model), deep=deep, progress=tell)
        names = {p: ", ".join(registry.patch(p).concepts) for p in report.applied}
    rows = [(short(p), names[p], str(strength)) for p, strength in report.applied.items()]
    data = {
        "location": report.location,
        "applied": {p: str(s) for p, s in report.applied.items()},
        "touched": report.touched,
        "hashed": report.hashed,
        "drifted": list(report.drifted),
        "interrupted": report.interrupted,
    }

    def text() -> None:
        if rows:
            table(("patch", "concept", "strength"), rows)
        else:
            line("nothing is applied")
        if report.interrupted is not None:
            line(f"entry {report.interrupted} of the log was interrupted: the next apply or revert ends it")
        line(
            f"{report.touched} parameters touched; {report.hashed} hashed, {len(report.drifted)} not as they should be"
        )
        for name in report.drifted[:_SHOWN]:
            line(f"  {name}")
        if len(report.drifted) > _SHOWN:
            line(f"  … and {len(report.drifted) - _SHOWN} more")
        if rows and report.drifted:
            line(f"to put the originals back: rasura patch revert --all --force --model {shlex.quote(str(model))}")

    return Result(data, text, exit_code=DriftError.exit_code if report.drifted else 0)


def _verdict(verdict: "Verdict", names: "dict[PatchId, str]") -> Result:
    from rasura.patches.errors import CheckRefusedError
    from rasura.patches.projection import Refused

    refused = verdict.reasons if isinstance(verdict, Refused) else ()
    rows = [
        (
            r.check,
            f"{short(r.patch)} {names[r.patch]}" if r.check in {"own", "pair"} else "all",
            f"{short(r.other)} {names[r.other]}" if r.check in {"pair", "stack"} else "",
            f"{r.value:.2e}",
            f"{r.limit:.2e}",
            "ok" if r.holds else "REFUSED",
        )
        for r in verdict.relations
    ]
    data = {
        "accepted": not refused,
        "relations": [
            {"check": r.check, "patch": r.patch, "other": r.other, "value": r.value, "limit": r.limit, "holds": r.holds}
            for r in verdict.relations
        ],
        "reasons": [{"text": reason.text, "hint": reason.hint} for reason in refused],
    }

    def text() -> None:
        table(("check", "patch", "on", "value", "limit", "verdict"), rows)
        for reason in refused:
            line(f"refused: {reason.text}")
            line(f"  {reason.hint}")
        if not refused:
            line("accepted")

    return Result(data, text, exit_code=CheckRefusedError.exit_code if refused else 0)


def _receipt(receipt: "Receipt", said: str) -> Result:
    data: dict[str, Any] = {
        "location": receipt.location,
        "applied": {patch_id: str(strength) for patch_id, strength in receipt.applied.items()},
        "parameters": receipt.parameters,
        "before": receipt.before,
        "after": receipt.after,
        "pristine": receipt.pristine,
    }

    def text() -> None:
        line(said)
        line(f"{receipt.parameters} parameters: {short(receipt.before)} -> {short(receipt.after)}")
        if receipt.pristine:
            line("nothing is applied any more: every byte is the original again")

    return Result(data, text, changed=True)
