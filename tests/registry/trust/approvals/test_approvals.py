# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""A trust policy changes by the rules of its predecessor; what it protects is moved with the approvals that it asks for."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from support.commandline import rasura
from support.registries.workshop import ALICE, Workshop, workshop

from rasura.patches._io import canonical_json
from rasura.patches.algebra.strength import ONE, Strength
from rasura.patches.errors import (
    AuditError,
    FormatError,
    InputError,
    NotApprovedError,
    NotFoundError,
    RasuraError,
    SignatureError,
    UntrustedKeyError,
)
from rasura.patches.format.patch import read_folder
from rasura.patches.format.signatures.signing_key import PrivateKey
from rasura.patches.types import PatchId
from rasura.registry._storage.digests import sha256
from rasura.registry._storage.records.records import Draft
from rasura.registry.apply import operations
from rasura.registry.apply.goal import Goal
from rasura.registry.log.verify import verify_log
from rasura.registry.registry import Registry
from rasura.registry.stacks import edit
from rasura.registry.stacks.bundles.bundle import add_bundle, make_bundle
from rasura.registry.stacks.plan import apply_plan, make_plan
from rasura.registry.trust.approvals.approve import Subject, approve_patches, approve_plan, find_approvals
from rasura.registry.trust.keys import revocation
from rasura.registry.trust.keys.key_files import make_key, signer
from rasura.registry.trust.register_patch import SignedPatch, add_folders, add_signed
from rasura.registry.trust.roles.in_force import find_trust_policy, put_trust_in_force, sign_trust_policy
from rasura.registry.trust.roles.roles import find_eraser
from rasura.registry.trust.roles.signed_trust import SignedTrust, check_next
from rasura.registry.trust.roles.trust_policy import TrustPolicy
from rasura.registry.trust.sign_again import sign_patches
from rasura.registry.trust.verified_patch import load_verified, read_signed_files

SET = Draft("alice", "", "trust.set", "success")
APPROVE = Draft("alice", "looked at it", "patch.approve", "success")
BOTH = """
expires = 2100-01-01
threshold = 2
[keys.alice]
roles = ["approve", "policy"]
[keys.bob]
roles = ["policy", "approve"]
"""
BASE = BOTH + '[[protect]]\nbase = "tiny"\napprovals = 2\n'
ERASERS = (
    BOTH.replace("threshold = 2", "threshold = 1").replace('["policy", "approve"]', '["erase"]\nconcepts = ["DOG"]')
    + '[keys.carol]\nroles = ["erase"]\nconcepts = ["van *"]\n'
)
MOVERS = ERASERS.replace('"erase"', '"apply"').replace('"van *"', '"*photo*"')
STACK = BOTH + '[[protect]]\nstack = "brand"\napprovals = 1\n'


@pytest.fixture
def registry(workshop: Workshop) -> Iterator[Registry]:
    """Alice's, with keys of bob's and carol's."""
    with workshop.open() as registry:
        for name in ("bob", "carol"):
            make_key(registry, name, Draft(name, "", "key.add", "success"))
        yield registry


def signed(registry: Registry, toml: str, *names: str) -> Path:
    """A file with this policy, signed by these."""
    path = registry.location.folder.parent / "trust.json"
    source = path.with_suffix(".toml")
    source.write_text(toml)
    for at, name in enumerate(names):
        path.write_bytes(sign_trust_policy(registry, path if at else source, name).to_bytes())
    return path


def put(registry: Registry, toml: str, *names: str) -> TrustPolicy:
    return put_trust_in_force(registry, signed(registry, toml, *names), SET).policy


def approve(registry: Registry, name: str, *patches: PatchId) -> None:
    assert all(each.new for each in approve_patches(registry, patches, name, APPROVE))


# --- what is protected ----------------------------------------------------------------------------------------------


