"""Saying what a model is, signed: for whoever has the model's files, the public keys, and no registry."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rasura.patches._io import canonical_json
from rasura.patches._io.canonical_json import Fields
from rasura.patches._io.tensor_bytes import digest_tensor_set
from rasura.patches.errors import AuditError, DriftError, NotFoundError
from rasura.patches.format.signatures.dsse_envelope import open_envelope, sign_envelope
from rasura.patches.format.signatures.signing_key import PublicKey
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.registry._storage.digests import sha256
from rasura.registry._storage.records.records import EntryRecord, HostRecord
from rasura.registry._storage.records.validation import instant
from rasura.registry.apply.hosts.host_state import applied_of, find_record, list_touched
from rasura.registry.apply.status import survey
from rasura.registry.evidence.attestations.model_statement import (
    ModelStatement,
    StatedParameter,
    StatedPatch,
    hash_files,
)
from rasura.registry.evidence.proofs.proof_file import ProvenEntry, verify_proof
from rasura.registry.evidence.proofs.take_out import prove_entry
from rasura.registry.log.entries.record_digest import encode_record
from rasura.registry.log.notes.signed_note import VerifyKey
from rasura.registry.registry import Registry
from rasura.registry.trust.keys.key_files import signer
from rasura.registry.trust.verified_patch import verify_files

__all__ = ["VerifiedModel", "attest", "state_model", "verify_model"]

Progress = Callable[[str, int, int], None]
_HOST: Final = "host"
"""What the log calls the record of a model."""
_RECORD_BYTES: Final = 16 * 1024**2


@dataclass(frozen=True, slots=True)
class VerifiedModel:
    """What was found of a model and its attestation.

    Attributes:
        statement: what it says, all of it true of the files that lie here.
        key: who signed it.
        entry: the log's entry about this very state, proved; None where no key of the log was given.
        log_key: the key that signs the log now, where one was given; another than that if it has handed the log on.
    """

    statement: ModelStatement
    key: PublicKey
    entry: EntryRecord | None
    log_key: VerifyKey | None


def state_model(registry: Registry, model: Path, progress: Progress) -> ModelStatement:
    """What a model on disk is: looked at in full, recomputed from its originals and the verified patches.

    Raises:
        NotFoundError: nothing was ever applied to it here.
        DriftError: it is not what the registry last wrote.
        BusyError: it is being moved.
    """
    host = CheckpointHost.open(model)
    with host.alone():
        record = find_record(registry, host)
        if record is None:
            raise NotFoundError(f"nothing was ever applied to {host.location} here", hint="rasura host list")
        found = survey(registry, host, deep=True, progress=progress)
        if found.interrupted is not None or found.drifted:
            what = "a motion of it never ended" if found.interrupted is not None else f"{found.drifted[0]} is another"
            raise DriftError(
                f"{host.location} is not what the registry last wrote: {what}", hint="rasura status --look"
            )
        applied = applied_of(record)
        touched = list_touched(registry, applied)
        infos, digests = host.parameters(), host.digests(touched)
        files = hash_files(host.path, progress)
    patches = []
    for patch_id, strength in sorted(applied.items()):
        verified = verify_files(registry, registry.patch_files(patch_id))
        concept = verified.patch.manifest.concept.text
        patches.append(StatedPatch(patch_id, (concept,), strength, verified.key_id))
    return ModelStatement(
        files=files,
        base=record.base,
        base_name=registry.base(record.base).name,
        patches=tuple(patches),
        touched=tuple(StatedParameter(n, infos[n].dtype, infos[n].shape, digests[n]) for n in sorted(touched)),
        compared=found.hashed - len(touched),
        record=encode_record(record).decode(),
        proof=_prove_last(registry, record),
        time=instant(registry.now()),
    )


def attest(registry: Registry, statement: ModelStatement, key: str | None) -> bytes:
    """The statement in a DSSE envelope, signed by a key of this registry.

    Raises:
        NotFoundError, InputError, RevokedKeyError: there is no such key to sign with.
    """
    return sign_envelope(statement.to_payload(), signer(registry, key))


def verify_model(
    model: Path, attestation: bytes, keys: Iterable[PublicKey], *, vkey: VerifyKey | None = None, progress: Progress
) -> VerifiedModel:
    """Compare a model on disk with what was signed of it. No registry is needed.

    Args:
        model: folder or single file.
        attestation: the envelope.
        keys: whose signatures count.
        vkey: of the log, or of one that has handed it on since, to verify the entry in it, too.
        progress: told of the files.

    Raises:
        SignatureError, UntrustedKeyError: it is not signed by one of the keys.
        FormatError: it says something else.
        DriftError: the model is another; names the first difference.
        AuditError: the entry in it is not in the log of `vkey`, or not about this state.
    """
    payload, key = open_envelope(attestation, keys)
    statement = ModelStatement.parse(payload)
    _compare(statement.files, hash_files(model, progress), "file")
    host = CheckpointHost.open(model)
    infos = host.parameters()
    names = [p.name for p in statement.touched]
    missing = [name for name in names if name not in infos]
    if missing:
        raise DriftError(f"{model}: expected the parameter {missing[0]}, got none")
    got = host.digests(names)
    _compare({str(p.name): p.sha256 for p in statement.touched}, {str(n): got[n] for n in names}, "parameter")
    proven = _read_entry(statement, vkey) if vkey is not None else None
    if proven is None:
        return VerifiedModel(statement, key, None, None)
    return VerifiedModel(statement, key, proven.entry, proven.signer.key)


def _compare(expected: Mapping[str, str], got: Mapping[str, str], what: str) -> None:
    for name in sorted({*expected, *got}):
        if expected.get(name) == got.get(name):
            continue
        said = "is another"
        if name not in expected:
            said = "is not in the attestation"
        elif name not in got:
            said = "is missing"
        raise DriftError(f"the model is not the one that was attested: {what} {name} {said}")


def _read_entry(statement: ModelStatement, vkey: VerifyKey) -> ProvenEntry:
    """The log's entry, if it is about the state that the statement tells of: base, set and touched parameters."""
    found = verify_proof(statement.proof.encode(), vkey)
    fields = Fields.of(canonical_json.loads(statement.record.encode(), what="record", limit=_RECORD_BYTES), "record")
    digest = sha256(statement.record.encode())
    told = (_HOST, fields.text("host_id"), digest) in {(c.kind, c.id, c.record) for c in found.changes}
    stated = {str(patch.patch_id): patch.strength.sixteenths for patch in statement.patches}
    state = digest_tensor_set((p.name, p.dtype, p.shape, p.sha256) for p in statement.touched)
    said = fields.value("base"), fields.value("applied"), fields.value("state")
    if not told or said != (statement.base, stated, state):
        raise AuditError(f"attestation: entry {found.entry.index} of the log is not about this model as it is")
    return found


def _prove_last(registry: Registry, record: HostRecord) -> str:
    """Of the entry that changed what is known of the model last."""
    entry, _ = registry.changes_of_host(record.host_id)[-1]
    return prove_entry(registry, entry.index).decode()
