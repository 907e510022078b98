# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""Anchors: a file, a time stamp by an authority of our own (openssl), and another registry's cosignature."""

import base64
import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from huggingface_hub import HfApi, hf_hub_download
from support.commandline import Run, rasura
from support.hub_fixtures import plain_hub
from support.hubserver import TOKEN, HubServer
from support.registries.workshop import Workshop, workshop

from rasura.patches.errors import AuditError, ConflictError
from rasura.registry._storage.records.records import Draft
from rasura.registry.evidence.anchoring.witness import witness
from rasura.registry.evidence.proofs.take_out import export_bundle, export_checkpoint
from rasura.registry.log.notes.cosignature import WitnessKey, cosign, find_cosignature
from rasura.registry.log.notes.signed_note import Note, VerifyKey, parse_note, sign_note
from rasura.registry.registry import Registry

DRAFT = Draft("carol", "", "log.witness", "success")
TREE = "registry.example/rasura/log1\n8\nXcnaeacGWamtVZy3Ad7ZoqudgjqtL0lgz+Nw7/RgQyg=\n"
# Of the seed 20..3f; two other programs gave this spelling and this identity.
WITNESS = "witness.example/w1+20324abe+BCmsuuFBvMrwsi4alNNNC8c2HlJtC/4SyJeUvJMilm3X"
TSA = """
[ tsa ]
default_tsa = here
[ here ]
serial = {folder}/serial
crypto_device = builtin
signer_cert = {folder}/tsa.pem
signer_key = {folder}/tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256
accuracy = secs:1
ess_cert_id_alg = sha256
[ leaf ]
extendedKeyUsage = critical,timeStamping
"""


def typed(folder: Path, *arguments: str | Path, code: int = 0) -> Run:
    run = rasura(*arguments, cwd=folder)
    assert run.code == code, run.out + run.err
    return run


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A time-stamping authority: a root, and a certificate that may stamp times."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    pytest.importorskip("rfc3161_client", reason="needs rfc3161-client (the extra `tsa`)")
    folder = tmp_path_factory.mktemp("tsa")
    (folder / "conf").write_text(TSA.format(folder=folder))
    (folder / "serial").write_text("01\n")
    ca = ("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign")
    new = ("-newkey", "rsa:2048", "-nodes")
    openssl(
        "req",
        "-x509",
        *new,
        "-keyout",
        folder / "ca.key",
        "-out",
        folder / "ca.pem",
        "-subj",
        "/CN=root",
        "-days",
        "9",
        *ca,
    )
    openssl("req", *new, "-keyout", folder / "tsa.key", "-out", folder / "tsa.csr", "-subj", "/CN=tsa")
    signing = ("-CA", folder / "ca.pem", "-CAkey", folder / "ca.key", "-CAcreateserial", "-days", "9")
    extensions = ("-extfile", folder / "conf", "-extensions", "leaf")
    openssl("x509", "-req", "-in", folder / "tsa.csr", *signing, *extensions, "-out", folder / "tsa.pem")
    return folder


def stamp(authority: Path, file: Path, token: Path) -> None:
    openssl("ts", "-query", "-data", file, "-sha256", "-cert", "-out", authority / "query")
    openssl("ts", "-reply", "-queryfile", authority / "query", "-config", authority / "conf", "-out", token)


def test_a_cosignature_is_what_the_specification_lays_down() -> None:
    key = WitnessKey.parse(WITNESS)
    private = Ed25519PrivateKey.from_private_bytes(bytes(range(0x20, 0x40)))
    assert (str(key), key.public) == (WITNESS, private.public_key().public_bytes_raw())
    at = datetime(2026, 1, 1, tzinfo=UTC)
    line = cosign(TREE, key.name, private, at)
    # By hand: the key's identity, the time in eight bytes, and the signature over two lines and the three of the tree.
    by_hand = private.sign(b"cosignature/v1\ntime 1767225600\n" + TREE.encode())
    raw = base64.b64decode(str(line).split(" ")[2])
    assert raw == bytes.fromhex("20324abe") + (1767225600).to_bytes(8, "big") + by_hand
    note = Note(TREE, (line,))
    assert find_cosignature(parse_note(str(note).encode()), key) == at
    for odd in (line.value[:-1], bytes(8) + line.value[8:], line.value[:-1] + bytes([line.value[-1] ^ 1])):
        with pytest.raises(AuditError, match="cosignature"):
            find_cosignature(replace(note, signatures=(replace(line, value=odd),)), key)
    with pytest.raises(AuditError, match="cosignature"):
        find_cosignature(replace(note, text=TREE.replace("8", "9")), key)
    other = VerifyKey(key.name, key.public)
    with pytest.raises(AuditError, match="expected a cosignature by"):
        find_cosignature(sign_note(TREE, key.name, private), key)  # the same key, as a log's
    with pytest.raises(AuditError, match="type 04"):
        WitnessKey.parse(str(other))


