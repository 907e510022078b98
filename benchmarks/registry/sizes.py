"""What patches of Stable Diffusion 1.5's size take, file by file, and what the second of a retain set adds.

`python benchmarks/registry/sizes.py` prints a Markdown table of bytes. The null-space eraser solves two concepts over
the shapes of the 32 cross-attention projections K and V, 768 wide, with random weights and embeddings: sizes depend on
shapes alone. A registry keeps each file once under its digest, so what both patches have the same is there once.
"""

import argparse
import itertools
import sys
import zlib
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from support.values.factories import World

WIDTH: Final = 768
OUTS: Final = tuple(out for out in (*(320,) * 5, *(640,) * 5, *(1280,) * 6) for _ in "kv")
FILES: Final = ("manifest.json", "pytorch_lora_weights.safetensors", "targets.safetensors", "basis.safetensors")


def print_row(retained: int, columns: int) -> None:
    """Two patches of one retain set."""
    world = World(width=WIDTH, retained=retained, outs=OUTS)
    first, second = (
        patch.files() for patch in world.erase(world.columns("a", 1, columns), world.columns("b", 2, columns))
    )
    added = sum(len(data) for name, data in second.items() if first.get(name) != data)
    basis = first["basis.safetensors"]
    cells = (retained, columns, *(len(first[name]) for name in FILES), len(zlib.compress(basis, 9)), added)
    print(f"| {' | '.join(f'{cell:,}' for cell in cells)} |", flush=True)


def main() -> None:
    """Print the table."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print("# Sizes of patches\n\nWritten by `python benchmarks/registry/sizes.py > docs/benchmarks/sizes.md`. Bytes.\n")
    heads = ("retained", "columns", *(f"`{name}`" for name in FILES), "basis by zlib", "the second adds")
    print(f"| {' | '.join(heads)} |\n|{'---:|' * len(heads)}")
    for retained, columns in itertools.product((20, 400), (1, 8)):
        print_row(retained, columns)


if __name__ == "__main__":
    main()
