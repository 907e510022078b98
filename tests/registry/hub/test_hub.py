"""Push, resolve and fetch against a real Hub server, in both ways of storage, and everything that can go wrong."""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi, ModelCard, constants
from support.hubserver import TOKEN, Failure, HubServer, Request

from rasura.patches.errors import (
    ConflictError,
    DigestMismatchError,
    FormatError,
    GatedError,
    HubError,
    InputError,
    NotFoundError,
    RasuraError,
    UntrustedKeyError,
)
from rasura.patches.format.signatures.model_signature import PrivateKey, read_statement, sign
from rasura.patches.types import Digest, PatchId
from rasura.registry.hub.card.facts import BaseFacts, CardFacts, PatchFacts
from rasura.registry.hub.client import Patience
from rasura.registry.hub.pull import FetchedPatch, fetch, resolve_revision
from rasura.registry.hub.pull_source import FetchLimits
from rasura.registry.hub.push import PatchFiles, PushReceipt, push
from rasura.registry.hub.refs import PinnedRepo, parse_ref

# huggingface_hub sends Large File Storage uploads in a way that httpx2 no longer likes.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>'.*:DeprecationWarning")

REPO = "acme/delta"
KEY = PrivateKey.generate()
IMPATIENT = Patience(attempts=2, wait=0.01, longest=0.05, deadline=5.0)
BASIS = bytes(range(256)) * 40


def patch(number: int, key: PrivateKey = KEY, extra: Mapping[str, bytes] | None = None) -> PatchFiles:
    files = {
        "manifest.json": json.dumps({"number": number}).encode(),
        "pytorch_lora_weights.safetensors": bytes([number, 0, 255]) * 1000,
        "basis.safetensors": BASIS,
        **(extra or {}),
    }
    patch_id = PatchId(hashlib.sha256(files["manifest.json"]).hexdigest())
    return PatchFiles(patch_id, {**files, "model.sig": sign(files, name=patch_id, key=key)})


BASE = BaseFacts(Digest("b" * 64), "Tiny Diffusion", "SD 1.x", "acme/base")


def card(*patches: PatchFiles) -> CardFacts:
    rows = tuple(PatchFacts(p.patch_id, (f"concept {p.patch_id[:4]}",), "nullspace", BASE) for p in patches)
    return CardFacts("0.1.0", rows, "creativeml-openrail-m")


def send(hub: HubServer, *patches: PatchFiles, revision: str = "main", patience: Patience = IMPATIENT) -> PushReceipt:
    return push(
        patches,
        REPO,
        endpoint=hub.url,
        token=TOKEN,
        message="Add patches",
        card=card(*patches),
        revision=revision,
        patience=patience,
    )


def trusted(bundle: bytes) -> Mapping[str, Digest]:
    return read_statement(bundle, [KEY.public]).files


def get(
    hub: HubServer,
    open_bundle: Callable[[bytes], Mapping[str, Digest]] = trusted,
    limits: FetchLimits | None = None,
) -> list[FetchedPatch]:
    pinned = resolve_revision(REPO, endpoint=hub.url, patience=IMPATIENT)
    return fetch(pinned, open_bundle=open_bundle, limits=limits, endpoint=hub.url, patience=IMPATIENT).patches


def api(hub: HubServer) -> HfApi:
    return HfApi(endpoint=hub.url, token=TOKEN)


def titles(hub: HubServer) -> list[str]:
    return [commit.title for commit in api(hub).list_repo_commits(REPO)]


def add(hub: HubServer, files: Mapping[str, bytes]) -> str:
    """A commit by somebody else."""
    operations = [CommitOperationAdd(path, data) for path, data in files.items()]
    return api(hub).create_commit(REPO, operations, commit_message="elsewhere").oid


# --- there and back -------------------------------------------------------------------------------------------------


def test_what_was_pushed_is_fetched_byte_for_byte(hub: HubServer) -> None:
    pushed = patch(1)
    receipt = send(hub, pushed)
    assert (receipt.paths, receipt.changed, receipt.notes) == ({pushed.patch_id: ""}, True, ())
    assert receipt.url == f"{hub.url}/{REPO}/commit/{receipt.commit}"
    [fetched] = get(hub)
    assert fetched == FetchedPatch("", pushed.files, ())
    assert hub.asked("PUT", "/upload/")  # by Git LFS, which a Hub with Xet takes, too


