# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""From one registry over a real Hub into another: trust decides there, and the patch does the same."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from support.commandline import rasura
from support.hubserver import TOKEN, HubServer
from support.registries.workshop import ALICE, Workshop, request_for, silent, workshop

from rasura.patches.errors import (
    AmbiguousIdError,
    HubError,
    InputError,
    NotFoundError,
    RegistryError,
    RevokedKeyError,
    SignatureError,
    UntrustedKeyError,
)
from rasura.patches.format.manifest_parts import TensorIdentity
from rasura.patches.format.signatures.model_signature import sign
from rasura.patches.format.signatures.signing_key import PrivateKey
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.prompts.concept_prompts import Target
from rasura.patches.types import Digest, ParamName, PatchId
from rasura.registry._storage.records.records import Draft
from rasura.registry.apply import operations
from rasura.registry.erase.base_models import add_base
from rasura.registry.erase.erase import erase
from rasura.registry.erase.rebase import rebase
from rasura.registry.erase.solve_again import Anew
from rasura.registry.hub.card.describe import Describer
from rasura.registry.hub.card.front_matter import split
from rasura.registry.hub.push import PushReceipt
from rasura.registry.hub.remote import Remote
from rasura.registry.hub.transfer import pull_patches, push_patches
from rasura.registry.log.verify import verify_log
from rasura.registry.registry import Registry
from rasura.registry.standing.retire import retire, unretire
from rasura.registry.trust.keys.key_files import signer, trust_file
from rasura.registry.trust.verified_patch import manifest_of

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


def push(
    registry: Registry,
    hub: HubServer,
    *patches: PatchId,
    base_model: str | None = "acme/base",
    licence: str | None = "apache-2.0",
) -> PushReceipt:
    return push_patches(
        registry,
        patches,
        REPO,
        base_model=base_model,
        licence=licence,
        private=False,
        tool_version="0.1.0",
        remote=Remote(hub.url, TOKEN),
        draft=Draft("alice", "share", "patch.push", "success"),
    )


def pull(registry: Registry, hub: HubServer, reference: str = REPO) -> list[tuple[PatchId, bool]]:
    draft = Draft("bob", "take", "patch.pull", "success")
    done = pull_patches(registry, reference, remote=Remote(hub.url), draft=draft)
    return [(p.patch_id, p.new) for p in done.patches]


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


def test_one_bad_patch_of_several_is_named_and_the_others_are_registered(
    workshop: Workshop, registry: Registry, second: Registry, plain_hub: HubServer
) -> None:
    receipt = push(registry, plain_hub, workshop.dog, workshop.photo)
    trust_alice(workshop, second)
    path = f"{receipt.paths[workshop.photo]}/model.sig"
    plain_hub.faults.swapped[path] = registry.patch_files(workshop.van_gogh)["model.sig"]
    before = second.entries()
    draft = Draft("bob", "take", "patch.pull", "success")
    done = pull_patches(second, REPO, remote=Remote(plain_hub.url), draft=draft)
    assert [p.patch_id for p in done.patches] == [workshop.dog]
    assert [(r.path, r.patch_id) for r in done.refused] == [(receipt.paths[workshop.photo], workshop.photo)]
    assert [record.patch_id for record in second.patches()] == [workshop.dog]
    refusal, taken = second.entries()[: len(second.entries()) - len(before)]
    assert (refusal.outcome, refusal.details["path"]) == ("refused", receipt.paths[workshop.photo])
    assert (taken.outcome, taken.patches) == ("success", (workshop.dog,))
    plain_hub.faults.swapped.clear()
    assert len(pull(second, plain_hub, f"{REPO}@{receipt.commit}")) == 2
    verify_log(second)


