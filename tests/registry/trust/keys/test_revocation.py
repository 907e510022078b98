# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""Revoking a key: what it touches is said, what is in force can be taken out, and nothing else is blocked."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.commandline import rasura
from support.registries.workshop import ALICE, Workshop, workshop

from rasura.patches.algebra.strength import ONE, Strength
from rasura.patches.errors import AuditError, RevokedKeyError
from rasura.patches.format.signatures.signing_key import PrivateKey, PublicKey
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.types import PatchId
from rasura.registry._storage.records.records import Draft
from rasura.registry.apply import operations
from rasura.registry.apply.goal import Goal
from rasura.registry.apply.status import survey
from rasura.registry.erase.base_models import add_base
from rasura.registry.log.verify import verify_log
from rasura.registry.registry import Registry
from rasura.registry.stacks import edit
from rasura.registry.stacks.plan import apply_plan, make_plan
from rasura.registry.trust.keys import revocation
from rasura.registry.trust.keys.key_files import trust_key
from rasura.registry.trust.register_patch import SignedPatch, add_signed
from rasura.registry.trust.verified_patch import load_verified, read_signed_files

REVOKE = Draft("carol", "lost her laptop", "key.revoke", "success")
ADD = Draft("carol", "", "patch.add", "success")


@dataclass(frozen=True, slots=True)
class Two:
    """A registry that took a patch of alice's and two of bob's; the model has none of them yet."""

    registry: Registry
    alices: PatchId
    bobs: tuple[PatchId, PatchId]
    model: Path

    def host(self) -> CheckpointHost:
        return CheckpointHost.open(self.model)

    def revoke(self) -> None:
        assert revocation.revoke(self.registry, "alice", REVOKE) is not None


@pytest.fixture
def two(workshop: Workshop, tmp_path: Path) -> Iterator[Two]:
    bob = PrivateKey.generate()
    with workshop.open() as first:
        dog, pem = first.patch_files(workshop.dog), first.key("alice").pem
        others = [read_signed_files(load_verified(first, i), bob) for i in (workshop.van_gogh, workshop.photo)]
    with Registry.create(tmp_path / "second") as registry:
        add_base(registry, workshop.model, "tiny", Draft("carol", "", "base.add", "success"), lambda *_: None)
        for name, public in (("alice", PublicKey.load(pem)), ("bob", bob.public)):
            trust_key(registry, public, name, Draft("carol", "", "key.trust", "success"))
        add_signed(registry, [SignedPatch(files, "test", ADD) for files in (dog, *others)])
        yield Two(registry, workshop.dog, (workshop.van_gogh, workshop.photo), workshop.model)


def test_what_a_revocation_touches_is_said_before(two: Two) -> None:
    operations.apply(two.registry, two.host(), [two.alices, two.bobs[0]], ALICE)
    edit.create(two.registry, "brand", dict.fromkeys((two.alices, *two.bobs), ONE), ALICE)
    edit.create(two.registry, "other", {two.bobs[0]: ONE}, ALICE)
    reach = revocation.find_reach(two.registry, "alice")
    assert [patch.patch_id for patch in reach.patches] == [two.alices]
    assert reach.hosts == {str(two.model): (two.alices,)}
    assert reach.stacks == {"brand": (two.alices,)}
    assert revocation.find_uncounted(two.registry) == {}
    two.revoke()
    assert revocation.revoke(two.registry, "alice", REVOKE) is None
    assert revocation.find_reason(two.registry, reach.key.key_id) == "lost her laptop"
    assert list(revocation.find_uncounted(two.registry)) == [two.alices]
    assert list(revocation.find_uncounted(two.registry, [two.alices])) == [two.alices]
    assert revocation.find_uncounted(two.registry, []) == {}
    entry = two.registry.entries(limit=1)[0]
    assert (entry.action, entry.patches, entry.reason) == ("key.revoke", (two.alices,), "lost her laptop")
    assert entry.details == {"key": reach.key.key_id, "signed": 1, "in_force": 1}
    assert two.registry.key("alice").revoked_at is not None


def test_a_revoked_patch_in_force_keeps_nobody_from_moving_others(two: Two) -> None:
    pristine = two.host().digests(two.host().parameters())
    operations.apply(two.registry, two.host(), [two.alices], ALICE)
    two.revoke()
    receipt = operations.apply(two.registry, two.host(), [two.bobs[0]], ALICE)
    assert (set(receipt.applied), receipt.revoked) == ({two.alices, two.bobs[0]}, (two.alices,))
    begun = two.registry.entries(limit=2)[1]
    alice, bob = (two.registry.key(name).key_id for name in ("alice", "bob"))
    assert (begun.outcome, begun.details["signers"], begun.details["revoked"]) == ("begun", bob, alice)
    goal = Goal("x", None, {two.alices: ONE, two.bobs[1]: ONE})
    plan = make_plan(two.registry, two.host(), goal).plan
    assert set(apply_plan(two.registry, plan, ALICE).applied) == {two.alices, two.bobs[1]}
    found = survey(two.registry, two.host(), deep=True, progress=lambda *_: None)
    assert found.drifted == ()
    receipt = operations.revert(two.registry, two.host(), [two.bobs[1]], ALICE)
    assert (set(receipt.applied), receipt.revoked) == ({two.alices}, (two.alices,))
    verify_log(two.registry)
    gone = operations.revert(two.registry, two.host(), [two.alices], ALICE)
    assert (gone.pristine, gone.revoked) == (True, ())
    assert two.host().digests(two.host().parameters()) == pristine
    verify_log(two.registry)


