"""`rasura stack`: named, pinned sets of patches."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rasura.commands._shared.asking import DRY
from rasura.commands._shared.command import Order, Verbs, command, open_registry
from rasura.commands._shared.documents import write_document
from rasura.commands._shared.output import Result, fields, line, short, table
from rasura.commands._shared.progress import progress
from rasura.commands._shared.retyping import retyping_strengths
from rasura.commands._shared.views import (
    encode_capacity,
    encode_difference,
    list_differences,
    name_concepts,
)
from rasura.commands.applying.stack_views import (
    count_patches,
    encode_stack,
    encode_verdict,
    list_properties,
    report_followed,
    report_stack,
)
from rasura.patches.algebra.strength import Strength
from rasura.patches.errors import RasuraError, StrengthError

if TYPE_CHECKING:
    from rasura.registry.registry import Registry

_NAME = click.argument("name")
_PATH = click.Path(path_type=Path)
_MEMBERS = click.argument("members", nargs=-1, metavar="[ID[=STRENGTH]]...")


@click.group(cls=Verbs)
def stack() -> None:
    """Stacks: create, add, remove, show, list, delete, update, retarget, diff, lock."""


@command(stack, "create", mutating=True)
@_NAME
@_MEMBERS
@click.option("--base", metavar="NAME", help="Base of a stack without patches [default: the only one].")
@DRY
def create(
    *,
    name: str,
    members: tuple[str, ...],
    base: str | None,
    dry_run: bool,
    order: Order,
) -> Result:
    """Make a stack of patches of one base, each at strength 1 unless another is named."""
    from rasura.registry.stacks import edit

    with order.open() as registry:
        with retyping_strengths("members", members):
            found = edit.members_of(registry, members)
        record = edit.create(registry, name, found, order.actor, base=base, dry_run=dry_run)
    said = f"{'would make' if dry_run else 'made'} stack {name}: {count_patches(record)}"
    return Result({**encode_stack(record), "dry_run": dry_run}, lambda: line(said), changed=not dry_run)


@command(stack, "add", mutating=True)
@_NAME
@click.argument("members", nargs=-1, required=True, metavar="ID[=STRENGTH]...")
@click.option("--replace", "replace_old", is_flag=True, help="Other versions of the same concepts give way.")
@DRY
def add(
    *,
    name: str,
    members: tuple[str, ...],
    replace_old: bool,
    dry_run: bool,
    order: Order,
) -> Result:
    """Add patches to a stack, or with --replace give them another strength."""
    from rasura.registry.stacks import edit

    with order.open() as registry:
        with _hinting_removal(registry, name, members), retyping_strengths("members", members):
            found = edit.members_of(registry, members)
        record, changed = edit.add(registry, name, found, order.actor, replace_old=replace_old, dry_run=dry_run)
    return report_stack(record, changed=changed, dry_run=dry_run)


@contextmanager
def _hinting_removal(registry: "Registry", name: str, members: tuple[str, ...]) -> Iterator[None]:
    """Where one patch that the stack has was given strength 0, the hint takes it out."""
    try:
        yield
    except StrengthError as error:
        ref, _, factor = members[0].partition("=")
        with suppress(RasuraError):
            if len(members) == 1 and Strength.parse(factor).sixteenths == 0:
                registry.resolve_patch(ref, among=registry.stack(name).patches)
                error.hint = f"rasura stack remove {shlex.quote(name)} {shlex.quote(ref)}"
        raise


@command(stack, "remove", mutating=True)
@_NAME
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@DRY
def remove(*, name: str, ids: tuple[str, ...], dry_run: bool, order: Order) -> Result:
    """Take patches out of a stack; models that have them keep them until they are switched."""
    from rasura.registry.stacks import edit

    with order.open() as registry:
        there = registry.stack(name).patches
        found = [registry.resolve_patch(i, among=there) for i in ids]
        record, changed = edit.remove(registry, name, found, order.actor, dry_run=dry_run)
    return report_stack(record, changed=changed, dry_run=dry_run)


@command(stack, "update", mutating=True)
@_NAME
@DRY
def update(name: str, order: Order, *, dry_run: bool) -> Result:
    """Replace patches of a stack by the newest registered ones that supersede them."""
    from rasura.registry.stacks import edit

    with order.open() as registry:
        record, moved = edit.update(registry, name, order.actor, dry_run=dry_run)
    lines = [f"{short(u.old)} -> {short(u.new)}" for u in moved] or [f"stack {name} is up to date"]
    if dry_run:
        lines.append("dry run: nothing was written")
    data = {**encode_stack(record), "updated": {u.old: u.new for u in moved}, "dry_run": dry_run}
    return Result(data, lambda: line("\n".join(lines)), changed=bool(moved) and not dry_run)


@command(stack, "retarget", mutating=True)
@_NAME
@click.option("--base", "base_ref", required=True, metavar="MODEL", help="Registered base, or a diffusers folder.")
@click.option("--to", metavar="NAME", help="Name of the new stack [default: the old one's and the base's].")
@click.option(
    "--retain",
    type=click.Path(path_type=Path),
    metavar="FILE[:COLUMN]",
    help="The retain file, if the registry lacks its words.",
)
@click.option("--key", metavar="NAME", help="Key to sign with [default: the only one].")
@DRY
def retarget(
    *, name: str, base_ref: str, to: str | None, retain: Path | None, key: str | None, order: Order, dry_run: bool
) -> Result:
    """Make of a stack one for another base, such as a finetune, and say how far that has drifted."""
    from rasura.registry.erase.solve_again import Anew
    from rasura.registry.takedown.follow import retarget_stack

    with order.open() as registry, progress() as tell:
        how, draft = Anew(retain=retain, key=key), order.draft("patch.retarget")
        made = retarget_stack(
            registry, name, base_ref, how, to=to, actor=order.actor, draft=draft, progress=tell, dry_run=dry_run
        )
    return report_followed(made, name, dry_run=dry_run)


@command(stack, "delete", mutating=True)
@_NAME
@DRY
def delete(name: str, order: Order, *, dry_run: bool) -> Result:
    """Delete a stack; its patches, and models that have them, stay as they are."""
    from rasura.registry.stacks import edit

    with order.open() as registry:
        record = edit.delete(registry, name, order.actor, dry_run=dry_run)
    said = f"{'would delete' if dry_run else 'deleted'} stack {name}"
    return Result({**encode_stack(record), "dry_run": dry_run}, lambda: line(said), changed=not dry_run)


@command(stack, "list")
def list_(registry_at: str | None) -> Result:
    """List the stacks, and on how many models each is applied."""
    from rasura.registry.stacks.overview import list_hosts_of

    with open_registry(registry_at) as registry:
        records, names = registry.stacks(), {b.digest: b.name for b in registry.bases()}
        where = {record.name: [host.location for host in list_hosts_of(registry, record)] for record in records}
    rows = [
        (r.name, names[r.base], str(len(r.patches)), str(len(where[r.name])), f"{r.updated_at:%Y-%m-%d %H:%M}")
        for r in records
    ]
    data = [{**encode_stack(record), "hosts": where[record.name]} for record in records]
    headers = ("stack", "base", "patches", "models", "changed")
    return Result(
        {"stacks": data}, lambda: table(headers, rows) if rows else line("no stacks yet: rasura stack create")
    )


@command(stack, "show")
@_NAME
def show(name: str, registry_at: str | None) -> Result:
    """Show a stack: patches, strengths, what supersedes them, where it is applied, and the composer's verdict."""
    from rasura.registry.stacks.overview import overview

    with open_registry(registry_at) as registry:
        view = overview(registry, name)
    rows = [
        (short(m.patch_id), ", ".join(m.concepts), str(m.strength), short(m.newer) if m.newer else "")
        for m in view.members
    ]

    def text() -> None:
        fields(list_properties(view))
        if rows:
            table(("patch", "concept", "strength", "superseded by"), rows)

    superseded = {m.patch_id: m.newer for m in view.members if m.newer}
    hosts = [host.location for host in view.hosts]
    return Result(
        {
            **encode_stack(view.record),
            "hosts": hosts,
            "superseded": superseded,
            "verdict": encode_verdict(view),
            "capacity": encode_capacity(view.capacity),
        },
        text,
    )