def test_a_push_is_one_commit_with_its_card(hub: HubServer) -> None:
    one, two = patch(1), patch(2)
    receipt = send(hub, one, two)
    assert titles(hub) == ["Add patches", "initial commit"]
    assert receipt.paths == {p.patch_id: f"patches/{p.patch_id}" for p in (one, two)}
    readme = ModelCard.load(api(hub).hf_hub_download(REPO, "README.md"))
    assert readme.data.to_dict()["base_model_relation"] == "adapter"
    assert one.patch_id[:12] in readme.text
    assert {p.path for p in get(hub)} == set(receipt.paths.values())


def test_the_second_patch_leaves_the_first_in_the_root(hub: HubServer) -> None:
    one, two = patch(1), patch(2)
    send(hub, one)
    receipt = send(hub, two)
    assert receipt.paths == {two.patch_id: f"patches/{two.patch_id}"}
    assert [(p.path, p.ignored) for p in get(hub)] == [("", ()), (f"patches/{two.patch_id}", ())]
    text = ModelCard.load(api(hub).hf_hub_download(REPO, "README.md")).text
    assert one.patch_id[:12] in text
    assert two.patch_id[:12] in text
    assert send(hub, one).paths == {one.patch_id: ""}


def test_pushing_the_same_again_writes_nothing_and_says_so(hub: HubServer) -> None:
    first = send(hub, patch(1), patch(2))
    again = send(hub, patch(1), patch(2))
    assert (again.commit, again.changed) == (first.commit, False)
    assert "already" in again.notes[0]
    assert titles(hub) == ["Add patches", "initial commit"]


def test_a_new_signature_alone_is_a_commit_of_one_file(plain_hub: HubServer) -> None:
    send(plain_hub, patch(1))
    resigned = patch(1, key=PrivateKey.generate())
    assert send(plain_hub, resigned).changed
    lines = plain_hub.asked("POST", "/commit/")[-1].body.splitlines()
    assert [json.loads(line)["value"].get("path") for line in lines[1:]] == ["model.sig"]


def test_a_repository_with_a_model_in_it_keeps_its_root(plain_hub: HubServer) -> None:
    api(plain_hub).create_repo(REPO)
    add(plain_hub, {"model_index.json": b"{}"})
    pushed = patch(1)
    assert send(plain_hub, pushed).paths == {pushed.patch_id: f"patches/{pushed.patch_id}"}


def test_the_card_forgets_a_patch_that_was_removed(plain_hub: HubServer) -> None:
    one, two = patch(1), patch(2)
    send(plain_hub, one, two)
    api(plain_hub).delete_folder(f"patches/{one.patch_id}", REPO)
    send(plain_hub, patch(3))
    text = Path(api(plain_hub).hf_hub_download(REPO, "README.md")).read_text()
    assert one.patch_id not in text
    assert two.patch_id in text


def test_stock_clients_read_what_was_pushed(hub: HubServer, tmp_path: Path) -> None:
    pushed = patch(1)
    receipt = send(hub, pushed)
    folder = Path(api(hub).snapshot_download(REPO, revision=receipt.commit, local_dir=tmp_path / "down"))
    assert {name: (folder / name).read_bytes() for name in pushed.files} == dict(pushed.files)
    assert [found.id for found in api(hub).list_models(filter=["concept-erasure"])] == [REPO]
    assert [found.id for found in api(hub).list_models(filter=["base_model:adapter:acme/base", "rasura"])] == [REPO]
    clone = ["git", "clone", "-q", str(hub.repositories["models", REPO].git.path), str(tmp_path / "clone")]
    subprocess.run(clone, check=True)
    assert (tmp_path / "clone/manifest.json").read_bytes() == pushed.files["manifest.json"]


DIFFUSERS = """
import json, sys, warnings
warnings.simplefilter("ignore")
import torch
from peft import LoraConfig, get_peft_model_state_dict
from support.models.tiny import tiny_pipeline

def sums(pipe, name):
    return sum(float(p.detach().double().sum()) for n, p in pipe.unet.named_parameters() if f"lora_A.{name}." in n)

made = []
for seed in ("1", "2"):
    torch.manual_seed(int(seed))
    pipe = tiny_pipeline()
    pipe.unet.add_adapter(LoraConfig(r=2, init_lora_weights=False, target_modules=["attn2.to_k", "attn2.to_v"]))
    pipe.save_lora_weights(f"{sys.argv[1]}/{seed}", unet_lora_layers=get_peft_model_state_dict(pipe.unet))
    made.append(sums(pipe, "default"))
print(json.dumps(made), flush=True)
lines = sys.stdin.read()
pipe = tiny_pipeline()
exec(lines)
print(json.dumps({name: sums(pipe, name) for name in pipe.get_list_adapters()["unet"]}))
"""


