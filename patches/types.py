"""Names of the things that strings stand for, so that a type checker keeps them apart."""

from typing import NewType

Digest = NewType("Digest", str)
"""A SHA-256 as 64 lower-case hexadecimal digits. The field that holds one says what it covers."""

PatchId = NewType("PatchId", str)
"""SHA-256 of a patch's `manifest.json` bytes, 64 lower-case hexadecimal digits."""

ParamName = NewType("ParamName", str)
"""A parameter of a pipeline: component, dot, the module's own name; `unet.mid_block….attn2.to_k.weight`."""

KeyId = NewType("KeyId", str)
"""SHA-256 of a public key's DER SubjectPublicKeyInfo, 64 lower-case hexadecimal digits."""
