"""The files of a patch folder."""

from __future__ import annotations

from typing import Final

MANIFEST: Final = "manifest.json"
SIGNATURE: Final = "model.sig"
"""The bundle that signs the folder it lies in."""
WEIGHTS: Final = "pytorch_lora_weights.safetensors"
BASIS: Final = "basis.safetensors"
TARGETS: Final = "targets.safetensors"
