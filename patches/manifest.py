"""What a patch says of itself: the document whose canonical bytes are its identity.

`PatchId` is the SHA-256 of `manifest.json`. The document holds no time, no host name and no path, so the same request
gives the same identity. Measured numbers are decimal strings of four digits: enough to judge by, few enough that two
machines agree. The format is written down in docs/patch-format.md.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from rasura.patches import canonical
from rasura.patches.errors import FormatError
from rasura.patches.fields import Fields
from rasura.patches.names import PatchId
from rasura.patches.specs import (
    MAX_TENSORS,
    BaseSpec,
    ConceptSpec,
    EraserSpec,
    ProtectedSpec,
    TensorSpec,
    decimal_map,
    patch_ids,
)

FORMAT: Final = "rasura-patch/1"
MANIFEST_LIMIT: Final = 8 * 1024 * 1024
"""Most bytes of a manifest; one of SDXL's 140 matrices needs 60 KB."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """The whole document. Equal manifests have equal bytes, and only they."""

    concept: ConceptSpec
    eraser: EraserSpec
    base: BaseSpec
    protected: ProtectedSpec
    tensors: tuple[TensorSpec, ...]
    measured: Mapping[str, str]
    supersedes: tuple[PatchId, ...] = ()
    requires: tuple[PatchId, ...] = ()
    licence: str = ""

    def to_bytes(self) -> bytes:
        """The canonical bytes (RFC 8785) of `manifest.json`."""
        return canonical.dumps(
            {
                "format": FORMAT,
                "concept": self.concept.to_json(),
                "eraser": self.eraser.to_json(),
                "base": self.base.to_json(),
                "protected": self.protected.to_json(),
                "tensors": [tensor.to_json() for tensor in self.tensors],
                "measured": dict(self.measured),
                "supersedes": list(self.supersedes),
                "requires": list(self.requires),
                "licence": self.licence,
            }
        )

    @property
    def patch_id(self) -> PatchId:
        """SHA-256 of `to_bytes()`."""
        return PatchId(hashlib.sha256(self.to_bytes()).hexdigest())

    @classmethod
    def from_bytes(cls, data: bytes) -> "Manifest":
        """Read canonical bytes; `from_bytes(m.to_bytes()) == m`.

        Raises:
            FormatError: not canonical JSON, an unknown format or field, a value out of range.
        """
        fields = Fields.of(canonical.loads(data, what="manifest.json", limit=MANIFEST_LIMIT), "manifest.json")
        _check_format(fields.text("format"))
        manifest = cls(
            ConceptSpec.read(fields.fields("concept")),
            EraserSpec.read(fields.fields("eraser")),
            BaseSpec.read(fields.fields("base")),
            ProtectedSpec.read(fields.fields("protected")),
            tuple(TensorSpec.read(item) for item in fields.records("tensors", MAX_TENSORS)),
            decimal_map(fields.fields("measured")),
            patch_ids(fields, "supersedes"),
            patch_ids(fields, "requires"),
            fields.text("licence"),
        )
        fields.done()
        return manifest


def _check_format(found: str) -> None:
    if found != FORMAT:
        raise FormatError(
            f"manifest.json: expected format {FORMAT!r}, got {found!r}", hint="pip install --upgrade rasura"
        )
