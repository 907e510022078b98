# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""How patches come into a registry: verified, whole, once."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.registries.workshop import Workshop, workshop

from rasura.patches.errors import AuditError, DigestMismatchError, RevokedKeyError, SignatureError, UntrustedKeyError
from rasura.patches.format.patch import write_folder
from rasura.patches.format.signatures.signing_key import PrivateKey
from rasura.patches.types import PatchId
from rasura.registry._storage.records.records import Draft
from rasura.registry.log.verify import verify_log
from rasura.registry.registry import Registry
from rasura.registry.trust import register_patch, verified_patch
from rasura.registry.trust.keys.key_files import make_key, signer, trust_file

ADD = Draft("bob", "from a stick", "patch.add", "success")


@pytest.fixture
def registry(workshop: Workshop) -> Iterator[Registry]:
    with workshop.open() as opened:
        yield opened


@pytest.fixture
def second(workshop: Workshop, tmp_path: Path) -> Iterator[Registry]:
    """A registry that trusts the first one's key."""
    (tmp_path / "alice.pub").write_text(next(iter(_keys(workshop))))
    with Registry.create(tmp_path / "second") as opened:
        trust_file(opened, tmp_path / "alice.pub", None, Draft("bob", "", "key.trust", "success"))
        yield opened


def _keys(shop: Workshop) -> list[str]:
    with shop.open() as registry:
        return [key.pem for key in registry.keys()]


def test_a_patch_goes_out_and_in_again_as_the_same(workshop: Workshop, registry: Registry, second: Registry) -> None:
    folder = workshop.folder / "exported"
    write_folder(folder, registry.patch_files(workshop.dog))
    signer = registry.patch(workshop.dog).key_id
    assert signer is not None
    assert register_patch.add_folders(second, [folder], ADD) == (
        register_patch.AddedPatch(workshop.dog, new=True, ignored=(), signers=(signer,)),
    )
    assert register_patch.add_folders(second, [folder], ADD) == (
        register_patch.AddedPatch(workshop.dog, new=False, ignored=()),
    )
    record, first = second.patch(workshop.dog), registry.patch(workshop.dog)
    for field in ("patch_id", "concepts", "anchor", "method", "base", "basis", "retain_set", "key_id", "files", "size"):
        assert getattr(record, field) == getattr(first, field), field
    assert record.source == "folder exported"
    assert verified_patch.load_verified(second, workshop.dog).patch_id == workshop.dog
    assert [e.action for e in second.entries(limit=2)] == ["patch.add", "key.trust"]
    assert second.entries(limit=1)[0].reason == "from a stick"
    verify_log(second)


def test_the_manifest_is_the_one_that_the_id_names(workshop: Workshop, registry: Registry) -> None:
    manifest = verified_patch.manifest_of(registry, workshop.van_gogh)
    assert (manifest.patch_id, manifest.concept.text) == (workshop.van_gogh, "van gogh")


def test_signing_again_gives_the_same_bytes(workshop: Workshop, registry: Registry) -> None:
    patch = verified_patch.load_verified(registry, workshop.dog)
    assert verified_patch.read_signed_files(patch, signer(registry, None)) == registry.patch_files(workshop.dog)


def test_whose_signature_counts(workshop: Workshop, registry: Registry, second: Registry) -> None:
    files = registry.patch_files(workshop.dog)
    trust = Draft("bob", "", "key.trust", "success")
    second.set_trusted("alice", False, trust)  # noqa: FBT003
    with pytest.raises(UntrustedKeyError, match="'alice', which this registry does not trust") as caught:
        verified_patch.verify_files(second, files)
    assert caught.value.hint == "rasura key trust FILE"
    assert verified_patch.list_trusted_keys(second) == ()
    second.set_trusted("alice", True, trust)  # noqa: FBT003
    assert verified_patch.verify_files(second, files).key_id == second.key("alice").key_id
    second.revoke_key("alice", second.now(), Draft("bob", "", "key.revoke", "success"))
    with pytest.raises(RevokedKeyError, match="'alice', which was revoked on 20"):
        verified_patch.verify_files(second, files)
    assert verified_patch.list_trusted_keys(second) == ()


def test_a_stranger_is_named_and_the_next_step_told(workshop: Workshop, registry: Registry) -> None:
    stranger = PrivateKey.generate()
    patch = verified_patch.load_verified(registry, workshop.dog)
    with pytest.raises(UntrustedKeyError) as caught:
        verified_patch.verify_files(registry, verified_patch.read_signed_files(patch, stranger))
    assert caught.value.hint == "rasura key trust FILE"
    assert caught.value.details["key_hint"] == stranger.public.hint


def test_a_refusal_is_logged_and_registers_nothing(workshop: Workshop, registry: Registry, second: Registry) -> None:
    folder = workshop.folder / "exported"
    write_folder(folder, registry.patch_files(workshop.dog))
    (folder / "model.sig").unlink()
    with pytest.raises(SignatureError, match=r"no model\.sig"):
        register_patch.add_folders(second, [folder], ADD)
    entry = second.entries(limit=1)[0]
    assert (entry.outcome, entry.error, entry.details["folder"]) == ("refused", "signature", str(folder))
    assert second.patches() == ()
    assert not any(second.blobs.folder.iterdir())


def test_a_row_that_points_at_another_patch(workshop: Workshop, registry: Registry) -> None:
    """An attacker who can write the tables makes one id stand for another patch's good files."""
    with closing(sqlite3.connect(workshop.folder / ".rasura" / "registry.db")) as connection:
        for name, sql in connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall():
            del sql
            connection.execute(f'DROP TRIGGER "{name}"')
        rows = connection.execute(
            "SELECT name, digest FROM patch_file WHERE patch_id = ?", (workshop.photo,)
        ).fetchall()
        for name, digest in rows:
            connection.execute(
                "UPDATE patch_file SET digest = ? WHERE patch_id = ? AND name = ?", (digest, workshop.dog, name)
            )
        connection.commit()
    for read in (verified_patch.load_verified, verified_patch.manifest_of):
        with pytest.raises(AuditError, match=f"patch {workshop.dog[:12]} is not what the last entry about it tells of"):
            read(registry, workshop.dog)


def test_a_blob_that_is_gone(workshop: Workshop, registry: Registry) -> None:
    digest = registry.patch(workshop.dog).files["basis.safetensors"]
    registry.blobs.path(digest).unlink()
    with pytest.raises(Exception, match="expected a file"):
        verified_patch.load_verified(registry, workshop.dog)


def test_content_that_was_not_signed(workshop: Workshop, registry: Registry) -> None:
    files = registry.patch_files(workshop.dog)
    with pytest.raises(SignatureError):
        verified_patch.verify_files(registry, {**files, "extra.txt": b"hello"})
    with pytest.raises(DigestMismatchError):
        verified_patch.verify_files(registry, {**files, "manifest.json": files["manifest.json"] + b" "})
