"""`rasura trust`: who may approve what, how many must, and who may change that."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rasura.commands._shared.asking import DRY
from rasura.commands._shared.command import Order, Verbs, command, open_registry
from rasura.commands._shared.documents import write_document
from rasura.commands._shared.output import Result, line, many, short, table

if TYPE_CHECKING:
    from rasura.registry.trust.roles.signed_trust import SignedTrust
    from rasura.registry.trust.roles.trust_policy import TrustPolicy

_FILE = click.argument("file", type=click.Path(path_type=Path))


@click.group(cls=Verbs)
def trust() -> None:
    """Who may approve what, and how many must: show, sign, set."""


@command(trust, "show")
def show(registry_at: str | None) -> Result:
    """Show the trust policy in force, every version up to it checked."""
    from rasura.registry.trust.roles.in_force import find_trust_policy
    from rasura.registry.trust.roles.trust_policy import APPLY, ERASE

    with open_registry(registry_at) as registry:
        found = find_trust_policy(registry)
        bases = {base.digest: base.name for base in registry.bases()}
        expired = found is not None and found.expires <= registry.now()
    if found is None:
        said = "no trust policy is in force: nothing needs an approval"
        return Result({"policy": None, "expired": False}, lambda: line(said))
    policy = found

    def text() -> None:
        word = "expired" if expired else "expires"
        line(f"version {policy.version}, {word} {policy.expires:%Y-%m-%d}; {policy.threshold} must sign the next one")
        rows = [
            (
                key.name,
                short(key.public.key_id),
                ", ".join(key.roles),
                ", ".join(key.concepts) or "all",
                ", ".join(bases.get(base, short(base)) for base in key.bases) or "all",
            )
            for key in policy.keys
        ]
        table(("key", "key id", "roles", "concepts", "bases"), rows)
        for rule in policy.protect:
            what = f"stack {rule.stack}" if rule.base is None else f"base {bases.get(rule.base, short(rule.base))}"
            line(f"{what}: what is put in needs {many(rule.approvals, 'approval')}")
        if policy.with_role(ERASE):
            line("patches are signed by keys with the role erase")
        if policy.with_role(APPLY):
            line("models are moved by keys with the role apply (--actor-key)")

    return Result({"policy": _data(policy), "expired": expired}, text)


@command(trust, "sign")
@_FILE
@click.option("--key", metavar="NAME", help="Key to sign with [default: the only one].")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Where the signed policy goes.")
def sign(file: Path, key: str | None, output: Path | None, registry_at: str | None) -> Result:
    """Sign a trust policy: one in TOML becomes the next version; to one that is signed, this signature is added.

    Without -o a signed file is written anew in its place.
    """
    from rasura.registry._storage.files.durable_files import write_atomic
    from rasura.registry.trust.roles.in_force import sign_trust_policy

    with open_registry(registry_at) as registry:
        document = sign_trust_policy(registry, file, key)
    if output is not None:
        write_document(output, document.to_bytes())
    elif not file.read_bytes().lstrip().startswith(b"{"):
        raise click.UsageError("a policy in TOML is not written over: expected -o FILE for the signed one")
    else:
        write_atomic(file, document.to_bytes())
    said = f"{output or file} is version {document.policy.version}, signed by {_signers(document)}"
    return Result({**_signed(document), "file": str(output or file)}, lambda: line(said), changed=True)


@command(trust, "set", mutating=True)
@_FILE
@DRY
def set_(file: Path, order: Order, *, dry_run: bool) -> Result:
    """Put the signed trust policy in FILE in force, if it follows the one that is.

    It must be the next version, and as many of the keys with the role policy must have signed it as the version before
    asks for, and as it asks for itself.
    """
    from rasura.registry.trust.roles.in_force import put_trust_in_force

    with order.open() as registry:
        draft = order.draft("trust.set")
        document = put_trust_in_force(registry, file, draft, dry_run=dry_run)
    verb = "would be" if dry_run else "is"
    said = f"the trust policy in force {verb} version {document.policy.version}, signed by {_signers(document)}"
    return Result({**_signed(document), "dry_run": dry_run}, lambda: line(said), changed=not dry_run)


def _signers(document: "SignedTrust") -> str:
    names = {key.public.key_id: key.name for key in document.policy.keys}
    return ", ".join(sorted(names.get(key_id, short(key_id)) for key_id in document.signatures))


def _signed(document: "SignedTrust") -> dict[str, Any]:
    return {"digest": document.digest, "signers": sorted(document.signatures), "policy": _data(document.policy)}


def _data(policy: "TrustPolicy") -> dict[str, Any]:
    return {
        "version": policy.version,
        "expires": policy.expires.isoformat(),
        "threshold": policy.threshold,
        "keys": [
            {
                "key_id": key.public.key_id,
                "name": key.name,
                "roles": list(key.roles),
                "concepts": list(key.concepts),
                "bases": list(key.bases),
            }
            for key in policy.keys
        ],
        "protect": [{"stack": rule.stack, "base": rule.base, "approvals": rule.approvals} for rule in policy.protect],
    }