def test_what_a_trusted_key_signed_and_is_no_patch_is_refused_alone(
    workshop: Workshop, registry: Registry, second: Registry, plain_hub: HubServer
) -> None:
    push(registry, plain_hub, workshop.dog)
    trust_alice(workshop, second)
    key = signer(registry, "alice")
    files = {"manifest.json": b"{}"}
    folder = f"patches/{hashlib.sha256(b'{}').hexdigest()}"
    files["model.sig"] = sign(files, name="odd", key=key)
    api = HfApi(endpoint=plain_hub.url, token=TOKEN)
    operations = [CommitOperationAdd(f"{folder}/{name}", data) for name, data in files.items()]
    api.create_commit(REPO, operations, commit_message="odd")
    draft = Draft("bob", "take", "patch.pull", "success")
    done = pull_patches(second, REPO, remote=Remote(plain_hub.url), draft=draft)
    assert [p.patch_id for p in done.patches] == [workshop.dog]
    assert [(r.path, r.error.code) for r in done.refused] == [(folder, "format")]


def test_the_command_registers_what_is_trusted_and_ends_with_4(
    workshop: Workshop, registry: Registry, second: Registry, plain_hub: HubServer, tmp_path: Path
) -> None:
    push(registry, plain_hub, workshop.dog, workshop.photo)
    trust_alice(workshop, second)
    second.close()
    files = registry.patch_files(workshop.van_gogh)
    content = {name: data for name, data in files.items() if name != "model.sig"}
    bundle = sign(content, name=workshop.van_gogh, key=PrivateKey.generate())
    foreign = {**files, "model.sig": bundle}
    api = HfApi(endpoint=plain_hub.url, token=TOKEN)
    operations = [CommitOperationAdd(f"patches/{workshop.van_gogh}/{name}", data) for name, data in foreign.items()]
    api.create_commit(REPO, operations, commit_message="foreign")
    at = ("--endpoint", plain_hub.url)
    done = rasura("pull", REPO, *at, cwd=tmp_path / "second")
    assert done.code == 4, done.err
    assert f"{workshop.dog[:12]} is new" in done.out
    assert f"refused patches/{workshop.van_gogh}: patch {workshop.van_gogh[:12]}, signed with key" in done.out
    assert "hint: rasura key trust FILE" in done.out
    assert done.err == ""
    seen = json.loads(rasura("pull", REPO, *at, "--json", cwd=tmp_path / "second").out)
    assert (seen["ok"], seen["error"], seen["changed"]) == (False, None, False)
    assert [row["id"] for row in seen["data"]["refused"]] == [workshop.van_gogh]
    assert rasura("pull", REPO, workshop.dog[:8], "Photo", *at, cwd=tmp_path / "second").code == 0


def test_a_concept_names_the_patch_that_is_current(
    workshop: Workshop, registry: Registry, second: Registry, plain_hub: HubServer
) -> None:
    new = solve_anew(registry, workshop.dog, workshop.van_gogh)
    push(registry, plain_hub, workshop.dog, workshop.photo, new)
    trust_alice(workshop, second)

    def only(*names: str) -> list[PatchId]:
        draft = Draft("bob", "take", "patch.pull", "success")
        return [
            p.patch_id
            for p in pull_patches(second, REPO, only=names, remote=Remote(plain_hub.url), draft=draft).patches
        ]

    assert only("DOG") == [new]
    assert only("photo", workshop.dog) == sorted([workshop.photo, workshop.dog])
    with pytest.raises(NotFoundError, match="'dog', 'photo'"):
        only("van gogh")
    push(registry, plain_hub, workshop.rival)
    with pytest.raises(AmbiguousIdError) as caught:
        only("dog")
    assert caught.value.details["candidates"] == sorted([new, workshop.rival])


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


# --- what the card says of registered patches -----------------------------------------------------------------------


def readme(hub: HubServer) -> str:
    repository = hub.repositories["models", REPO]
    return hub.content(repository, repository.commit("main"), "README.md").decode()


def solve_anew(registry: Registry, patch_id: PatchId, other: PatchId) -> PatchId:
    draft = Draft("alice", "", "patch.rebase", "success")
    (made,) = rebase(registry, [patch_id], Anew(protect=(other,)), draft, silent)
    return made.patch.patch_id