def test_a_patch_is_put_on_a_protected_base_when_two_have_approved_it(workshop: Workshop, registry: Registry) -> None:
    operations.apply(registry, workshop.host(), [workshop.photo], ALICE)  # before anybody asked for approvals
    policy = put(registry, BASE, "alice", "bob")
    assert (policy.version, find_trust_policy(registry)) == (1, policy)
    with (
        workshop.unchanged("refused not_approved"),
        pytest.raises(NotApprovedError, match="approved by nobody") as none,
    ):
        operations.apply(registry, workshop.host(), [workshop.dog], ALICE)
    assert none.value.hint == f"rasura patch approve {workshop.dog[:12]} --key NAME"
    approve(registry, "alice", workshop.dog)
    with pytest.raises(NotApprovedError, match=r"\(dog\) needs 2, and is approved by alice"):
        operations.apply(registry, workshop.host(), [workshop.dog], ALICE)
    assert approve_patches(registry, [workshop.dog], "alice", APPROVE)[0].new is False  # nobody counts twice
    with pytest.raises(NotApprovedError):
        operations.apply(registry, workshop.host(), [workshop.dog], ALICE, dry_run=True)
    approve(registry, "bob", workshop.dog)
    assert set(operations.apply(registry, workshop.host(), [workshop.dog], ALICE).applied) == {
        workshop.dog,
        workshop.photo,
    }
    stronger = Goal("x", None, {workshop.dog: ONE, workshop.photo: Strength(20)})
    with pytest.raises(NotApprovedError, match="photo"):
        operations.switch(registry, workshop.host(), stronger, ALICE)
    assert not operations.revert(registry, workshop.host(), None, ALICE).applied
    verify_log(registry)
    with pytest.raises(NotApprovedError, match="photo"):  # what was taken out comes back with approvals only
        operations.apply(registry, workshop.host(), [workshop.photo], ALICE)


def test_a_protected_stack_and_an_approved_plan(workshop: Workshop, registry: Registry) -> None:
    edit.create(registry, "brand", {workshop.dog: ONE, workshop.photo: ONE}, ALICE)
    put(registry, STACK, "alice", "bob")
    with pytest.raises(NotApprovedError):
        edit.add(registry, "brand", {workshop.van_gogh: ONE}, ALICE)
    with pytest.raises(NotApprovedError):
        edit.add(registry, "brand", {workshop.dog: Strength(8)}, ALICE, replace_old=True)
    edit.create(registry, "other", {workshop.van_gogh: ONE}, ALICE)
    record = registry.stack("brand")
    goal = Goal("brand", record.base, {workshop.dog: ONE, workshop.photo: ONE})
    plan = make_plan(registry, workshop.host(), goal).plan
    with pytest.raises(NotApprovedError):
        apply_plan(registry, plan, ALICE)
    way = plan.diff
    done = approve_plan(registry, plan.digest, tuple(way.added), "bob", replace(APPROVE, action="plan.approve"))
    assert (done.new, registry.entries(limit=1)[0].action) == (True, "plan.approve")
    with pytest.raises(NotApprovedError):  # a plan's approval is the plan's alone
        operations.switch(registry, workshop.host(), goal, ALICE)
    assert set(apply_plan(registry, plan, ALICE).applied) == {workshop.dog, workshop.photo}
    edit.remove(registry, "brand", [workshop.dog], ALICE)
    with pytest.raises(NotApprovedError):
        edit.add(registry, "brand", {workshop.dog: ONE}, ALICE)
    approve(registry, "alice", workshop.dog)
    edit.add(registry, "brand", {workshop.dog: ONE}, ALICE)
    verify_log(registry)


def test_roles_scopes_and_revoked_keys_decide_what_counts(workshop: Workshop, registry: Registry) -> None:
    with pytest.raises(NotFoundError, match="no trust policy"):
        approve_patches(registry, [workshop.dog], "bob", APPROVE)
    toml = BASE.replace("approvals = 2", "approvals = 1") + '[keys.carol]\nroles = ["policy"]\n'
    put(
        registry,
        toml.replace('roles = ["policy", "approve"]', 'roles = ["approve"]\nconcepts = ["VAN *"]'),
        "alice",
        "carol",
    )
    with pytest.raises(InputError, match="'carol' has not the role approve"):
        approve_patches(registry, [workshop.dog], "carol", APPROVE)
    with pytest.raises(InputError, match=r"'bob' does not approve patch .*\(dog\)"):
        approve_patches(registry, [workshop.van_gogh, workshop.dog], "bob", APPROVE)
    approve(registry, "bob", workshop.van_gogh)
    operations.apply(registry, workshop.host(), [workshop.van_gogh], ALICE)
    operations.revert(registry, workshop.host(), None, ALICE)
    revocation.revoke(registry, "bob", Draft("alice", "", "key.revoke", "success"))
    assert find_approvals(registry, Subject("patch", workshop.van_gogh)) == {}
    with pytest.raises(NotApprovedError, match="by nobody"):
        operations.apply(registry, workshop.host(), [workshop.van_gogh], ALICE)


