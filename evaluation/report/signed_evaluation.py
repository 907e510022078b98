"""An evaluation as a signed in-toto statement: for whoever has the public keys, and no registry.

    subject        the patches that were drawn with, by their identity
    predicateType  urn:rasura:evaluation:v1
    predicate      {"format":"rasura-evaluation-statement/1", "base":"…", "judge":"…", "prompts":"…", "report":"…",
                    "text":"…", "proof":"…", "time":"…", "means":"…"}

`text` is the report, whose SHA-256 is `report`; it holds every prompt and every answer. `judge` is the digest of the
weights that decided, `prompts` that of what was asked. `proof` is a C2SP tlog-proof of the log's entry that recorded
the report: who has the log's key sees since when it stands there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rasura.evaluation.report.recorded import ADD, MAX_REPORT_BYTES, Report, read_report
from rasura.patches._io import canonical_json
from rasura.patches._io.json_fields import Fields
from rasura.patches._io.sha256 import digest_of
from rasura.patches.errors import AuditError, FormatError, InputError
from rasura.patches.format.signatures.dsse_envelope import open_envelope, sign_envelope
from rasura.patches.types import SHORT
from rasura.registry._storage.records.validation import instant
from rasura.registry.evidence.proofs.proof_file import MAX_PROOF_BYTES, verify_proof
from rasura.registry.evidence.proofs.take_out import prove_entry
from rasura.registry.log.entries.stored_entries import EntryFilter
from rasura.registry.trust.keys.key_files import signer

if TYPE_CHECKING:
    from rasura.patches._io.json_fields import JsonValue
    from rasura.patches.format.signatures.signing_key import PublicKey
    from rasura.patches.types import Digest
    from rasura.registry._storage.records.records import EntryRecord
    from rasura.registry.log.notes.signed_note import VerifyKey
    from rasura.registry.registry import Registry

__all__ = ["PREDICATE", "VerifiedEvaluation", "sign_evaluation", "verify_evaluation"]

PREDICATE: Final = "urn:rasura:evaluation:v1"
MEANS: Final = (
    "What these prompts drew from the base with and without the patches, as one judge saw it. It says nothing of "
    "prompts that nobody tried."
)

_TYPE: Final = "https://in-toto.io/Statement/v1"
_FORMAT: Final = "rasura-evaluation-statement/1"
_WHAT: Final = "signed evaluation"
_MAX_PAYLOAD: Final = 3 * MAX_REPORT_BYTES
_DETAIL: Final = "evaluation"


@dataclass(frozen=True, slots=True)
class VerifiedEvaluation:
    """What was found of a signed evaluation, all of it sound.

    Attributes:
        report: what it says.
        digest: of the report's bytes: what the log's entries call it.
        judge: SHA-256 of what decided the judge's answers.
        prompts: SHA-256 of what was asked.
        time: when it was signed, RFC 3339 in UTC.
        key: who signed it.
        entry: the log's entry that recorded it, proved; None where no key of the log was given.
        log_key: the key that signs the log now, where one was given.
    """

    report: Report
    digest: Digest
    judge: Digest
    prompts: Digest
    time: str
    key: PublicKey
    entry: EntryRecord | None
    log_key: VerifyKey | None


def sign_evaluation(registry: Registry, digest: str, key: str | None) -> bytes:
    """A recorded evaluation in a DSSE envelope, signed by a key of this registry.

    Args:
        registry: where it was recorded.
        digest: of its report, or an abbreviation.
        key: whose signature; None: the only one that is here.

    Raises:
        NotFoundError, AmbiguousIdError: no such evaluation, or several; or no key.
        InputError: its report does not name the digests of judge and prompts, or several keys can sign.
    """
    record = registry.evaluation(digest)
    data = read_report(registry, record.digest)
    report = Report.from_bytes(data)
    if report.judge_digest is None or report.prompts_digest is None:
        raise InputError(
            f"evaluation {record.digest[:SHORT]}: expected the digests of judge and prompts in its report, got none",
            hint="rasura evaluate",
        )
    index = _find_entry(registry, record.digest)
    predicate: dict[str, JsonValue] = {
        "format": _FORMAT,
        "base": report.base,
        "judge": report.judge_digest,
        "prompts": report.prompts_digest,
        "report": record.digest,
        "text": data.decode(),
        "proof": prove_entry(registry, index).decode(),
        "time": instant(registry.now()),
        "means": MEANS,
    }
    return sign_envelope(_encode(report, predicate), signer(registry, key))


def verify_evaluation(data: bytes, keys: Iterable[PublicKey], *, vkey: VerifyKey | None = None) -> VerifiedEvaluation:
    """Check a signed evaluation. No registry is needed.

    Args:
        data: the envelope.
        keys: whose signatures count.
        vkey: of the log, or of one that has handed it on since, to verify the entry that recorded it, too.

    Raises:
        SignatureError, UntrustedKeyError: it is not signed by one of the keys.
        FormatError: it is no evaluation, or its parts contradict each other.
        AuditError: its entry is not in the log of `vkey`, or not about this report.
    """
    payload, key = open_envelope(data, keys)
    top = Fields.of(canonical_json.loads(payload, what=_WHAT, limit=_MAX_PAYLOAD), _WHAT)
    top.choice("predicateType", (PREDICATE,))
    said = top.fields("predicate")
    text = said.text("text", limit=MAX_REPORT_BYTES).encode()
    report, digest = Report.from_bytes(text), digest_of(text)
    judge, prompts = report.judge_digest, report.prompts_digest
    if judge is None or prompts is None:
        raise FormatError(f"{_WHAT}: expected a report that names the digests of judge and prompts")
    proof, time = said.text("proof", limit=MAX_PROOF_BYTES), said.text("time", limit=32)
    predicate: dict[str, JsonValue] = {
        "format": _FORMAT,
        "base": report.base,
        "judge": judge,
        "prompts": prompts,
        "report": digest,
        "text": text.decode(),
        "proof": proof,
        "time": time,
        "means": said.text("means"),
    }
    if _encode(report, predicate) != payload:  # every field once, and each what the report says
        raise FormatError(f"{_WHAT}: what stands beside its report is not what the report says")
    if vkey is None:
        return VerifiedEvaluation(report, digest, judge, prompts, time, key, None, None)
    found = verify_proof(proof.encode(), vkey)
    if found.entry.action != ADD or found.entry.details.get(_DETAIL) != digest:
        raise AuditError(f"{_WHAT}: entry {found.entry.index} of the log is not about this report")
    return VerifiedEvaluation(report, digest, judge, prompts, time, key, found.entry, found.signer.key)


def _encode(report: Report, predicate: dict[str, JsonValue]) -> bytes:
    subject: list[JsonValue] = [
        {"name": f"patch {patch_id[:SHORT]}", "digest": {"sha256": patch_id}} for patch_id in sorted(report.patches)
    ]
    return canonical_json.dumps(
        {"_type": _TYPE, "subject": subject, "predicateType": PREDICATE, "predicate": predicate}
    )


def _find_entry(registry: Registry, digest: Digest) -> int:
    """Of the entry that recorded it."""
    entries = registry.entries(EntryFilter(action=ADD), newest=False)
    found = next((entry.index for entry in entries if entry.details.get(_DETAIL) == digest), None)
    if found is None:
        raise AuditError(f"evaluation {digest[:SHORT]}: no entry of the log recorded it", hint="rasura audit verify")
    return found