@pytest.mark.slow
def test_the_lines_of_the_card_load_each_patch_into_diffusers(plain_hub: HubServer, tmp_path: Path) -> None:
    """A process that knows the Hub makes two adapters, waits until they are pushed, and loads what the card says."""
    tests = str(Path(__file__).parents[2])
    environment = {**os.environ, "HF_ENDPOINT": plain_hub.url, "PYTHONPATH": tests, "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-c", DIFFUSERS, str(tmp_path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, text=True, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        try:
            assert process.stdout is not None
            made = process.stdout.readline()
            assert made, process.communicate()[1]
            weights = [(tmp_path / seed / "pytorch_lora_weights.safetensors").read_bytes() for seed in "12"]
            one, two = (patch(n + 1, extra={"pytorch_lora_weights.safetensors": w}) for n, w in enumerate(weights))
            assert send(plain_hub, one).paths == {one.patch_id: ""}
            send(plain_hub, two)
            card_text = Path(api(plain_hub).hf_hub_download(REPO, "README.md")).read_text()
            lines = [line for line in card_text.splitlines() if line.startswith("pipe.")]
            assert len(lines) == 3
            loaded, complained = process.communicate("\n".join(lines))
        finally:
            process.kill()
    assert process.returncode == 0, complained
    expected = json.loads(made)
    assert json.loads(loaded) == pytest.approx({one.patch_id[:12]: expected[0], two.patch_id[:12]: expected[1]})


def test_what_stock_clients_uploaded_is_fetched(hub: HubServer, tmp_path: Path) -> None:
    uploaded = patch(3)
    for name, data in uploaded.files.items():
        (tmp_path / name).write_bytes(data)
    api(hub).create_repo(REPO)
    api(hub).upload_folder(repo_id=REPO, folder_path=tmp_path, allow_patterns=list(uploaded.files))
    assert get(hub)[0].files == uploaded.files


def test_a_pushed_branch_is_fetched_by_its_name(plain_hub: HubServer) -> None:
    api(plain_hub).create_repo(REPO)
    api(plain_hub).create_branch(REPO, branch="next")
    receipt = send(plain_hub, patch(1), revision="next")
    assert resolve_revision(REPO, "next", endpoint=plain_hub.url) == PinnedRepo(REPO, receipt.commit)
    with pytest.raises(NotFoundError, match="no signed patch"):
        get(plain_hub)


def test_only_the_wanted_patches_are_read(plain_hub: HubServer) -> None:
    one, two = patch(1), patch(2)
    send(plain_hub, one, two)
    pinned = resolve_revision(REPO, endpoint=plain_hub.url)
    plain_hub.log.clear()
    [fetched] = fetch(pinned, open_bundle=trusted, only=[two.patch_id], endpoint=plain_hub.url).patches
    assert fetched.files == two.files
    assert not [r for r in plain_hub.log if one.patch_id in r.path]
    with pytest.raises(NotFoundError):
        fetch(pinned, open_bundle=trusted, only=[PatchId("0" * 64)], endpoint=plain_hub.url)


def test_a_basis_that_patches_share_is_downloaded_once(plain_hub: HubServer) -> None:
    send(plain_hub, patch(1), patch(2))
    plain_hub.log.clear()
    assert len(get(plain_hub)) == 2
    assert len([r for r in plain_hub.log if r.path.endswith("basis.safetensors") and "/resolve/" in r.path]) == 1


# --- races ----------------------------------------------------------------------------------------------------------


def once(hub: HubServer, method: str, part: str, action: Callable[[], object]) -> None:
    """Do something just before the first request of a kind is answered."""
    pending = [action]

    def before(request: Request) -> None:
        if request.method == method and part in request.path and pending:
            pending.pop()()

    hub.faults.before = before


def test_a_push_on_a_branch_that_moved_is_a_conflict(hub: HubServer) -> None:
    send(hub, patch(1))
    git = hub.repositories["models", REPO].git
    head = git.resolve("main")

    def move() -> None:
        git.commit("refs/heads/main", head, {"other.txt": b"x"}, author="else", message="faster")

    once(hub, "POST", "/commit/", move)
    with pytest.raises(ConflictError, match="moved") as caught:
        send(hub, patch(2))
    assert "rasura push" in caught.value.hint
    assert caught.value.details["status"] == 412
    assert titles(hub)[0] == "faster"
    assert [p.path for p in get(hub)] == [""]


def test_many_pushers_at_once_make_one_history(plain_hub: HubServer) -> None:
    send(plain_hub, patch(0))
    outcomes: list[str] = []

    def work(number: int) -> None:
        try:
            outcomes.append(send(plain_hub, patch(number)).commit)
        except ConflictError:
            outcomes.append("conflict")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    landed = [outcome for outcome in outcomes if outcome != "conflict"]
    assert len(outcomes) == 4
    assert landed
    assert len(titles(plain_hub)) == 2 + len(landed)
    assert len(get(plain_hub)) == 1 + len(landed)


def test_an_answer_that_was_lost_is_no_failure(plain_hub: HubServer) -> None:
    plain_hub.faults.fail(502, "/commit/", method="POST", after=True)
    receipt = send(plain_hub, patch(1))
    assert titles(plain_hub) == ["Add patches", "initial commit"]
    assert receipt.commit == resolve_revision(REPO, endpoint=plain_hub.url).commit


def test_the_same_push_by_two_at_once_serves_both(plain_hub: HubServer) -> None:
    api(plain_hub).create_repo(REPO)
    faster: list[str] = []
    once(plain_hub, "POST", "/commit/", lambda: faster.append(send(plain_hub, patch(1)).commit))
    receipt = send(plain_hub, patch(1))
    assert [receipt.commit] == faster
    assert "the files are there" in receipt.notes[-1]
    assert titles(plain_hub) == ["Add patches", "initial commit"]


def test_the_pinned_commit_wins_over_a_branch_that_moves(hub: HubServer) -> None:
    pushed = patch(1)
    send(hub, pushed)
    pinned = resolve_revision(REPO, endpoint=hub.url)
    later = patch(1, extra={"targets.safetensors": b"\0 other"})
    once(hub, "GET", "/tree/", lambda: add(hub, later.files))
    [fetched] = fetch(pinned, open_bundle=trusted, endpoint=hub.url).patches
    assert fetched == FetchedPatch("", pushed.files, ())
    assert resolve_revision(REPO, endpoint=hub.url) != pinned


# --- what must be refused -------------------------------------------------------------------------------------------


def test_files_that_nobody_signed_are_left_alone_and_named(hub: HubServer) -> None:
    one, two = patch(1), patch(2)
    send(hub, one)
    send(hub, two)
    folder = f"patches/{two.patch_id}"
    add(hub, {"evil.bin": b"\0x", "sub/evil.py": b"x", f"{folder}/.git_hooks": b"x", f"{folder}/a/b.bin": b"\0y"})
    hub.log.clear()
    root, other = get(hub)
    assert root.ignored == ("evil.bin", "sub/evil.py")
    assert other.ignored == (f"{folder}/.git_hooks", f"{folder}/a/b.bin")
    assert set(other.files) == set(two.files)
    assert not [r for r in hub.log if "evil" in r.path or "/a/b" in r.path]


def test_swapped_bytes_are_refused(hub: HubServer) -> None:
    pushed = patch(1)
    send(hub, pushed)
    for name in ("pytorch_lora_weights.safetensors", "manifest.json"):
        right = pushed.files[name]
        hub.faults.swapped = {name: bytes([right[0] ^ 1]) + right[1:]}
        with pytest.raises(DigestMismatchError, match=name):
            get(hub)


def test_a_file_changed_after_signing_is_refused_before_it_is_read(hub: HubServer) -> None:
    send(hub, patch(1))
    add(hub, {"pytorch_lora_weights.safetensors": b"\0 something else"})
    hub.log.clear()
    with pytest.raises(DigestMismatchError, match="as signed"):
        get(hub)
    assert not [r for r in hub.log if "/resolve/" in r.path and "weights" in r.path]


def test_an_untrusted_key_stops_everything_before_any_file_is_read(plain_hub: HubServer) -> None:
    send(plain_hub, patch(1, key=PrivateKey.generate()))
    plain_hub.log.clear()
    with pytest.raises(UntrustedKeyError):
        get(plain_hub)
    assert [r.path.rsplit("/", 1)[1] for r in plain_hub.log if "/resolve/" in r.path] == ["model.sig"]


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "/etc/passwd",
        "a/b",
        "~",
        "~/.ssh/x",
        ".git",
        ".git/hooks/post-checkout",
        "",
        ".",
        "..",
        "a\0b",
        "a\n",
        "con",
        "nul.bin",
        "A.json",
        "a" * 101,
        "ｘ",
        "a\u202eb",
        "model.sig",
        "a\\b",
    ],
)
def test_a_bundle_cannot_name_a_file_that_is_none(plain_hub: HubServer, name: str) -> None:
    send(plain_hub, patch(1))
    plain_hub.log.clear()
    with pytest.raises(FormatError, match="plain file name"):
        get(plain_hub, lambda _: {name: Digest("0" * 64)})
    assert len([r for r in plain_hub.log if "/resolve/" in r.path]) == 1