def test_after_it_expired_what_it_protects_is_only_taken_out(workshop: Workshop, registry: Registry) -> None:
    put(registry, BASE, "alice", "bob")
    approve(registry, "alice", workshop.dog)
    approve(registry, "bob", workshop.dog)
    operations.apply(registry, workshop.host(), [workshop.dog], ALICE)
    registry.close()
    with Registry.open(workshop.folder, now=lambda: datetime(2100, 1, 2, tzinfo=UTC)) as late:
        with pytest.raises(NotApprovedError, match=r"version 1, expired on 2100-01-01"):
            operations.apply(late, workshop.host(), [workshop.photo], ALICE)
        assert not operations.revert(late, workshop.host(), None, ALICE).applied
        with pytest.raises(InputError, match="expired"):
            put(late, BASE, "alice", "bob")
        assert put(late, BASE.replace("2100-01-01", "2100-03-01"), "alice", "bob").version == 2
        operations.apply(late, workshop.host(), [workshop.dog], ALICE)


def test_only_who_may_erase_brings_a_patch_of_these_concepts(
    workshop: Workshop, registry: Registry, tmp_path: Path
) -> None:
    operations.apply(registry, workshop.host(), [workshop.photo], ALICE)  # before anybody said who may erase
    put(registry, ERASERS, "alice")
    with (
        workshop.unchanged("refused untrusted_key"),
        pytest.raises(UntrustedKeyError, match=r"\(bob\), got one by alice") as no,
    ):
        operations.apply(registry, workshop.host(), [workshop.dog], ALICE)
    assert no.value.hint == f"rasura patch sign {workshop.dog[:12]} --key bob"
    sign_patches(registry, [workshop.dog], "carol", replace(APPROVE, action="patch.sign"))  # of other concepts
    with pytest.raises(UntrustedKeyError, match="got one by alice, carol"):
        operations.apply(registry, workshop.host(), [workshop.dog], ALICE)
    sign_patches(registry, [workshop.dog], "bob", replace(APPROVE, action="patch.sign"))
    assert workshop.dog in operations.apply(registry, workshop.host(), [workshop.dog], ALICE).applied
    assert not operations.revert(registry, workshop.host(), None, ALICE).applied  # whoever signed what comes out
    # Nothing is computed that could not be signed, and whatever comes in is looked at.
    assert find_eraser(registry, "bob").public == signer(registry, "bob").public
    with pytest.raises(UntrustedKeyError, match="'alice' has not the role erase"):
        find_eraser(registry, "alice")
    for name, data in read_signed_files(load_verified(registry, workshop.photo), signer(registry, "bob")).items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(UntrustedKeyError, match="photo"):
        add_folders(registry, [tmp_path], replace(APPROVE, action="patch.add"), dry_run=True)
    files = read_folder(tmp_path)
    with pytest.raises(UntrustedKeyError, match=r"nobody has it"):
        add_signed(registry, [SignedPatch(files, "bob", replace(APPROVE, action="patch.add"))])
    (tmp_path / "photo.rasura").write_bytes(make_bundle(registry, [workshop.photo]))
    with pytest.raises(UntrustedKeyError, match=r"nobody has it"):
        add_bundle(registry, tmp_path / "photo.rasura", replace(APPROVE, action="patch.add"), dry_run=True)
    revocation.revoke(registry, "bob", Draft("alice", "", "key.revoke", "success"))
    with pytest.raises(UntrustedKeyError, match=r"\(dog\)"):
        operations.apply(registry, workshop.host(), [workshop.dog], ALICE)
    verify_log(registry)
    for name, data in read_signed_files(load_verified(registry, workshop.photo), signer(registry, "carol")).items():
        (tmp_path / name).write_bytes(data)
    registry.close()
    with (
        Registry.open(workshop.folder, now=lambda: datetime(2100, 1, 2, tzinfo=UTC)) as late,
        pytest.raises(NotApprovedError, match="expired on 2100-01-01"),
    ):
        add_folders(late, [tmp_path], replace(APPROVE, action="patch.add"))


