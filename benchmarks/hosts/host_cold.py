"""Cold start: one patch applied from a shell, and where the time goes."""

from __future__ import annotations

import cProfile
import io
import os
import pstats
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
MODEL: Final = ROOT / "examples" / "reference_model"
_STAGES: Final = (
    ("verify signatures and files", "verified_patch.py", "load_signed"),
    ("check by the composer", "trust/check.py", "_checked"),
    ("hash the model's parameters", "cached_host.py", "original_digests"),
    ("compose", "compose.py", "composed"),
    ("write and read back", "checkpoint_host.py", "write"),
    ("log entries", "log/writer.py", "append"),
)


def cold_start(repeats: int) -> None:
    """Print wall time of `rasura patch apply` in a new process, and a breakdown."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        patch = prepare(folder)
        seconds = []
        for _ in range(repeats):
            seconds.append(_timed(folder, "patch", "apply", patch, "--model", "model"))
            _timed(folder, "patch", "revert", "--all", "--yes", "--model", "model")
        version = statistics.median(_timed(folder, "--version") for _ in range(repeats))
        imports = _imports(folder, patch)
        _timed(folder, "patch", "revert", "--all", "--yes", "--model", "model")
        stages, inside = _profiled(folder, patch)
    whole = statistics.median(seconds)
    print("\nOne patch applied to a folder from a shell (the reference model, 15 MB of UNet)\n")
    print("| part | time |")
    print("|---|---:|")
    print(f"| `rasura patch apply`, wall | {whole * 1000:.0f} ms |")
    print(f"| of which `rasura --version` | {version * 1000:.0f} ms |")
    print(f"| all imports (`-X importtime`, which slows them) | {imports['all']:.0f} ms |")
    for name in ("torch", "sqlalchemy", "cryptography", "rasura", "others"):
        print(f"| … {name} | {imports[name]:.0f} ms |")
    print(f"| the motion itself, imports done | {inside * 1000:.0f} ms |")
    for name, value in stages.items():
        print(f"| … {name} | {value * 1000:.0f} ms |")


def prepare(folder: Path) -> str:
    """A registry in the folder, with the reference model in `model` and one patch, whose identifier this returns."""
    shutil.copytree(MODEL / "pipeline", folder / "model")
    shutil.copy(MODEL / "retain.txt", folder / "retain.txt")
    _timed(folder, "init")
    _timed(folder, "key", "new", "bench")
    _timed(folder, "base", "add", "model", "--name", "model")
    said = _run(folder, "erase", "--base", "model", "--concept", "dog", "--anchor", "cat", "--retain", "retain.txt")
    found = re.search(r"\b[0-9a-f]{12,64}\b", said)
    assert found is not None, said
    return found[0]


def _run(folder: Path, *arguments: str, flags: tuple[str, ...] = ()) -> str:
    done = subprocess.run(
        [sys.executable, *flags, "-m", "rasura", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT / ".dev")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stderr if flags else done.stdout


def _timed(folder: Path, *arguments: str) -> float:
    begun = time.perf_counter()
    _run(folder, *arguments)
    return time.perf_counter() - begun


def _imports(folder: Path, patch: str) -> dict[str, float]:
    """Milliseconds of importing, by the package that was asked for first."""
    said = _run(folder, "patch", "apply", patch, "--model", "model", flags=("-X", "importtime"))
    lines = re.findall(r"import time:\s+(\d+) \|\s+\d+ \| \s*([\w.]+)", said)
    found = dict.fromkeys(("torch", "sqlalchemy", "cryptography", "rasura", "others"), 0.0)
    for own, module in lines:
        package = module.partition(".")[0]
        found[package if package in found else "others"] += int(own) / 1000
    return {**found, "all": sum(found.values())}


def _profiled(folder: Path, patch: str) -> tuple[dict[str, float], float]:
    """Seconds of the motion's parts in this process, under a profiler, after a motion that does not count."""
    from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
    from rasura.registry.apply import operations
    from rasura.registry.apply.receipt import Actor
    from rasura.registry.registry import Registry

    who, profile = Actor("bench"), cProfile.Profile()
    with Registry.open(folder) as registry:
        patch_id = registry.resolve_patch(patch)
        operations.apply(registry, CheckpointHost.open(folder / "model"), [patch_id], who)
        operations.revert(registry, CheckpointHost.open(folder / "model"), None, who)
        begun = time.perf_counter()
        operations.apply(registry, CheckpointHost.open(folder / "model"), [patch_id], who)
        inside = time.perf_counter() - begun
        operations.revert(registry, CheckpointHost.open(folder / "model"), None, who)
        profile.runcall(operations.apply, registry, CheckpointHost.open(folder / "model"), [patch_id], who)
    stats = pstats.Stats(profile, stream=io.StringIO()).stats  # type: ignore[attr-defined]
    found = {}
    for said, file, function in _STAGES:
        found[said] = sum(v[3] for k, v in stats.items() if k[0].endswith(f"/{file}") and k[2] == function)
    return found, inside