def front(hub: HubServer) -> dict[str, Any]:
    return split(readme(hub))[0]


def test_pushing_again_keeps_the_base_in_front_matter_and_body(
    workshop: Workshop, registry: Registry, plain_hub: HubServer
) -> None:
    push(registry, plain_hub, workshop.dog)
    push(registry, plain_hub, workshop.photo, base_model=None, licence=None)
    assert front(plain_hub)["base_model"] == "acme/base"
    assert front(plain_hub)["license"] == "apache-2.0"
    text = readme(plain_hub)
    assert text.count('DiffusionPipeline.from_pretrained("acme/base")') == 1
    assert "path/to/the/base" not in text
    assert "[`acme/base`](https://huggingface.co/acme/base)" in text


def test_a_base_that_a_person_wrote_on_the_hub_counts(
    workshop: Workshop, registry: Registry, plain_hub: HubServer
) -> None:
    push(registry, plain_hub, workshop.dog, base_model=None)
    assert "path/to/the/base" in readme(plain_hub)
    api = HfApi(endpoint=plain_hub.url, token=TOKEN)
    by_hand = readme(plain_hub).replace("license: ", "base_model: acme/mine\nlicense: ").encode()
    api.upload_file(path_or_fileobj=by_hand, path_in_repo="README.md", repo_id=REPO)
    push(registry, plain_hub, workshop.photo, base_model=None)
    assert front(plain_hub)["base_model"] == "acme/mine"
    assert 'from_pretrained("acme/mine")' in readme(plain_hub)


def test_the_licence_that_push_was_told_wins_and_is_never_ignored(
    workshop: Workshop, registry: Registry, plain_hub: HubServer
) -> None:
    push(registry, plain_hub, workshop.dog, licence="MIT")
    assert front(plain_hub)["license"] == "mit"
    assert push(registry, plain_hub, workshop.dog, licence="Acme internal 2").changed
    assert (front(plain_hub)["license"], front(plain_hub)["license_name"]) == ("other", "acme-internal-2")
    assert push(registry, plain_hub, workshop.dog, licence="openrail++").changed
    assert "license_name" not in front(plain_hub)
    with pytest.raises(InputError, match="licence"):
        push(registry, plain_hub, workshop.dog, licence=" ")


def test_the_licence_of_the_manifest_is_that_of_the_card(
    workshop: Workshop, registry: Registry, plain_hub: HubServer
) -> None:
    request = replace(request_for(Target("photo", "painting")), licence="CC-BY-4.0")
    draft = Draft("alice", "", "patch.erase", "success")
    (made,) = erase(registry, "tiny", request, key=None, protect=(), draft=draft, progress=silent)
    licensed = made.patch.patch_id
    receipt = push(registry, plain_hub, licensed, licence=None)
    assert (front(plain_hub)["license"], receipt.notes) == ("cc-by-4.0", ())
    assert "| CC-BY-4&#46;0 |" in readme(plain_hub)
    receipt = push(registry, plain_hub, licensed, licence="mit")
    assert front(plain_hub)["license"] == "mit"
    assert "signed as CC-BY-4.0" in receipt.notes[0]


def test_the_base_says_its_licence_where_nobody_else_does(
    workshop: Workshop, registry: Registry, plain_hub: HubServer
) -> None:
    receipt = push(registry, plain_hub, workshop.dog, licence=None)
    assert "license" not in front(plain_hub)
    assert "names no licence" in receipt.notes[0]
    api = HfApi(endpoint=plain_hub.url, token=TOKEN)
    api.create_repo("acme/base")
    card = b"---\nlicense: other\nlicense_name: flux-1-dev\nlicense_link: LICENSE.md\n---\n"
    api.upload_file(path_or_fileobj=card, path_in_repo="README.md", repo_id="acme/base")
    receipt = push(registry, plain_hub, workshop.dog, licence=None)
    assert receipt.notes == ()
    found = front(plain_hub)
    assert [found[key] for key in ("license", "license_name", "license_link")] == ["other", "flux-1-dev", "LICENSE.md"]


