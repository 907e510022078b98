"""Builds the small patch of docs/patch-format.md §10 and writes it into the page, or with --check compares.

`python docs/tools/example.py [--check]`
"""

import argparse
import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Final

import torch

from rasura.patches._io.tensor_bytes import digest_tensor
from rasura.patches.algebra.increment import Increment
from rasura.patches.format.manifest import Manifest
from rasura.patches.format.manifest_parts import BaseSpec, ConceptSpec, EraserSpec, TensorIdentity
from rasura.patches.format.patch import BASIS, MANIFEST, TARGETS, WEIGHTS, Patch
from rasura.patches.format.patch_tensors import PatchTensors
from rasura.patches.format.protected_spec import BasisSpec, ProtectedSpec, RetainSpec
from rasura.patches.types import Digest, ParamName

PAGE: Final = Path(__file__).parents[1] / "patch-format.md"
PARAMETER: Final = ParamName("unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight")
_LINE: Final = 96  # hexadecimal digits a line


def example() -> Patch:
    """ΔW = B·A with A = (0, ½, 0, 0) and B = (1, −2)ᵀ, on a base of halves."""
    base = torch.full((2, 4), 0.5, dtype=torch.float16)
    increment = Increment(torch.tensor([[0.0, 0.5, 0.0, 0.0]]), torch.tensor([[1.0], [-2.0]]))
    rows = torch.tensor([[1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    target = torch.tensor([[0.0, 1.0, 0.0, 0.0]], dtype=torch.float64)
    anchor = torch.tensor([[0.0, 0.0, 1.0, 0.0]], dtype=torch.float64)
    tensors = PatchTensors({PARAMETER: increment}, rows, torch.ones(1, dtype=torch.float64), target, anchor)
    touched = TensorIdentity(PARAMETER, "F16", (2, 4), digest_tensor(base))
    manifest = Manifest(
        ConceptSpec("dog", "animal", "last", ("{}", "a photo of a {}")),
        EraserSpec("null-space", {"layers": "k", "ridge": "0.001"}),
        BaseSpec(_sha256(b"base"), (touched,), _sha256(b"text encoder"), _sha256(b"tokenizer")),
        ProtectedSpec(
            BasisSpec(_sha256(tensors.files()[BASIS]), 4, 1, 1, "relative:0.0001", {"largest": "1.000e+00"}),
            RetainSpec("keep.txt", 2, _sha256(b"cat\nbird\n")),
        ),
        tensors.specs(),
        {"effect": "1.118e+00", "rank": "1"},
        licence="CC0-1.0",
    )
    return Patch(manifest, tensors.arrays)


def _sha256(data: bytes) -> Digest:
    return Digest(hashlib.sha256(data).hexdigest())


def rewritten(page: str) -> str:
    """The page with the example in its two places."""
    files = example().files()
    shown = json.dumps(json.loads(files[MANIFEST]), indent=1, ensure_ascii=False, sort_keys=True)
    identity = f"Its PatchId is `{_sha256(files[MANIFEST])}`, the file has {len(files[MANIFEST])} bytes."
    dumps = [
        f"`{name}`, {len(files[name])} bytes:\n\n```text\n{_hex(files[name])}\n```"
        for name in (WEIGHTS, BASIS, TARGETS)
    ]
    page = _filled(page, "manifest", f"```json\n{shown}\n```\n\n{identity}")
    return _filled(page, "files", "\n\n".join(dumps))


def _hex(data: bytes) -> str:
    text = data.hex()
    return "\n".join(text[at : at + _LINE] for at in range(0, len(text), _LINE))


def _filled(page: str, place: str, content: str) -> str:
    pattern = rf"(<!-- example: {place} -->).*?(?=\n(?:The other files|<!-- end -->)|\Z)"
    return re.sub(pattern, lambda found: f"{found[1]}\n\n{content}\n", page, flags=re.DOTALL)


def main() -> None:
    """Write or check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if the page shows another patch")
    page = PAGE.read_text(encoding="utf-8")
    made = rewritten(page)
    if not parser.parse_args().check:
        PAGE.write_text(made, encoding="utf-8")
    elif made != page:
        sys.exit(f"{PAGE.name} does not show the patch that the program makes; run `make fix`")


if __name__ == "__main__":
    main()
