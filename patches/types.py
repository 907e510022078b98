"""Names of the things that strings stand for, so that a type checker keeps them apart."""

from collections.abc import Callable
from typing import Final, NewType

Digest = NewType("Digest", str)
"""A SHA-256 as 64 lower-case hexadecimal digits. The field that holds one says what it covers."""

PatchId = NewType("PatchId", str)
"""SHA-256 of a patch's `manifest.json` bytes, 64 lower-case hexadecimal digits."""

ParamName = NewType("ParamName", str)
"""A parameter of a pipeline: component, dot, the module's own name; `unet.mid_block….attn2.to_k.weight`."""

KeyId = NewType("KeyId", str)
"""SHA-256 of a public key's DER SubjectPublicKeyInfo, 64 lower-case hexadecimal digits."""

SHORT: Final = 12
"""Digits of an identifier in a sentence."""

Progress = Callable[[str, int, int], None]
"""Called with a stage (behind a tab, it may carry a note such as a loss), how much is done, and how much there is."""