def test_a_patch_that_was_solved_anew_takes_the_place_of_the_old_one(
    workshop: Workshop, registry: Registry, plain_hub: HubServer
) -> None:
    push(registry, plain_hub, workshop.dog)
    new = solve_anew(registry, workshop.dog, workshop.van_gogh)
    push(registry, plain_hub, new, workshop.photo)
    lines = [line for line in readme(plain_hub).splitlines() if line.startswith("pipe.")]
    assert [name for name in (workshop.dog, new, workshop.photo) if any(name[:12] in line for line in lines)] == [
        new,
        workshop.photo,
    ]
    assert f"superseded by `{new[:12]}`" in readme(plain_hub)


def test_a_successor_that_stays_at_home_is_named_too(
    workshop: Workshop, registry: Registry, plain_hub: HubServer
) -> None:
    new = solve_anew(registry, workshop.dog, workshop.van_gogh)
    push(registry, plain_hub, workshop.dog, workshop.photo)
    assert f"superseded by `{new[:12]}`" in readme(plain_hub)
    push(registry, plain_hub, workshop.van_gogh)
    assert f"superseded by `{new[:12]}`" in readme(plain_hub)


def test_the_family_comes_from_the_base(workshop: Workshop, registry: Registry, plain_hub: HubServer) -> None:
    push(registry, plain_hub, workshop.dog)
    assert "stable-diffusion" in front(plain_hub)["tags"]
    assert front(plain_hub)["rasura"]["bases"][0]["family"] == "SD 1.x"


def test_one_base_model_does_not_name_two_bases(workshop: Workshop, registry: Registry, tmp_path: Path) -> None:
    describe = Describer.of(registry, "acme/base")
    manifest = manifest_of(registry, workshop.dog)
    assert describe.patch(manifest).base.model == "acme/base"
    other = replace(manifest, base=replace(manifest.base, sha256=Digest("c" * 64)))
    with pytest.raises(InputError, match="one base"):
        describe.patch(other)


@pytest.mark.parametrize(
    ("name", "width", "family"),
    [
        ("unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight", 768, "SD 1.x"),
        ("unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight", 1024, "SD 2.x"),
        ("unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight", 2048, "SDXL"),
        ("transformer.caption_projection.linear_1.weight", 4096, ""),  # of PixArt or of LTX: both call it so
        ("transformer.context_embedder.weight", 4096, ""),
        ("unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight", 5, ""),
    ],
)
def test_a_base_that_is_not_here_is_known_by_what_was_touched_or_not_at_all(
    workshop: Workshop, registry: Registry, name: str, width: int, family: str
) -> None:
    manifest = manifest_of(registry, workshop.dog)
    touched = TensorIdentity(ParamName(name), "F16", (8, width), Digest("d" * 64))
    base = replace(manifest.base, sha256=Digest("c" * 64), parameters=(touched,))
    facts = Describer.of(registry, None).patch(replace(manifest, base=base))
    assert (facts.base.family, facts.comfyui) == (family, "")


def files_of(hub: HubServer) -> set[str]:
    return set(HfApi(endpoint=hub.url, token=TOKEN).list_repo_files(REPO))


def comfyui(hub: HubServer) -> set[str]:
    """The first digits of the patches that have a file for ComfyUI, and names that are nobody's id."""
    found = {path.removesuffix(".safetensors") for path in files_of(hub) if path.startswith("comfyui/")}
    return {path.rpartition("-")[2] for path in found}


