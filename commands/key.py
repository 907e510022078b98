"""`rasura key`: signing keys."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rasura.commands._asking import DRY
from rasura.commands._command import Verbs, command, open_registry
from rasura.commands._output import Result, line, many, short, table

if TYPE_CHECKING:
    from rasura.registry._storage.records import KeyRecord


@click.group(cls=Verbs)
def key() -> None:
    """Signing keys: make, list, export, trust, revoke."""


@command(key, "new", mutating=True)
@click.argument("name")
@DRY
def new(name: str, registry_at: str | None, reason: str, actor: str, *, dry_run: bool) -> Result:
    """Make an ECDSA P-256 key pair called NAME; this registry trusts it at once."""
    from rasura.registry._storage.records import Draft
    from rasura.registry.trust.key_files import find_private_path, foresee_key, make_key

    with open_registry(registry_at) as registry:
        if dry_run:
            place = foresee_key(registry, name)
            said = f"would make key {name}; its private half would be {place}"
            return Result({"name": name, "private_key": str(place)}, lambda: line(said))
        record = make_key(registry, name, Draft(actor, reason, "key.add", "success"))
        where = find_private_path(registry, name)
    return Result(
        {**_data(record), "private_key": str(where)},
        lambda: line(f"made key {record.name} ({short(record.key_id)}); its private half is {where}"),
        changed=True,
    )


@command(key, "list")
def list_(registry_at: str | None) -> Result:
    """List the keys that this registry knows, and the public key of its log."""
    with open_registry(registry_at) as registry:
        records = registry.keys()
        vkey = registry.log_vkey()

    def text() -> None:
        if rows:
            table(("name", "key id", "standing", "can sign"), rows)
        else:
            line("no keys yet: rasura key new")
        line(f"the log is signed by {vkey}")

    rows = [(r.name, short(r.key_id), _standing(r), "yes" if r.owned else "no") for r in records]
    return Result({"keys": [_data(r) for r in records], "log_key": vkey}, text)


@command(key, "export")
@click.argument("name")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="File for the public key (PEM).")
def export(name: str, output: Path, registry_at: str | None) -> Result:
    """Write the public half of NAME to a file that others can trust."""
    from rasura.patches.errors import ExistsError, HostWriteError

    with open_registry(registry_at) as registry:
        record = registry.key(name)
    try:
        with output.open("x", encoding="utf-8") as file:
            file.write(record.pem)
    except FileExistsError:
        raise ExistsError(f"{output} exists already", hint="-o another file") from None
    except OSError as error:
        raise HostWriteError(f"cannot write {output}: {error.strerror}") from error
    return Result({**_data(record), "file": str(output)}, lambda: line(f"wrote {output}"), changed=True)


@command(key, "trust", mutating=True)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", help="Name for the key [default: the file's name].")
@DRY
def trust(file: Path, name: str | None, registry_at: str | None, reason: str, actor: str, *, dry_run: bool) -> Result:
    """Trust patches signed by the public key in FILE."""
    from rasura.registry._storage.records import Draft
    from rasura.registry.trust.key_files import trust_file

    with open_registry(registry_at) as registry:
        record = trust_file(registry, file, name, Draft(actor, reason, "key.trust", "success"), dry_run=dry_run)
    said = f"{'would trust' if dry_run else 'trusting'} {record.name} ({short(record.key_id)})"
    return Result(_data(record), lambda: line(said), changed=not dry_run)


@command(key, "revoke", mutating=True)
@click.argument("key_id")
@DRY
def revoke(key_id: str, registry_at: str | None, reason: str, actor: str, *, dry_run: bool) -> Result:
    """Revoke a key (id, abbreviation or name) for good: nothing it signed can be applied from now on."""
    from rasura.registry._storage.records import Draft

    with open_registry(registry_at) as registry:
        record = registry.key(key_id)
        new = record.revoked_at is None
        if not dry_run:
            new = registry.revoke_key(key_id, registry.now(), Draft(actor, reason, "key.revoke", "success"))
            record = registry.key(key_id)
        signed = sum(patch.key_id == record.key_id for patch in registry.patches())
    verb = "was revoked before:" if not new else "would revoke" if dry_run else "revoked"
    said = f"{verb} {record.name} ({short(record.key_id)})"
    if dry_run and new:
        said += f": {many(signed, 'patch', 'patches')} that it signed could be applied no more"
    data = {**_data(record), "signed": signed}
    return Result(data, lambda: line(said), changed=new and not dry_run)


def _standing(record: "KeyRecord") -> str:
    if record.revoked_at is not None:
        return f"revoked {record.revoked_at:%Y-%m-%d}"
    return "trusted" if record.trusted else "not trusted"


def _data(record: "KeyRecord") -> dict[str, Any]:
    return {
        "key_id": record.key_id,
        "name": record.name,
        "owned": record.owned,
        "trusted": record.trusted and record.revoked_at is None,
        "revoked_at": record.revoked_at.isoformat() if record.revoked_at else None,
        "pem": record.pem,
    }