def test_a_model_is_moved_by_whose_key_may_apply_and_signs_that(workshop: Workshop, registry: Registry) -> None:
    operations.apply(registry, workshop.host(), [workshop.photo], ALICE)
    put(registry, MOVERS, "alice")
    with (
        workshop.unchanged("refused not_approved"),
        pytest.raises(NotApprovedError, match=r"\(carol\).*got none") as no,
    ):
        operations.revert(registry, workshop.host(), None, ALICE)  # an erasure that is taken out comes back
    assert no.value.hint == "--actor-key carol"
    for name, patch, got in (("alice", workshop.photo, "alice"), ("bob", workshop.photo, "bob")):
        registry.act_as(signer(registry, name))
        with pytest.raises(NotApprovedError, match=f"got that of {got}"):
            operations.revert(registry, workshop.host(), [patch], ALICE)
    operations.apply(registry, workshop.host(), [workshop.dog], ALICE)  # bob's
    registry.act_as(signer(registry, "carol"))
    operations.revert(registry, workshop.host(), [workshop.photo], ALICE)
    begun, done = registry.entries(limit=2)
    assert begun.actor_key == done.actor_key == registry.key("carol").key_id
    with pytest.raises(NotApprovedError, match=r"\(bob\): expected their signature, got that of carol"):
        operations.switch(registry, workshop.host(), Goal("x", None, {}), ALICE, dry_run=True)
    revocation.revoke(registry, "bob", Draft("carol", "", "key.revoke", "success"))
    assert verify_log(registry).signed >= 6
    registry.close()
    with Registry.open(workshop.folder, now=lambda: datetime(2100, 1, 2, tzinfo=UTC)) as late:
        late.act_as(signer(late, "carol"))
        with pytest.raises(NotApprovedError, match="expired on 2100-01-01"):
            operations.apply(late, workshop.host(), [workshop.photo], ALICE)


# --- how it changes -------------------------------------------------------------------------------------------------


def test_a_version_is_signed_by_its_predecessors_and_its_own_keys(registry: Registry) -> None:
    with pytest.raises(SignatureError, match=r"version 1 asks for 2 signatures of alice, bob.*got 1"):
        put(registry, BASE, "alice")
    assert registry.entries(limit=1)[0].outcome == "refused"
    put(registry, BASE, "alice", "bob")
    mine = BOTH.replace("threshold = 2", "threshold = 1").replace("[keys.bob]", "[keys.carol]")
    with pytest.raises(SignatureError, match="version 1 asks for 2 signatures of alice, bob"):
        put(registry, mine, "alice", "carol")
    with pytest.raises(SignatureError, match="version 2 asks for 2 signatures of alice, carol"):
        put(registry, BOTH.replace("[keys.bob]", "[keys.carol]"), "alice", "bob")
    handed_on = put(registry, BOTH.replace("[keys.bob]", "[keys.carol]"), "alice", "bob", "carol")
    assert (handed_on.version, find_trust_policy(registry)) == (2, handed_on)
    verify_log(registry)


def test_an_old_version_does_not_come_back(registry: Registry, tmp_path: Path) -> None:
    first = signed(registry, BASE, "alice", "bob").read_bytes()
    put(registry, BASE, "alice", "bob")
    put(registry, BOTH, "alice", "bob")
    (tmp_path / "old.json").write_bytes(first)
    with pytest.raises(SignatureError, match="expected version 3, got 1"):
        put_trust_in_force(registry, tmp_path / "old.json", SET)
    with pytest.raises(SignatureError, match="expected version 3"):
        sign_trust_policy(registry, tmp_path / "old.json", "alice")
    # Not by the log, either: an entry that says so again is none.
    registry.note(replace(SET, details={"trust": sha256(first), "version": 1}))
    policy = find_trust_policy(registry)
    assert policy is not None
    assert policy.version == 2