@command(stack, "diff")
@click.argument("left", metavar="A")
@click.argument("right", metavar="B")
@click.option("--exit-code", "tell", is_flag=True, help="Exit code 1 if they differ.")
def diff(left: str, right: str, registry_at: str | None, *, tell: bool) -> Result:
    """Say how B differs from A. Each is a stack, a lock file, or @MODEL for what is applied to a model on disk."""
    from rasura.registry.stacks.stack_ref import side_of

    with open_registry(registry_at) as registry:
        sides = side_of(registry, left), side_of(registry, right)
        concepts = name_concepts(registry, {*sides[0].patches, *sides[1].patches})
    before, after = sides
    rows = list_differences(before.patches, after.patches, concepts)
    bases = None not in (before.base, after.base) and before.base != after.base

    def text() -> None:
        if bases:
            line(f"other bases: {short(str(before.base))} and {short(str(after.base))}")
        table(("", "patch", "concept", "strength"), rows) if rows else line("the same patches at the same strengths")

    data = {**encode_difference(before.patches.diff(after.patches)), "bases": [before.base, after.base]}
    return Result(data, text, exit_code=int(tell and (bool(rows) or bases)))


@command(stack, "lock")
@_NAME
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("rasura.lock"),
    show_default=True,
    metavar="FILE",
    help="The lock file.",
)
@click.option("--check", is_flag=True, help="Write nothing: is the lock still what the stack is, and accepted?")
def lock(name: str, output: Path, registry_at: str | None, *, check: bool) -> Result:
    """Pin a stack in a file: patches by digest, base, policy and verdict. Exit code 3 if it is refused.

    With --check, exit code 7 where the file is not what the stack is now.
    """
    from rasura.registry.stacks.lock_file import LockFile
    from rasura.registry.stacks.lock_stack import check_lock, lock_stack
    from rasura.registry.stacks.stack_ref import read_lock

    with open_registry(registry_at) as registry:
        record = registry.stack(name)
        found = check_lock(registry, record, read_lock(output)) if check else lock_stack(registry, record)
    if not check:
        write_document(output, found.to_bytes(), LockFile.from_bytes)
    said = f"{output} is what stack {name} is: {count_patches(record)}, accepted" if check else f"wrote {output}"
    worst = {check: {"value": value, "limit": limit} for check, (value, limit) in found.worst.items()}
    data = {**encode_stack(record), "file": str(output), "policy": found.policy_sha256, "worst": worst}
    return Result(data, lambda: line(said), changed=not check)
