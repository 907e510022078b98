"""A motion of a live model through a registry, all of it: signatures, checks, log."""

from __future__ import annotations

import cProfile
import io
import pstats
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch
from host_cold import prepare

import rasura

_STAGES: Final = (
    ("verify signatures and files", "verified_patch.py", "load_signed"),
    ("check by the composer", "trust/check.py", "_checked"),
    ("recognise or hash what is there", "value_cache.py", "digests"),
    ("compose, or remember", "value_cache.py", "composed_values"),
    ("write and read back", "torch_host.py", "write"),
    ("log entries, on the disk when it returns", "log/writer.py", "append"),
)


def served(repeats: int) -> None:
    """Print what `apply` and `revert` of one patch take on the reference model, as a server would call them."""
    from diffusers import DiffusionPipeline

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        patch = prepare(folder)
        pipe: Any = DiffusionPipeline.from_pretrained(folder / "model", torch_dtype=torch.float32)
        pipe.set_progress_bar_config(disable=True)
        with rasura.attach(pipe, folder / ".rasura", actor="bench") as live:
            times = [(_timed(lambda: live.apply(patch)), _timed(live.revert)) for _ in range(1 + 5 * repeats)]
            profile = cProfile.Profile()
            profile.runcall(live.apply, patch)
            live.revert()
    print("\nOne patch applied to the reference model in memory and reverted, through its registry\n")
    print("| part | time |")
    print("|---|---:|")
    print(f"| `apply`, the first | {times[0][0] * 1000:.0f} ms |")
    for number, name in enumerate(("apply", "revert")):
        print(f"| `{name}`, later | {statistics.median(each[number] for each in times[1:]) * 1000:.0f} ms |")
    stats = pstats.Stats(profile, stream=io.StringIO()).stats  # type: ignore[attr-defined]
    for said, file, function in _STAGES:
        seconds = sum(v[3] for k, v in stats.items() if k[0].endswith(f"/{file}") and k[2] == function)
        print(f"| … {said}, under a profiler | {seconds * 1000:.1f} ms |")


def _timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
