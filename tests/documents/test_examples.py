# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""The examples do what they say: the server over HTTP on a real pipeline, the patch through MLflow's file store."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support.commandline import rasura
from support.models.tiny import tiny_pipeline
from support.registries.workshop import ALICE, SPEC, Workshop, workshop

from rasura.registry._storage.records.records import Draft
from rasura.registry.trust.register_patch import AddedPatch, add_folders

EXAMPLES = Path(__file__).parents[2] / "examples"
PICTURE = {"prompt": "a photo of a dog", "seed": "1", "steps": "2"}


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def client(workshop: Workshop) -> Any:
    pytest.importorskip("fastapi", reason="an extra: rasura[examples]")
    pytest.importorskip("httpx", reason="what fastapi's test client needs")
    from fastapi.testclient import TestClient  # type: ignore[import-not-found, unused-ignore]

    assert rasura("stack", "create", "brand", workshop.dog, f"{workshop.photo}=0.5", cwd=workshop.folder).code == 0
    return TestClient(example("server").make_app(tiny_pipeline(SPEC), str(workshop.folder)))


@pytest.mark.filterwarnings("ignore::DeprecationWarning:starlette.*", "ignore::DeprecationWarning:fastapi.*")
def test_the_server_changes_its_patches_between_pictures(client: Any, workshop: Workshop) -> None:
    before = client.get("/picture", params=PICTURE)
    assert (before.status_code, before.content[:4]) == (200, b"\x89PNG")
    switched = client.put("/stack", params={"goal": "brand", "reason": "ticket 118"}).json()
    assert switched["applied"] == {workshop.dog: "1", workshop.photo: "0.5"}
    erased = client.get("/picture", params=PICTURE)
    assert erased.status_code == 200
    assert client.get("/stack").json() == {"applied": switched["applied"], "drifted": []}
    assert client.put("/stack", params={"goal": "nothing"}).json()["error"] == "not_found"
    assert client.get("/stack").json()["applied"] == switched["applied"]
    assert client.delete("/stack").json()["applied"] == {}
    assert client.get("/picture", params=PICTURE).content == before.content
    assert any(entry.reason == "ticket 118" for entry in workshop.entries())


@pytest.mark.filterwarnings("ignore::DeprecationWarning:starlette.*", "ignore::DeprecationWarning:fastapi.*")
def test_the_server_says_404_for_what_is_not_there(client: Any) -> None:
    unknown = client.put("/stack", params={"goal": "nothing-of-that-name"})
    assert (unknown.status_code, unknown.json()["error"]) == (404, "not_found")
    nothing = client.delete("/stack")
    assert (nothing.status_code, nothing.json()["error"]) == (404, "not_found")


@pytest.mark.filterwarnings("default")  # MLflow uses what its own libraries deprecate
def test_a_patch_goes_through_mlflow_and_is_verified_again(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="MLflow is not installed: pip install 'rasura[examples]'")
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
    module = example("mlflow_model")
    with workshop.open() as registry:
        run = module.log_patch(registry, workshop.dog[:12])
        folder = module.fetch_patch(run, tmp_path)
        (added,) = add_folders(registry, [folder], Draft(ALICE.name, "", "patch.add", "success"))
        assert added == AddedPatch(workshop.dog, new=False, ignored=())
    assert mlflow.get_run(run).data.params["patch"] == workshop.dog


def test_the_walk_through_for_comfyui_exports_what_it_says(workshop: Workshop) -> None:
    """Its commands, with this workshop's ids and folders in place of the page's."""
    page = (EXAMPLES / "comfyui.md").read_text()
    commands = re.findall(r"^rasura (.+)$", page, re.MULTILINE)
    assert len(commands) >= 5
    real: dict[str, str | Path] = {
        "ID_1": workshop.dog,
        "ID_2": workshop.photo,
        "ID_2=0.5": f"{workshop.photo}=0.5",
        "MODEL": workshop.model,
    }
    for line in commands:
        run = rasura(*(real.get(word, word) for word in line.split()), cwd=workshop.folder)
        assert run.code == 0, (line, run.out, run.err)
    assert (workshop.folder / "erased.safetensors").exists()