def test_a_signed_file_that_is_missing_is_refused(plain_hub: HubServer) -> None:
    send(plain_hub, patch(1))
    with pytest.raises(FormatError, match="nothing there"):
        get(plain_hub, lambda bundle: {**trusted(bundle), "more.json": Digest("0" * 64)})


def test_a_folder_with_another_patchs_signature_is_refused(plain_hub: HubServer) -> None:
    one, two = patch(1), patch(2)
    send(plain_hub, one, two)
    add(plain_hub, {f"patches/{one.patch_id}/{name}": data for name, data in two.files.items()})
    done = fetch(resolve_revision(REPO, endpoint=plain_hub.url), open_bundle=trusted, endpoint=plain_hub.url)
    assert [p.files for p in done.patches] == [two.files]
    [refused] = done.refused
    assert (refused.path, refused.patch_id) == (f"patches/{one.patch_id}", one.patch_id)
    assert "patch of that name" in refused.error.message


# --- one bad patch among good ones ----------------------------------------------------------------------------------


STRANGER = PrivateKey.generate()


def test_a_foreign_signature_leaves_the_others_alone_and_is_named(plain_hub: HubServer) -> None:
    mine, theirs = patch(1), patch(2, key=STRANGER)
    send(plain_hub, mine)
    send(plain_hub, theirs)
    plain_hub.log.clear()
    done = fetch(resolve_revision(REPO, endpoint=plain_hub.url), open_bundle=trusted, endpoint=plain_hub.url)
    assert [p.files for p in done.patches] == [mine.files]
    [refused] = done.refused
    assert isinstance(refused.error, UntrustedKeyError)
    assert (refused.path, refused.patch_id) == (f"patches/{theirs.patch_id}", theirs.patch_id)
    assert refused.signer == STRANGER.public.hint
    for word in (refused.path, theirs.patch_id[:12], refused.signer[:12]):
        assert word in refused.sentence
    assert not [r for r in plain_hub.log if theirs.patch_id in r.path and not r.path.endswith("model.sig")]


