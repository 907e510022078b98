"""Patching a model on disk: what a journal in place costs, and what loading and saving costs.

`python benchmarks/hosts/disk.py [--model "SD 1.5"|SDXL] [--repeats 3] [--folder DIR]` prints a Markdown table.

The folder has the shapes of the model in float16, filled with random numbers. Of Stable Diffusion 1.5: a UNet of 1.7 GB
and a text encoder of 0.2 GB, as a folder and as a single file; a patch touches the 32 cross-attention keys and values,
38 MB. Of SDXL: the UNet alone, 5.1 GB, of which a patch touches 140 matrices, 682 MB. Everything is warm in the page
cache; what is written is on the medium at the end of each way.

apply       a first patch, as a motion applies it beside the registry: present bytes hashed, values composed, originals
            kept, new bytes written, read back, compared
another     the same from one patch to another: the old bytes go through the journal
revert      the same back to the originals
floor       the touched bytes written over themselves in place, and one fsync: no way back, no power cut survived
fuse        diffusers and PEFT: load the UNet, fuse a LoRA of rank 4, save_pretrained, fsync
copy        the folder copied, and fsync

`CPU` is processor time of the process, all threads together: what a busy machine changes least, and what waiting for
the medium is no part of. `written` is what the process caused to be written to the storage (`write_bytes` of
/proc/self/io), `fsyncs` how many calls of fsync it made.
"""

import argparse
import gc
import os
import platform
import shutil
import statistics
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from disk_models import RANK, SHAPES, make_file, make_folder, patch_of

from rasura.patches.algebra.increment import Increment
from rasura.patches.algebra.light.layers import Layer, Term
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.types import ParamName
from rasura.registry.apply.hosts.cached_host import Glance

Patch = Mapping[ParamName, Increment]


@dataclass(frozen=True, slots=True)
class Row:
    """One line: medians of the runs of one way."""

    way: str
    seconds: float
    cpu: float
    written: int
    fsyncs: int


def give(path: Path, patch: Patch | None) -> None:
    """Open the model, give it the value of this patch, or none; what a motion does beside the registry."""
    host = CheckpointHost.open(path)
    seen = Glance(host)
    names = seen.kept() if patch is None else list(patch)
    seen.digests(name for name in names if name in seen.kept())  # it is what was last written
    originals = seen.examine(names)
    seen.original_digests(names)
    if patch is None:
        seen.write(originals, forget=names)
    else:
        layers = {name: Layer(name, (Term(increment),)) for name, increment in patch.items()}
        values = host.compose(layers, originals, {})
        seen.digests(names)
        seen.write({name: value.tensor for name, value in values.items()})


def overwrite(path: Path) -> None:
    """The touched bytes over themselves."""
    host = CheckpointHost.open(path)
    places = [host._layout.place(name, "") for name in patch_of(host, 0)]  # noqa: SLF001  # where the bytes lie
    files = {place.file: os.open(host.path / place.file, os.O_RDWR) for place in places}
    for place in places:
        data = os.pread(files[place.file], place.stop - place.start, place.start)
        os.pwrite(files[place.file], data, place.start)
    for descriptor in files.values():
        os.fsync(descriptor)
        os.close(descriptor)


def fuse(folder: Path, out: Path) -> None:
    """What people do today."""
    from diffusers import UNet2DConditionModel
    from peft import LoraConfig

    unet: Any = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float16)
    unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=["attn2.to_k", "attn2.to_v"]))
    unet.fuse_lora()
    unet.unload_lora()
    unet.save_pretrained(out)
    sync(out)


def copy(folder: Path, out: Path) -> None:
    """The folder once more."""
    shutil.copytree(folder, out)
    sync(out)


def sync(folder: Path) -> None:
    """Everything below on the medium."""
    for path in folder.rglob("*.safetensors"):
        with path.open("rb") as file:
            os.fsync(file.fileno())


@contextmanager
def counted() -> Iterator[list[int]]:
    """How many times fsync is called inside."""
    real, count = os.fsync, [0]

    def fsync(fd: Any) -> None:
        count[0] += 1
        real(fd)

    os.fsync = fsync
    try:
        yield count
    finally:
        os.fsync = real


