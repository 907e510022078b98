"""`rasura patch`: what is registered, whether it may be applied, and where it is applied."""

from pathlib import Path

import click

from rasura.commands._command import IDS, Verbs, command, open_registry
from rasura.commands._output import Result, fields, line, short, table
from rasura.commands._views import encode_evaluation, format_evaluation
from rasura.commands.apply import apply, revert, status, switch
from rasura.commands.bisect import bisect
from rasura.commands.check import check
from rasura.commands.export import export
from rasura.commands.resolve import join, rebase, retarget

_EVALUATIONS = 5  # lines of `show`


@click.group(cls=Verbs)
def patch() -> None:
    """Patches: register, check, apply, switch, revert, solve anew, find the one that does harm."""


for _moving in (export, check, apply, switch, revert, status, rebase, join, retarget, bisect):
    patch.add_command(_moving)


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

    from rasura.registry.trust.verified_patch import manifest_of

    with open_registry(registry_at) as registry:
        record = registry.patch(patch_ref)
        manifest = manifest_of(registry, record.patch_id)
        signer = next((k.name for k in registry.keys() if k.key_id == record.key_id), "unknown")
        evaluations = registry.evaluations(record.patch_id)
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
        *(() if manifest.separable else [("separable", "no: what it does to other prompts is measured, not proved")]),
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
        *(("evaluated", format_evaluation(e)) for e in evaluations[:_EVALUATIONS]),
    ]
    if (more := len(evaluations) - _EVALUATIONS) > 0:
        pairs.append(("", f"… and {more} more: rasura evaluation list --patch {short(record.patch_id)}"))
    data = {
        "id": record.patch_id,
        "signer": signer,
        "separable": manifest.separable,
        "manifest": json.loads(manifest.to_bytes()),
    }
    judged = [encode_evaluation(e) for e in evaluations]
    return Result({**data, "files": dict(record.files), "evaluations": judged}, lambda: fields(pairs))


@command(patch, "add", mutating=True)
@click.argument("folder", type=click.Path(path_type=Path))
def add(folder: Path, registry_at: str | None, reason: str, actor: str) -> Result:
    """Register the patch in FOLDER, as export writes it, if a key trusted here has signed it."""
    from rasura.registry._storage.records import Draft
    from rasura.registry.trust.verified_patch import add_folder

    with open_registry(registry_at) as registry:
        patch_id, new = add_folder(registry, folder, Draft(actor, reason, "patch.add", "success"))
    said = "is new" if new else "was here already"
    return Result({"id": patch_id, "new": new}, lambda: line(f"{short(patch_id)} {said}"), changed=new)


@command(patch, "verify")
@IDS
def verify(ids: tuple[str, ...], registry_at: str | None) -> Result:
    """Verify signatures, trust, digests and numbers of patches, from the stored bytes."""
    from rasura.registry.trust.verified_patch import load_verified

    with open_registry(registry_at) as registry:
        found = [registry.resolve_patch(i) for i in ids]
        concepts = [load_verified(registry, patch_id).manifest.concept.text for patch_id in found]
    lines = [f"{short(p)} is good: {c}" for p, c in zip(found, concepts, strict=True)]
    return Result({"verified": found}, lambda: line("\n".join(lines)))
