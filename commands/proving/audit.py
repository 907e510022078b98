"""`rasura audit`: the log and its proof."""

import itertools
import json
from pathlib import Path
from typing import Final

import click

from rasura.commands._shared.asking import DRY
from rasura.commands._shared.command import Order, Verbs, command, open_registry
from rasura.commands._shared.documents import write_lines
from rasura.commands._shared.output import Result, line, printing, table
from rasura.commands.proving.anchor import anchor, witness
from rasura.commands.proving.audit_verify import check_file, say_report
from rasura.commands.proving.entries import HEADERS, add_choice, encode_entry, format_entry, list_fields, read_choice
from rasura.commands.proving.given_files import read_given, read_vkey
from rasura.patches.errors import InputError

_PAGE: Final = 500
_PATH: Final = click.Path(path_type=Path)


@click.group(cls=Verbs)
def audit() -> None:
    """The tamper-evident log: show, prove, take out, verify."""


audit.add_command(anchor)
audit.add_command(witness)

_OUTPUT = click.option("-o", "--output", type=_PATH, metavar="FILE", help="The file to write.")


@command(audit, "log")
@click.option("-n", "--limit", type=click.IntRange(1), help="At most so many entries.")
@click.option("--oldest", is_flag=True, help="The oldest first.")
@add_choice
def log(limit: int | None, oldest: bool, registry_at: str | None, **which: str | None) -> Result:
    """Show the log, the newest entry first."""
    from rasura.registry.evidence.proofs.choose_entries import choose_entries

    with open_registry(registry_at) as registry:
        chosen = choose_entries(registry, read_choice(registry, which), newest=not oldest, limit=limit)
        if click.get_current_context().params["as_json"]:
            return Result({"entries": [encode_entry(entry) for entry in chosen]}, lambda: None)
        # Printed a page at a time while they are read: a log has no last page to wait for.
        pages = iter(lambda: [format_entry(entry) for entry in itertools.islice(chosen, _PAGE)], [])
        number = -1
        for number, rows in enumerate(pages):
            with printing("audit log"):
                table(HEADERS, rows, head=number == 0)
        if number < 0:
            line("no entries like that")
    return Result({}, lambda: None)


@command(audit, "show")
@click.argument("index", type=click.IntRange(0), metavar="N")
def show(index: int, registry_at: str | None) -> Result:
    """Show entry N: all that it says, and its bytes."""
    from rasura.registry.evidence.proofs.take_out import read_entry

    with open_registry(registry_at) as registry:
        entry, body = read_entry(registry, index)

    def text() -> None:
        for name, value in list_fields(entry):
            line(f"{name:8}  {value}")
        line("")
        line(json.dumps(json.loads(body), indent=2, ensure_ascii=False))

    return Result({"entry": encode_entry(entry), "bytes": body.decode()}, text)


@command(audit, "prove")
@click.argument("index", type=click.IntRange(0), metavar="[N]", required=False)
@click.option("--case", metavar="ID", help="All entries of this case, as a bundle.")
@_OUTPUT
def prove(index: int | None, case: str | None, output: Path | None, registry_at: str | None) -> Result:
    """Write entry N with the proof that it is in the log: a C2SP tlog-proof file, for somebody without the registry.

    With --case, every entry of the case with its proof, and the records that they tell of: a bundle.
    """
    from rasura.registry.evidence.proofs.choose_entries import EntryChoice
    from rasura.registry.evidence.proofs.take_out import choose_indexes, export_bundle, prove_entry

    if (index is None) == (case is None):
        raise click.UsageError("expected the number of an entry, or --case ID")
    path = output or Path(f"entry-{index}.tlog-proof" if case is None else "case.jsonl")
    with open_registry(registry_at) as registry:
        if index is not None:
            size = write_lines(path, [prove_entry(registry, index)])
        else:
            size = write_lines(path, export_bundle(registry, choose_indexes(registry, EntryChoice(case=case))))
        vkey = registry.log_vkey()
    return Result(
        {"file": str(path), "bytes": size, "index": index, "case": case, "key": vkey},
        lambda: line(f"wrote {path}; who has the log's key verifies it: rasura audit verify {path} --vkey {vkey}"),
        changed=True,
    )


@command(audit, "checkpoint", mutating=True)
@_OUTPUT
def checkpoint(output: Path | None, order: Order) -> Result:
    """Print the newest signed checkpoint, or write it to a file, to keep where nobody can change it.

    The log notes that a file was written, as `log.checkpoint`: a policy can ask for one of the last days.
    """
    from rasura.registry.evidence.proofs.take_out import export_checkpoint, give_checkpoint
    from rasura.registry.trust.checkpoint_age import GIVEN

    entry = None
    with order.open() as registry:
        if output is None or not registry.log_key.is_here():  # a copy for an auditor cannot note anything
            note = export_checkpoint(registry)
            write_lines(output, [note] if output is not None else [])
        else:
            draft = order.draft(GIVEN)
            note, entry = give_checkpoint(registry, lambda data: write_lines(output, [data]), draft)
    said = note.decode()
    return Result(
        {"file": str(output) if output else None, "checkpoint": said, "entry": None if entry is None else entry.index},
        lambda: line(f"wrote {output}: {said.splitlines()[1]} entries") if output else line(said.removesuffix("\n")),
        changed=output is not None,
    )


