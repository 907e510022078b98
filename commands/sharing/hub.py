"""`rasura push` and `rasura pull`."""

from typing import TYPE_CHECKING

import click

from rasura import __version__
from rasura.commands._shared.asking import DRY
from rasura.commands._shared.command import Order, command
from rasura.commands._shared.output import Result, line, short
from rasura.commands._shared.views import format_ignored, format_new_signers
from rasura.patches.errors import VerificationError

if TYPE_CHECKING:
    from rasura.registry.hub import PushReceipt
    from rasura.registry.hub.transfer import Pull

_ENDPOINT = click.option("--endpoint", envvar="HF_ENDPOINT", metavar="URL", help="Hub [default: huggingface.co].")
_TOKEN = click.option("--token", envvar="HF_TOKEN", metavar="TOKEN", help="Access token [default: the stored one].")


@command(None, "push", mutating=True)
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.argument("repo")
@click.option("--base-model", metavar="ORG/NAME", help="The base's id on the Hub [default: as on the card].")
@click.option(
    "--license",
    "--licence",
    "licence",
    metavar="NAME",
    help="For the card [default: as signed, as on the card, or the base's].",
)
@click.option("--private", is_flag=True, help="Make the repository private if it is new.")
@_ENDPOINT
@_TOKEN
@DRY
def push(
    *,
    ids: tuple[str, ...],
    repo: str,
    base_model: str | None,
    licence: str | None,
    private: bool,
    endpoint: str | None,
    token: str | None,
    order: Order,
    dry_run: bool,
) -> Result:
    """Push patches to a Hub repository, with a model card, as one commit."""
    from rasura.registry.hub.remote import Remote
    from rasura.registry.hub.transfer import push_patches

    with order.open() as registry:
        receipt = push_patches(
            registry,
            list(dict.fromkeys(registry.resolve_patch(i) for i in ids)),
            repo,
            base_model=base_model,
            licence=licence,
            private=private,
            tool_version=__version__,
            remote=Remote(endpoint, token),
            draft=order.draft("patch.push"),
            dry_run=dry_run,
        )
    data = {
        "repo": repo,
        "commit": receipt.commit,
        "url": receipt.url,
        "paths": dict(receipt.paths),
        "notes": [*receipt.notes],
        "written": [*receipt.written],
        "removed": [*receipt.removed],
        "dry_run": dry_run,
    }

    changed = receipt.changed and not dry_run
    return Result(data, lambda: _print_pushed(receipt, repo, dry_run=dry_run), changed=changed)


def _print_pushed(receipt: "PushReceipt", repo: str, *, dry_run: bool) -> None:
    done = "would push" if dry_run else "pushed"
    where = f"{'on top of' if dry_run and receipt.changed else 'at'} {receipt.commit[:12]}" if receipt.commit else ""
    did = f"{done if receipt.changed else 'nothing to push:'} {len(receipt.paths)} to {repo} {where}"
    line(did.rstrip())
    if dry_run:
        for path in receipt.written:
            line(f"  + {path}")
    for path in receipt.removed:
        line(f"  - {path}: its patch is no longer there, or not current")
    for note in receipt.notes:
        line(note)


@command(None, "pull", mutating=True)
@click.argument("reference", metavar="REPO[@REV]")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@_ENDPOINT
@_TOKEN
@DRY
def pull(
    *,
    reference: str,
    ids: tuple[str, ...],
    endpoint: str | None,
    token: str | None,
    order: Order,
    dry_run: bool,
) -> Result:
    """Pull the patches of a Hub repository that a key trusted here has signed, or those that are named.

    ID is an identifier, its first digits, or the concept of one patch there. What is not trusted is left out and named,
    and the exit code is 4.
    """
    from rasura.registry.hub.remote import Remote
    from rasura.registry.hub.transfer import pull_patches

    with order.open() as registry:
        draft = order.draft("patch.pull")
        remote = Remote(endpoint, token)
        done = pull_patches(registry, reference, only=ids, remote=remote, draft=draft, dry_run=dry_run)
    data = {
        "repo": done.repo.repo,
        "commit": done.repo.commit,
        "patches": [
            {"id": p.patch_id, "new": p.new, "ignored": list(p.ignored), "signers": list(p.signers)}
            for p in done.patches
        ],
        "refused": [
            {
                "path": r.path,
                "id": r.patch_id,
                "signer": r.signer,
                "error": r.error.code,
                "message": r.error.message,
                "hint": r.error.hint,
            }
            for r in done.refused
        ],
        "dry_run": dry_run,
    }
    changed = not dry_run and any(p.new or p.signers for p in done.patches)
    exit_code = VerificationError.exit_code if done.refused else 0
    return Result(data, lambda: _print_pulled(done, dry_run=dry_run), changed=changed, exit_code=exit_code)


def _print_pulled(done: "Pull", *, dry_run: bool) -> None:
    fresh = "would be new" if dry_run else "is new"
    for item in done.patches:
        line(f"{short(item.patch_id)} {fresh if item.new else 'was here already'}")
        if item.signers and not item.new:
            line(f"  {format_new_signers(item.signers, dry_run=dry_run)}")
        for name in item.ignored:
            line(f"  {format_ignored(name)}")
    for each in done.refused:
        line(f"{'would refuse' if dry_run else 'refused'} {each.sentence}")
    for hint in dict.fromkeys(each.error.hint for each in done.refused if each.error.hint):
        line(f"hint: {hint}")
