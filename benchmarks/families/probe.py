"""What probing costs for models of released size, and erasing in some of them: processor time and memory a command.

`python benchmarks/families/probe.py [--only NAME …] | tee docs/benchmarks/probe.md` prints two Markdown tables.

Every line is a command as it is typed, in a process of its own, one at a time: `rasura probe` of a folder with nothing
but `transformer/config.json`, and for models with weights `base add`, `erase` (null-space), `patch apply` and `patch
revert`. *CPU* is processor time, user and system, of the whole process with Python and all imports; *memory* is the
most that it had at once (`ru_maxrss`), pages of mapped files included; the first line is what importing takes.
*Reading* is the part of erasing in which the pipeline's encoder reads prompts for their states: one or two layers of
it are there (`random_model.py`), with all its layers it takes as many times more. Six words are retained. Where a
concept stands among the tokens is found by running the encoder, too; that is not in *reading*, but in *CPU*.

Models lie in a folder for temporary files, one at a time; the largest takes 13 GB of disk.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from released import CONFIGURED, WHOLE, Released

_MAKER: Final = str(Path(__file__).with_name("random_model.py"))
_IMPORTS: Final = "import torch, transformers, diffusers, sqlalchemy"
_RASURA: Final = (
    "import sys, time\n"
    "sys.argv = ['rasura', *sys.argv[1:]]\n"
    "from rasura.cli import main\n"
    "from rasura.patches.models.text_encoders.pipeline_tower import PipelineTower\n"
    "spent, count, begin = [0.0], [0], PipelineTower.begin\n"
    "def timed(self, prompts):\n"
    "    go_on = begin(self, prompts)\n"
    "    def read():\n"
    "        start = time.process_time()\n"
    "        count[0] += len(prompts)\n"
    "        try:\n"
    "            return go_on()\n"
    "        finally:\n"
    "            spent[0] += time.process_time() - start\n"
    "    return read\n"
    "PipelineTower.begin = timed\n"
    "try:\n"
    "    main()\n"
    "finally:\n"
    "    print(count[0], spent[0], file=sys.stderr)\n"
)
"""The command line, and beside it how long prompts were read."""
_SHOWN: Final = 4
RETAINED: Final = ("tree", "house", "painting", "bird", "chair", "river")


@dataclass(frozen=True, slots=True)
class Ran:
    """A process that ended well.

    Attributes:
        out: what it printed.
        err: what it said beside it.
        seconds: of processor time.
        most: bytes of memory.
    """

    out: str
    err: str
    seconds: float
    most: int

    def cells(self) -> str:
        """Time and memory."""
        return f"{self.seconds:.1f} s | {self.most / 2**30:.2f} GiB"


def run(words: list[str], folder: Path) -> Ran:
    """Run Python with these arguments.

    Raises:
        SystemExit: it ended otherwise.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    said, beside = folder / "out", folder / "err"
    with said.open("w") as out, beside.open("w") as err:
        child = subprocess.Popen([sys.executable, *words], cwd=folder, env=environment, stdout=out, stderr=err)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"{words[1:]}: {beside.read_text()[-2000:]}")
    return Ran(said.read_text(), beside.read_text(), used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)


def type_in(words: list[str], folder: Path) -> Ran:
    """Run a command of rasura."""
    return run(["-c", _RASURA, *words], folder)


def print_probe(released: Released, folder: Path) -> None:
    """A line of the first table."""
    size = int(run([_MAKER, "configured", released.name, str(folder / "model")], folder).out)
    ran = type_in(["probe", "model", "--json"], folder)
    found = json.loads(ran.out)["data"]
    read = [layer for layer in found["layers"] if layer["reads"] in {"text", "normed", "projected", "fused"}]
    names = [layer["pattern"].split("*.")[-1].removeprefix("transformer.").removeprefix("unet.") for layer in read]
    shown = list(dict.fromkeys(f"`{name}`" for name in names))
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    entrances = ", ".join(shown[:_SHOWN]) + more
    kinds = ", ".join(dict.fromkeys(layer["reads"] for layer in read))
    width = max(layer["width"] for layer in read)
    print(f"| {released.name} | {size / 1e9:.1f} | {ran.cells()} | {entrances} | {kinds} | {width} |", flush=True)


def print_whole(released: Released, folder: Path) -> None:
    """Lines of the second table."""
    run([_MAKER, "whole", released.name, str(folder / "model")], folder)
    weights = sum(file.stat().st_size for file in (folder / "model" / "transformer").iterdir())
    (folder / "keep.txt").write_text("\n".join(RETAINED))
    type_in(["init"], folder)
    type_in(["key", "new", "alice"], folder)
    what = f"{released.name}, {weights / 1e9:.1f} GB"
    print(f"| {what} | base add | {type_in(['base', 'add', 'model', '--name', 'it'], folder).cells()} | |", flush=True)
    for layers in released.layers:
        erase = ["erase", "--base", "it", "--concept", "dog", "--anchor", "cat", "--template", "a photo of {}"]
        erase += ["--tokens", "last", "--retain", "keep.txt", "--layers", layers, "--json"]
        ran = type_in(erase, folder)
        (patch,) = json.loads(ran.out)["data"]["patches"]
        prompts, reading = ran.err.splitlines()[-1].split()
        cells = f"{float(reading):.1f} s, {prompts} prompts"
        print(f"| | erase, `--layers {layers}` | {ran.cells()} | {cells} |", flush=True)
        patch_id = patch["id"]
        apply = type_in(["patch", "apply", patch_id, "--model", "model", "--json"], folder)
        revert = type_in(["patch", "revert", "--all", "--model", "model", "--yes", "--json"], folder)
        forth, back = (json.loads(ran.out)["data"] for ran in (apply, revert))
        if back["after"] != forth["before"]:
            sys.exit(f"{released.name}: reverted to other bits")
        matrices = f"{forth['parameters']} matrices" if forth["parameters"] > 1 else "1 matrix"
        print(f"| | apply, {matrices} | {apply.cells()} | |\n| | revert | {revert.cells()} | |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[one.name for one in (*WHOLE, *CONFIGURED)])
    only = parser.parse_args().only
    version = importlib.metadata.version
    print("# Probing and erasing in models of released size\n")
    print(
        "Written by `python benchmarks/families/probe.py | tee docs/benchmarks/probe.md`, on two cores that did ",
        end="",
    )
    print("other work.")
    print(f"{platform.machine()}, Python {platform.python_version()}, torch {version('torch')}, diffusers ", end="")
    print(f"{version('diffusers')}, transformers {version('transformers')}; one thread.\n")
    with tempfile.TemporaryDirectory(prefix="rasura-probe-") as place:
        imports = run(["-c", _IMPORTS], Path(place)).cells()
    print("| Model | 10⁹ parameters | CPU | memory | text enters at | it reads | width |")
    print(f"|---|---:|---:|---:|---|---|---:|\n| importing torch, transformers, diffusers | | {imports} | | | |")
    for released in (*WHOLE, *CONFIGURED):
        if released.name in only:
            with tempfile.TemporaryDirectory(prefix="rasura-probe-") as place:
                print_probe(released, Path(place))
    print("\n| Model in bfloat16 | command | CPU | memory | reading |\n|---|---|---:|---:|---:|")
    for released in WHOLE:
        if released.name in only:
            with tempfile.TemporaryDirectory(prefix="rasura-probe-") as place:
                print_whole(released, Path(place))


if __name__ == "__main__":
    main()
