# ruff: noqa: F811 - a test asks for a fixture by its name
"""What a model is, signed: verified by whoever has its files, and refused where a byte of either is another."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from google.protobuf import json_format
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
from support.commandline import rasura
from support.registries.workshop import ALICE, Workshop, silent, workshop  # noqa: F401

from rasura.patches.errors import AuditError, DriftError, HostError, NotFoundError, RasuraError, UntrustedKeyError
from rasura.patches.format.signatures.dsse_envelope import open_envelope, sign_envelope
from rasura.patches.format.signatures.signing_key import PrivateKey, PublicKey
from rasura.registry._storage.records.records import Draft
from rasura.registry.apply import operations
from rasura.registry.evidence.attestations.attest import attest, state_model, verify_model
from rasura.registry.evidence.attestations.bill_of_materials import write_bill
from rasura.registry.evidence.attestations.model_statement import ModelStatement
from rasura.registry.log.notes.signed_note import VerifyKey


@pytest.fixture
def patched(workshop: Workshop) -> Workshop:
    with workshop.open() as registry:
        operations.apply(registry, workshop.host(), [workshop.dog, workshop.photo], ALICE)
    return workshop


def signed(shop: Workshop) -> tuple[bytes, PublicKey, VerifyKey]:
    with shop.open() as registry:
        data = attest(registry, state_model(registry, shop.model, silent), None)
        return data, PublicKey.load(registry.key("alice").pem), VerifyKey.parse(registry.log_vkey())


def test_who_has_the_files_and_the_keys_needs_no_registry(patched: Workshop, tmp_path: Path) -> None:
    data, key, vkey = signed(patched)
    shutil.copytree(patched.model, tmp_path / "elsewhere", ignore=shutil.ignore_patterns(".rasura-host"))
    found = verify_model(tmp_path / "elsewhere", data, [key], vkey=vkey, progress=silent)
    assert {p.patch_id: (p.concepts, str(p.strength)) for p in found.statement.patches} == {
        patched.dog: (("dog",), "1"),
        patched.photo: (("photo",), "1"),
    }
    assert found.key == key
    assert found.entry is not None
    assert (found.entry.action, found.entry.actor) == ("patch.apply", "alice")
    assert len(found.statement.touched) > 0
    assert found.statement.compared > 0


def test_the_statement_is_one_for_the_libraries(patched: Workshop) -> None:
    data, key, _ = signed(patched)
    payload, _ = open_envelope(data, [key])
    Statement.copy_from_pb(json_format.Parse(payload, statement_pb2.Statement())).validate()
    assert ModelStatement.parse(payload).to_payload() == payload


def test_the_bill_of_materials_is_valid(patched: Workshop) -> None:
    with patched.open() as registry:
        statement = state_model(registry, patched.model, silent)
    text = write_bill(statement, name="model", version="1").decode()
    assert JsonStrictValidator(SchemaVersion.V1_7).validate_str(text) is None
    pedigree = json.loads(text)["metadata"]["component"]["pedigree"]
    assert {p["resolves"][0]["id"] for p in pedigree["patches"]} == {patched.dog, patched.photo}
    assert pedigree["ancestors"][0]["properties"][0]["value"] == statement.base


def test_a_model_without_patches_can_be_attested_after_the_last_revert(patched: Workshop) -> None:
    with patched.open() as registry:
        operations.revert(registry, patched.host(), None, ALICE)
    data, key, vkey = signed(patched)
    found = verify_model(patched.model, data, [key], vkey=vkey, progress=silent)
    assert (found.statement.patches, found.statement.touched) == ((), ())
    assert found.entry is not None
    assert found.entry.action == "patch.revert"


def test_what_was_never_written_cannot_be_attested(workshop: Workshop) -> None:
    with workshop.open() as registry, pytest.raises(NotFoundError, match="nothing was ever applied"):
        state_model(registry, workshop.model, silent)


def weights(shop: Workshop) -> Path:
    return next((shop.model / "unet").glob("*.safetensors"))


def test_nothing_is_signed_of_a_model_that_was_changed(patched: Workshop) -> None:
    path = weights(patched)
    data = bytearray(path.read_bytes())
    data[-3] ^= 4
    path.write_bytes(data)
    with patched.open() as registry, pytest.raises(DriftError):
        state_model(registry, patched.model, silent)


@pytest.mark.parametrize("change", ["a weight", "a file more", "a file less", "the vocabulary"])
def test_another_model_is_refused(patched: Workshop, change: str) -> None:
    data, key, _ = signed(patched)
    path = weights(patched)
    match change:
        case "a weight":
            path.write_bytes(path.read_bytes()[:-1] + b"\x00")
        case "a file more":
            (path.parent / "pytorch_model.bin").write_bytes(b"x")
        case "a file less":
            (patched.model / "model_index.json").unlink()
        case _:
            vocabulary = next((patched.model / "tokenizer").iterdir())
            vocabulary.write_bytes(vocabulary.read_bytes() + b" ")
    with pytest.raises(DriftError, match="not the one that was attested"):
        verify_model(patched.model, data, [key], progress=silent)


def test_an_entry_about_another_state_proves_nothing(patched: Workshop) -> None:
    """Of the same model at another time, with its own record or with that of now."""
    with patched.open() as registry:
        before = state_model(registry, patched.model, silent)
        operations.revert(registry, patched.host(), [patched.photo], ALICE)
        now = state_model(registry, patched.model, silent)
        data = [attest(registry, replace(now, proof=before.proof, record=r), None) for r in (now.record, before.record)]
        key, vkey = PublicKey.load(registry.key("alice").pem), VerifyKey.parse(registry.log_vkey())
    for forged in data:
        assert verify_model(patched.model, forged, [key], progress=silent).entry is None
        with pytest.raises(AuditError, match="is not about this model as it is"):
            verify_model(patched.model, forged, [key], vkey=vkey, progress=silent)


def test_an_attestation_holds_for_whoever_pinned_an_older_key_of_the_log(patched: Workshop) -> None:
    with patched.open() as registry:
        old = VerifyKey.parse(registry.log_vkey())
        registry.rotate_log_key(Draft("alice", "", "log.rotate", "success"))
    data, key, new = signed(patched)
    assert old != new
    for vkey in (old, new):
        found = verify_model(patched.model, data, [key], vkey=vkey, progress=silent)
        assert found.entry is not None
        assert found.log_key == new


def test_nothing_is_said_of_what_lies_behind_a_link(patched: Workshop, tmp_path: Path) -> None:
    (tmp_path / "vae").mkdir()
    (patched.model / "linked").symlink_to(tmp_path / "vae")
    with patched.open() as registry, pytest.raises(HostError, match="got a link"):
        state_model(registry, patched.model, silent)


def test_no_byte_of_an_attestation_can_be_another(patched: Workshop) -> None:
    data, key, _ = signed(patched)
    for at in range(0, len(data), 37):
        forged = data[:at] + bytes([data[at] ^ 1 << at % 7]) + data[at + 1 :]
        with pytest.raises(RasuraError):
            open_envelope(forged, [key])


def test_only_the_keys_that_are_given_count(patched: Workshop) -> None:
    data, key, _ = signed(patched)
    other = PrivateKey.generate()
    with pytest.raises(UntrustedKeyError):
        open_envelope(data, [other.public])
    mine = sign_envelope(open_envelope(data, [key])[0], other)
    with pytest.raises(UntrustedKeyError):
        verify_model(patched.model, mine, [key], progress=silent)
    stolen = mine.replace(other.public.key_id.encode(), key.key_id.encode())
    with pytest.raises(RasuraError, match="does not verify"):
        verify_model(patched.model, stolen, [key], progress=silent)


def test_typed(patched: Workshop, tmp_path: Path) -> None:
    shop = patched.folder
    vkey = rasura("key", "list", "--json", cwd=shop).data["log_key"]
    made = rasura("attest", "--model", "the model", "-o", tmp_path / "a.json", "--json", cwd=shop).data
    assert set(made["patches"]) == {patched.dog, patched.photo}
    rasura("key", "export", "alice", "-o", tmp_path / "alice.pem", cwd=shop)
    line = ("verify", "--model", shop / "the model", "--attestation", "a.json", "--key", "alice.pem")
    said = rasura(*line, "--vkey", vkey, cwd=tmp_path)
    assert said.code == 0, said.err
    assert "entry 8 of the log wrote it: patch.apply by alice" in said.out
    assert "was not checked" in rasura(*line, cwd=tmp_path).err
    weights(patched).write_bytes(b"")
    assert rasura(*line, cwd=tmp_path).code == 6
    assert rasura("attest", "--model", "the model", "-o", tmp_path / "a.json", cwd=shop).code != 0
