"""`rasura push` and `rasura pull`."""

import click

from rasura import __version__
from rasura.commands._shared.command import command, open_registry
from rasura.commands._shared.output import Result, line, short
from rasura.commands._shared.views import format_ignored, format_new_signers
from rasura.patches.errors import VerificationError

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
def push(
    *,
    ids: tuple[str, ...],
    repo: str,
    base_model: str | None,
    licence: str | None,
    private: bool,
    endpoint: str | None,
    token: str | None,
    registry_at: str | None,
    reason: str,
    actor: str,
) -> Result:
    """Push patches to a Hub repository, with a model card, as one commit."""
    from rasura.registry._storage.records import Draft
    from rasura.registry.hub.transfer import Remote, push_patches

    with open_registry(registry_at) as registry:
        receipt = push_patches(
            registry,
            list(dict.fromkeys(registry.resolve_patch(i) for i in ids)),
            repo,
            base_model=base_model,
            licence=licence,
            private=private,
            tool_version=__version__,
            remote=Remote(endpoint, token),
            draft=Draft(actor, reason, "patch.push", "success"),
        )
    data = {
        "repo": repo,
        "commit": receipt.commit,
        "url": receipt.url,
        "paths": dict(receipt.paths),
        "notes": [*receipt.notes],
    }

    def text() -> None:
        did = "pushed" if receipt.changed else "nothing to push:"
        line(f"{did} {len(receipt.paths)} to {repo} at {receipt.commit[:12]}")
        for note in receipt.notes:
            line(note)

    return Result(data, text, changed=receipt.changed)


@command(None, "pull", mutating=True)
@click.argument("reference", metavar="REPO[@REV]")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@_ENDPOINT
@_TOKEN
def pull(
    *,
    reference: str,
    ids: tuple[str, ...],
    endpoint: str | None,
    token: str | None,
    registry_at: str | None,
    reason: str,
    actor: str,
) -> Result:
    """Pull the patches of a Hub repository that a key trusted here has signed, or those that are named.

    ID is an identifier, its first digits, or the concept of one patch there. What is not trusted is left out and named,
    and the exit code is 4.
    """
    from rasura.registry._storage.records import Draft
    from rasura.registry.hub.transfer import Remote, pull_patches

    with open_registry(registry_at) as registry:
        draft = Draft(actor, reason, "patch.pull", "success")
        done = pull_patches(registry, reference, only=ids, remote=Remote(endpoint, token), draft=draft)
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
    }

    def text() -> None:
        for item in done.patches:
            line(f"{short(item.patch_id)} {'is new' if item.new else 'was here already'}")
            if item.signers and not item.new:
                line(f"  {format_new_signers(item.signers)}")
            for name in item.ignored:
                line(f"  {format_ignored(name)}")
        for each in done.refused:
            line(f"refused {each.sentence}")
        for hint in dict.fromkeys(each.error.hint for each in done.refused if each.error.hint):
            line(f"hint: {hint}")

    changed = any(p.new or p.signers for p in done.patches)
    return Result(data, text, changed=changed, exit_code=VerificationError.exit_code if done.refused else 0)
