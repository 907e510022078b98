"""Adding the base to the sums of patches, rounding, storing: which way is fastest, and which gives the CPU's bits?

`python benchmarks/hosts/fused.py [--models "SD 1.5" SDXL] [--dtypes float16 bfloat16] [--count 4]` prints Markdown for
a CUDA device, and one line where there is none. `--device cpu` tries torch.compile alone, on the CPU.

The layers are all cross-attention keys and values of the UNet in their real shapes. A step reads float64 sums and the
base, and writes the result; each way also says whether a result is not finite. Times are medians, on CUDA by events.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from fused_ways import Way, Work, once, sees_overflow, sweep, ties, timed, ways

from rasura.patches._io.settings import Settings, use
from rasura.patches._io.tensor_bytes import digest_tensor
from rasura.patches.algebra import fused_add
from rasura.patches.algebra.compose import compose_all
from rasura.patches.algebra.rounding import round_into


@dataclass(frozen=True, slots=True)
class Row:
    """One way: milliseconds of the first sweep, of the steps alone and with the product; layers with the CPU's bits."""

    name: str
    first: float
    steps: float
    product: float
    equal: int
    wrong_at_ties: int
    sees_overflow: bool


def table(kind: str, dtype: torch.dtype, device: str, count: int, repeats: int) -> None:
    """All ways on one model in one dtype, the limit, and composing as a whole."""
    work = Work.of(kind, dtype, count, device)
    expected = _expected(work)
    copied = _copying(work.traffic(), device, repeats)
    print(f"\n{kind}, {str(dtype).removeprefix('torch.')}, {count} patches, {work.traffic() / 1e6:.0f} MB to and fro\n")
    print(
        "| way | steps alone | against copy | and product | bits of the CPU | wrong at ties | sees overflow | first |"
    )
    print("|---|---:|---:|---:|---:|---:|---|---:|")
    rows = []
    for way in ways(device):
        try:
            row = _row(way, work, expected, dtype, repeats)
        except RuntimeError as error:  # a compiler that does not work here is no reason to hide the others
            print(f"| {way.name} | {type(error).__name__}: {str(error).splitlines()[0][:80]} | | | | | | |", flush=True)
            continue
        rows.append(row)
        print(
            f"| {row.name} | {row.steps:.3f} ms | {row.steps / copied:.2f}× | {row.product:.3f} ms | "
            f"{row.equal} of {len(expected)} | {row.wrong_at_ties} | {'yes' if row.sees_overflow else 'no'} | "
            f"{row.first:.0f} ms |",
            flush=True,
        )
    print(f"| plain copy of as many bytes | {copied:.3f} ms | 1.00× | | | | | |")
    for switch in ("0", "1") if device == "cuda" else ("0",):
        print(_whole(work, switch, expected, repeats), flush=True)
    _verdict(rows, len(expected))


def _expected(work: Work) -> list[str]:
    """Digests of what plain steps make on the CPU."""
    found: list[str] = []
    for base, B in zip(work.bases, work.Bs, strict=True):
        here, sums = base.cpu(), B.cpu() @ work.A.cpu()
        result = torch.empty_like(here)
        round_into(result, here, sums, torch.empty_like(here, dtype=torch.float32))
        found.append(digest_tensor(result))
    return found


def _row(way: Way, work: Work, expected: Sequence[str], dtype: torch.dtype, repeats: int) -> Row:
    device = work.A.device.type
    for result in work.results:
        result.zero_()
    work.refill()
    first = once(lambda: sweep(way, work, product=False), device)
    equal = sum(map(str.__eq__, work.digests(), expected))
    steps = timed(lambda: sweep(way, work, product=False), device, repeats)
    product = timed(lambda: sweep(way, work, product=True), device, repeats)
    wrong, sees = ties(way.step, dtype, device), sees_overflow(way.step, dtype, device)
    return Row(way.name, first, steps, product, equal, wrong, sees)


def _copying(traffic: int, device: str, repeats: int) -> float:
    source = torch.zeros(traffic // 2, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return timed(lambda: target.copy_(source), device, repeats)


def _whole(work: Work, switch: str, expected: Sequence[str], repeats: int) -> str:
    """Composing as applying does it, its checks included, with the kernel and without."""
    bases = {layer.name: base for layer, base in zip(work.layers, work.bases, strict=True)}
    use(Settings(fused=switch))
    found = compose_all(bases, work.layers)
    equal = sum(digest_tensor(found[layer.name]) == e for layer, e in zip(work.layers, expected, strict=True))
    whole = timed(lambda: compose_all(bases, work.layers), work.A.device.type, repeats)
    name = f"composed_all, {fused_add.SWITCH}={switch}"
    return f"| {name} | | | {whole:.3f} ms | {equal} of {len(expected)} | | | |"


def _verdict(rows: Sequence[Row], layers: int) -> None:
    good = [row for row in rows if row.equal == layers and not row.wrong_at_ties and row.sees_overflow]
    plain = next((row for row in rows if row.name == "plain steps"), None)
    if plain is None or not good:
        print("\nNo way gives the CPU's bits and refuses what it refuses.")
        return
    best = min(good, key=lambda row: row.product)
    print(
        f"\nFastest with the CPU's bits and refusals: {best.name}, {best.steps / plain.steps:.2f} of the "
        f"plain steps' time, {best.product / plain.product:.2f} with the product."
    )


def describe(device: str) -> str:
    """Device, libraries, commit."""
    chip = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} thread(s)"
    try:
        triton = importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        triton = "none"
    git = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False, cwd=Path(__file__).parent).stdout.strip()
    return f"{chip}; torch {torch.__version__}, triton {triton}; commit {commit}; load {os.getloadavg()[0]:.1f}"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["SD 1.5", "SDXL"], choices=["SD 1.5", "SDXL"])
    parser.add_argument("--dtypes", nargs="+", default=["float16", "bfloat16"], choices=["float16", "bfloat16"])
    parser.add_argument("--count", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--device", default="cuda", choices=["cpu", "cuda"])
    chosen = parser.parse_args()
    if chosen.device == "cuda" and not torch.cuda.is_available():
        print("No CUDA device here: nothing to time. --device cpu tries torch.compile on the CPU.")
        return
    print(describe(chosen.device))
    for kind in chosen.models:
        for name in chosen.dtypes:
            table(kind, getattr(torch, name), chosen.device, chosen.count, chosen.repeats)


if __name__ == "__main__":
    main()
