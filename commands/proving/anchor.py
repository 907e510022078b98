"""`rasura audit anchor` and `rasura audit witness`: evidence about the log that lies elsewhere."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from rasura.commands._shared.command import Order, Verbs, command, open_registry
from rasura.commands._shared.documents import write_document, write_lines
from rasura.commands._shared.output import Result, line, table, warn
from rasura.commands.proving.given_files import read_given, read_vkey
from rasura.patches._io.files import read_regular
from rasura.registry.evidence.anchoring.timestamp_token import read_roots
from rasura.registry.log.notes.signed_note import parse_note

if TYPE_CHECKING:
    from rasura.registry._storage.records.records import EntryRecord
    from rasura.registry.evidence.anchoring.anchor import Anchor

_PATH: Final = click.Path(path_type=Path)
_BUNDLE_LIMIT: Final = 1024**3
_HUB: Final = "Hub [default: huggingface.co]."
_ENDPOINT: Final = click.option("--endpoint", envvar="HF_ENDPOINT", metavar="URL", help=_HUB)
_TIME: Final = "%Y-%m-%d %H:%M:%S"


@click.group(cls=Verbs)
def anchor() -> None:
    """Evidence elsewhere that the log had this tree at a time: add, list, verify."""


@command(anchor, "add", mutating=True)
@click.option("--file", "file", type=_PATH, metavar="FILE", help="Write the checkpoint to a new file, out of reach.")
@click.option("--token", "stamp", type=_PATH, metavar="FILE", help="Keep an RFC 3161 response over the checkpoint.")
@click.option("--cosigned", type=_PATH, metavar="FILE", help="Keep the checkpoint that `audit witness` cosigned.")
@click.option("--hub", metavar="ORG/NAME", help="Write the checkpoint into a Hub repository, as a commit.")
@click.option("--private", is_flag=True, help="Make that repository private if it is new.")
@_ENDPOINT
@click.option("--checkpoint", type=_PATH, metavar="FILE", help="What the token is over [default: the newest].")
def add(
    *,
    file: Path | None,
    stamp: Path | None,
    cosigned: Path | None,
    hub: str | None,
    private: bool,
    endpoint: str | None,
    checkpoint: Path | None,
    order: Order,
) -> Result:
    """Put the newest checkpoint out of reach, or keep what somebody else signed about one; the log says so."""
    from rasura.registry.evidence.anchoring.anchor import Anchor
    from rasura.registry.evidence.anchoring.anchors import ANCHOR, AddedAnchor, add_anchor, commit_checkpoint
    from rasura.registry.evidence.proofs.take_out import export_checkpoint
    from rasura.registry.hub.remote import Remote

    if sum(each is not None for each in (file, stamp, cosigned, hub)) != 1:
        raise click.UsageError("expected one of --file, --token, --cosigned and --hub")
    if checkpoint is not None and stamp is None:
        raise click.UsageError("--checkpoint says what a token is over: expected --token")
    with order.open() as registry:
        draft = order.draft(ANCHOR)
        if hub is not None:
            added = commit_checkpoint(registry, hub, Remote(endpoint), draft, private=private)
        else:
            note = read_given(checkpoint, "checkpoint") if checkpoint else export_checkpoint(registry)
            if file is not None:
                write_lines(file, [note])
                made = Anchor("file", note.decode(), b"", str(file.absolute()))
            elif stamp is not None:
                made = Anchor("rfc3161", note.decode("utf-8", "replace"), read_given(stamp, "token"), stamp.name)
            else:
                assert cosigned is not None
                data = read_given(cosigned, "cosigned checkpoint")
                made = Anchor("witness", data.decode("utf-8", "replace"), data, cosigned.name)
            added = AddedAnchor(add_anchor(registry, made, draft), made)
    entry, kept = added.entry, added.anchor
    said = f"entry {entry.index} keeps a {kept.kind} anchor of {kept.checkpoint.size} entries"
    where = f": {kept.where}" if hub is not None else ""
    return Result(_data(entry, kept), lambda: line(said + where), changed=True)


@command(anchor, "list")
def list_(registry_at: str | None) -> Result:
    """List the anchors; nothing is verified."""
    from rasura.registry.evidence.anchoring.anchors import list_anchors

    with open_registry(registry_at) as registry:
        found = list_anchors(registry)
    rows = [
        (str(e.index), f"{e.time:{_TIME}}", a.kind, str(a.checkpoint.size), a.checkpoint.root.hex()[:16], a.where)
        for e, a in found
    ]

    def text() -> None:
        if rows:
            table(("entry", "added (utc)", "kind", "size", "root", "where"), rows)
        else:
            line("no anchors: rasura audit anchor add --file FILE")

    return Result({"anchors": [_data(entry, each) for entry, each in found]}, text)


@command(anchor, "verify")
@click.option("--tsa-ca", "authorities", multiple=True, type=_PATH, metavar="FILE", help="Authorities (PEM).")
@click.option("--witness-key", "witnesses", multiple=True, metavar="KEY", help="Public key of a witness; repeatable.")
@_ENDPOINT
def verify(
    authorities: tuple[Path, ...], witnesses: tuple[str, ...], endpoint: str | None, registry_at: str | None
) -> Result:
    """Verify the log, and that it continues the tree of every anchor.

    What others signed is checked by their keys, what lies elsewhere by fetching it.
    """
    from rasura.registry.evidence.anchoring.anchors import verify_anchors
    from rasura.registry.hub.remote import Remote
    from rasura.registry.log.notes.cosignature import WitnessKey

    roots = [root for path in authorities for root in read_roots(read_given(path, "certificate"))]
    keys = [WitnessKey.parse(text) for text in witnesses]
    with open_registry(registry_at) as registry:
        found = verify_anchors(registry, roots=roots, witnesses=keys, remote=Remote(endpoint))
    rows = [
        (
            str(each.entry.index),
            each.anchor.kind,
            str(each.anchor.checkpoint.size),
            "-" if each.time is None else f"{each.time:{_TIME}}",
            "yes" if each.proved else "-",
            each.said,
        )
        for each in found
    ]

    def text() -> None:
        if rows:
            table(("entry", "kind", "size", "signed at (utc)", "checked", "said"), rows)
            line(f"the log continues all {len(rows)} of them")
        else:
            warn("no anchors: whoever has the key can rewrite what came after the last checkpoint that somebody holds")

    data = [
        {
            **_data(each.entry, each.anchor),
            "time": None if each.time is None else each.time.isoformat(),
            "proved": each.proved,
            "said": each.said,
        }
        for each in found
    ]
    return Result({"anchors": data}, text)


@command(None, "witness", mutating=True)
@click.argument("checkpoint", type=_PATH, metavar="CHECKPOINT")
@click.option("--vkey", required=True, metavar="KEY|FILE", help="Public key of the log that is witnessed.")
@click.option("--bundle", type=_PATH, metavar="FILE", help="Proof that it continues what was seen last.")
@click.option("-o", "--output", type=_PATH, required=True, metavar="FILE", help="The cosigned checkpoint.")
def witness(
    *,
    checkpoint: Path,
    vkey: str,
    bundle: Path | None,
    output: Path,
    order: Order,
) -> Result:
    """Sign that another registry's log had this tree, with this registry's key; its log remembers what was seen.

    Never two trees that contradict each other: of a log that has grown, a bundle proves that it continues
    (`rasura audit export --checkpoint OLD`). Exit code 4 where a log has two pasts.
    """
    from rasura.registry.evidence.anchoring.witness import WITNESS
    from rasura.registry.evidence.anchoring.witness import witness as cosign

    key = read_vkey(vkey)
    note = read_given(checkpoint, "checkpoint")
    proof = None if bundle is None else read_regular(bundle, _BUNDLE_LIMIT)
    with order.open() as registry:
        cosigned = cosign(registry, note, key, order.draft(WITNESS), bundle=proof)
        mine = str(registry.log_key.witness_key)
    write_document(output, cosigned.encode(), parse_note)
    size = int(cosigned.split("\n")[1])
    return Result(
        {"file": str(output), "log": key.name, "size": size, "witness_key": mine},
        lambda: line(f"cosigned {size} entries of {key.name} in {output}\nwitness key: {mine}"),
        changed=True,
    )


def _data(entry: "EntryRecord", found: "Anchor") -> dict[str, Any]:
    tree = found.checkpoint
    return {
        "entry": entry.index,
        "added_at": entry.time.isoformat(),
        "kind": found.kind,
        "size": tree.size,
        "root": tree.root.hex(),
        "where": found.where,
    }
