"""`rasura patch`: what is registered, whether it may be applied, and where it is applied."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rasura.commands._shared.asking import DRY
from rasura.commands._shared.certified_views import CERTIFY, certify_one, encode_certified
from rasura.commands._shared.command import IDS, Order, Verbs, command, open_registry
from rasura.commands._shared.output import Result, fields, line, short, verdict
from rasura.commands._shared.views import (
    encode_approved,
    encode_evaluation,
    format_approved,
    format_ignored,
    format_new_signers,
)
from rasura.commands.applying.apply import apply, revert, switch
from rasura.commands.applying.status import status
from rasura.commands.checking.bisect import bisect
from rasura.commands.checking.check import check
from rasura.commands.erasing.resolve import join, rebase, retarget
from rasura.commands.registry.patch_views import list_patch_properties, print_patches
from rasura.commands.sharing.export import export
from rasura.patches.errors import InputError
from rasura.patches.models.text_encoders.plain_text import normal

if TYPE_CHECKING:
    from rasura.patches.types import PatchId
    from rasura.registry.standing.catalogue import Listed


@click.group(cls=Verbs)
def patch() -> None:
    """Patches: list, sign, approve, check, apply, switch, revert, solve anew, retire, find the one that does harm."""


for _moving in (export, check, apply, switch, revert, status, rebase, join, retarget, bisect):
    patch.add_command(_moving)


@command(patch, "list")
@click.option("--concept", metavar="TEXT", help="Only those that erase this concept, by any of its names.")
@click.option("--base", metavar="NAME", help="Only those of this base.")
@click.option("--method", metavar="NAME", help="Only those that this eraser made.")
@click.option("--in-force", is_flag=True, help="Only those that are applied somewhere.")
@click.option("--superseded", is_flag=True, help="Only those that another one supersedes.")
@click.option("--current", is_flag=True, help="Only those that none supersedes.")
@click.option("--retired", is_flag=True, help="The retired ones in place of the others.")
@click.option("-n", "--limit", type=click.IntRange(1), help="Only so many, the newest.")
@click.option("--before", metavar="ID", help="Only those that came before this patch: the page before.")
def list_(limit: int | None, before: str | None, registry_at: str | None, **which: Any) -> Result:
    """List the registered patches, the oldest first: what each erases, and where it is in force."""
    from rasura.registry.standing.catalogue import PatchFilter, list_patches

    with open_registry(registry_at) as registry:
        found, more = list_patches(registry, PatchFilter(**which), limit=limit, before=before)
    data = [
        {
            "id": p.record.patch_id,
            "concepts": list(p.record.concepts),
            "names": list(p.names),
            "anchor": p.record.anchor,
            "method": p.record.method,
            "base": p.record.base,
            "key_id": p.record.key_id,
            "size": p.record.size,
            "source": p.record.source,
            "added_at": p.record.added_at.isoformat(),
            "in_force": list(p.in_force),
            "superseded_by": p.superseded_by,
            "ticket": p.ticket,
        }
        for p in found
    ]
    narrowed = before is not None or any(which.values())
    said = "no patches" + (" like that" if narrowed else " yet: rasura takedown, rasura erase")

    def text() -> None:
        if not found:
            line(said)
            return
        _say_other_names(which["concept"], found)
        print_patches(found)
        if more:
            line(f"older ones: --before {short(found[0].record.patch_id)}")

    return Result({"patches": data, "more": more}, text)


def _say_other_names(asked: str | None, found: "tuple[Listed, ...]") -> None:
    """Where what was asked for is no concept of these patches but another name of it; of several, how to tell them."""
    concepts = list(dict.fromkeys(concept for p in found for concept in p.record.concepts))
    if asked is None or normal(asked) in map(normal, concepts):
        return
    line(f"{asked} is another name of {' and of '.join(concepts)}")
    if len(concepts) > 1:
        for concept in concepts:
            line(f"only these: rasura patch list --concept {shlex.quote(concept)}")


@command(patch, "retire", mutating=True)
@IDS
@DRY
def retire(ids: tuple[str, ...], order: Order, *, dry_run: bool) -> Result:
    """Retire patches: hidden from lists, left alone by nothing that is made later, still verifiable.

    Exit code 7 where one is in force on a model or in a stack.
    """
    from rasura.registry.standing import retire as retiring

    with order.open() as registry:
        found = [registry.resolve_patch(i) for i in ids]
        new = retiring.retire(registry, found, order.actor, dry_run=dry_run)
    return _retired(found, new, "would be retired" if dry_run else "is retired", "was retired already", dry_run=dry_run)


@command(patch, "unretire", mutating=True)
@IDS
@DRY
def unretire(ids: tuple[str, ...], order: Order, *, dry_run: bool) -> Result:
    """Take retired patches back into use."""
    from rasura.registry.standing import retire as retiring

    with order.open() as registry:
        found = [registry.resolve_patch(i, among=registry.retired_patches()) for i in ids]
        back = retiring.unretire(registry, found, order.actor, dry_run=dry_run)
    return _retired(
        found, back, "would be in use again" if dry_run else "is in use again", "is in use", dry_run=dry_run
    )


def _retired(
    found: "Sequence[PatchId]", moved: "Sequence[PatchId]", said: str, otherwise: str, *, dry_run: bool
) -> Result:
    lines = [f"{short(p)} {said if p in moved else otherwise}" for p in found]
    data = {"patches": list(found), "moved": list(moved), "dry_run": dry_run}
    return Result(data, lambda: line("\n".join(lines)), changed=bool(moved) and not dry_run)


@command(patch, "sign", mutating=True)
@IDS
@click.option("--key", metavar="NAME", help="Key to sign with [default: the only one].")
@DRY
def sign(ids: tuple[str, ...], key: str | None, order: Order, *, dry_run: bool) -> Result:
    """Sign registered patches, too: kept beside the signatures that are there. All, or none.

    A patch whose first signer was revoked counts again once somebody who is trusted has signed it.
    """
    from rasura.registry.trust.sign_again import sign_patches

    with order.open() as registry:
        found = [registry.resolve_patch(i) for i in ids]
        signed = sign_patches(registry, found, key, order.draft("patch.sign"), dry_run=dry_run)
        names = {record.key_id: record.name for record in registry.keys()}
    verb = "would be signed" if dry_run else "is signed"
    lines = [
        f"{short(each.patch_id)} {verb if each.new else 'was signed already'} by {names[each.key_id]}"
        for each in signed
    ]
    data = {
        "patches": [{"id": each.patch_id, "key_id": each.key_id, "new": each.new} for each in signed],
        "dry_run": dry_run,
    }
    changed = not dry_run and any(each.new for each in signed)
    return Result(data, lambda: line("\n".join(lines)), changed=changed)


@command(patch, "approve", mutating=True)
@IDS
@click.option("--key", metavar="NAME", help="Key that approves [default: the only one].")
@DRY
def approve(ids: tuple[str, ...], key: str | None, order: Order, *, dry_run: bool) -> Result:
    """Approve patches, as the trust policy asks for; what a plan puts in is approved by `rasura plan approve`.

    The key needs the role approve there (`rasura trust show`).
    """
    from rasura.registry.trust.approvals.approve import approve_patches

    with order.open() as registry:
        for text in ids:
            if text.endswith(".json") or "/" in text:
                raise InputError(
                    f"expected patches, got {text!r}, which reads as a plan",
                    hint=f"rasura plan approve {shlex.quote(text)}",
                )
        found = [registry.resolve_patch(i) for i in ids]
        done = approve_patches(registry, found, key, order.draft("patch.approve"), dry_run=dry_run)
        names = {record.key_id: record.name for record in registry.keys()}
    told = format_approved(done, names, dry_run=dry_run)
    changed = not dry_run and any(each.new for each in done)
    return Result(encode_approved(done, dry_run=dry_run), lambda: line(told), changed=changed)


@command(patch, "show")
@click.argument("patch_ref", metavar="ID")
@CERTIFY
@click.option("--also", multiple=True, metavar="TEXT", help="With --certify: another word for it; repeatable.")
@click.option("--ball", type=float, metavar="RADIUS", help="With --certify: bound what is that near, too.")
def show(
    *, patch_ref: str, certify: bool, also: tuple[str, ...], ball: float | None, registry_at: str | None
) -> Result:
    """Show what a patch says of itself, and with --certify what it leaves at most."""
    from rasura.registry.trust.approvals.approve import Subject, find_approvals
    from rasura.registry.trust.register_patch import find_signers
    from rasura.registry.trust.verified_patch import manifest_of

    with open_registry(registry_at) as registry:
        record = registry.patch(patch_ref)
        manifest = manifest_of(registry, record.patch_id)
        keys = {key.key_id: key for key in registry.keys()}
        signers = [keys[key_id] for key_id in find_signers(registry, record.patch_id)]
        evaluations = registry.evaluations(record.patch_id)
        approved = sorted(key.name for key in find_approvals(registry, Subject("patch", record.patch_id)).values())
        certified = certify_one(registry, record.patch_id, also, ball, wanted=certify)
    data = {
        "id": record.patch_id,
        "signer": signers[0].name if signers else "unknown",
        "signers": [
            {"key_id": key.key_id, "name": key.name, "counts": key.trusted and key.revoked_at is None}
            for key in signers
        ],
        "approved": approved,
        "separable": manifest.separable,
        "manifest": json.loads(manifest.to_bytes()),
        **({"certified": encode_certified(certified)} if certified else {}),
    }
    judged = [encode_evaluation(e) for e in evaluations]
    pairs = list_patch_properties(record, manifest, signers, approved, evaluations, certified=certified)
    return Result({**data, "files": dict(record.files), "evaluations": judged}, lambda: fields(pairs))


@command(patch, "add", mutating=True)
@click.argument("folders", nargs=-1, required=True, metavar="FOLDER...", type=click.Path(path_type=Path))
@DRY
def add(folders: tuple[Path, ...], order: Order, *, dry_run: bool) -> Result:
    """Register the patches in folders, as export writes them, if a key trusted here has signed each: all, or none."""
    from rasura.registry.trust.register_patch import add_folders

    with order.open() as registry:
        added = add_folders(registry, folders, order.draft("patch.add"), dry_run=dry_run)
    fresh = "would be new" if dry_run else "is new"

    def text() -> None:
        for patch in added:
            line(f"{short(patch.patch_id)} {fresh if patch.new else 'was here already'}")
            if patch.signers and not patch.new:
                line(f"  {format_new_signers(patch.signers, dry_run=dry_run)}")
            for name in patch.ignored:
                line(f"  {format_ignored(name)}")

    each = [
        {
            "id": patch.patch_id,
            "new": patch.new,
            "ignored": list(patch.ignored),
            "signers": list(patch.signers),
        }
        for patch in added
    ]
    data = {"patches": each, "dry_run": dry_run, **(each[0] if len(each) == 1 else {})}
    return Result(data, text, changed=not dry_run and any(patch.new or patch.signers for patch in added))


@command(patch, "verify")
@IDS
def verify(ids: tuple[str, ...], registry_at: str | None) -> Result:
    """Verify signatures, trust, digests and numbers of patches, from the stored bytes."""
    from rasura.registry.trust.verified_patch import load_verified

    with open_registry(registry_at) as registry:
        found = [registry.resolve_patch(i) for i in ids]
        concepts = [load_verified(registry, patch_id).manifest.concept.text for patch_id in found]

    def text() -> None:
        for patch_id, concept in zip(found, concepts, strict=True):
            verdict(f"{short(patch_id)} is good: {concept}", good=True)

    return Result({"verified": found}, text)
