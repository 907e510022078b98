"""What a patch says of itself: the document whose canonical bytes are its identity.

`PatchId` is the SHA-256 of `manifest.json`. The document holds no time, no host name and no path, so the same request
gives the same identity. Measured numbers are decimal strings of four digits: enough to judge by, few enough that two
machines agree. The format is written down in docs/patch-format.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from rasura.patches._io import canonical_json
from rasura.patches._io.json_fields import Fields
from rasura.patches._io.sha256 import digest_of
from rasura.patches.errors import FormatError
from rasura.patches.format.file_names import BASIS, MANIFEST, TARGETS
from rasura.patches.format.manifest_fields import decimal_map, patch_ids
from rasura.patches.format.manifest_parts import MAX_TENSORS, BaseSpec, ConceptSpec, EraserSpec, TensorSpec
from rasura.patches.format.protected_spec import IMAGE, ProtectedSpec
from rasura.patches.types import PatchId

FORMATS: Final = ("rasura-patch/1", "rasura-patch/2", "rasura-patch/3")
"""The versions that are read and written.

Version 2 adds parameters with a promise or an input space of their own, version 3 such spaces that several share.
"""
_SHARED: Final = {BASIS: ("rows", "energy"), TARGETS: ("targets", "anchors")}
NAMES: Final = "names"
"""The option that holds what else a concept is called, separated by |; only where it has further names."""
NAMES_SIGN: Final = "|"
"""Between names of a concept in one text; no name holds it."""
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
    _read: PatchId | None = field(default=None, init=False, repr=False, compare=False)
    """SHA-256 of the bytes that it was read from: there is one spelling, so these are `to_bytes()`."""

    def to_bytes(self) -> bytes:
        """The canonical bytes (RFC 8785) of `manifest.json`."""
        return canonical_json.dumps(
            {
                "format": FORMATS[self.version - 1],
                "concept": self.concept.to_json(),
                "eraser": self.eraser.to_json(),
                "base": self.base.to_json(),
                "protected": self.protected.to_json(self.version),
                "tensors": [tensor.to_json() for tensor in self.tensors],
                "measured": dict(self.measured),
                "supersedes": list(self.supersedes),
                "requires": list(self.requires),
                "licence": self.licence,
            }
        )

    @property
    def version(self) -> int:
        """The format's version: the lowest that can say this, so that what version 1 can say has one encoding."""
        if self.protected.spaces:
            return 3
        own = any(t.file in _SHARED and t.tensor.name not in _SHARED[t.file] for t in self.tensors)
        return 2 if own or self.protected.reads else 1

    @property
    def names(self) -> tuple[str, ...]:
        """What else the concept is called; empty where the patch was made of its text alone."""
        return tuple(filter(None, self.eraser.options.get(NAMES, "").split(NAMES_SIGN)))

    @property
    def separable(self) -> bool:
        """Whether every increment promises something that algebra can check; otherwise it is measured only."""
        return IMAGE not in self.protected.reads.values() and self.protected.basis.rank > 0

    @property
    def patch_id(self) -> PatchId:
        """SHA-256 of `to_bytes()`."""
        return self._read or PatchId(digest_of(self.to_bytes()))

    @classmethod
    def from_bytes(cls, data: bytes) -> "Manifest":
        """Read canonical bytes; `from_bytes(m.to_bytes()) == m`.

        Raises:
            FormatError: not canonical JSON, an unknown format or field, a value out of range.
        """
        fields = Fields.of(canonical_json.loads(data, what=MANIFEST, limit=MANIFEST_LIMIT), MANIFEST)
        version = _version(fields.text("format"))
        manifest = cls(
            ConceptSpec.read(fields.fields("concept")),
            EraserSpec.read(fields.fields("eraser")),
            BaseSpec.read(fields.fields("base")),
            ProtectedSpec.read(fields.fields("protected"), version),
            tuple(TensorSpec.read(item) for item in fields.records("tensors", MAX_TENSORS)),
            decimal_map(fields.fields("measured")),
            patch_ids(fields, "supersedes"),
            patch_ids(fields, "requires"),
            fields.text("licence"),
        )
        fields.done()
        if manifest.version != version:
            raise FormatError(
                f"manifest.json: expected format {FORMATS[manifest.version - 1]!r}, the lowest that can say this, "
                f"got {FORMATS[version - 1]!r}"
            )
        object.__setattr__(manifest, "_read", PatchId(digest_of(data)))
        return manifest


def _version(found: str) -> int:
    if found not in FORMATS:
        raise FormatError(
            f"manifest.json: expected format {' or '.join(map(repr, FORMATS))}, got {found!r}",
            hint="pip install --upgrade rasura",
        )
    return FORMATS.index(found) + 1
