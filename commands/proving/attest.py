"""`rasura attest` and `rasura verify`: what a model or an evaluation is, signed; and checked without a registry."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rasura import __version__
from rasura.commands._shared.command import MODEL_HELP, command, open_registry
from rasura.commands._shared.documents import write_lines
from rasura.commands._shared.output import Result, line, many, short, table, warn
from rasura.commands._shared.progress import progress
from rasura.commands.proving.given_files import read_vkey
from rasura.commands.proving.verified import verify_any_file
from rasura.patches._io.files import read_regular
from rasura.patches.errors import FormatError, NotFoundError

if TYPE_CHECKING:
    from rasura.patches.format.signatures.signing_key import PublicKey
    from rasura.registry.evidence.attestations.model_statement import ModelStatement
    from rasura.registry.log.notes.signed_note import VerifyKey

_PATH = click.Path(path_type=Path)
_LIMIT = 64 * 1024**2
_SUFFIXES = {"intoto": "intoto.json", "cyclonedx": "cdx.json", "spdx": "spdx.json"}


@command(None, "attest")
@click.option("--model", type=_PATH, metavar="DIR", help=MODEL_HELP)
@click.option("--evaluation", metavar="DIGEST", help="A recorded evaluation instead, by its digest or the start of it.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["intoto", "cyclonedx", "spdx"]),
    default="intoto",
    show_default=True,
    help="A signed statement that proves, or a description: a bill of materials, an SPDX document.",
)
@click.option("--key", metavar="NAME", help="Key to sign with [default: the only one here].")
@click.option("-o", "--output", type=_PATH, metavar="FILE", help="The file to write.")
def attest(
    *,
    model: Path | None,
    evaluation: str | None,
    format_: str,
    key: str | None,
    output: Path | None,
    registry_at: str | None,
) -> Result:
    """Say which base and which patches a model on disk is, for whoever has its files and the public key.

    Every parameter is hashed and compared before anything is signed; what differs is refused. An evaluation is signed
    with its whole report and the digests of base, patches, judge and prompts.
    """
    if (model is None) == (evaluation is None):
        raise click.UsageError("expected one of --model and --evaluation")
    if evaluation is not None:
        if format_ != "intoto":
            raise click.UsageError(f"--format {format_} describes a model: expected --model")
        return _attest_evaluation(evaluation, key, output, registry_at)
    assert model is not None
    return _attest_model(model, format_, key, output, registry_at)


def _attest_evaluation(digest: str, key: str | None, output: Path | None, registry_at: str | None) -> Result:
    from rasura.evaluation.report.signed_evaluation import sign_evaluation

    with open_registry(registry_at) as registry:
        record = registry.evaluation(digest)
        data = sign_evaluation(registry, record.digest, key)
    path = output or Path(f"evaluation-{short(record.digest)}.intoto.json")
    write_lines(path, [data])
    return Result(
        {"file": str(path), "evaluation": record.digest},
        lambda: line(
            f"wrote {path}: evaluation {short(record.digest)}; to check it: rasura verify {path} --key PUBLIC.pem"
        ),
        changed=True,
    )


def _attest_model(model: Path, format_: str, key: str | None, output: Path | None, registry_at: str | None) -> Result:
    from rasura.registry.evidence.attestations.attest import attest as sign
    from rasura.registry.evidence.attestations.attest import state_model
    from rasura.registry.evidence.attestations.bill_of_materials import write_bill
    from rasura.registry.evidence.attestations.spdx_document import write_spdx

    path = output or Path(f"{model.name}.{_SUFFIXES[format_]}")
    with open_registry(registry_at) as registry, progress() as tell:
        found = state_model(registry, model, tell)
        if format_ == "intoto":
            data = sign(registry, found, key)
        else:
            write = write_bill if format_ == "cyclonedx" else write_spdx
            data = write(found, name=model.name, version=__version__)
    write_lines(path, [data])
    check = f"rasura verify --model {model} --attestation {path} --key PUBLIC.pem" if format_ == "intoto" else ""
    return Result(
        {"file": str(path), "format": format_, **_data(found)},
        lambda: line(f"wrote {path}: {_told(found)}" + (f"; to check it: {check}" if check else "")),
        changed=True,
    )


@command(None, "verify")
@click.argument("file", type=_PATH, required=False, metavar="[FILE]")
@click.option("--model", type=_PATH, metavar="DIR", help=MODEL_HELP)
@click.option("--attestation", type=_PATH, metavar="FILE", help="What `rasura attest` wrote.")
@click.option("--key", "keys", multiple=True, type=_PATH, metavar="FILE",
              help="Public key (PEM) of who may sign; repeatable.")  # fmt: skip
@click.option("--vkey", envvar="RASURA_VKEY", metavar="KEY|FILE", help="The log's public key, from who kept it.")
@click.option("--concept", metavar="TEXT", help="Of a picture: was this erased when it was drawn?")
def verify(
    *,
    file: Path | None,
    model: Path | None,
    attestation: Path | None,
    keys: tuple[Path, ...],
    vkey: str | None,
    concept: str | None,
    registry_at: str | None,
) -> Result:
    """Check a file that left a registry, or compare a model on disk with what was attested of it. None is needed.

    A report, a picture and a receipt need the log's key alone (--vkey), a signed evaluation --key, a model
    --attestation and --key. Exit code 4 where a signature is bad, 6 where the model is another.
    """
    del registry_at
    if (file is None) == (model is None):
        raise click.UsageError("expected a file, or --model with --attestation and --key")
    trusted = tuple(_read_key(path) for path in keys)
    pinned = read_vkey(vkey) if vkey else None
    if file is not None:
        return verify_any_file(file, trusted, pinned, concept=concept)
    if attestation is None or not keys:
        raise click.UsageError("a model is compared with what was attested of it: expected --attestation and --key")
    assert model is not None
    return _verify_model(model, attestation, trusted, pinned)


def _verify_model(
    model: Path, attestation: Path, trusted: "tuple[PublicKey, ...]", pinned: "VerifyKey | None"
) -> Result:
    from rasura.registry.evidence.attestations.attest import verify_model

    with progress() as tell:
        found = verify_model(model, read_regular(attestation, _LIMIT), trusted, vkey=pinned, progress=tell)
    said, entry = found.statement, found.entry

    def text() -> None:
        line(f"{model} is what key {short(found.key.key_id)} attested at {said.time}: {_told(said)}")
        if said.patches:
            rows = [(short(p.patch_id), ", ".join(p.concepts), str(p.strength), short(p.signer)) for p in said.patches]
            table(("patch", "concept", "strength", "signed by"), rows)
        if entry is not None:
            line(
                f"entry {entry.index} of the log wrote it: {entry.action} by {entry.actor}, {entry.time:%Y-%m-%d %H:%M}"
            )
            if found.log_key != pinned:
                warn(f"the key that was given has handed the log on; give this one from now on: {found.log_key}")
        else:
            warn("the log's entry was not checked: give its public key with --vkey")

    data = {**_data(said), "key_id": found.key.key_id, "entry": None if entry is None else entry.index}
    data["log_key"] = None if found.log_key is None else str(found.log_key)
    return Result(data, text)


def _told(statement: "ModelStatement") -> str:
    patches = many(len(statement.patches), "patch", "patches")
    return (
        f"{patches} on base {statement.base_name}, {many(len(statement.touched), 'parameter')} touched, "
        f"{statement.compared} the base's, {many(len(statement.files), 'file')}"
    )


def _data(statement: "ModelStatement") -> dict[str, Any]:
    return {
        "base": statement.base,
        "base_name": statement.base_name,
        "patches": {p.patch_id: {"strength": str(p.strength), "concepts": list(p.concepts)} for p in statement.patches},
        "touched": len(statement.touched),
        "compared": statement.compared,
        "files": dict(statement.files),
        "time": statement.time,
    }


def _read_key(path: Path) -> "PublicKey":
    from rasura.patches.format.signatures.signing_key import MAX_KEY_BYTES, PublicKey

    hint = "rasura key export NAME -o FILE"
    try:
        return PublicKey.load(read_regular(path, MAX_KEY_BYTES))
    except NotFoundError:
        raise NotFoundError(f"key file {path} does not exist", hint=hint) from None
    except FormatError as error:
        raise FormatError(f"key file {path}: {error.message}", hint=hint) from None