def test_where_all_are_foreign_the_error_names_them_all(plain_hub: HubServer) -> None:
    foreign = [patch(1, key=STRANGER), patch(2, key=STRANGER)]
    send(plain_hub, *foreign)
    with pytest.raises(UntrustedKeyError) as caught:
        get(plain_hub)
    for each in foreign:
        assert f"patches/{each.patch_id}" in caught.value.message
    named = caught.value.details["refused"]
    assert isinstance(named, list)
    assert {row["patch"] for row in named} == {each.patch_id for each in foreign}


def test_the_root_is_named_by_what_its_signature_says(plain_hub: HubServer) -> None:
    theirs = patch(1, key=STRANGER)
    send(plain_hub, theirs)
    send(plain_hub, patch(2))
    done = fetch(resolve_revision(REPO, endpoint=plain_hub.url), open_bundle=trusted, endpoint=plain_hub.url)
    assert [(r.path, r.patch_id, r.signer) for r in done.refused] == [("", theirs.patch_id, STRANGER.public.hint)]


def test_a_damaged_or_missing_file_costs_its_own_patch_alone(plain_hub: HubServer) -> None:
    one, two, three = patch(1), patch(2), patch(3)
    send(plain_hub, one, two, three)
    api(plain_hub).delete_file(f"patches/{two.patch_id}/manifest.json", REPO)
    place = f"patches/{three.patch_id}/manifest.json"
    plain_hub.faults.swapped = {place: b"x" * len(three.files["manifest.json"])}
    done = fetch(resolve_revision(REPO, endpoint=plain_hub.url), open_bundle=trusted, endpoint=plain_hub.url)
    assert [p.files for p in done.patches] == [one.files]
    assert {r.patch_id: type(r.error) for r in done.refused} == {
        two.patch_id: FormatError,
        three.patch_id: DigestMismatchError,
    }


