# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""Several signatures over one patch: kept, carried everywhere, and any one that counts is enough."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.commandline import rasura
from support.hubserver import TOKEN, HubServer
from support.registries.workshop import ALICE, Workshop, workshop

from rasura.patches.errors import (
    AuditError,
    DigestMismatchError,
    FormatError,
    RevokedKeyError,
    SignatureError,
    UntrustedKeyError,
)
from rasura.patches.format.bundle_file import decode_bundle
from rasura.patches.format.patch import read_folder, write_folder
from rasura.patches.format.signatures.signing_key import PrivateKey, PublicKey
from rasura.patches.types import KeyId
from rasura.registry._storage.records.records import Draft
from rasura.registry.apply import operations
from rasura.registry.log.verify import verify_log
from rasura.registry.registry import Registry
from rasura.registry.stacks.bundles.bundle import add_bundle, make_bundle
from rasura.registry.trust.keys import revocation
from rasura.registry.trust.keys.key_files import make_key, trust_key
from rasura.registry.trust.register_patch import add_folders, find_signers
from rasura.registry.trust.sign_again import sign_patches
from rasura.registry.trust.verified_patch import load_signed, load_verified, make_signature, verify_files

ADD = Draft("carol", "", "patch.add", "success")
SIGN = Draft("bob", "alice left", "patch.sign", "success")
REVOKE = Draft("carol", "left", "key.revoke", "success")
TRUST = Draft("carol", "", "key.trust", "success")


@pytest.fixture
def registry(workshop: Workshop) -> Iterator[Registry]:
    """Alice's, with a key of bob's."""
    with workshop.open() as registry:
        make_key(registry, "bob", Draft("bob", "", "key.add", "success"))
        yield registry


@pytest.fixture
def second(tmp_path: Path) -> Iterator[Registry]:
    with Registry.create(tmp_path / "second") as second:
        yield second


def key(registry: Registry, name: str) -> KeyId:
    return registry.key(name).key_id


def trust(there: Registry, here: Registry, *names: str) -> None:
    for name in names:
        trust_key(there, PublicKey.load(here.key(name).pem), name, TRUST)


def test_a_second_signature_changes_no_identity_and_is_told(workshop: Workshop, registry: Registry) -> None:
    before, record = registry.patch_files(workshop.dog), registry.patch(workshop.dog)
    (done,) = sign_patches(registry, [workshop.dog], "bob", SIGN)
    assert (done.patch_id, done.key_id, done.new) == (workshop.dog, key(registry, "bob"), True)
    files = registry.patch_files(workshop.dog)
    assert {name: data for name, data in files.items() if name in before} == before
    assert set(files) - set(before) == {f"{key(registry, 'bob')}.sig"}
    assert registry.patch(workshop.dog) == record
    assert find_signers(registry, workshop.dog) == (key(registry, "alice"), key(registry, "bob"))
    entry = registry.entries(limit=1)[0]
    assert (entry.action, entry.patches, entry.base) == ("patch.sign", (workshop.dog,), record.base)
    assert entry.details == {"key": key(registry, "bob")}
    assert verify_log(registry).size == entry.index + 1
    (again,) = sign_patches(registry, [workshop.dog], "bob", SIGN)
    assert (again.new, registry.entries(limit=1)[0]) == (False, entry)
    assert sign_patches(registry, [workshop.dog], "alice", SIGN)[0].new is False


def test_a_patch_counts_again_once_somebody_trusted_signed_it(workshop: Workshop, registry: Registry) -> None:
    revocation.revoke(registry, "alice", REVOKE)
    with pytest.raises(RevokedKeyError) as caught:
        operations.apply(registry, workshop.host(), [workshop.dog], ALICE)
    assert caught.value.hint == f"rasura patch sign {workshop.dog[:12]} --key bob"
    sign_patches(registry, [workshop.dog], "bob", SIGN)
    assert load_signed(registry, workshop.dog).key_id == key(registry, "bob")
    assert set(revocation.find_uncounted(registry)) == {workshop.van_gogh, workshop.photo, workshop.rival}
    operations.apply(registry, workshop.host(), [workshop.dog], ALICE)
    assert registry.entries(limit=1)[0].details["signers"] == key(registry, "bob")
    verify_log(registry)
    assert [p.patch_id for p in revocation.find_reach(registry, "bob").patches] == [workshop.dog]


def test_a_key_reaches_only_what_nobody_else_vouches_for(workshop: Workshop, registry: Registry) -> None:
    sign_patches(registry, [workshop.dog, workshop.photo], "bob", SIGN)
    reach = revocation.find_reach(registry, "alice")
    assert {patch.patch_id for patch in reach.patches} == {workshop.van_gogh, workshop.rival}
    assert revocation.find_reach(registry, "bob").patches == ()