def test_a_checkpoint_in_a_file_that_nobody_here_can_change(workshop: Workshop, tmp_path: Path) -> None:
    out = tmp_path / "kept.txt"
    assert "no anchors" in typed(workshop.folder, "audit", "anchor", "list").out
    assert "a file anchor of 7 entries" in typed(workshop.folder, "audit", "anchor", "add", "--file", out).out
    assert out.read_text().splitlines()[1] == "7"
    assert str(out) in typed(workshop.folder, "audit", "anchor", "list").out
    typed(workshop.folder, "patch", "apply", workshop.dog, "--model", "the model")
    assert "continues all 1 of them" in typed(workshop.folder, "audit", "anchor", "verify").out
    out.rename(tmp_path / "elsewhere")
    assert "is not there" in typed(workshop.folder, "audit", "anchor", "verify").out
    out.write_text("something else")
    assert "does not hold the checkpoint" in typed(workshop.folder, "audit", "anchor", "verify", code=4).err
    assert typed(workshop.folder, "gc").code == 0
    typed(workshop.folder, "audit", "anchor", "list")


def test_a_checkpoint_in_a_commit_of_a_repository(
    workshop: Workshop, plain_hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = ("--endpoint", plain_hub.url)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    typed(workshop.folder, "audit", "anchor", "add", "--hub", "acme/records", *here)
    typed(workshop.folder, "patch", "apply", workshop.dog, "--model", "the model")
    typed(workshop.folder, "audit", "anchor", "add", "--hub", "acme/records", *here)
    checked = ("audit", "anchor", "verify", *here, "--json")
    first, second = rasura(*checked, cwd=workshop.folder).data["anchors"]
    assert [(a["kind"], a["size"], a["proved"]) for a in (first, second)] == [("hub", 7, True), ("hub", 10, True)]
    place, _, path = first["where"].partition(":")
    repo, _, commit = place.partition("@")
    kept = hf_hub_download(
        repo, path, revision=commit, endpoint=plain_hub.url, token=TOKEN, local_dir=workshop.folder / "theirs"
    )
    # Who has the repository needs nothing of ours: the log continues what lies there.
    typed(workshop.folder, "audit", "verify", "--checkpoint", kept)
    plain_hub.faults.swapped[path] = b"something else"
    assert "does not hold the checkpoint" in typed(workshop.folder, *checked[:-1], code=4).err
    plain_hub.faults.swapped.clear()
    HfApi(endpoint=plain_hub.url, token=TOKEN).delete_repo(repo)
    assert typed(workshop.folder, *checked[:-1]).out.count("is not there") == 2


def test_a_time_stamp_by_an_authority(workshop: Workshop, authority: Path, tmp_path: Path) -> None:
    typed(workshop.folder, "audit", "checkpoint", "-o", "kept.txt")
    stamp(authority, workshop.folder / "kept.txt", workshop.folder / "kept.tsr")
    typed(workshop.folder, "patch", "apply", workshop.dog, "--model", "the model")
    added = ("audit", "anchor", "add", "--token", "kept.tsr", "--checkpoint", "kept.txt")
    assert "a rfc3161 anchor of 7 entries" in typed(workshop.folder, *added).out
    checked = ("audit", "anchor", "verify", "--tsa-ca", authority / "ca.pem", "--json")
    (found,) = rasura(*checked, cwd=workshop.folder).data["anchors"]
    assert (found["kind"], found["size"], found["proved"]) == ("rfc3161", 7, True)
    assert datetime.fromisoformat(found["time"]).tzinfo is not None
    assert "no certificate was given" in typed(workshop.folder, "audit", "anchor", "verify").out
    # Over something else, and by somebody else.
    typed(workshop.folder, "audit", "checkpoint", "-o", "later.txt")
    typed(workshop.folder, "audit", "anchor", "add", "--token", "kept.tsr", "--checkpoint", "later.txt")
    assert "does not verify" in typed(workshop.folder, *checked[:-1], code=4).err
    (workshop.folder / "no.tsr").write_bytes(b"no token")
    odd = ("audit", "anchor", "add", "--token", "no.tsr", "--checkpoint", "kept.txt")
    assert "expected an RFC 3161 response" in typed(workshop.folder, *odd, code=4).err


def test_another_registry_cosigns_and_remembers(workshop: Workshop, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    typed(other, "init")
    key = rasura("key", "list", "--json", cwd=workshop.folder).data["log_key"]
    typed(workshop.folder, "audit", "checkpoint", "-o", other / "first")
    given = rasura("audit", "witness", "first", "--vkey", key, "-o", "cosigned", "--json", cwd=other).data
    typed(workshop.folder, "audit", "anchor", "add", "--cosigned", other / "cosigned")
    checked = ("audit", "anchor", "verify", "--witness-key", given["witness_key"], "--json")
    (found,) = rasura(*checked, cwd=workshop.folder).data["anchors"]
    assert (found["kind"], found["size"], found["proved"]) == ("witness", 7, True)
    typed(workshop.folder, "audit", "checkpoint", "-o", other / "second")
    again = ("audit", "witness", "second", "--vkey", key, "-o", "cosigned")
    assert "expected a proof that it continues" in typed(other, *again, code=7).err
    typed(workshop.folder, "audit", "export", "--checkpoint", other / "first", "-o", other / "bundle", "--type", "key")
    late = typed(other, *again, "--bundle", "bundle", code=4).err
    assert "hint: rasura audit checkpoint -o NEW" in late  # followed: of the bundle's tree
    typed(workshop.folder, "audit", "checkpoint", "-o", other / "third")
    typed(other, "audit", "witness", "third", *again[3:], "--bundle", "bundle")
    assert (
        "a tree of 10 entries was seen already"
        in typed(other, "audit", "witness", "first", "--vkey", key, "-o", "x", code=7).err
    )
    assert [
        e["details"]["size"] for e in rasura("audit", "log", "--type", "log", "--json", cwd=other).data["entries"]
    ] == [10, 7]
    typed(other, "audit", "verify")


def test_a_witness_never_signs_two_pasts(workshop: Workshop, tmp_path: Path) -> None:
    other, copied = tmp_path / "other", tmp_path / "copied"
    other.mkdir()
    typed(other, "init")
    shutil.copytree(workshop.folder, copied, symlinks=True)
    with workshop.open() as registry:
        vkey = VerifyKey.parse(registry.log_vkey())
    notes = []
    for folder, reason in ((workshop.folder, "one past"), (copied, "another past")):
        typed(folder, "key", "new", "bob", "--reason", reason)
        with Registry.open(folder) as registry:
            notes.append(export_checkpoint(registry))
            whole = b"".join(export_bundle(registry))
    with Registry.open(other) as registry:
        cosigned = parse_note(witness(registry, notes[0], vkey, DRAFT).encode())
        assert find_cosignature(cosigned, registry.log_key.witness_key).tzinfo is UTC
        for bundle in (None, whole):
            with pytest.raises(AuditError, match=r"has two pasts|are not those of the kept checkpoint"):
                witness(registry, notes[1], vkey, DRAFT, bundle=bundle)
    typed(copied, "key", "new", "carol")
    with Registry.open(copied) as registry:
        grown, whole = export_checkpoint(registry), b"".join(export_bundle(registry))
    with Registry.open(other) as registry:
        with pytest.raises(AuditError, match="kept checkpoint"):
            witness(registry, grown, vkey, DRAFT, bundle=whole)
        with pytest.raises(ConflictError, match="expected a proof"):
            witness(registry, grown, vkey, DRAFT)