def test_a_file_that_is_damaged_in_one_folder_is_read_from_another(plain_hub: HubServer) -> None:
    one, two = sorted((patch(1), patch(2)), key=lambda each: each.patch_id)
    send(plain_hub, one, two)
    plain_hub.faults.swapped = {f"patches/{one.patch_id}/basis.safetensors": bytes(len(BASIS))}
    assert len(get(plain_hub)) == 2


def test_a_signature_that_is_none_is_refused_by_its_folder(plain_hub: HubServer) -> None:
    one, two = patch(1), patch(2)
    send(plain_hub, one, two)
    add(plain_hub, {f"patches/{two.patch_id}/model.sig": b"no signature"})
    done = fetch(resolve_revision(REPO, endpoint=plain_hub.url), open_bundle=trusted, endpoint=plain_hub.url)
    assert [(r.path, r.patch_id, r.signer) for r in done.refused] == [(f"patches/{two.patch_id}", two.patch_id, "")]


def chosen(hub: HubServer, *only: str) -> list[str]:
    done = fetch(resolve_revision(REPO, endpoint=hub.url), open_bundle=trusted, only=only, endpoint=hub.url)
    return [hashlib.sha256(each.files["manifest.json"]).hexdigest() for each in done.patches]


def test_patches_are_chosen_by_the_beginning_of_their_ids(plain_hub: HubServer) -> None:
    one, two, three = patch(1), patch(2), patch(3)
    send(plain_hub, one)
    send(plain_hub, two, three)
    assert chosen(plain_hub, one.patch_id[:6].upper()) == [one.patch_id]
    assert chosen(plain_hub, two.patch_id[:4], two.patch_id) == [two.patch_id]
    assert sorted(chosen(plain_hub, one.patch_id, three.patch_id[:12])) == sorted([one.patch_id, three.patch_id])


def test_a_chosen_patch_of_a_stranger_is_an_error_and_others_are_not_spoken_of(plain_hub: HubServer) -> None:
    mine, theirs = patch(1), patch(2, key=STRANGER)
    send(plain_hub, mine, theirs)
    with pytest.raises(UntrustedKeyError, match=theirs.patch_id):
        chosen(plain_hub, theirs.patch_id[:8])
    done = fetch(
        resolve_revision(REPO, endpoint=plain_hub.url),
        open_bundle=trusted,
        only=[mine.patch_id[:8]],
        endpoint=plain_hub.url,
    )
    assert done.refused == []


def test_an_endless_file_is_refused(hub: HubServer) -> None:
    send(hub, patch(1))
    for name in ("model.sig", "manifest.json", "pytorch_lora_weights.safetensors"):
        hub.faults.endless = {name}
        with pytest.raises(FormatError, match=f"{name}: expected at most"):
            get(hub)


def test_a_file_that_drips_is_given_up(hub: HubServer) -> None:
    send(hub, patch(1))
    pinned = resolve_revision(REPO, endpoint=hub.url)
    hub.faults.dripping = {"basis.safetensors"}
    with pytest.raises(HubError, match=r"within 0\.3 s"):
        fetch(pinned, open_bundle=trusted, endpoint=hub.url, patience=Patience(download=0.3))


def test_a_hub_that_falls_silent_is_given_up(plain_hub: HubServer) -> None:
    send(plain_hub, patch(1))
    pinned = resolve_revision(REPO, endpoint=plain_hub.url)
    done = threading.Event()

    def hang(request: Request) -> None:
        if "/resolve/" in request.path:
            done.wait(10)

    plain_hub.faults.before = hang
    try:
        with pytest.raises(HubError, match="not reached"):
            fetch(pinned, open_bundle=trusted, endpoint=plain_hub.url, patience=Patience(attempts=1, silence=0.2))
    finally:
        done.set()


@pytest.mark.parametrize(
    "limits", [{"file": 100}, {"total": 3000}, {"signature": 10}, {"files": 2}, {"patches": 1}, {"entries": 3}]
)
def test_every_limit_is_kept(plain_hub: HubServer, limits: dict[str, int]) -> None:
    send(plain_hub, patch(1), patch(2))
    with pytest.raises(FormatError, match="expected at most"):
        get(plain_hub, limits=FetchLimits(**limits))


def test_a_card_without_an_end_is_refused_on_push(plain_hub: HubServer) -> None:
    send(plain_hub, patch(1))
    plain_hub.faults.endless = {"README.md"}
    with pytest.raises(FormatError, match=r"README\.md: expected at most"):
        send(plain_hub, patch(2))
    assert len(titles(plain_hub)) == 2


