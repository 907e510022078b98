# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""Who acts signs what the log says of it, or it is a claim; what is signed cannot be said by, or of, anybody else."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from support.commandline import rasura
from support.registries.workshop import ALICE, Workshop, workshop

from rasura.patches.checks.policy import DEFAULT_POLICY
from rasura.patches.errors import AuditError, InputError, RevokedKeyError, UntrustedKeyError
from rasura.patches.format.signatures.signing_key import PrivateKey, PublicKey, SigningKey
from rasura.registry._storage.records.records import Draft
from rasura.registry.apply import operations
from rasura.registry.log.actors import REQUIRED
from rasura.registry.log.verify import verify_log
from rasura.registry.log.writer import LogWriter
from rasura.registry.registry import Registry
from rasura.registry.stacks.policy_file import put_in_force
from rasura.registry.trust.keys import revocation
from rasura.registry.trust.keys.key_files import act_by, make_key, signer

NOTE = Draft("alice", "ticket 7", "log.checkpoint", "success")
ASKS = replace(DEFAULT_POLICY, actor_signature=True)


@pytest.fixture
def registry(workshop: Workshop) -> Iterator[Registry]:
    with workshop.open() as registry:
        make_key(registry, "bob", Draft("bob", "", "key.add", "success"))
        yield registry


@dataclass(frozen=True)
class Liar:
    """A changed program's key: it says that it is one, and signs with another, or gives an old signature."""

    public: PublicKey
    signs: SigningKey | bytes

    def sign(self, message: bytes) -> bytes:
        return self.signs if isinstance(self.signs, bytes) else self.signs.sign(message)


def test_who_acts_signs_each_entry_and_what_nobody_signed_is_claimed(
    workshop: Workshop, registry: Registry, tmp_path: Path
) -> None:
    before = registry.head().size
    assert verify_log(registry).signed == 0
    shutil.copy(registry.keys_folder / "bob.signer.pem", tmp_path / "bob.pem")
    act_by(registry, str(tmp_path / "bob.pem"))
    operations.apply(registry, workshop.host(), [workshop.dog], ALICE)
    bob = registry.key("bob").key_id
    assert [entry.actor_key for entry in registry.entries(newest=False)] == [None] * before + [bob, bob]
    assert verify_log(registry).signed == 2
    done = rasura(
        "patch", "revert", "--all", "--yes", "--model", "the model", "--actor-key", "alice", cwd=workshop.folder
    )
    assert done.code == 0, done.err
    assert "4 entries signed by who acted" in rasura("audit", "verify", cwd=workshop.folder).out
    shown = rasura("audit", "show", str(before), cwd=workshop.folder).out
    assert f"alice (signed with key {bob})" in shown
    told = rasura("audit", "log", "--oldest", cwd=workshop.folder).out.splitlines()
    assert "alice (claimed)" in told[1]
    assert f"alice ({bob[:12]})" in told[1 + before]
    entry = rasura("audit", "log", "-n", "1", "--json", cwd=workshop.folder).data["entries"][0]
    assert entry["actor_key"] == registry.key("alice").key_id


def test_a_key_that_does_not_count_signs_no_entry(registry: Registry) -> None:
    with pytest.raises(UntrustedKeyError, match="not trusted here"):
        registry.act_as(PrivateKey.generate())
    registry.act_as(signer(registry, "bob"))
    revocation.revoke(registry, "bob", Draft("alice", "", "key.revoke", "success"))  # which bob signed
    assert registry.entries(limit=1)[0].actor_key == registry.key("bob").key_id
    size = registry.head().size
    with pytest.raises(RevokedKeyError, match="revoked meanwhile"):
        registry.note(NOTE)
    assert registry.head().size == size
    with pytest.raises(RevokedKeyError):
        registry.act_as(PrivateKey.load((registry.keys_folder / "bob.signer.pem").read_bytes()))
    verify_log(registry)


@pytest.mark.parametrize("who", ["another key", "an older signature", "a stranger", "a revoked key", "nobody"])
def test_an_audit_finds_an_entry_that_who_acts_did_not_sign(
    registry: Registry, who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = signer(registry, "alice"), signer(registry, "bob")
    registry.act_as(alice)
    registry.note(NOTE)
    monkeypatch.setattr(LogWriter, "_check_actor", lambda *_: None)  # whoever changed the program
    said = {
        "another key": "does not verify",
        "an older signature": "does not verify",
        "a stranger": "expected a key that is known here",
        "a revoked key": "which was not trusted then",
        "nobody": "the policy then asked for the signature of who acts",
    }
    if who == "another key":
        registry.act_as(Liar(alice.public, bob))
    elif who == "an older signature":
        said_once: list[bytes] = []

        class Keeps:
            public = alice.public

            def sign(self, message: bytes) -> bytes:
                said_once.append(alice.sign(message))
                return said_once[0]

        registry.act_as(Keeps())
        registry.note(NOTE)
        verify_log(registry)
    elif who == "a stranger":
        registry._journal.actor = PrivateKey.generate()
    elif who == "a revoked key":
        revocation.revoke(registry, "bob", Draft("alice", "", "key.revoke", "success"))
        registry._journal.actor = bob
    else:
        put_in_force(registry, ASKS, ALICE)
        assert registry.entries(limit=1)[0].details["actor_signature"] == REQUIRED
        registry._journal.actor = None
    registry.note(NOTE)
    with pytest.raises(AuditError, match=said[who]) as caught:
        verify_log(registry)
    assert caught.value.details == {"check": "actor", "index": registry.head().size - 1}


def test_a_policy_asks_for_the_signature_of_who_acts(workshop: Workshop, registry: Registry, tmp_path: Path) -> None:
    put_in_force(registry, ASKS, ALICE)
    with workshop.unchanged("failed input"), pytest.raises(InputError, match="got none") as none:
        operations.apply(registry, workshop.host(), [workshop.dog], ALICE)
    assert none.value.hint == "--actor-key NAME"
    size = registry.head().size
    for change in (
        lambda: registry.note(NOTE),
        lambda: put_in_force(registry, DEFAULT_POLICY, ALICE),
        lambda: registry.rotate_log_key(replace(NOTE, action="log.rotate")),
    ):
        with pytest.raises(InputError, match="signature of who acts"):
            change()
    assert registry.head().size == size
    told = rasura("patch", "apply", workshop.dog, "--model", "the model", cwd=workshop.folder)
    assert told.code == 1
    assert f"hint: rasura patch apply {workshop.dog} --model 'the model' --actor-key NAME" in told.err
    # Who has no key yet makes one, and begins.
    (tmp_path / "secret").write_bytes(b"correct horse\n")
    (tmp_path / "secret").chmod(0o600)
    secret = ("--password-file", str(tmp_path / "secret"))
    assert rasura("key", "new", "carol", "--encrypt", *secret, cwd=workshop.folder).code == 0
    apply = ("patch", "apply", workshop.dog, "--model", "the model", "--actor-key", "carol")
    assert rasura(*apply, *secret, cwd=workshop.folder).code == 0
    act_by(registry, "bob")
    put_in_force(registry, DEFAULT_POLICY, ALICE)
    registry.rotate_log_key(replace(NOTE, action="log.rotate"))
    assert verify_log(registry).signed == 4
