"""`rasura key`: signing keys."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from rasura.commands._shared.asking import DRY, ask_revoking
from rasura.commands._shared.command import Order, Verbs, command, open_registry
from rasura.commands._shared.output import Result, clip, line, many, short, table
from rasura.commands._shared.password import PASSWORD_FILE, ask_new_password
from rasura.commands._shared.views import format_place
from rasura.patches.errors import ExistsError, HostWriteError

if TYPE_CHECKING:
    from rasura.patches.types import PatchId
    from rasura.registry._storage.records.records import KeyRecord
    from rasura.registry.trust.keys.revocation import Reach

_NAMED: Final = 5  # patches that a line names
_WHY: Final = 40


@click.group(cls=Verbs)
def key() -> None:
    """Signing keys: make, add from a token, list, export, trust, revoke."""


@command(key, "new", mutating=True)
@click.argument("name")
@click.option("--encrypt", is_flag=True, help="Lock the private half with a password.")
@PASSWORD_FILE
@DRY
def new(name: str, order: Order, *, encrypt: bool, dry_run: bool) -> Result:
    """Make an ECDSA P-256 key pair called NAME; this registry trusts it at once.

    With --encrypt the private half is PKCS#8 under a password, which is asked for twice, or comes from a file or the
    environment; whatever signs asks for it.
    """
    from rasura.registry.trust.keys.key_files import find_private_path, foresee_key, make_key

    with order.open() as registry:
        if dry_run:
            place = foresee_key(registry, name)
            said = f"would make key {name}; its private half would be {place}"
            return Result({"name": name, "private_key": str(place)}, lambda: line(said))
        password = ask_new_password(name) if encrypt else None
        record = make_key(registry, name, order.draft("key.add"), password=password)
        where = find_private_path(registry, name)
    locked = ", locked with a password" if encrypt else ""
    return Result(
        {**_data(record), "private_key": str(where), "locked": encrypt},
        lambda: line(f"made key {record.name} ({short(record.key_id)}); its private half is {where}{locked}"),
        changed=True,
    )


@command(key, "add", mutating=True)
@click.argument("name")
@click.option(
    "--signer",
    "uri",
    required=True,
    metavar="URI",
    help="Where it is kept: hsm:[ID][?label=TOKEN], awskms:…, gcpkms:…, azurekms:…, hv:…",
)
@click.option(
    "--public", type=click.Path(path_type=Path), metavar="FILE", help="Its public half [default: asked of the token]."
)
@DRY
def add(name: str, uri: str, public: Path | None, order: Order, *, dry_run: bool) -> Result:
    """Add an ECDSA P-256 key that a PKCS#11 token or a service keeps; this registry trusts it at once.

    Signing with NAME then asks there. The PIN comes as a password does; PYKCS11LIB is the path of the token's module.
    Needs `pip install 'rasura[signers]'`.
    """
    from rasura.registry.trust.keys.key_files import add_remote_key

    with order.open() as registry:
        record = add_remote_key(registry, name, uri, public, order.draft("key.add"), dry_run=dry_run)
    verb = "would add" if dry_run else "added"
    return Result(
        {**_data(record), "signer": uri, "dry_run": dry_run},
        lambda: line(f"{verb} key {record.name} ({short(record.key_id)}), which is kept at {uri}"),
        changed=not dry_run,
    )


@command(key, "list")
def list_(registry_at: str | None) -> Result:
    """List the keys that this registry knows, and the public key of its log."""
    from rasura.registry.trust.keys.key_files import find_uri, is_key_locked
    from rasura.registry.trust.keys.revocation import find_reasons

    with open_registry(registry_at) as registry:
        records = registry.keys()
        locked = {record.key_id for record in records if is_key_locked(registry, record)}
        uris = {record.key_id: find_uri(registry, record) for record in records}
        vkey = registry.log_vkey()
        why = find_reasons(registry)

    def text() -> None:
        if rows:
            table(("name", "key id", "standing", "can sign"), rows)
        else:
            line("no keys yet: rasura key new")
        line(f"the log is signed by {vkey}")

    whys = [why.get(r.key_id, "") for r in records]
    rows = [
        (r.name, short(r.key_id), _standing(r, own), _signing(r, uris[r.key_id], locked=r.key_id in locked))
        for r, own in zip(records, whys, strict=True)
    ]
    data = [
        {**_data(*each), "locked": each[0].key_id in locked, "signer": uris[each[0].key_id]}
        for each in zip(records, whys, strict=True)
    ]
    return Result({"keys": data, "log_key": vkey}, text)


@command(key, "export")
@click.argument("name")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="File for the public key (PEM).")
def export(name: str, output: Path, registry_at: str | None) -> Result:
    """Write the public half of NAME to a file that others can trust."""
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
def trust(file: Path, name: str | None, order: Order, *, dry_run: bool) -> Result:
    """Trust patches signed by the public key in FILE."""
    from rasura.registry.trust.keys.key_files import trust_file

    with order.open() as registry:
        record = trust_file(registry, file, name, order.draft("key.trust"), dry_run=dry_run)
    said = f"{'would trust' if dry_run else 'trusting'} {record.name} ({short(record.key_id)})"
    return Result(_data(record), lambda: line(said), changed=not dry_run)


@command(key, "revoke", mutating=True)
@click.argument("key_id")
@click.option("--yes", "-y", is_flag=True, help="Revoke without asking.")
@DRY
def revoke(key_id: str, order: Order, *, yes: bool, dry_run: bool) -> Result:
    """Revoke a key (id, abbreviation or name) for good: nothing that it alone signed is put on a model any more.

    Says first which patches that touches, on which models and in which stacks, and asks. What is in force stays until
    it is reverted, and other patches of the same model can be moved as before.
    """
    from rasura.registry.trust.keys import revocation

    with order.open() as registry:
        reach = revocation.find_reach(registry, key_id)
        new = reach.key.revoked_at is None
        told = _reached(reach)
        if new and not dry_run:
            ask_revoking(told, yes=yes)
            draft = order.draft("key.revoke")
            new = revocation.revoke(registry, reach.key.key_id, draft) is not None
        record = registry.key(reach.key.key_id)
        why = revocation.find_reason(registry, record.key_id)
    verb = "was revoked before:" if not new else "would revoke" if dry_run else "revoked"
    head = f"{verb} {record.name} ({short(record.key_id)})"
    data = {
        **_data(record, why),
        "signed": len(reach.patches),
        "patches": [patch.patch_id for patch in reach.patches],
        "hosts": [{"location": place, "patches": list(patches)} for place, patches in reach.hosts.items()],
        "stacks": [{"name": name, "patches": list(patches)} for name, patches in reach.stacks.items()],
        "dry_run": dry_run,
    }
    return Result(data, lambda: line("\n".join([head, *told[1:]])), changed=new and not dry_run)


def _reached(reach: "Reach") -> list[str]:
    """What a revocation touches, a line each; the first says of which key."""
    names = {patch.patch_id: ", ".join(patch.concepts) for patch in reach.patches}

    def listed(patches: "Sequence[PatchId]") -> str:
        more = len(patches) - _NAMED
        return ", ".join(f"{short(p)} ({names[p]})" for p in patches[:_NAMED]) + (f", {more} more" if more > 0 else "")

    signed = many(len(names), "patch", "patches")
    if not names:
        return [f"revoking {reach.key.name} is for good", "no patch here depends on it"]
    return [
        f"revoking {reach.key.name} is for good",
        f"{signed} that it alone signed can be put on no model any more: {listed(list(names))}",
        *(
            f"in force at {format_place(place)}, until taken out: {listed(found)}"
            for place, found in reach.hosts.items()
        ),
        *(f"in stack {name}: {listed(found)}" for name, found in reach.stacks.items()),
    ]


def _signing(record: "KeyRecord", uri: str | None, *, locked: bool) -> str:
    if uri is not None:
        return f"at {uri}"
    if not record.owned:
        return "no"
    return "with a password" if locked else "yes"


def _standing(record: "KeyRecord", why: str) -> str:
    if record.revoked_at is not None:
        return f"revoked {record.revoked_at:%Y-%m-%d}" + (f": {clip(why, _WHY)}" if why else "")
    return "trusted" if record.trusted else "not trusted"


def _data(record: "KeyRecord", why: str = "") -> dict[str, Any]:
    return {
        "key_id": record.key_id,
        "name": record.name,
        "owned": record.owned,
        "trusted": record.trusted and record.revoked_at is None,
        "revoked_at": record.revoked_at.isoformat() if record.revoked_at else None,
        "revoked_because": why or None,
        "pem": record.pem,
    }