def test_who_was_revoked_signs_nothing_again(workshop: Workshop, registry: Registry) -> None:
    revocation.revoke(registry, "bob", REVOKE)
    with pytest.raises(RevokedKeyError):
        sign_patches(registry, [workshop.dog], "bob", SIGN)
    assert (registry.entries(limit=1)[0].action, registry.entries(limit=1)[0].outcome) == ("patch.sign", "refused")


def test_a_changed_patch_is_not_vouched_for(workshop: Workshop, registry: Registry) -> None:
    digest = registry.patch(workshop.dog).files["targets.safetensors"]
    path = next(p for p in (workshop.folder / ".rasura" / "blobs").rglob("*") if digest in str(p).replace("/", ""))
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(DigestMismatchError):
        sign_patches(registry, [workshop.dog, workshop.photo], "bob", SIGN)
    assert registry.signatures() == ()


# --- from one registry to another -----------------------------------------------------------------------------------


def test_signatures_travel_in_folders(
    workshop: Workshop,
    registry: Registry,
    second: Registry,
    tmp_path: Path,
) -> None:
    sign_patches(registry, [workshop.dog], "bob", SIGN)
    folder = tmp_path / "dog"
    write_folder(folder, registry.patch_files(workshop.dog))
    with pytest.raises(UntrustedKeyError):
        add_folders(second, [folder], ADD)
    trust(second, registry, "bob")
    (added,) = add_folders(second, [folder], ADD)
    assert (added.new, added.ignored) == (True, ("model.sig",))  # alice is nobody there
    assert find_signers(second, workshop.dog) == (key(second, "bob"),)
    trust(second, registry, "alice")
    (added,) = add_folders(second, [folder], ADD, dry_run=True)
    assert (added.new, added.signers, second.signatures()) == (False, (key(registry, "alice"),), ())
    (added,) = add_folders(second, [folder], ADD)
    assert (added.new, added.ignored, added.signers) == (False, (), (key(registry, "alice"),))
    assert find_signers(second, workshop.dog) == (key(registry, "bob"), key(registry, "alice"))
    assert second.entries(limit=1)[0].action == "patch.add"
    size = len(second.entries())
    assert add_folders(second, [folder], ADD)[0].signers == ()
    assert len(second.entries()) == size
    verify_log(second)
    revocation.revoke(second, "bob", REVOKE)
    assert load_signed(second, workshop.dog).key_id == key(registry, "alice")


def test_signatures_travel_in_bundles(
    workshop: Workshop,
    registry: Registry,
    second: Registry,
    tmp_path: Path,
) -> None:
    plain = make_bundle(registry, [workshop.dog])
    sign_patches(registry, [workshop.dog], "bob", SIGN)
    data = make_bundle(registry, [workshop.dog])
    assert b'"format":"rasura-bundle/1"' in plain
    assert b'"format":"rasura-bundle/2"' in data
    assert set(decode_bundle(data, "x").keys) == {key(registry, "alice"), key(registry, "bob")}
    (tmp_path / "dog.rsb").write_bytes(data)
    with pytest.raises(UntrustedKeyError):
        add_bundle(second, tmp_path / "dog.rsb", ADD)
    trust(second, registry, "alice")
    done = add_bundle(second, tmp_path / "dog.rsb", ADD)
    assert (done.added, done.signed) == (((workshop.dog, True),), {})
    assert find_signers(second, workshop.dog) == (key(registry, "alice"),)
    done = add_bundle(second, tmp_path / "dog.rsb", ADD, trust=[key(registry, "bob")[:12]])
    assert (done.added, done.signed) == (((workshop.dog, False),), {workshop.dog: (key(registry, "bob"),)})
    verify_log(second)


def test_signatures_travel_over_the_hub(
    workshop: Workshop,
    registry: Registry,
    plain_hub: HubServer,
    tmp_path: Path,
) -> None:
    sign_patches(registry, [workshop.dog], "bob", SIGN)
    revocation.revoke(registry, "alice", REVOKE)
    for name in ("alice", "bob"):
        (tmp_path / f"{name}.pem").write_text(registry.key(name).pem)
    to = ("--endpoint", plain_hub.url, "--token", TOKEN)
    pushed = rasura("push", workshop.dog, "acme/dog", "--base-model", "acme/model", *to, cwd=workshop.folder)
    assert pushed.code == 0, pushed.err
    there = tmp_path / "there"
    there.mkdir()
    rasura("init", cwd=there)
    assert rasura("pull", "acme/dog", *to, cwd=there).code == 4
    rasura("key", "trust", tmp_path / "bob.pem", cwd=there)
    run = rasura("pull", "acme/dog", *to, "--json", cwd=there)
    assert [(p["id"], p["new"], p["ignored"]) for p in run.data["patches"]] == [(workshop.dog, True, ["model.sig"])]
    rasura("key", "trust", tmp_path / "alice.pem", cwd=there)
    again = rasura("pull", "acme/dog", *to, "--json", cwd=there)
    assert again.envelope["changed"] is True
    assert [p["signers"] for p in again.data["patches"]] == [[key(registry, "alice")]]
    assert rasura("audit", "verify", cwd=there).code == 0


