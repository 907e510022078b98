"""The files of a patch folder."""

from __future__ import annotations

import re
from typing import Final

from rasura.patches.types import KeyId

MANIFEST: Final = "manifest.json"
SIGNATURE: Final = "model.sig"
"""The bundle that signs the folder it lies in."""
WEIGHTS: Final = "pytorch_lora_weights.safetensors"
BASIS: Final = "basis.safetensors"
TARGETS: Final = "targets.safetensors"

MAX_FURTHER: Final = 16
"""Most further signatures that lie in one folder."""
FURTHER: Final = re.compile(r"[0-9a-f]{64}\.sig")
"""Names of further signatures over the same files: the signing key's identity, and `.sig`."""


def name_further(key_id: KeyId) -> str:
    """The file of a further signature, by this key."""
    return f"{key_id}.sig"


def is_signature(name: str) -> bool:
    """Whether a file of the folder is a signature over the others, the first or a further one."""
    return name == SIGNATURE or FURTHER.fullmatch(name) is not None