def test_it_is_neither_put_back_nor_made_stronger(two: Two) -> None:
    operations.apply(two.registry, two.host(), [two.alices, two.bobs[0]], ALICE)
    two.revoke()
    stronger = Goal("x", None, {two.alices: Strength(20), two.bobs[0]: ONE})
    with pytest.raises(RevokedKeyError, match="lost her laptop"):
        operations.switch(two.registry, two.host(), stronger, ALICE)
    away = operations.switch(two.registry, two.host(), Goal("x", None, {two.bobs[0]: ONE}), ALICE)
    assert set(away.applied) == {two.bobs[0]}
    with pytest.raises(RevokedKeyError, match="lost her laptop"):
        operations.apply(two.registry, two.host(), [two.alices], ALICE)
    assert set(operations.revert(two.registry, two.host(), None, ALICE).applied) == set()


def test_an_audit_finds_a_motion_that_keeps_what_no_trusted_key_ever_signed(two: Two) -> None:
    stranger = PrivateKey.generate().public.key_id
    details = {"signers": "", "revoked": stranger}
    two.registry.note(Draft("mallory", "", "patch.apply", "begun", details=details))
    with pytest.raises(AuditError, match="signed what it keeps, and was never trusted"):
        verify_log(two.registry)


# --- from the command line ------------------------------------------------------------------------------------------


def test_the_command_says_what_it_touches_and_asks(workshop: Workshop) -> None:
    rasura("patch", "apply", workshop.dog, "--model", "the model", cwd=workshop.folder)
    rasura("stack", "create", "brand", workshop.photo, cwd=workshop.folder)
    with workshop.unchanged():
        run = rasura("key", "revoke", "alice", cwd=workshop.folder)
        assert run.code == 2
        assert "revoking alice is for good" in run.err
        assert "expected --yes to do it, or --dry-run" in run.err
        would = rasura("key", "revoke", "alice", "--dry-run", cwd=workshop.folder).out
    assert "4 patches that it alone signed can be put on no model any more" in would
    assert f"in force at the model, until taken out: {workshop.dog[:12]} (dog)" in would
    assert f"in stack brand: {workshop.photo[:12]} (photo)" in would
    done = rasura("key", "revoke", "alice", "--yes", "--reason", "left", "--json", cwd=workshop.folder)
    assert done.envelope["changed"] is True
    assert (done.data["signed"], done.data["revoked_because"]) == (4, "left")
    assert [each["patches"] for each in done.data["hosts"]] == [[workshop.dog]]
    assert done.data["stacks"] == [{"name": "brand", "patches": [workshop.photo]}]
    assert ": left" in rasura("key", "list", cwd=workshop.folder).out
    said = rasura("status", cwd=workshop.folder).out
    assert f"open: {workshop.dog[:12]} (dog), at the model, is signed by key alice, which was revoked on " in said
    assert f"; to sign it anew: rasura key new NAME, rasura patch sign {workshop.dog[:12]}\n" in said
    rasura("key", "new", "bob", cwd=workshop.folder)
    way = f"rasura patch sign {workshop.dog[:12]} --key bob"
    assert f"; to sign it anew: {way}\n" in rasura("status", cwd=workshop.folder).out
    shown = rasura("patch", "status", "--deep", "--model", "the model", cwd=workshop.folder)
    assert shown.code == 0, shown.err
    assert f"{workshop.dog[:12]} is in force, though no key that counts has signed it" in shown.out
    again = rasura("key", "revoke", "alice", "--reason", "another", "--json", cwd=workshop.folder)
    assert (again.envelope["changed"], again.data["revoked_because"]) == (False, "left")
    assert rasura(*way.split()[1:], cwd=workshop.folder).code == 0
    assert f"{workshop.dog[:12]} (dog)" not in rasura("status", cwd=workshop.folder).out.partition("open: ")[2]


def test_a_key_that_signed_nothing(workshop: Workshop) -> None:
    rasura("key", "new", "bob", cwd=workshop.folder)
    assert "no patch here depends on it" in rasura("key", "revoke", "bob", "--dry-run", cwd=workshop.folder).out
    assert rasura("key", "revoke", "bob", "--yes", cwd=workshop.folder).code == 0
