# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""From one registry over a real Hub into another: trust decides there, and the patch does the same."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.hubserver import TOKEN, HubServer
from support.registries.workshop import ALICE, Workshop, silent, workshop

from rasura.patches.errors import (
    HubError,
    NotFoundError,
    RegistryError,
    RevokedKeyError,
    SignatureError,
    UntrustedKeyError,
)
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.types import PatchId
from rasura.registry._storage.records import Draft
from rasura.registry.apply import operations
from rasura.registry.erase.base_models import add_base
from rasura.registry.hub.push import PushReceipt
from rasura.registry.hub.transfer import Remote, pull_patches, push_patches
from rasura.registry.log.verify import verify_log
from rasura.registry.registry import Registry
from rasura.registry.trust.key_files import trust_file

REPO = "acme/erasures"
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>'.*:DeprecationWarning")


@pytest.fixture
def registry(workshop: Workshop) -> Iterator[Registry]:
    with workshop.open() as opened:
        yield opened


@pytest.fixture
def second(workshop: Workshop, tmp_path: Path) -> Iterator[Registry]:
    """Another registry with the same base, which trusts nobody."""
    with Registry.create(tmp_path / "second", actor="bob") as opened:
        add_base(opened, workshop.model, "theirs", Draft("bob", "", "base.add", "success"), silent)
        yield opened


def push(registry: Registry, hub: HubServer, *patches: PatchId) -> PushReceipt:
    return push_patches(
        registry,
        patches,
        REPO,
        base_model="acme/base",
        licence="apache-2.0",
        private=False,
        tool_version="0.1.0",
        remote=Remote(hub.url, TOKEN),
        draft=Draft("alice", "share", "patch.push", "success"),
    )


def pull(registry: Registry, hub: HubServer, reference: str = REPO) -> list[tuple[PatchId, bool]]:
    draft = Draft("bob", "take", "patch.pull", "success")
    return [(p.patch_id, p.new) for p in pull_patches(registry, reference, remote=Remote(hub.url), draft=draft)[1]]


def trust_alice(shop: Workshop, registry: Registry) -> None:
    path = shop.folder / "alice.pub"
    with shop.open() as first:
        path.write_text(first.key("alice").pem)
    trust_file(registry, path, None, Draft("bob", "", "key.trust", "success"))


def test_there_and_applied_with_the_same_digests(
    workshop: Workshop, registry: Registry, second: Registry, hub: HubServer, tmp_path: Path
) -> None:
    receipt = push(registry, hub, workshop.dog, workshop.photo)
    assert (receipt.changed, set(receipt.paths)) == (True, {workshop.dog, workshop.photo})
    with pytest.raises(UntrustedKeyError):
        pull(second, hub)
    assert second.patches() == ()
    refusal = second.entries(limit=1)[0]
    assert (refusal.outcome, refusal.error, refusal.details["repo"]) == ("refused", "untrusted_key", REPO)
    trust_alice(workshop, second)
    assert sorted(pull(second, hub)) == sorted([(workshop.dog, True), (workshop.photo, True)])
    assert sorted(pull(second, hub)) == sorted([(workshop.dog, False), (workshop.photo, False)])
    assert second.patch(workshop.dog).source == f"{REPO}@{receipt.commit}"
    entry = second.entries(limit=1)[0]
    assert (entry.actor, entry.reason, entry.details["commit"]) == ("bob", "take", receipt.commit)
    theirs = CheckpointHost.open(Path(shutil.copytree(workshop.model, tmp_path / "theirs")))
    there = operations.apply(second, theirs, [workshop.photo, workshop.dog], ALICE)
    here = operations.apply(registry, workshop.host(), [workshop.dog, workshop.photo], ALICE)
    assert (there.before, there.after) == (here.before, here.after)
    for each in (registry, second):
        verify_log(each)


def test_a_push_is_logged_and_repeating_it_changes_nothing(
    workshop: Workshop, registry: Registry, plain_hub: HubServer
) -> None:
    with workshop.unchanged("success", "success"):
        first = push(registry, plain_hub, workshop.dog)
        again = push(registry, plain_hub, workshop.dog)
    assert (first.changed, again.changed) == (True, False)
    entry = workshop.entries()[-2]
    assert (entry.action, entry.patches, entry.reason) == ("patch.push", (workshop.dog,), "share")
    assert entry.details == {"repo": REPO, "commit": first.commit}


def test_what_may_not_be_applied_is_not_pushed(workshop: Workshop, registry: Registry, plain_hub: HubServer) -> None:
    registry.revoke_key("alice", registry.now(), Draft("a", "", "key.revoke", "success"))
    with workshop.unchanged("refused revoked_key"), pytest.raises(RevokedKeyError):
        push(registry, plain_hub, workshop.dog)
    assert plain_hub.log == []


def test_a_hub_that_fails(workshop: Workshop, registry: Registry, second: Registry, plain_hub: HubServer) -> None:
    plain_hub.faults.fail(403, "", times=100)
    with workshop.unchanged("failed hub"), pytest.raises(HubError):
        push(registry, plain_hub, workshop.dog)
    plain_hub.faults.failures.clear()
    with pytest.raises(NotFoundError):
        pull(second, plain_hub)
    assert second.entries(limit=1)[0].outcome == "failed"


def test_one_bad_patch_of_several_registers_none(
    workshop: Workshop, registry: Registry, second: Registry, plain_hub: HubServer
) -> None:
    receipt = push(registry, plain_hub, workshop.dog, workshop.photo)
    trust_alice(workshop, second)
    path = f"{receipt.paths[workshop.photo]}/model.sig"
    plain_hub.faults.swapped[path] = registry.patch_files(workshop.van_gogh)["model.sig"]
    before = second.entries()
    with pytest.raises(Exception) as caught:
        pull(second, plain_hub)
    assert type(caught.value).__module__ == "rasura.patches.errors"
    assert second.patches() == ()
    assert len(second.entries()) == len(before) + 1
    plain_hub.faults.swapped.clear()
    assert len(pull(second, plain_hub, f"{REPO}@{receipt.commit}")) == 2


def test_where_the_second_patch_cannot_be_stored_none_is_registered(
    workshop: Workshop, registry: Registry, second: Registry, plain_hub: HubServer
) -> None:
    push(registry, plain_hub, workshop.dog, workshop.photo)
    trust_alice(workshop, second)
    last = max(workshop.dog, workshop.photo)
    in_the_way = second.blobs.path(registry.patch(last).files["manifest.json"])
    in_the_way.mkdir(parents=True)
    before = second.entries()
    with pytest.raises(RegistryError):
        pull(second, plain_hub)
    assert second.patches() == ()
    failure, *rest = second.entries()
    assert (failure.action, failure.outcome, failure.error) == ("patch.pull", "failed", "registry")
    assert (failure.details, tuple(rest)) == ({"repo": REPO}, before)
    in_the_way.rmdir()
    assert len(pull(second, plain_hub)) == 2
    verify_log(second)


def test_a_patch_alone_lies_where_diffusers_looks(
    workshop: Workshop, registry: Registry, second: Registry, plain_hub: HubServer
) -> None:
    receipt = push(registry, plain_hub, workshop.dog)
    assert receipt.paths == {workshop.dog: ""}
    trust_alice(workshop, second)
    assert pull(second, plain_hub) == [(workshop.dog, True)]