# --- what is no signature --------------------------------------------------------------------------------------------


def test_a_further_signature_is_by_the_key_of_its_name_over_these_files(workshop: Workshop, registry: Registry) -> None:
    files = registry.patch_files(workshop.dog)
    other = registry.patch_files(workshop.photo)
    bob, alice = (f"{key(registry, name)}.sig" for name in ("bob", "alice"))
    with pytest.raises(SignatureError, match="expected a signature by the key of that name"):
        verify_files(registry, {**files, bob: files["model.sig"]})
    with pytest.raises(DigestMismatchError):
        verify_files(registry, {**files, alice: other["model.sig"]})
    with pytest.raises(SignatureError):
        verify_files(registry, {**files, bob: b"{}"})
    stranger = PrivateKey.generate()
    strange = make_signature(load_verified(registry, workshop.dog), stranger)
    for nobody in (strange, b"garbage"):
        found = verify_files(registry, {**files, f"{stranger.public.key_id}.sig": nobody})
        assert list(found.signatures) == [key(registry, "alice")]
    with pytest.raises(UntrustedKeyError):
        verify_files(registry, {**files, "model.sig": strange})


def test_a_folder_holds_no_hundred_signatures(workshop: Workshop, registry: Registry, tmp_path: Path) -> None:
    folder = tmp_path / "dog"
    write_folder(folder, registry.patch_files(workshop.dog))
    for at in range(17):
        (folder / f"{at:064x}.sig").write_bytes(b"")
    with pytest.raises(FormatError, match="at most 16 further signatures, got 17"):
        read_folder(folder)


def test_a_bundle_with_further_signatures_says_so_in_its_format(workshop: Workshop, registry: Registry) -> None:
    sign_patches(registry, [workshop.dog], "bob", SIGN)
    data = make_bundle(registry, [workshop.dog])
    with pytest.raises(FormatError):
        decode_bundle(data.replace(b"rasura-bundle/2", b"rasura-bundle/1"), "x")


def test_a_row_that_the_log_does_not_tell_of_is_found(workshop: Workshop, registry: Registry) -> None:
    sign_patches(registry, [workshop.dog], "bob", SIGN)
    registry.close()
    with sqlite3.connect(workshop.folder / ".rasura" / "registry.db") as connection:
        connection.execute("UPDATE patch_signature SET patch_id = ?", (workshop.photo,))
    with workshop.open() as opened:
        with pytest.raises(AuditError):
            load_signed(opened, workshop.photo)
        with pytest.raises(AuditError):
            verify_log(opened)


# --- from the command line ------------------------------------------------------------------------------------------


def test_signing_and_showing(workshop: Workshop) -> None:
    rasura("key", "new", "bob", cwd=workshop.folder)
    rasura("key", "revoke", "alice", "--yes", cwd=workshop.folder)
    with workshop.unchanged():
        would = rasura("patch", "sign", "photo", workshop.dog, "--key", "bob", "--dry-run", cwd=workshop.folder)
        assert f"{workshop.dog[:12]} would be signed by bob" in would.out
    done = rasura("patch", "sign", workshop.dog, "--reason", "alice left", "--json", cwd=workshop.folder)
    assert (done.envelope["changed"], [p["new"] for p in done.data["patches"]]) == (True, [True])
    again = rasura("patch", "sign", workshop.dog, cwd=workshop.folder)
    assert again.out == f"{workshop.dog[:12]} was signed already by bob\n"
    shown = rasura("patch", "show", workshop.dog, "--json", cwd=workshop.folder).data
    assert [(s["name"], s["counts"]) for s in shown["signers"]] == [("alice", False), ("bob", True)]
    text = rasura("patch", "show", workshop.dog, cwd=workshop.folder).out
    assert ", revoked 20" in text
    assert rasura("patch", "verify", workshop.dog, cwd=workshop.folder).code == 0
    lines = [line for line in rasura("log", cwd=workshop.folder).out.splitlines() if "signed dog" in line]
    assert len(lines) == 1
    rasura("patch", "export", workshop.dog, "-o", "dog", cwd=workshop.folder)
    assert len(list((workshop.folder / "dog").glob("*.sig"))) == 2
