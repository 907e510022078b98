"""The Hub server of the tests, judged by clients that we did not write: huggingface_hub, the `hf` command, git."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    RepoFile,
    constants,
    get_session,
)
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from support.hubserver import TOKEN, HubServer

# huggingface_hub sends Large File Storage uploads in a way that httpx2 no longer likes.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>'.*:DeprecationWarning")

REPO = "acme/delta"
CARD = (
    b"---\nlicense: mit\nbase_model: acme/base\nbase_model_relation: adapter\ntags: [concept-erasure]\n---\n# Delta\n"
)
WEIGHTS = bytes(range(256)) * 4000


@pytest.fixture
def api(hub: HubServer) -> HfApi:
    made = HfApi(endpoint=hub.url, token=TOKEN)
    made.create_repo(REPO)
    return made


def add(path: str, content: bytes) -> CommitOperationAdd:
    return CommitOperationAdd(path, content)


def push(api: HfApi, files: dict[str, bytes], parent: str | None = None) -> str:
    operations = [add(path, content) for path, content in files.items()]
    return api.create_commit(REPO, operations, commit_message="push", parent_commit=parent).oid


def test_tells_who_asks(hub: HubServer) -> None:
    assert HfApi(endpoint=hub.url, token=TOKEN).whoami()["name"] == "tester"
    with pytest.raises(HfHubHTTPError, match="Invalid"):
        HfApi(endpoint=hub.url, token="hf_wrong").whoami()


def test_large_and_small_files_come_back_as_they_went(hub: HubServer, api: HfApi, tmp_path: Path) -> None:
    oid = push(api, {"a/pytorch_lora_weights.safetensors": WEIGHTS, "a/manifest.json": b"{}", "README.md": CARD})
    folder = Path(api.snapshot_download(REPO, revision=oid, local_dir=tmp_path / "out"))
    assert (folder / "a/pytorch_lora_weights.safetensors").read_bytes() == WEIGHTS
    assert (folder / "a/manifest.json").read_bytes() == b"{}"
    assert bool(hub.asked("GET", "xet-write-token")) is hub.xet_enabled
    assert bool(hub.asked("PUT", "/upload/")) is not hub.xet_enabled


def test_bytes_of_a_xet_upload_can_be_had_over_plain_http(hub: HubServer, api: HfApi, tmp_path: Path) -> None:
    push(api, {"w.safetensors": WEIGHTS})
    constants.HF_HUB_DISABLE_XET = True
    assert Path(api.hf_hub_download(REPO, "w.safetensors", local_dir=tmp_path)).read_bytes() == WEIGHTS
    answer = get_session().get(f"{hub.url}/{REPO}/resolve/main/w.safetensors", headers={"Range": "bytes=254-257"})
    assert (answer.status_code, answer.content) == (206, b"\xfe\xff\x00\x01")


def test_a_file_in_many_parts(hub: HubServer, api: HfApi, tmp_path: Path) -> None:
    large = WEIGHTS * 3
    push(api, {"w.safetensors": large})
    assert Path(api.hf_hub_download(REPO, "w.safetensors", local_dir=tmp_path)).read_bytes() == large
    assert len(hub.asked("PUT", "/upload/")) == (0 if hub.xet_enabled else 3)


def test_tree_and_info_name_every_file_with_its_digest(hub: HubServer, api: HfApi) -> None:
    oid = push(api, {"patches/1/w.safetensors": WEIGHTS, "patches/1/manifest.json": b"{}"})
    rows = {row.path: row for row in api.list_repo_tree(REPO, recursive=True, revision=oid)}
    assert set(rows) == {".gitattributes", "patches", "patches/1", "patches/1/manifest.json", "patches/1/w.safetensors"}
    large, small = rows["patches/1/w.safetensors"], rows["patches/1/manifest.json"]
    assert isinstance(large, RepoFile)
    assert isinstance(small, RepoFile)
    assert large.lfs
    assert (large.size, large.lfs.sha256) == (len(WEIGHTS), hashlib.sha256(WEIGHTS).hexdigest())
    assert small.blob_id == hashlib.sha1(b"blob 2\0{}").hexdigest()
    info = api.model_info(REPO, files_metadata=True)
    assert info.sha == oid
    assert {s.rfilename: s.size for s in info.siblings or []}["patches/1/w.safetensors"] == len(WEIGHTS)
    assert [row.path for row in api.get_paths_info(REPO, ["patches/1/manifest.json", "no"])] == [
        "patches/1/manifest.json"
    ]


def test_a_commit_on_a_stale_parent_is_refused(api: HfApi) -> None:
    first = push(api, {"a.txt": b"1"})
    push(api, {"a.txt": b"2"}, parent=first)
    with pytest.raises(HfHubHTTPError) as caught:
        push(api, {"a.txt": b"3"}, parent=first)
    assert caught.value.response.status_code == 412
    assert [c.title for c in api.list_repo_commits(REPO)] == ["push", "push", "initial commit"]


def test_copies_and_deletes(api: HfApi, tmp_path: Path) -> None:
    push(api, {"a/w.safetensors": WEIGHTS, "b/x.txt": b"x", "b/y.txt": b"y"})
    copy, delete = CommitOperationCopy("a/w.safetensors", "c.safetensors"), CommitOperationDelete("b/")
    api.create_commit(REPO, [copy, delete], commit_message="tidy")
    assert sorted(api.list_repo_files(REPO)) == [".gitattributes", "a/w.safetensors", "c.safetensors"]
    assert Path(api.hf_hub_download(REPO, "c.safetensors", local_dir=tmp_path)).read_bytes() == WEIGHTS
    with pytest.raises(RemoteEntryNotFoundError):
        api.create_commit(REPO, [CommitOperationDelete("nothing")], commit_message="no")


def test_branches_tags_and_pull_requests(api: HfApi) -> None:
    first = push(api, {"a.txt": b"1"})
    api.create_branch(REPO, branch="dev")
    api.create_tag(REPO, tag="v1", revision=first)
    with pytest.raises(HfHubHTTPError, match="exists"):
        api.create_tag(REPO, tag="v1")
    proposed = api.create_commit(REPO, [add("a.txt", b"2")], commit_message="propose", create_pr=True)
    assert proposed.pr_revision == "refs/pr/1"
    assert api.model_info(REPO).sha == first
    assert api.model_info(REPO, revision="refs/pr/1").sha == proposed.oid
    api.merge_pull_request(REPO, 1)
    assert api.model_info(REPO).sha == proposed.oid
    assert api.model_info(REPO, revision="v1").sha == first
    refs = api.list_repo_refs(REPO, include_pull_requests=True)
    assert ({b.name for b in refs.branches}, [t.name for t in refs.tags]) == ({"main", "dev"}, ["v1"])
    api.delete_branch(REPO, branch="dev")
    api.delete_tag(REPO, tag="v1")
    with pytest.raises(RevisionNotFoundError):
        api.model_info(REPO, revision="v1")


def test_repositories_are_found_by_the_tags_of_their_card(api: HfApi) -> None:
    push(api, {"README.md": CARD})
    api.create_repo("acme/other")
    for wanted in ("concept-erasure", "license:mit", "base_model:adapter:acme/base", "base_model:acme/base"):
        assert [found.id for found in api.list_models(filter=[wanted])] == [REPO]
    assert len(list(api.list_models(author="acme"))) == 2


def test_repositories_are_created_moved_hidden_and_deleted(hub: HubServer, api: HfApi) -> None:
    anybody = HfApi(endpoint=hub.url, token=False)
    assert api.create_repo(REPO, exist_ok=True).repo_id == REPO
    with pytest.raises(HfHubHTTPError, match="already"):
        api.create_repo(REPO)
    api.move_repo(REPO, "acme/moved")
    api.update_repo_settings("acme/moved", private=True)
    with pytest.raises(RepositoryNotFoundError):
        anybody.model_info("acme/moved")
    assert api.model_info("acme/moved").private
    api.update_repo_settings("acme/moved", private=False, gated="manual")
    with pytest.raises(GatedRepoError):
        anybody.model_info("acme/moved")
    api.delete_repo("acme/moved")
    assert not api.repo_exists("acme/moved")
    with pytest.raises(HfHubHTTPError, match="rights"):
        api.create_repo("somebody-else/repo")


def test_missing_things_have_their_own_errors(api: HfApi, tmp_path: Path) -> None:
    with pytest.raises(RemoteEntryNotFoundError):
        api.hf_hub_download(REPO, "no.txt", local_dir=tmp_path)
    with pytest.raises(RevisionNotFoundError):
        api.hf_hub_download(REPO, "no.txt", revision="nowhere", local_dir=tmp_path)
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("acme/nothing")


def test_a_card_that_is_no_yaml_is_refused_before_anything_is_written(api: HfApi) -> None:
    with pytest.raises(ValueError, match="Invalid metadata"):
        push(api, {"README.md": b"---\na: [\n---\n"})
    assert len(api.list_repo_commits(REPO)) == 1


def test_storage_refuses_to_see_a_hub_token(hub: HubServer, api: HfApi) -> None:
    push(api, {"w.safetensors": WEIGHTS})
    place = (
        get_session().head(f"{hub.url}/{REPO}/resolve/main/w.safetensors", follow_redirects=False).headers["Location"]
    )
    assert get_session().get(place).content == WEIGHTS
    assert get_session().get(place, headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 400


def test_git_clones_what_is_served(hub: HubServer, api: HfApi, tmp_path: Path) -> None:
    oid = push(api, {"manifest.json": b"{}", "w.safetensors": WEIGHTS})
    source = hub.repositories["models", REPO].git.path
    subprocess.run(["git", "clone", "-q", str(source), str(tmp_path / "clone")], check=True)
    head = subprocess.run(["git", "-C", str(tmp_path / "clone"), "rev-parse", "HEAD"], capture_output=True, check=True)
    assert head.stdout.decode().strip() == oid
    assert (tmp_path / "clone/manifest.json").read_bytes() == b"{}"
    assert hashlib.sha256(WEIGHTS).hexdigest() in (tmp_path / "clone/w.safetensors").read_text()
    checked = subprocess.run(["git", "-C", str(source), "fsck", "--strict"], capture_output=True, check=True)
    assert b"error" not in checked.stderr


def test_the_hf_command_creates_uploads_lists_and_downloads(hub: HubServer, tmp_path: Path) -> None:
    (tmp_path / "up").mkdir()
    (tmp_path / "up/w.safetensors").write_bytes(WEIGHTS)
    (tmp_path / "up/README.md").write_bytes(CARD)
    disable = "0" if hub.xet_enabled else "1"
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": disable}

    def hf(*arguments: str) -> str:
        command = [str(Path(sys.executable).with_name("hf")), *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    hf("repos", "create", "acme/by-hand")
    hf("upload", "acme/by-hand", str(tmp_path / "up"), ".")
    assert "acme/by-hand" in hf("models", "ls", "--filter", "concept-erasure", "--format", "json")
    hf("download", "acme/by-hand", "--local-dir", str(tmp_path / "down"))
    assert (tmp_path / "down/w.safetensors").read_bytes() == WEIGHTS


def test_listens_on_loopback_alone(hub: HubServer) -> None:
    assert hub.url.startswith("http://127.0.0.1:")
    assert hub.storage_url.startswith("http://127.0.0.1:")
    assert hub.url != hub.storage_url
