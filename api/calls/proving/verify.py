"""The calls that check what left a registry, for people who have none."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rasura.api.hints import in_python
from rasura.api.progress import ignore_progress
from rasura.patches.format.signatures.signing_key import PublicKey
from rasura.registry.evidence.attestations import attest
from rasura.registry.evidence.pictures import picture_receipt
from rasura.registry.evidence.proofs import verify_file as left
from rasura.registry.log.notes.signed_note import VerifyKey

if TYPE_CHECKING:
    from rasura.registry.evidence.attestations.attest import VerifiedModel
    from rasura.registry.evidence.pictures.picture_receipt import VerifiedReceipt
    from rasura.registry.evidence.proofs.verify_file import VerifiedFile

__all__ = ["verify_file", "verify_model", "verify_receipt"]


@in_python
def verify_file(path: str | Path, *, vkey: str | None = None, kept: bytes | None = None) -> VerifiedFile:
    """Check a bundle or a proof that left a registry; none is needed (`rasura audit verify FILE`).

    Args:
        path: the file.
        vkey: the log's public key, from somebody who kept it.
        kept: a checkpoint of this log that somebody kept; the log must continue it.

    Raises:
        AuditError, FormatError: the first thing found wrong.
    """
    return left.verify_file(Path(path), vkey=VerifyKey.parse(vkey) if vkey else None, kept=kept)


@in_python
def verify_model(
    model: str | Path, attestation: bytes, *, key: str | list[str], vkey: str | None = None
) -> VerifiedModel:
    """Compare a model on disk with what was attested of it; no registry is needed (`rasura verify`).

    Args:
        model: folder or single file.
        attestation: what `Registry.attest` gave.
        key: PEM texts of the public keys whose signatures count, one or several.
        vkey: of the log, to verify the entry that wrote the model, too.

    Raises:
        SignatureError, UntrustedKeyError: it is not signed by one of them.
        DriftError: the model is another.
        AuditError: the entry is not in that log.
    """
    keys = [PublicKey.load(pem) for pem in ([key] if isinstance(key, str) else key)]
    pinned = VerifyKey.parse(vkey) if vkey else None
    return attest.verify_model(Path(model), attestation, keys, vkey=pinned, progress=ignore_progress)


@in_python
def verify_receipt(data: bytes, *, vkey: str | None = None, picture: bytes | None = None) -> VerifiedReceipt:
    """Check every byte of a picture receipt; no registry is needed (`rasura verify PICTURE`).

    Args:
        data: the receipt, or a PNG that carries it.
        vkey: the log's public key, from somebody who kept it. None: the receipt is believed when it names its own.
        picture: the picture beside a receipt that lies alone.

    Raises:
        AuditError, FormatError: the first thing found wrong.
    """
    return picture_receipt.verify_receipt(data, vkey=VerifyKey.parse(vkey) if vkey else None, picture=picture)
