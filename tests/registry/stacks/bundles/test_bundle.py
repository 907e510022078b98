# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""Patches for a colleague: in one command, verified as any other, nothing trusted that nobody named."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.commandline import rasura
from support.registries.workshop import Workshop, copy_of, workshop, workshop_template

from rasura.evaluation.report.recorded import record_evaluation
from rasura.patches._io import canonical_json
from rasura.patches.errors import (
    DigestMismatchError,
    InputError,
    RevokedKeyError,
    SignatureError,
    UntrustedKeyError,
    VerificationError,
)
from rasura.patches.format.bundle_file import decode_bundle, encode_bundle
from rasura.registry._storage.records.records import Draft
from rasura.registry.log.verify import verify_log
from rasura.registry.registry import Registry
from rasura.registry.stacks.bundles.bundle import add_bundle, make_bundle, read_bundle
from rasura.registry.trust.keys.key_files import make_key
from rasura.registry.trust.verified_patch import load_verified

DRAFT = Draft("carol", "from alice", "patch.add", "success")


@pytest.fixture
def sender(workshop: Workshop) -> Iterator[Registry]:
    with workshop.open() as opened:
        yield opened


@pytest.fixture
def stranger(tmp_path: Path) -> Iterator[Registry]:
    """A registry that has never heard of the sender."""
    with Registry.create(tmp_path / "stranger", actor="carol") as registry:
        make_key(registry, "carol", replace(DRAFT, action="key.add"))
        yield registry


@pytest.fixture
def bundle(workshop: Workshop, sender: Registry, tmp_path: Path) -> Path:
    path = tmp_path / "for-carol.rasura"
    path.write_bytes(make_bundle(sender, workshop.all))
    return path


def alice(workshop: Workshop) -> str:
    with workshop.open() as registry:
        return registry.key("alice").key_id


def test_the_same_patches_give_the_same_bytes(workshop: Workshop, sender: Registry, tmp_path: Path) -> None:
    one = make_bundle(sender, workshop.all)
    assert make_bundle(sender, workshop.all[::-1]) == one
    with copy_of(workshop_template(), tmp_path / "other").open() as other:
        assert make_bundle(other, workshop.all) == one


def test_nothing_is_registered_for_a_key_that_nobody_named(
    workshop: Workshop, bundle: Path, stranger: Registry
) -> None:
    found = read_bundle(stranger, bundle)
    assert [(key.name, key.standing) for key in found.keys] == [("alice", "unknown")]
    with pytest.raises(UntrustedKeyError, match="'alice'") as refused:
        add_bundle(stranger, bundle, DRAFT)
    key = alice(workshop)
    assert refused.value.details["keys"] == [key]
    assert f"--trust {key[:12]}" in refused.value.hint
    for digits in ("alice", key[:8], "", "0" * 12):  # its name is the sender's claim, few digits are anybody's
        with pytest.raises(InputError):
            add_bundle(stranger, bundle, DRAFT, trust=[digits])
    assert stranger.patches() == ()
    assert [k.name for k in stranger.keys()] == ["carol"]


def test_all_of_it_comes_in_one_command(workshop: Workshop, bundle: Path, stranger: Registry) -> None:
    taken = add_bundle(stranger, bundle, DRAFT, trust=[alice(workshop)[:12]])
    assert dict(taken.added) == dict.fromkeys(workshop.all, True)
    assert stranger.key("alice").trusted
    assert {load_verified(stranger, i).manifest.concept.text for i in workshop.all} == {"dog", "van gogh", "photo"}
    again = add_bundle(stranger, bundle, DRAFT)
    assert dict(again.added) == dict.fromkeys(workshop.all, False)
    assert again.trusted == ()
    actions = [(entry.action, entry.outcome) for entry in stranger.entries(newest=False)]
    assert actions.count(("patch.add", "success")) == 3
    assert actions.count(("key.trust", "success")) == 1
    verify_log(stranger)
    assert make_bundle(stranger, workshop.all) == bundle.read_bytes()


def test_a_name_that_is_taken_or_no_name_is_not_given(workshop: Workshop, bundle: Path, tmp_path: Path) -> None:
    files = decode_bundle(bundle.read_bytes(), "bundle")
    key = alice(workshop)
    for at, name in enumerate(("carol", "no name at all \u2603", "")):
        bundle.write_bytes(encode_bundle(replace(files, key_names=dict.fromkeys(files.keys, name))))
        with Registry.create(tmp_path / f"r{at}", actor="carol") as registry:
            make_key(registry, "carol", replace(DRAFT, action="key.add"))
            add_bundle(registry, bundle, DRAFT, trust=[key])
            assert {k.name for k in registry.keys()} == {"carol", key[:12]}


def test_a_revoked_key_stays_revoked(workshop: Workshop, bundle: Path, stranger: Registry) -> None:
    key = alice(workshop)
    add_bundle(stranger, bundle, DRAFT, trust=[key])
    stranger.revoke_key(key, stranger.now(), replace(DRAFT, action="key.revoke"))
    for trust in ([], [key]):
        with pytest.raises(RevokedKeyError):
            add_bundle(stranger, bundle, DRAFT, trust=trust)


