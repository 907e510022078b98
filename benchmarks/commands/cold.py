"""What a command costs from the shell, cold: a process for each, on a patch of Stable Diffusion 1.5's size.

`python benchmarks/commands/cold.py [--repeats 3]` prints a Markdown table.

The registry is `sd15_registry`'s: 16 value projections of width 768 are patched in a folder of float16 weights. CPU is
processor time of the whole process, user and system, the median of the repeats; *against torch* divides it by what
`import torch` alone takes in a process of its own, measured in turn with the commands.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parents[1] / "hosts"))

from sd15_registry import make_model, make_registry

HEAVY: Final = ("torch", "diffusers", "transformers", "numpy", "sqlalchemy")
_RUN: Final = (
    "import sys\nsys.argv = ['rasura', *sys.argv[1:]]\n"
    "try:\n    from rasura.cli import main\n    main()\n"
    "finally:\n    print(*sorted({m.partition('.')[0] for m in sys.modules}), file=sys.stderr)\n"
)


def run(code: str, words: Sequence[str], folder: Path) -> tuple[float, list[str]]:
    """Processor seconds of a process, and which heavy libraries it imported."""
    before = _children()
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPYCACHEPREFIX": str(folder / "bytecode")},
        capture_output=True,
        text=True,
        check=True,
    )
    modules = set(done.stderr.splitlines()[-1].split()) if done.stderr else set()
    return _children() - before, [name for name in HEAVY if name in modules]


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # bytecode is there for whoever installed the package
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    print("| process | CPU | against torch | heavy libraries |\n|---|---:|---:|---|")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make_model(folder / "model")
        (patch,) = make_registry(folder, folder / "model")
        cases = {
            "import torch": ("import torch, sys; print('torch', file=sys.stderr)", ()),
            "patch check": (_RUN, ("patch", "check", patch)),
            "patch apply": (_RUN, ("patch", "apply", patch, "--model", "model")),
            "patch revert": (_RUN, ("patch", "revert", "--all", "--yes", "--model", "model")),
            "patch status": (_RUN, ("patch", "status", "--model", "model")),
        }
        runs = [{name: run(*case, folder) for name, case in cases.items()} for _ in range(repeats + 1)][1:]
    torch_alone = statistics.median(found["import torch"][0] for found in runs)
    for name in cases:
        seconds = statistics.median(found[name][0] for found in runs)
        heavy = ", ".join(runs[-1][name][1]) or "none"
        print(f"| {name} | {seconds:.2f} s | {seconds / torch_alone:.2f}× | {heavy} |", flush=True)


if __name__ == "__main__":
    main()