@command(audit, "export")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["bundle", "jsonl", "cloudevents", "ocsf", "cef", "intoto"]),
    default="bundle",
    show_default=True,
    help="bundle: entries with their proofs, and what they tell of; the others: one line an entry.",
)
@click.option("--checkpoint", "kept_at", type=_PATH, help="Prove that the log continues this checkpoint (bundle).")
@add_choice
@_OUTPUT
def export(
    format_: str, kept_at: Path | None, output: Path | None, registry_at: str | None, **which: str | None
) -> Result:
    """Take the log out of the registry, or the entries that fit: for somebody without it, or for another system.

    Lines go to standard output where no file is named.
    """
    from rasura.registry.evidence.proofs.event_formats import EVENT_FORMATS
    from rasura.registry.evidence.proofs.take_out import choose_indexes, export_bundle, export_entries

    if kept_at is not None and format_ != "bundle":
        raise InputError("only a bundle proves that a log continues a checkpoint", hint="--format bundle")
    as_json = click.get_current_context().params["as_json"]
    if as_json and output is None:
        raise InputError("--json says what was written: expected a file for it", hint="-o FILE")
    kept = read_given(kept_at, "checkpoint") if kept_at else None
    with open_registry(registry_at) as registry:
        choice = read_choice(registry, which)
        if format_ == "bundle":
            lines = export_bundle(registry, choose_indexes(registry, choice), kept=kept)
        else:
            spell = EVENT_FORMATS[format_]
            lines = (spell(entry, body) + b"\n" for entry, body in export_entries(registry, choice))
        size = write_lines(output, lines)
        vkey = registry.log_vkey()
    check = f": rasura audit verify {output} --vkey {vkey}" if format_ == "bundle" else ""
    return Result(
        {"file": str(output) if output else None, "format": format_, "bytes": size, "key": vkey},
        lambda: line(f"wrote {output}{check}") if output else None,
        changed=output is not None,
    )


@command(audit, "verify")
@click.argument("file", type=_PATH, required=False, metavar="[BUNDLE|PROOF]")
@click.option(
    "--vkey",
    envvar="RASURA_VKEY",
    metavar="KEY|FILE",
    help="The log's public key as `rasura key list` shows it, or a file that holds it: from outside the registry.",
)
@click.option(
    "--checkpoint",
    type=_PATH,
    help="A checkpoint of this log that somebody kept; the log must continue it.",
)
@click.option("--every-signature", is_flag=True, help="Of a long log verify those of old checkpoints, too.")
def verify(
    file: Path | None, vkey: str | None, checkpoint: Path | None, every_signature: bool, registry_at: str | None
) -> Result:
    """Check the tree, its signatures, and that replaying the log gives the tables. Needs no secret.

    Given a file from `audit export` or `audit prove`, check that: no registry is needed.

    A registry names its own key, and so does one that somebody forged: keep the key elsewhere and give it with --vkey.
    """
    from rasura.registry.log.verify import CLOSELY, verify_log

    pinned = read_vkey(vkey) if vkey else None
    kept = read_given(checkpoint, "checkpoint") if checkpoint else None
    if file is not None:
        return check_file(file, pinned, kept)
    with open_registry(registry_at) as registry:
        closely = None if every_signature else CLOSELY
        report = verify_log(registry, vkey=pinned, kept=kept, closely=closely)
    data = {
        "size": report.size,
        "root": report.root.hex(),
        "origin": registry.origin,
        "key": report.vkey,
        "checkpoint": report.checkpoint,
        "first": report.first.isoformat(),
        "last": report.last.isoformat(),
        "unfinished": list(report.unfinished),
        "backwards": list(report.backwards),
        "pinned": report.pinned,
        "replaced": report.replaced,
        "rotations": list(report.rotations),
        "remembered": report.remembered,
        "kept": report.kept,
        "signatures": report.signatures,
        "signed": report.signed,
    }
    origin = registry.origin
    return Result(data, lambda: say_report(report, origin))


@command(audit, "rotate-key", mutating=True)
@DRY
def rotate_key(order: Order, *, dry_run: bool) -> Result:
    """Hand the log to a new key: the old one and the new sign the entry that says so.

    The old key is gone from this machine afterwards. Whoever pinned it can verify on; pin the new one.
    """
    from rasura.registry.log.rotation import NEW, OLD, ROTATE

    with order.open() as registry:
        if dry_run:
            now = str(registry.foresee_rotation())
            said = f"would hand the log from {now} to a new key; who verifies would have to be given that"
            return Result({"index": None, "old": now, "new": None}, lambda: line(said))
        entry = registry.rotate_log_key(order.draft(ROTATE))
    data = {"index": entry.index, "old": entry.details[OLD], "new": entry.details[NEW]}

    def text() -> None:
        line(f"entry {entry.index} hands the log from {data['old']}")
        line(f"to {data['new']}")
        line("give the new key to everybody who verifies: rasura audit verify --vkey KEY")

    return Result(data, text, changed=True)
