"""Probe and erase for denoisers of their full size: time and memory on a CPU, without the weights of any.

`python benchmarks/families.py [--only NAME ...]` prints a Markdown table; each row is measured in a process of its own.

probe      a trace of the class with the configuration of the published model: a random twin is run
size       parameters of the full-size class, counted on meta tensors
erase      one concept by null-space at the entrances' full width: the protected basis of 1,000 retained prompts of 32
           rows, the solution, and its numbers; weights and text states are random, with a spectrum that falls by
           a hundred from the first of 512 directions to the last
memory     most memory of the process while it did that, and of the interpreter with torch and diffusers alone
"""

from __future__ import annotations

import argparse
import inspect
import json
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parent / "results"))

from origin import machine


@dataclass(frozen=True, slots=True)
class Case:
    """A denoiser of its published size.

    Attributes:
        kind: its class; what `options` do not say is that of the class's defaults.
        touched: the entrances' names and output widths.
        width: numbers a row that they read.
    """

    kind: str
    touched: Mapping[str, int]
    width: int
    options: Mapping[str, Any] = field(default_factory=dict)


_KLEIN: Final = {
    "num_layers": 5,
    "num_single_layers": 20,
    "num_attention_heads": 24,
    "joint_attention_dim": 7680,
    "guidance_embeds": False,
}
CASES: Final = {
    "Z-Image": Case("ZImageTransformer2DModel", {"cap_embedder.1": 3840}, 2560),
    "Qwen-Image": Case("QwenImageTransformer2DModel", {"txt_in": 3072}, 3584),
    "CogView4": Case("CogView4Transformer2DModel", {"patch_embed.text_proj": 4096}, 4096, {"num_attention_heads": 32}),
    "FLUX.2 klein": Case("Flux2Transformer2DModel", {"context_embedder": 3072}, 7680, _KLEIN),
}
PROMPTS: Final = 1000
ROWS: Final = 32
DIRECTIONS: Final = 512


def measure(case: Case) -> dict[str, float]:
    """The row of a case, in this process: processor seconds, MiB, parameters."""
    import diffusers
    import torch

    from rasura.patches.models.probe.probe import probe_config

    start = _most()
    kind = getattr(diffusers, case.kind)
    config = {name: p.default for name, p in list(inspect.signature(kind.__init__).parameters.items())[1:]} | dict(
        case.options
    )
    with torch.device("meta"):
        size = sum(p.numel() for p in kind.from_config(config).parameters())
    began = time.process_time()
    trace = probe_config("transformer", case.kind, json.loads(json.dumps(config, default=list)))
    probed = time.process_time() - began
    found = {layer.pattern.removeprefix("transformer."): layer.width for layer in trace.entrances}
    assert all(found[name] == case.width for name in case.touched), found
    most = _most()
    began = time.process_time()
    residual = _erase(case)
    return {
        "size": size,
        "probe": probed,
        "memory_probe": most,
        "erase": time.process_time() - began,
        "memory_erase": _most(),
        "before": start,
        "residual": residual,
    }


def _erase(case: Case) -> float:
    import torch

    from rasura.patches.algebra.protected_subspace import Moment, RankRule, build_protected_basis
    from rasura.patches.erasers.closed_form.null_space import NullSpace, erase
    from rasura.patches.erasers.columns import Columns
    from rasura.patches.erasers.interface import Reference
    from rasura.patches.solving.measure import Measurer
    from rasura.patches.types import ParamName

    generator = torch.Generator().manual_seed(0)

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    spread = normal(DIRECTIONS, case.width) * torch.logspace(0, -2, DIRECTIONS, dtype=torch.float64)[:, None]
    moment = Moment(case.width)
    for _ in range(PROMPTS // 8):
        moment.add(normal(8, ROWS, DIRECTIONS) @ spread + 1e-3 * normal(8, ROWS, case.width))
    weights = {ParamName(f"transformer.{n}.weight"): normal(out, case.width).float() for n, out in case.touched.items()}
    null = normal(ROWS, DIRECTIONS) @ spread
    basis = build_protected_basis(null, moment, RankRule())
    columns = Columns("concept", normal(case.width, 4), normal(case.width, 4))
    (found,) = erase(weights, [columns], basis, NullSpace())
    measured = Measurer(weights, Reference(null, moment, Moment(case.width))).measure(found, columns, basis)
    return measured.residual


def _most() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--one", choices=list(CASES), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(measure(CASES[asked.one])))
        return
    print(", ".join(f"{name} {value}" for name, value in machine().items()), "\n")
    print("| model | parameters | width | probe | memory | erase | memory | residual |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for name in asked.only:
        run = subprocess.run([sys.executable, __file__, "--one", name], capture_output=True, text=True, check=True)
        row = json.loads(run.stdout.splitlines()[-1])
        print(
            f"| {name} | {row['size'] / 1e9:.1f} G | {CASES[name].width} | {row['probe']:.1f} s | "
            f"{row['memory_probe'] - row['before']:.0f} MiB | {row['erase']:.0f} s | "
            f"{row['memory_erase'] - row['before']:.0f} MiB | {row['residual']:.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
