"""What `rasura verify FILE` says of a file: a report, a signed evaluation, or a picture and its receipt."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from rasura.commands._shared.output import Result, fields, line, short, table, warn
from rasura.commands._shared.retyping import retype
from rasura.commands.proving.report import show_report
from rasura.patches._io.files import read_regular
from rasura.patches.errors import FormatError, NotFoundError

if TYPE_CHECKING:
    from rasura.patches.format.signatures.signing_key import PublicKey
    from rasura.registry.evidence.pictures.picture_receipt import PictureReceipt
    from rasura.registry.log.notes.signed_note import VerifyKey

_LIMIT: Final = 256 * 1024**2
_ENVELOPE: Final = b'{"payload":'
_PICTURE: Final = b"\x89PNG"
_RECEIPT: Final = b'{"document":{"base":'


def verify_any_file(
    file: Path, keys: "tuple[PublicKey, ...]", vkey: "VerifyKey | None", *, concept: str | None = None
) -> Result:
    """Check a file by what it begins with; `concept` is asked of a picture. No registry is needed."""
    try:
        data = read_regular(file, _LIMIT)
    except NotFoundError:
        raise NotFoundError(f"file {file} does not exist", hint="rasura report --case ID -o FILE.html") from None
    _check_kind(file, data, vkey)
    if data.startswith(_ENVELOPE):
        return _show_evaluation(file, data, keys, vkey)
    if data.startswith((_PICTURE, _RECEIPT)):
        return _show_receipt(file, data, concept, vkey)
    return show_report(file, data, keys, vkey)


def _check_kind(file: Path, data: bytes, vkey: "VerifyKey | None") -> None:
    """Refuse what another command, or other options, are for.

    Raises:
        FormatError: it is; the hint is that command.
    """
    from rasura.registry.evidence.proofs.file_kind import find_kind

    named = shlex.quote(str(file))
    pinned = "" if vkey is None else f" --vkey {shlex.quote(str(vkey))}"
    match find_kind(data):
        case "empty":
            said, hint = "is empty", "rasura report --case ID -o FILE.html"
        case "bundle" | "proof" as kind:
            said, hint = f"is a {kind} of a log", f"rasura audit verify {named}{pinned}"
        case "checkpoint":
            said = "is a checkpoint, which a log must continue"
            hint = f"rasura audit verify --checkpoint {named}{pinned}"
        case "attestation":
            said = "is an attestation of a model, missing are --model and --attestation"
            hint = retype(file=(), model=("MODEL",), attestation=(str(file),))
            hint += "" if "--key" in hint else " --key PUBLIC.pem"
        case _:
            return
    raise FormatError(f"{file} {said}: expected a report, a signed evaluation, a picture or its receipt", hint=hint)


def _show_evaluation(file: Path, data: bytes, keys: "tuple[PublicKey, ...]", vkey: "VerifyKey | None") -> Result:
    from rasura.evaluation.report.signed_evaluation import verify_evaluation

    if not keys:
        raise click.UsageError("a signed evaluation names its signer: expected their public key with --key")
    found = verify_evaluation(data, keys, vkey=vkey)
    report, entry = found.report, found.entry
    shown = {
        "file": str(file),
        "evaluation": found.digest,
        "base": report.base,
        "patches": {str(patch_id): sixteenths for patch_id, sixteenths in report.patches.items()},
        "judge": {"name": report.judge, "digest": found.judge},
        "prompts": found.prompts,
        "summary": dict(report.summary),
        "time": found.time,
        "key_id": found.key.key_id,
        "entry": None if entry is None else entry.index,
        "log_key": None if found.log_key is None else str(found.log_key),
    }

    def text() -> None:
        line(
            f"{file.name} is evaluation {short(found.digest)}, signed by key {short(found.key.key_id)} at {found.time}"
        )
        fields(
            [
                ("base", report.base),
                *(("patch", f"{patch_id} at {sixteenths}/16") for patch_id, sixteenths in report.patches.items()),
                ("judge", f"{report.judge}, {found.judge}"),
                ("prompts", found.prompts),
                *report.summary.items(),
            ]
        )
        if entry is None:
            warn("the log's entry was not checked: give its public key with --vkey")
            return
        line(f"entry {entry.index} of the log recorded it: {entry.actor}, {entry.time:%Y-%m-%d %H:%M}")
        if found.log_key != vkey:
            warn(f"the key that was given has handed the log on; give this one from now on: {found.log_key}")

    return Result(shown, text)


def _show_receipt(file: Path, data: bytes, concept: str | None, vkey: "VerifyKey | None") -> Result:
    from rasura.registry.evidence.pictures.picture_receipt import verify_receipt

    found = verify_receipt(data, vkey=vkey)
    said = found.receipt
    erased = None if concept is None else said.erased(concept)
    shown = {
        "file": str(file),
        "time": said.time.isoformat(),
        "model": said.model,
        "host": said.host,
        "base": said.base,
        "state": said.state,
        "patches": {p.patch_id: {"concepts": list(p.concepts), "strength": str(p.strength)} for p in said.patches},
        "looked": said.looked,
        "picture": said.picture,
        "bound": found.bound,
        "concept": concept,
        "erased": None if erased is None else bool(erased),
        "strengths": None if concept is None else [str(p.strength) for p in said.in_force(concept)],
        "key": str(found.key),
        "pinned": found.pinned,
        "size": found.checkpoint.size,
        "root": found.checkpoint.root.hex(),
    }

    def text() -> None:
        what = "the picture was" if found.bound else "a picture was"
        line(f"{file.name}: {what} drawn by {said.model}, {said.time:%Y-%m-%d %H:%M:%S} UTC")
        if said.patches:
            rows = [(short(p.patch_id), ", ".join(p.concepts), str(p.strength)) for p in said.patches]
            table(("patch", "concept", "strength"), rows)
        else:
            line("nothing was erased")
        if erased is not None:
            line(f"{concept}: {_say_erased(said, str(concept))} when this was drawn")
        line(f"the log had {found.checkpoint.size} entries; signed by {found.key}")
        if not found.bound and said.picture is not None:
            line(f"it is for the picture with SHA-256 {said.picture}")
        if not said.looked:
            warn("the weights were not looked at for it: it says what the log said of them")
        if not found.pinned:
            warn("no key was given from outside (--vkey): whoever forges a whole receipt passes this")

    return Result(shown, text)


def _say_erased(said: "PictureReceipt", concept: str) -> str:
    """Whether it was erased; where its patch stood at another strength than 1, at which: then it was not."""
    if said.erased(concept):
        return "erased"
    strengths = " and ".join(str(patch.strength) for patch in said.in_force(concept))
    return f"in force at strength {strengths}: not erased" if strengths else "not erased"
