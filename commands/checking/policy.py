"""`rasura policy`: the limits that every check of this registry holds patches to."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rasura.commands._shared.asking import DRY
from rasura.commands._shared.command import Order, Verbs, command, open_registry
from rasura.commands._shared.documents import write_document
from rasura.commands._shared.output import Result, line, short

if TYPE_CHECKING:
    from rasura.patches.checks.policy import Policy


@click.group(cls=Verbs)
def policy() -> None:
    """The policy in force: show, set."""


@command(policy, "show")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Write it to a new file instead.")
def show(registry_at: str | None, output: Path | None) -> Result:
    """Show the policy in force as TOML; the default one where none was set."""
    with open_registry(registry_at) as registry:
        found, record = registry.policy(), registry.policy_record()
    toml = found.to_toml(whole=True)
    if output is not None:
        write_document(output, toml.encode())
    data = {**_data(found), "set_at": record.set_at.isoformat() if record else None, "default": record is None}
    said = toml.rstrip("\n") if output is None else f"wrote {output}"
    return Result({**data, "file": None if output is None else str(output)}, lambda: line(said), bool(output))


@command(policy, "set", mutating=True)
@click.argument("file", type=click.Path(path_type=Path))
@DRY
def set_(file: Path, order: Order, *, dry_run: bool) -> Result:
    """Put the policy in FILE in force: everything that is applied from now on is held to it."""
    from rasura.registry.stacks.policy_file import put_in_force, read_policy

    with order.open() as registry:
        wanted = read_policy(file)
        changed = put_in_force(registry, wanted, order.actor, dry_run=dry_run)
    data = _data(wanted)
    verb = "would be" if dry_run else "is"
    said = f"the policy in force {verb} {short(data['digest'])}" + ("" if changed else ", as before")
    return Result(data, lambda: line(said), changed=changed and not dry_run)


def _data(found: "Policy") -> dict[str, Any]:
    from rasura.patches.checks.policy import list_limit_names
    from rasura.registry._storage.records.choices import digest_policy

    return {
        "digest": digest_policy(found),
        "limits": {name: str(float(getattr(found, name))) for name in list_limit_names()},
        "separable": found.separable,
        "actor_signature": found.actor_signature,
        "evaluation": {
            "required": found.evaluated,
            "min_forget": str(float(found.min_forget)),
            "min_retain": str(float(found.min_retain)),
        },
        "checkpoint_age_hours": found.checkpoint_age,
        "retention": {each.name: str(each) for each in found.retention},
        "toml": found.to_toml(),
    }