def measured(way: str, work: Callable[[], object], before: Callable[[], object], repeats: int) -> Row:
    """Medians; `before` is not counted."""
    seconds, cpu, written, fsyncs = [], [], [], []
    for _ in range(repeats):
        before()
        gc.collect()
        os.sync()
        begun, used, bytes_before = time.perf_counter(), time.process_time(), write_bytes()
        with counted() as count:
            work()
        seconds.append(time.perf_counter() - begun)
        cpu.append(time.process_time() - used)
        written.append(write_bytes() - bytes_before)
        fsyncs.append(count[0])
    return Row(
        way,
        statistics.median(seconds),
        statistics.median(cpu),
        int(statistics.median(written)),
        int(statistics.median(fsyncs)),
    )


def write_bytes() -> int:
    """So far, by this process."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("write_bytes")).split()[1])


def rows(place: Path, kind: str, repeats: int) -> Iterator[Row]:
    """All ways."""
    folder, file, out = place / "model", place / "model.safetensors", place / "out"
    make_folder(folder, kind)
    models = {"folder": folder}
    if kind == "SD 1.5":
        make_file(folder, file)
        models["single file"] = file
    first, second = (patch_of(CheckpointHost.open(folder), seed) for seed in (1, 2))
    for name, model in models.items():

        def apply(model: Path = model, patch: Patch | None = first) -> None:
            give(model, patch)

        def revert(model: Path = model) -> None:
            give(model, None)

        apply()
        yield measured(f"rasura, apply to a {name}", apply, revert, repeats)
        yield measured("rasura, another patch", lambda apply=apply: apply(patch=second), apply, repeats)  # type: ignore[misc]
        yield measured("rasura, revert", revert, apply, repeats)

    def clean() -> None:
        shutil.rmtree(out, ignore_errors=True)

    yield measured("floor: touched bytes only", lambda: overwrite(folder), clean, repeats)
    yield measured("diffusers + peft: load, fuse, save the UNet", lambda: fuse(folder, out), clean, repeats)
    yield measured("copy of the folder", lambda: copy(folder, out), clean, repeats)


def describe(place: Path) -> str:
    """Machine, disk, libraries, commit and load."""
    import diffusers
    import peft

    commit = _said("git", "rev-parse", "--short", "HEAD") + (" and changes" if _said("git", "status", "-s") else "")
    disk = _said("findmnt", "-no", "FSTYPE,SOURCE", "-T", str(place))
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"{os.cpu_count()} cores, {torch.get_num_threads()} thread(s) for torch, {disk}, load {load}; "
        f"Python {platform.python_version()}, torch {torch.__version__}, diffusers {diffusers.__version__}, "
        f"peft {peft.__version__}; commit {commit}"
    )


def _said(*command: str) -> str:
    folder = Path(__file__).parent
    return " ".join(subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder).stdout.split())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", default="SD 1.5", choices=SHAPES)
    parser.add_argument("--folder", type=Path, help="where to work; needs 8 to 20 GB")
    chosen = parser.parse_args()
    warnings.filterwarnings("ignore")  # of libraries that have nothing to say about disks
    with tempfile.TemporaryDirectory(dir=chosen.folder) as place:
        print(describe(Path(place)), end="\n\n", flush=True)
        print(f"{chosen.model}, float16\n")
        print("| way | seconds | against fusing | CPU | against fusing | written | fsyncs |")
        print("|---|---:|---:|---:|---:|---:|---:|")
        found = list(rows(Path(place), chosen.model, chosen.repeats))
        fused = next(row for row in found if "fuse" in row.way)
        for row in found:
            waited = f"{row.seconds:.2f} | {fused.seconds / row.seconds:.1f}× as fast"
            worked = f"{row.cpu:.2f} | {fused.cpu / row.cpu:.1f}×"
            print(f"| {row.way} | {waited} | {worked} | {row.written / 1e6:.0f} MB | {row.fsyncs} |", flush=True)


if __name__ == "__main__":
    main()
