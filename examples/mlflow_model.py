"""A patch in MLflow: its files as a run's artifacts, what it says of itself as parameters, and the way back.

python examples/mlflow_model.py PATCH_ID [REGISTRY]      (pip install 'rasura[examples]')

The artifacts are no MLflow model: there is no `MLmodel` file among them, so they are not what `mlflow.register_model`
is for, and have no versions and aliases there; the run's id names them. MLflow knows nothing of signatures, either. So
what comes out of it goes through `patch add`, which verifies it, before anything is applied.
"""

import sys
import tempfile
from pathlib import Path

import mlflow

from rasura.patches.format.patch import write_folder
from rasura.registry.registry import Registry
from rasura.registry.trust.verified_patch import manifest_of

FOLDER = "patch"


def log_patch(registry: Registry, patch_ref: str) -> str:
    """Log a registered patch as a run of the active experiment; returns the run's id."""
    patch_id = registry.resolve_patch(patch_ref)
    manifest = manifest_of(registry, patch_id)
    with tempfile.TemporaryDirectory() as place, mlflow.start_run(run_name=manifest.concept.text) as run:
        write_folder(Path(place) / FOLDER, registry.patch_files(patch_id))
        mlflow.log_artifacts(str(Path(place) / FOLDER), FOLDER)
        mlflow.log_params(
            {
                "patch": patch_id,
                "concept": manifest.concept.text,
                "anchor": manifest.concept.anchor,
                "method": manifest.eraser.name,
                "base_sha256": manifest.base.sha256,
            }
        )
        mlflow.log_metrics({name: float(value) for name, value in manifest.measured.items()})
    return str(run.info.run_id)


def fetch_patch(run_id: str, folder: Path) -> Path:
    """The patch folder of a run, for `rasura patch add`: what MLflow hands out is verified there."""
    return Path(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=FOLDER, dst_path=str(folder)))


if __name__ == "__main__":
    from rasura.registry.registry import find_location

    with Registry.open(sys.argv[2] if len(sys.argv) > 2 else find_location(Path.cwd())) as opened:
        print(log_patch(opened, sys.argv[1]))
