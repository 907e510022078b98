"""What `rasura audit verify` says of a log, and of a file from one."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

from rasura.commands._shared.output import Result, line, many, table, verdict, warn
from rasura.commands.proving.entries import HEADERS, encode_entry, format_entry

if TYPE_CHECKING:
    from rasura.registry.log.notes.signed_note import VerifyKey
    from rasura.registry.log.verify import LogReport

_UNPINNED: Final = "no key was given from outside (--vkey): whoever forges a whole registry passes this"
_REPLACED: Final = "the key that was given has handed the log on; give this one from now on: {}"


def say_report(report: "LogReport", origin: str) -> None:
    """What was verified of a registry's own log, and what was not."""
    whole = f"the log is whole: {report.size} entries, root {report.root.hex()[:16]}…, signed by {origin}"
    verdict(whole, good=True)
    if report.signatures < report.size:
        line(f"{report.signatures} checkpoints verified, the newest among them; all with --every-signature")
    if report.signed:
        line(f"{many(report.signed, 'entry', 'entries')} signed by who acted; of all others that is claimed")
    if report.unfinished:
        line(f"begun and not ended: {', '.join(map(str, report.unfinished))}; the next motion of the model ends it")
    if report.backwards:
        line(f"earlier than the entry before: {', '.join(map(str, report.backwards))}; a clock was set back")
    if report.kept is not None:
        line(f"it continues the checkpoint of {report.kept} entries that was kept")
    if report.rotations:
        line(f"the key was rotated at {', '.join(map(str, report.rotations))}, signed by the old one and the new")
    if report.replaced:
        warn(_REPLACED.format(report.vkey))
    if not report.pinned:
        warn(_UNPINNED)
    if not report.remembered and report.kept is None:
        warn("neither keys/last_signed nor --checkpoint is at hand: entries cut from the end do not show")


def check_file(file: Path, pinned: "VerifyKey | None", kept: bytes | None) -> Result:
    """Check a bundle or a proof, without a registry."""
    from rasura.registry.evidence.proofs.verify_file import verify_file

    found = verify_file(file, vkey=pinned, kept=kept)
    data = {
        "file": str(file),
        "kind": found.kind,
        "origin": found.checkpoint.origin,
        "size": found.checkpoint.size,
        "root": found.checkpoint.root.hex(),
        "key": str(found.key),
        "pinned": found.pinned,
        "replaced": found.replaced,
        "kept": found.kept,
        "entries": found.count,
        "records": found.records,
        "shown": [encode_entry(entry) for entry in found.shown],
    }

    def text() -> None:
        size, origin = found.checkpoint.size, found.checkpoint.origin
        every = f"all {size} entries" if found.whole else f"{found.count} of {size} entries"
        line(f"{file.name} is sound: {every} of the log {origin}")
        line(f"root {found.checkpoint.root.hex()[:16]}…, signed by {found.key}")
        if found.kept is not None:
            line(f"it continues the checkpoint of {found.kept} entries that was kept")
        if found.shown:
            table(HEADERS, [format_entry(entry) for entry in found.shown])
        if found.count > len(found.shown):
            line(f"… and {found.count - len(found.shown)} earlier")
        if found.replaced:
            warn(_REPLACED.format(found.key))
        if not found.pinned:
            warn("no key was given from outside (--vkey): whoever forges a whole bundle passes this")

    return Result(data, text)
