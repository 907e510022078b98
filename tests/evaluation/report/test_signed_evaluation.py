# ruff: noqa: F811 - a test asks for a fixture by its name
"""An evaluation, signed: bound to patches, base, judge and prompts; and named by what was applied because of it."""

import json
from pathlib import Path

import pytest
from google.protobuf import json_format
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
from support.commandline import rasura
from support.registries.workshop import ALICE, Workshop, workshop  # noqa: F401

from rasura.evaluation.report.recorded import digest_prompts, record_evaluation
from rasura.evaluation.report.signed_evaluation import sign_evaluation, verify_evaluation
from rasura.patches._io import canonical_json
from rasura.patches._io.json_fields import JsonValue
from rasura.patches.algebra.strength import Strength
from rasura.patches.errors import AuditError, FormatError, InputError, RasuraError, UntrustedKeyError
from rasura.patches.format.signatures.dsse_envelope import open_envelope, sign_envelope
from rasura.patches.format.signatures.signing_key import PrivateKey, PublicKey, SigningKey
from rasura.registry._storage.records.records import Draft
from rasura.registry.apply import operations
from rasura.registry.log.notes.signed_note import VerifyKey
from rasura.registry.trust.keys.key_files import signer

ASKED: list[JsonValue] = [
    {"prompt": "a dog", "seed": 1, "group": "forget", "kind": "direct", "wanted": {"object": "dog"}, "base": {}},
    {"prompt": "a cat", "seed": 2, "group": "retain", "kind": "direct", "wanted": {"object": "cat"}, "base": {}},
]


def looked_at(shop: Workshop, sixteenths: int = 16, **body: JsonValue) -> str:
    """Record an evaluation of the dog's patch; its digest."""
    prompts = digest_prompts([row for row in ASKED if isinstance(row, dict)])
    inside: dict[str, JsonValue] = {"judge": "7" * 64, "prompts": prompts, "pictures": ASKED, **body}
    with shop.open() as registry:
        report = canonical_json.dumps(
            {
                "format": "rasura-evaluation/1",
                "base": registry.base("tiny").digest,
                "patches": {shop.dog: sixteenths},
                "judge": "a classifier",
                "summary": {"forget": "1.0000"},
                "body": inside,
            }
        )
        return record_evaluation(registry, report, Draft("bob", "", "evaluation.add", "success"))[0].digest


def keys(shop: Workshop) -> tuple[PublicKey, VerifyKey, SigningKey]:
    with shop.open() as registry:
        mine = PublicKey.load(registry.key("alice").pem)
        return mine, VerifyKey.parse(registry.log_vkey()), signer(registry, None)


def test_who_has_the_keys_needs_no_registry(workshop: Workshop, tmp_path: Path) -> None:
    digest = looked_at(workshop)
    assert rasura("attest", "--evaluation", digest[:12], "-o", "e.json", cwd=workshop.folder).code == 0
    mine, vkey, _ = keys(workshop)
    data = (workshop.folder / "e.json").read_bytes()
    found = verify_evaluation(data, [mine], vkey=vkey)
    assert (found.digest, found.judge, found.key) == (digest, "7" * 64, mine)
    assert dict(found.report.patches) == {workshop.dog: 16}
    assert found.entry is not None
    assert (found.entry.action, found.entry.actor) == ("evaluation.add", "bob")
    payload, _ = open_envelope(data, [mine])
    Statement.copy_from_pb(json_format.Parse(payload, statement_pb2.Statement())).validate()
    (tmp_path / "alice.pem").write_text(mine.pem)
    (tmp_path / "e.json").write_bytes(data)
    run = rasura("verify", "e.json", "--key", "alice.pem", "--vkey", str(vkey), "--json", cwd=tmp_path)
    assert run.code == 0, run.err
    assert (run.data["evaluation"], run.data["prompts"], run.data["entry"]) == (digest, found.prompts, 7)


def test_nothing_in_it_can_be_another(workshop: Workshop) -> None:
    digest = looked_at(workshop)
    mine, vkey, private = keys(workshop)
    with workshop.open() as registry:
        data = sign_evaluation(registry, digest, None)
    for at in range(0, len(data), 7):
        with pytest.raises(RasuraError):
            verify_evaluation(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], [mine], vkey=vkey)
    with pytest.raises(UntrustedKeyError):
        verify_evaluation(data, [PrivateKey.generate().public])
    # Whoever signs cannot let the fields beside the report say something else than the report.
    payload = json.loads(open_envelope(data, [mine])[0])
    for name, other in (("judge", "8" * 64), ("prompts", "8" * 64), ("base", "8" * 64), ("report", "8" * 64)):
        lie = {**payload, "predicate": {**payload["predicate"], name: other}}
        with pytest.raises(FormatError, match="not what the report says"):
            verify_evaluation(sign_envelope(canonical_json.dumps(lie), private), [mine])
    # Nor name another entry of the log than the one that recorded it.
    other_digest = looked_at(workshop, 8)
    with workshop.open() as registry:
        other = json.loads(open_envelope(sign_evaluation(registry, other_digest, None), [mine])[0])
    lie = {**payload, "predicate": {**payload["predicate"], "proof": other["predicate"]["proof"]}}
    with pytest.raises(AuditError, match="not about this report"):
        verify_evaluation(sign_envelope(canonical_json.dumps(lie), private), [mine], vkey=vkey)


def test_what_is_not_bound_is_not_signed(workshop: Workshop) -> None:
    unbound = [looked_at(workshop, 4, judge=None), looked_at(workshop, 5, prompts="8" * 64)]
    with workshop.open() as registry:
        for digest in unbound:
            with pytest.raises(InputError, match="the digests of judge and prompts"):
                sign_evaluation(registry, digest, None)


def test_a_motion_names_the_newest_evaluation_of_exactly_what_it_leaves(workshop: Workshop) -> None:
    looked_at(workshop, 8)
    first = looked_at(workshop)
    newest = looked_at(workshop, note="again")
    with workshop.open() as registry:
        operations.apply(registry, workshop.host(), [workshop.dog], ALICE)
        operations.apply(registry, workshop.host(), [workshop.photo], ALICE)
        operations.revert(registry, workshop.host(), [workshop.photo], ALICE)
        operations.revert(registry, workshop.host(), None, ALICE)
    told = [entry.details.get("evaluation") for entry in workshop.entries() if entry.host]
    assert first != newest
    # Begun and done, four times: with the dog alone somebody looked, with the photo beside it nobody, with nothing too.
    assert told == [newest] * 2 + [None] * 2 + [newest] * 2 + [None] * 2
    with workshop.open() as registry:  # at half its strength it is another set
        operations.apply(registry, workshop.host(), [workshop.dog], ALICE, strength=Strength(4))
    assert workshop.entries()[-1].details.get("evaluation") is None