def test_what_a_program_that_lied_wrote_into_the_log_is_found(workshop: Workshop, registry: Registry) -> None:
    put(registry, BASE, "alice", "bob")
    approve(registry, "alice", workshop.dog)
    carol = signer(registry, "carol")
    entry = registry.entries(limit=1)[0]
    registry.note(
        replace(APPROVE, patches=(workshop.photo,), details={**entry.details, "key": registry.key("bob").key_id})
    )
    with pytest.raises(AuditError, match="by that key"):
        operations.apply(registry, workshop.host(), [workshop.photo], ALICE)
    policy = find_trust_policy(registry)
    assert policy is not None
    stolen = SignedTrust.unsigned(replace(policy, version=2, threshold=1)).signed_by(carol)
    registry.blobs.put(stolen.to_bytes(), stolen.digest)
    registry.note(replace(SET, details={"trust": stolen.digest, "version": 2}))
    with pytest.raises(AuditError, match="asks for 1 signatures"):
        find_trust_policy(registry)


def test_a_policy_is_about_one_log_and_its_signatures_are_looked_at(registry: Registry) -> None:
    document = SignedTrust.parse(signed(registry, BOTH, "alice", "bob").read_bytes())
    check_next(None, document, registry.origin)
    with pytest.raises(SignatureError, match="expected one of the log"):
        check_next(None, document, "rasura/log/other")
    ids = list(document.signatures)
    swapped = replace(document, signatures={ids[0]: document.signatures[ids[1]], ids[1]: document.signatures[ids[0]]})
    with pytest.raises(SignatureError, match="does not verify"):
        check_next(None, swapped, registry.origin)
    strangers = SignedTrust.unsigned(document.policy)
    for _ in range(3):
        strangers = strangers.signed_by(PrivateKey.generate())
    with pytest.raises(SignatureError, match="got 0"):
        check_next(None, strangers, registry.origin)


# --- how it is spelt ------------------------------------------------------------------------------------------------


