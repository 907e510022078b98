"""The small patches of exact numbers that the golden vectors hold: no library's rounding is in them."""

import torch
from support.values import factories

from rasura.patches.format.manifest import Manifest
from rasura.patches.format.manifest_parts import BaseSpec, ConceptSpec, EraserSpec, TensorIdentity
from rasura.patches.format.patch import BASIS, Patch
from rasura.patches.format.patch_tensors import PatchTensors
from rasura.patches.format.protected_spec import BasisSpec, ProtectedSpec, RetainSpec
from rasura.patches.types import PatchId

__all__ = ["golden"]


def golden() -> Patch:
    """A patch of exact numbers: no library's rounding is in it."""
    increments = {
        factories.K: factories.exact_increment([[2**22, 0, 0], [0, -(2**21), 3]], [[1, -1], [2**23, 7]]),
        factories.V: factories.exact_increment([[2**22, 0, 0], [0, -(2**21), 3]], [[0, 5], [-(2**23), 2**18], [9, 9]]),
    }
    rows = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)
    targets, anchors = (
        torch.tensor([[1.0, 2.5, 0.0], [-3.0, 0.125, 1.0]], dtype=torch.float64),
        torch.ones(2, 3).double(),
    )
    tensors = PatchTensors(increments, rows, torch.tensor([0.75], dtype=torch.float64), targets, anchors)
    manifest = Manifest(
        ConceptSpec('Van "Gogh" ☕', "", "tail", ("{}", "a painting by {}")),
        EraserSpec("null-space", {"ridge": "0.01", "layers": "kv"}, 7),
        BaseSpec(
            factories.sha256(b"base"),
            tuple(
                TensorIdentity(name, "F16", i.shape, factories.sha256(name.encode())) for name, i in increments.items()
            ),
            factories.sha256(b"text encoder"),
            factories.sha256(b"tokenizer"),
        ),
        ProtectedSpec(
            BasisSpec(factories.sha256(tensors.files()[BASIS]), 3, 1, 1, "relative:0.001", {"largest": "7.500e-01"}),
            RetainSpec("retain.txt", 2, factories.sha256(b"cat\ndog\n")),
            ("Monet",),
            (PatchId("ab" * 32),),
        ),
        tensors.specs(),
        {"residual": "1.000e-03", "rank": "2"},
        (PatchId("cd" * 32),),
        (PatchId("ef" * 32),),
        "CC-BY-4.0",
    )
    return Patch(manifest, tensors.arrays)