def test_comfyui_holds_the_current_patches_alone_and_what_others_put_there(
    workshop: Workshop, registry: Registry, plain_hub: HubServer
) -> None:
    api = HfApi(endpoint=plain_hub.url, token=TOKEN)
    push(registry, plain_hub, workshop.dog, workshop.photo, workshop.van_gogh)
    theirs = "comfyui/somebody-elses-000000000000.safetensors"
    api.upload_file(path_or_fileobj=b"not ours", path_in_repo=theirs, repo_id=REPO)
    dog, photo, van = (patch_id[:12] for patch_id in (workshop.dog, workshop.photo, workshop.van_gogh))
    assert comfyui(plain_hub) == {dog, photo, van, "000000000000"}
    retire(registry, [workshop.photo], ALICE)
    new = solve_anew(registry, workshop.dog, workshop.van_gogh)
    receipt = push(registry, plain_hub, new)
    assert {path.rpartition("-")[2] for path in receipt.removed} == {f"{dog}.safetensors", f"{photo}.safetensors"}
    assert comfyui(plain_hub) == {new[:12], van, "000000000000"}
    card = readme(plain_hub)
    assert "| retired |" in card
    assert not any(photo in line for line in card.splitlines() if line.startswith("pipe."))
    assert push(registry, plain_hub, new).changed is False
    unretire(registry, [workshop.photo], ALICE)
    push(registry, plain_hub, workshop.photo)
    assert comfyui(plain_hub) == {new[:12], photo, van, "000000000000"}
    assert "| retired |" not in readme(plain_hub)


def test_the_file_of_a_patch_that_somebody_took_out_of_the_repository_goes_too(
    workshop: Workshop, registry: Registry, plain_hub: HubServer
) -> None:
    push(registry, plain_hub, workshop.dog, workshop.photo)
    HfApi(endpoint=plain_hub.url, token=TOKEN).delete_folder(f"patches/{workshop.photo}", repo_id=REPO)
    receipt = push(registry, plain_hub, workshop.dog)
    assert len(receipt.removed) == 1
    assert comfyui(plain_hub) == {workshop.dog[:12]}
    assert workshop.photo[:12] not in readme(plain_hub)


def test_dry_runs_say_what_would_go_and_come_and_write_nothing(
    workshop: Workshop, registry: Registry, second: Registry, plain_hub: HubServer, tmp_path: Path
) -> None:
    at = ("--endpoint", plain_hub.url, "--dry-run")
    there = ("--token", TOKEN, *at)
    with workshop.unchanged():
        done = rasura("push", workshop.dog, REPO, *there, cwd=workshop.folder)
        assert done.code == 0, done.err
        assert f"would push 1 to {REPO}" in done.out
        assert f"there is no {REPO}: it would be made, public" in done.out
        assert "  + model.sig" in done.out
        assert not HfApi(endpoint=plain_hub.url, token=TOKEN).repo_exists(REPO)
    push(registry, plain_hub, workshop.dog, workshop.photo)
    before = HfApi(endpoint=plain_hub.url, token=TOKEN).model_info(REPO).sha
    retire(registry, [workshop.photo], ALICE)
    with workshop.unchanged():
        told = rasura("push", workshop.van_gogh, REPO, *there, "--json", cwd=workshop.folder)
        assert (told.envelope["changed"], told.data["dry_run"], told.data["commit"]) == (False, True, before)
        assert f"patches/{workshop.van_gogh}/model.sig" in told.data["written"]
        assert [path.endswith(f"{workshop.photo[:12]}.safetensors") for path in told.data["removed"]] == [True]
    assert HfApi(endpoint=plain_hub.url, token=TOKEN).model_info(REPO).sha == before
    size = len(second.entries())
    refused = rasura("pull", REPO, *at, cwd=tmp_path / "second")
    assert (refused.code, len(second.entries())) == (4, size)
    trust_alice(workshop, second)
    size = len(second.entries())
    seen = rasura("pull", REPO, *at, "--json", cwd=tmp_path / "second")
    assert {(p["id"], p["new"]) for p in seen.data["patches"]} == {(workshop.dog, True), (workshop.photo, True)}
    assert (seen.envelope["changed"], second.patches(), len(second.entries())) == (False, (), size)