# --- a Hub in trouble -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 500, 503])
def test_trouble_that_passes_is_waited_for(plain_hub: HubServer, status: int) -> None:
    plain_hub.faults.fail(status, "/revision/main", method="GET")
    send(plain_hub, patch(1))
    plain_hub.faults.fail(status, "/commit/", method="POST")
    assert send(plain_hub, patch(2)).notes == ()
    plain_hub.faults.fail(status, "/resolve/")
    assert len(get(plain_hub)) == 2
    assert titles(plain_hub) == ["Add patches", "Add patches", "initial commit"]


@pytest.mark.parametrize(
    ("status", "words", "hint"),
    [(401, "token", "hf auth login"), (403, "may not", "write"), (429, "slow down", "wait"), (500, "failed", "later")],
)
def test_trouble_that_stays_is_told(plain_hub: HubServer, status: int, words: str, hint: str) -> None:
    send(plain_hub, patch(1))
    plain_hub.faults.failures = [Failure(status, 99, "POST", "/commit/", "Invalid credentials in Authorization header")]
    with pytest.raises(HubError, match=words) as caught:
        send(plain_hub, patch(2))
    assert hint in caught.value.hint
    assert caught.value.details["status"] == status
    attempts = len(plain_hub.asked("POST", "/commit/")) - 1
    assert attempts == (IMPATIENT.attempts if status in {429, 500} else 1)
    plain_hub.faults.failures = []
    assert len(titles(plain_hub)) == 2


def test_a_wrong_token_is_told_without_showing_it(plain_hub: HubServer) -> None:
    secret = "hf_wrongTokenThatNobodyMaySee"
    with pytest.raises(HubError) as caught:
        push([patch(1)], REPO, endpoint=plain_hub.url, token=secret, message="m", card=card(patch(1)))
    assert caught.value.hint.startswith("hf auth login")
    assert secret not in trace(caught.value)


def test_a_hub_that_repeats_the_token_does_not_get_it_into_our_messages(plain_hub: HubServer) -> None:
    send(plain_hub, patch(1))
    message = f"you sent Bearer {TOKEN}"
    for pattern in ("/revision/", "/commit/", "/tree/", "/resolve/"):
        plain_hub.faults.failures = [Failure(400, 99, "", pattern, message)]
        with pytest.raises(RasuraError, match=r"\[token\]") as caught:
            send(plain_hub, patch(2))
        assert TOKEN not in trace(caught.value)