def test_flipped_bytes_change_nothing_here(workshop: Workshop, bundle: Path, stranger: Registry) -> None:
    data, key = bundle.read_bytes(), alice(workshop)
    entries = len(stranger.entries())
    flips = range(0, len(data), max(1, len(data) // 60))
    for at in flips:
        bundle.write_bytes(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :])
        with pytest.raises(VerificationError):
            add_bundle(stranger, bundle, DRAFT, trust=[key])
    assert (stranger.patches(), [k.name for k in stranger.keys()]) == ((), ["carol"])
    assert {e.outcome for e in stranger.entries()[: len(stranger.entries()) - entries]} == {"refused"}


@pytest.mark.parametrize(
    "file", ["manifest.json", "basis.safetensors", "pytorch_lora_weights.safetensors", "model.sig"]
)
def test_what_was_not_signed_is_refused_though_the_inventory_names_it(
    workshop: Workshop, bundle: Path, stranger: Registry, file: str
) -> None:
    """Somebody who writes bundles well, and has no key."""
    files = decode_bundle(bundle.read_bytes(), "bundle")
    patches = {i: dict(p) for i, p in files.patches.items()}
    content = patches[workshop.dog][file]
    patches[workshop.dog][file] = content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]
    bundle.write_bytes(encode_bundle(replace(files, patches=patches)))
    with pytest.raises(VerificationError):
        add_bundle(stranger, bundle, DRAFT, trust=[alice(workshop)])
    assert stranger.patches() == ()
    assert [k.name for k in stranger.keys()] == ["carol"]  # not trusted for the sake of what is refused


def test_one_patch_that_lacks_its_signature_keeps_all_out(workshop: Workshop, bundle: Path, stranger: Registry) -> None:
    files = decode_bundle(bundle.read_bytes(), "bundle")
    patches = {i: dict(p) for i, p in files.patches.items()}
    del patches[workshop.photo]["model.sig"]
    bundle.write_bytes(encode_bundle(replace(files, patches=patches)))
    with pytest.raises(SignatureError, match=workshop.photo[:12]):
        add_bundle(stranger, bundle, DRAFT, trust=[alice(workshop)])
    assert stranger.patches() == ()


def test_a_key_under_anothers_id_is_refused(bundle: Path, stranger: Registry) -> None:
    files = decode_bundle(bundle.read_bytes(), "bundle")
    pem = {k: stranger.key("carol").pem.encode() for k in files.keys}
    bundle.write_bytes(encode_bundle(replace(files, keys=pem)))
    with pytest.raises(DigestMismatchError, match="its own id"):
        read_bundle(stranger, bundle)


def report(workshop: Workshop, base: str) -> bytes:
    return canonical_json.dumps(
        {
            "format": "rasura-evaluation/1",
            "base": base,
            "patches": {workshop.dog: 16},
            "judge": "somebody",
            "summary": {"forget": "0.9"},
            "body": {},
        }
    )


def test_lock_and_evaluations_from_the_command_line(workshop: Workshop, stranger: Registry, tmp_path: Path) -> None:
    with workshop.open() as registry:
        made = report(workshop, registry.base("tiny").digest)
        record_evaluation(registry, made, replace(DRAFT, action="evaluation.add"))
    folder, there, key = workshop.folder, stranger.location, alice(workshop)
    home = tmp_path / "stranger"
    assert rasura("stack", "create", "brand", workshop.dog, workshop.van_gogh, cwd=folder).code == 0
    done = rasura("bundle", "make", "--stack", "brand", "-o", tmp_path / "b.rasura", cwd=folder)
    assert done.code == 0, done.err
    assert rasura("bundle", "make", workshop.dog, "-o", tmp_path / "b.rasura", cwd=folder).code == 7  # never over it
    assert rasura("bundle", "make", "-o", tmp_path / "c.rasura", cwd=folder).code == 2
    shown = rasura("bundle", "show", tmp_path / "b.rasura", cwd=home)
    assert shown.code == 0, shown.err
    for word in ("dog", "van gogh", "unknown", "alice", key, "lock of stack brand", "evaluation"):
        assert word in shown.out
    refused = rasura("bundle", "add", tmp_path / "b.rasura", cwd=home)
    assert refused.code == 4
    assert f"--trust {key[:12]}" in refused.err
    said = rasura(
        "bundle", "add", tmp_path / "b.rasura", "--trust", key[:12], "--lock", "rasura.lock", "--json", cwd=home
    )
    assert said.data["added"] == {workshop.dog: True, workshop.van_gogh: True}
    assert said.data["recorded"] == 0  # claims that nobody asked for
    assert json.loads((home / "rasura.lock").read_text())["stack"] == "brand"
    without = rasura("bundle", "add", tmp_path / "b.rasura", "--evaluations", cwd=home)
    assert without.code == 8  # the base that they were drawn with is not here
    assert rasura("base", "add", workshop.model, "--name", "tiny", cwd=home).code == 0
    assert rasura("bundle", "add", tmp_path / "b.rasura", "--evaluations", "--json", cwd=home).data["recorded"] == 1
    assert str(there)


def test_a_lock_that_names_something_else_is_refused(workshop: Workshop, stranger: Registry, tmp_path: Path) -> None:
    assert rasura("stack", "create", "brand", workshop.dog, cwd=workshop.folder).code == 0
    with workshop.open() as sender:
        files = decode_bundle(make_bundle(sender, [workshop.photo], stack="brand"), "bundle")
    path = tmp_path / "b.rasura"
    path.write_bytes(encode_bundle(replace(files, patches={workshop.photo: files.patches[workshop.photo]})))
    with pytest.raises(DigestMismatchError, match="lock of stack 'brand'"):
        read_bundle(stranger, path)
