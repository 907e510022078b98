"""`rasura audit`: the log and its proof."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from rasura.commands._command import Verbs, command, open_registry
from rasura.commands._output import Result, line, short, table, warn

if TYPE_CHECKING:
    from rasura.registry._storage.records import EntryRecord
    from rasura.registry.log.signed_note import VerifyKey

_LIMIT: Final = 65_536
"""Most bytes of a key or a checkpoint."""


@click.group(cls=Verbs)
def audit() -> None:
    """The tamper-evident log: show and verify."""


@command(audit, "log")
@click.option("-n", "--limit", type=click.IntRange(1), help="At most so many entries.")
@click.option("--oldest", is_flag=True, help="The oldest first.")
def log(limit: int | None, oldest: bool, registry_at: str | None) -> Result:
    """Show the log, the newest entry first."""
    with open_registry(registry_at) as registry:
        entries = registry.entries(newest=not oldest, limit=limit)
    rows = [_row(entry) for entry in entries]
    headers = ("#", "time (utc)", "actor", "action", "outcome", "what", "reason")
    return Result({"entries": [_data(entry) for entry in entries]}, lambda: table(headers, rows))


@command(audit, "verify")
@click.option(
    "--vkey",
    envvar="RASURA_VKEY",
    metavar="KEY|FILE",
    help="The log's public key as `rasura key list` shows it, or a file that holds it: from outside the registry.",
)
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path),
    help="A checkpoint of this log that somebody kept; the log must continue it.",
)
def verify(vkey: str | None, checkpoint: Path | None, registry_at: str | None) -> Result:
    """Check the tree, its signatures, and that replaying the log gives the tables. Needs no secret.

    A registry names its own key, and so does one that somebody forged: keep the key elsewhere and give it with --vkey.
    """
    from rasura.registry.log.verify import verify_log

    pinned = _read_vkey(vkey) if vkey else None
    kept = _read(checkpoint, "checkpoint") if checkpoint else None
    with open_registry(registry_at) as registry:
        report = verify_log(registry, vkey=pinned, kept=kept)
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
    }

    def text() -> None:
        line(f"the log is whole: {report.size} entries, root {report.root.hex()[:16]}…, signed by {registry.origin}")
        if report.unfinished:
            line(f"begun and not ended: {', '.join(map(str, report.unfinished))}; the next motion of the model ends it")
        if report.backwards:
            line(f"earlier than the entry before: {', '.join(map(str, report.backwards))}; a clock was set back")
        if report.kept is not None:
            line(f"it continues the checkpoint of {report.kept} entries that was kept")
        if report.rotations:
            line(f"the key was rotated at {', '.join(map(str, report.rotations))}, signed by the old one and the new")
        if report.replaced:
            warn(f"the key that was given has handed the log on; give this one from now on: {report.vkey}")
        if not report.pinned:
            warn("no key was given from outside (--vkey): whoever forges a whole registry passes this")
        if not report.remembered and report.kept is None:
            warn("neither keys/last_signed nor --checkpoint is at hand: entries cut from the end do not show")

    return Result(data, text)


@command(audit, "rotate-key", mutating=True)
def rotate_key(registry_at: str | None, reason: str, actor: str) -> Result:
    """Hand the log to a new key: the old one and the new sign the entry that says so.

    The old key is gone from this machine afterwards. Whoever pinned it can verify on; pin the new one.
    """
    from rasura.registry._storage.records import Draft
    from rasura.registry.log.rotation import NEW, OLD, ROTATE

    with open_registry(registry_at) as registry:
        entry = registry.rotate_log_key(Draft(actor, reason, ROTATE, "success"))
    data = {"index": entry.index, "old": entry.details[OLD], "new": entry.details[NEW]}

    def text() -> None:
        line(f"entry {entry.index} hands the log from {data['old']}")
        line(f"to {data['new']}")
        line("give the new key to everybody who verifies: rasura audit verify --vkey KEY")

    return Result(data, text, changed=True)


def _read_vkey(text: str) -> "VerifyKey":
    from rasura.registry.log.signed_note import VerifyKey

    path = Path(text)
    # A key has two plus signs and base64 behind them; a file may be called anything, and lies there.
    return VerifyKey.parse(_read(path, "key").decode("utf-8", "replace").strip() if path.is_file() else text)


def _read(path: Path, what: str) -> bytes:
    from rasura.patches._io.files import read_regular
    from rasura.patches.errors import NotFoundError

    try:
        return read_regular(path, _LIMIT)
    except NotFoundError:
        raise NotFoundError(f"{what} file {path} does not exist", hint="rasura audit verify --json") from None


def _row(entry: "EntryRecord") -> tuple[str, ...]:
    what = " ".join(short(p) for p in entry.patches[:3]) + (" …" if len(entry.patches) > 3 else "")  # noqa: PLR2004
    outcome = entry.outcome + (f" ({entry.error})" if entry.error else "")
    time = f"{entry.time:%Y-%m-%d %H:%M:%S}"
    return str(entry.index), time, entry.actor, entry.action, outcome, what, entry.reason


def _data(entry: "EntryRecord") -> dict[str, Any]:
    details = json.loads(json.dumps(dict(entry.details)))
    return {
        "index": entry.index,
        "time": entry.time.isoformat(),
        "actor": entry.actor,
        "action": entry.action,
        "outcome": entry.outcome,
        "error": entry.error,
        "reason": entry.reason,
        "patches": list(entry.patches),
        "base": entry.base,
        "host": entry.host,
        "before": entry.before,
        "after": entry.after,
        "details": details,
        "leaf_hash": entry.leaf_hash.hex(),
    }