def forge(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    def forged(payload: bytes) -> bytes:
        document = json.loads(payload)
        change(document)
        return canonical_json.dumps(document)

    return forged


BAD: dict[str, Callable[[bytes], bytes]] = {
    "spaces": lambda payload: payload.replace(b",", b", "),
    "another format": forge(lambda d: d.update(format="rasura-trust/2")),
    "a field more": forge(lambda d: d.update(note="x")),
    "a field less": forge(lambda d: d.pop("protect")),
    "version 0": forge(lambda d: d.update(version=0)),
    "a threshold that nobody reaches": forge(lambda d: d.update(threshold=3)),
    "no time": forge(lambda d: d.update(expires="tomorrow")),
    "a key twice": forge(lambda d: d["keys"].append(d["keys"][0])),
    "a key under two names": forge(lambda d: d["keys"].append({**d["keys"][0], "name": "twin"})),
    "another key under an id": forge(lambda d: d["keys"][0].update(pem=d["keys"][1]["pem"])),
    "a role that is none": forge(lambda d: d["keys"][0].update(roles=["admin"])),
    "roles twice": forge(lambda d: d["keys"][0].update(roles=["approve", "approve"])),
    "more approvals than keys": forge(lambda d: d["protect"][0].update(approvals=3)),
    "a base that is none": forge(lambda d: d["protect"][0].update(base="x")),
    "a stack and a base": forge(lambda d: d["protect"][0].update(stack="brand")),
}


@pytest.mark.parametrize("name", BAD)
def test_a_policy_has_one_spelling(registry: Registry, name: str) -> None:
    payload = SignedTrust.parse(signed(registry, BASE, "alice").read_bytes()).payload
    assert TrustPolicy.from_payload(payload).to_payload() == payload
    with pytest.raises(FormatError):
        TrustPolicy.from_payload(BAD[name](payload))


@pytest.mark.parametrize(
    "toml",
    [
        "expires = ",
        BOTH.replace("expires = 2100-01-01", ""),
        BOTH.replace("2100-01-01", '"soon"'),
        BOTH.replace("threshold = 2", "threshold = 3"),
        BOTH.replace("threshold = 2", "threshold = true"),
        BOTH.replace('"policy", "approve"', '"admin"'),
        BOTH.replace('roles = ["policy", "approve"]', "roles = 1"),
        BOTH + "[[protect]]\napprovals = 1\n",
        BOTH + '[[protect]]\nstack = "brand"\n',
        BOTH + '[[protect]]\nstack = "brand"\nbase = "tiny"\napprovals = 1\n',
        BOTH + '[[protect]]\nstack = "brand"\napprovals = 1\nwho = "me"\n',
        BOTH + '[[protect]]\nbase = "nobody"\napprovals = 1\n',
        BOTH.replace("[keys.bob]", "[keys.mallory]"),
        "keys = 3\nexpires = 2100-01-01\nthreshold = 1\n",
        BOTH.replace("threshold", "tresholds"),
    ],
)
def test_what_is_no_policy_is_refused_with_a_word_for_it(registry: Registry, toml: str) -> None:
    with pytest.raises(RasuraError) as caught:
        signed(registry, toml, "alice")
    assert caught.value.code in {"input", "not_found", "format"}
    assert "expected" in caught.value.message or "no key" in caught.value.message


def test_who_has_not_the_role_signs_no_policy(registry: Registry) -> None:
    with pytest.raises(InputError, match="'carol' has not the role policy"):
        signed(registry, BOTH, "carol")


# --- from the command line ------------------------------------------------------------------------------------------


def test_two_people_on_the_command_line(workshop: Workshop) -> None:
    def run(*words: str, code: int = 0) -> str:
        done = rasura(*words, cwd=workshop.folder)
        assert done.code == code, done.out + done.err
        return done.out + done.err

    apply = ("patch", "apply", workshop.dog, "--model", "the model")
    assert "nothing needs an approval" in run("trust", "show")
    run("key", "new", "bob")
    (workshop.folder / "trust.toml").write_text(BASE)
    run("trust", "sign", "trust.toml", "--key", "alice", code=2)
    assert "signed by alice" in run("trust", "sign", "trust.toml", "--key", "alice", "-o", "trust.json")
    assert "got 1" in run("trust", "set", "trust.json", code=4)
    assert "signed by alice, bob" in run("trust", "sign", "trust.json", "--key", "bob")
    with workshop.unchanged():
        assert "would be version 1" in run("trust", "set", "trust.json", "--dry-run")
    assert "is version 1" in run("trust", "set", "trust.json", "--reason", "ticket 9")
    assert "base tiny: what is put in needs 2 approvals" in run("trust", "show")
    assert "approvals are missing" in run(*apply, code=3)
    with workshop.unchanged():
        assert "would be approved by bob" in run(
            "patch", "approve", workshop.dog, workshop.photo, "--key", "bob", "--dry-run"
        )
    run("patch", "approve", workshop.dog, "--key", "alice")
    assert f"{workshop.dog[:12]} is approved by bob" in run("patch", "approve", workshop.dog, "--key", "bob")
    assert any(
        line.split() == ["approved", "by", "alice,", "bob"] for line in run("patch", "show", workshop.dog).splitlines()
    )
    run(*apply)
    assert "set the trust policy" in run("log")
    shown = rasura("trust", "show", "--json", cwd=workshop.folder).data
    assert (shown["policy"]["version"], shown["expired"]) == (1, False)
    run("audit", "verify")


def test_a_plan_is_approved_by_its_file(workshop: Workshop) -> None:
    (workshop.folder / "trust.toml").write_text(STACK.replace("threshold = 2", "threshold = 1"))
    for words in (
        ("key", "new", "bob"),
        ("stack", "create", "brand", workshop.dog),
        ("trust", "sign", "trust.toml", "--key", "alice", "-o", "trust.json"),
        ("trust", "set", "trust.json"),
        ("plan", "--stack", "brand", "--model", "the model", "-o", "plan.json"),
    ):
        done = rasura(*words, cwd=workshop.folder)
        assert done.code == 0, done.err
    assert rasura("patch", "apply", "plan.json", cwd=workshop.folder).code == 3
    done = rasura("plan", "approve", "plan.json", "--key", "bob", "--json", cwd=workshop.folder)
    assert [(e["kind"], e["new"]) for e in done.data["approved"]] == [("plan", True)]
    assert rasura("patch", "apply", "plan.json", cwd=workshop.folder).code == 0