def trace(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(error) + str(getattr(error, "details", ""))


def test_what_is_not_there_is_not_found(plain_hub: HubServer) -> None:
    for token in (None, TOKEN):
        with pytest.raises(NotFoundError, match="repository"):
            resolve_revision("acme/nothing", endpoint=plain_hub.url, token=token)
    send(plain_hub, patch(1))
    with pytest.raises(NotFoundError, match="revision"):
        resolve_revision(REPO, "v9", endpoint=plain_hub.url)
    with pytest.raises(NotFoundError, match="revision"):
        send(plain_hub, patch(2), revision="no-such-branch")
    with pytest.raises(NotFoundError, match="repository"):
        push([patch(1)], "acme/none", endpoint=plain_hub.url, token=TOKEN, message="m", card=card(), create=False)


def test_gated_and_private_repositories(plain_hub: HubServer) -> None:
    send(plain_hub, patch(1))
    api(plain_hub).update_repo_settings(REPO, gated="manual")
    with pytest.raises(GatedError, match="granted") as caught:
        get(plain_hub)
    assert f"{plain_hub.url}/{REPO}" in caught.value.hint
    pushed = patch(1)
    arguments = {"endpoint": plain_hub.url, "token": TOKEN, "message": "m", "card": card(pushed)}
    with pytest.raises(ConflictError, match="public"):
        push([pushed], REPO, private=True, **arguments)  # type: ignore[arg-type]
    push([pushed], "acme/hidden", private=True, **arguments)  # type: ignore[arg-type]
    assert api(plain_hub).model_info("acme/hidden").private
    with pytest.raises(NotFoundError):
        resolve_revision("acme/hidden", endpoint=plain_hub.url)
    assert resolve_revision("acme/hidden", endpoint=plain_hub.url, token=TOKEN).repo == "acme/hidden"


def test_the_token_goes_to_the_hub_and_to_nobody_else(hub: HubServer) -> None:
    send(hub, patch(1))
    api(hub).update_repo_settings(REPO, private=True)
    hub.log.clear()
    pinned = resolve_revision(REPO, endpoint=hub.url, token=TOKEN)
    assert len(fetch(pinned, open_bundle=trusted, endpoint=hub.url, token=TOKEN).patches) == 1
    redirected = [r for r in hub.log if r.path.startswith("/file/")]
    assert redirected
    assert not [r for r in redirected if "authorization" in r.headers]
    assert all(r.headers["authorization"] == f"Bearer {TOKEN}" for r in hub.log if r not in redirected)


def test_a_stored_token_is_used_unless_the_user_said_not_to(
    plain_hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(plain_hub, patch(1))
    api(plain_hub).update_repo_settings(REPO, private=True)
    Path(constants.HF_TOKEN_PATH).parent.mkdir(parents=True, exist_ok=True)
    Path(constants.HF_TOKEN_PATH).write_text(TOKEN)
    assert resolve_revision(REPO, endpoint=plain_hub.url).repo == REPO
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    with pytest.raises(NotFoundError):
        resolve_revision(REPO, endpoint=plain_hub.url)


def test_the_module_is_cheap_to_import() -> None:
    code = "import sys, rasura.registry.hub; assert not {'torch', 'numpy', 'sqlalchemy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_hub_that_cannot_be_reached_is_told_in_bounded_time(
    plain_hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(HubError, match="not reached"):
        resolve_revision(REPO, endpoint="http://127.0.0.1:9", patience=IMPATIENT)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="offline") as caught:
        resolve_revision(REPO, endpoint=plain_hub.url)
    assert "HF_HUB_OFFLINE" in caught.value.hint


def test_a_commit_that_is_no_commit_is_refused() -> None:
    for commit in ("main", "a" * 39, "A" * 40, "a" * 40 + "\n"):
        with pytest.raises(FormatError, match="40 hexadecimal"):
            PinnedRepo(REPO, commit)


def test_failures_leave_no_files_behind(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    send(hub, patch(1))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    hub.faults.endless = {"basis.safetensors"}
    with pytest.raises(FormatError):
        get(hub)
    hub.faults.endless = set()
    get(hub)
    assert list(scratch.iterdir()) == []
    assert not list((tmp_path / "hf").glob("hub/**/*.safetensors"))


def test_a_push_that_fails_half_way_leaves_the_branch_as_it_was(hub: HubServer) -> None:
    first = send(hub, patch(1))
    hub.faults.failures = [Failure(403, 99, "POST", "/commit/")]
    with pytest.raises(HubError):
        send(hub, patch(2))
    hub.faults.failures = []
    assert resolve_revision(REPO, endpoint=hub.url).commit == first.commit
    assert send(hub, patch(2)).changed


# --- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("acme/delta", ("acme/delta", None)),
        ("acme/delta@main", ("acme/delta", "main")),
        ("a/b.c_d-e@refs/pr/1", ("a/b.c_d-e", "refs/pr/1")),
        ("acme/delta@" + "a" * 40, ("acme/delta", "a" * 40)),
        ("acme/delta@v1.2.0", ("acme/delta", "v1.2.0")),
    ],
)
def test_references_that_are_read(text: str, expected: tuple[str, str | None]) -> None:
    assert parse_ref(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "delta",
        "acme/",
        "/delta",
        "acme/delta/x",
        "acme/delta@",
        "acme/delta@@main",
        "acme/delta@a..b",
        "acme/delta@-x",
        "acme/delta@x.lock",
        "acme/delta@a b",
        "acme/delta@x\n",
        "acme/../delta",
        "acme/de--lta",
        "acme/delta.git",
        "acme/-delta",
        "acme/delta-",
        "acme/délta",
        "https://huggingface.co/acme/delta",
        "acme/" + "a" * 97,
        "acme/delta@" + "a" * 201,
        "acme/delta\n",
    ],
)
def test_references_that_are_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_ref(text)


def test_patches_that_cannot_be_pushed(plain_hub: HubServer) -> None:
    good = patch(1)
    unsigned = PatchFiles(good.patch_id, {k: v for k, v in good.files.items() if k != "model.sig"})
    other = PatchFiles(PatchId("0" * 64), good.files)
    odd = PatchFiles(good.patch_id, {**good.files, "../x": b""})
    for bad, error in (
        ([unsigned], InputError),
        ([other], DigestMismatchError),
        ([odd], FormatError),
        ([], InputError),
    ):
        with pytest.raises(error):
            send(plain_hub, *bad)
    with pytest.raises(InputError):
        send(plain_hub, good, good)
    assert plain_hub.log == []
