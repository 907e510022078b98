"""What a patch promises not to touch, as its manifest says it: a retain set, a protected span, concepts, patches."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from rasura.patches._io.canonical_json import MAX_INTEGER
from rasura.patches._io.json_fields import Fields, JsonValue
from rasura.patches.errors import FormatError
from rasura.patches.format.manifest_fields import MAX_LIST, check_sorted, decimal_map, patch_ids
from rasura.patches.format.manifest_parts import MAX_DIMENSION, WORD
from rasura.patches.types import Digest, ParamName, PatchId

HIDDEN: Final = "hidden"
IMAGE: Final = "image"
READS: Final = (HIDDEN, IMAGE)
"""What a touched parameter may read besides the text states of the request: other states, or picture features.

Other states are those inside the text encoder, of another of its layers, or behind another network.
"""
_SPACES_SINCE: Final = 3
_SPACE: Final = r"[A-Za-z_][A-Za-z0-9_.]{0,255}"


@dataclass(frozen=True, slots=True)
class RetainSpec:
    """Which retain set was protected.

    Attributes:
        source: name of its file.
        count: how many concepts.
        sha256: SHA-256 of the concepts, each followed by a newline.
        templates: the prompts in which each concept stood; those that name a target of the request were left out.
        cut: how many of the concepts are beginnings of texts that were too long for the text encoder.
    """

    source: str
    count: int
    sha256: Digest
    templates: tuple[str, ...] = ()
    cut: int = 0

    def to_json(self) -> dict[str, JsonValue]:
        """The JSON object; `cut` stands there where something was."""
        cut: dict[str, JsonValue] = {"cut": self.cut} if self.cut else {}
        return {
            "source": self.source,
            "count": self.count,
            "sha256": self.sha256,
            "templates": list(self.templates),
            **cut,
        }

    @classmethod
    def read(cls, fields: Fields) -> "RetainSpec":
        """Read one object and refuse unknown fields."""
        found = cls(
            fields.text("source"),
            fields.integer("count", 0, MAX_INTEGER),
            fields.digest("sha256"),
            fields.texts("templates", MAX_LIST),
            fields.integer("cut", 1, MAX_INTEGER) if fields.has("cut") else 0,
        )
        fields.done()
        if "/" in found.source:
            raise FormatError(
                f"manifest.json: protected.retain.source: expected a file's name without a folder, got {found.source!a}"
            )
        return found


@dataclass(frozen=True, slots=True)
class BasisSpec:
    """The protected span: SHA-256 of `basis.safetensors`, its size, and the rule that chose it.

    Attributes:
        dimension: width d of the text embedding.
        invariants: dimensions that hold start-of-text and the null prompt exactly.
        rank: dimensions protected in all.
        rule: how the retain directions were chosen, such as "relative:1e-3".
        spectrum: decimals that sum up the retain set's spectrum.
    """

    sha256: Digest
    dimension: int
    invariants: int
    rank: int
    rule: str
    spectrum: Mapping[str, str]

    def to_json(self) -> dict[str, JsonValue]:
        """The JSON object."""
        return {
            "sha256": self.sha256,
            "dimension": self.dimension,
            "invariants": self.invariants,
            "rank": self.rank,
            "rule": self.rule,
            "spectrum": dict(self.spectrum),
        }

    @classmethod
    def read(cls, fields: Fields) -> "BasisSpec":
        """Read one object and refuse unknown fields."""
        dimension = fields.integer("dimension", 1, MAX_DIMENSION)
        found = cls(
            fields.digest("sha256"),
            dimension,
            fields.integer("invariants", 0, dimension),
            fields.integer("rank", 0, dimension),
            fields.text("rule", WORD),
            decimal_map(fields.fields("spectrum")),
        )
        fields.done()
        return found


@dataclass(frozen=True, slots=True)
class ProtectedSpec:
    """Everything the patch promises not to touch.

    Attributes:
        concepts: other concepts erased in the same request, whose targets this patch leaves alone.
        patches: registered patches whose targets this patch leaves alone.
        reads: what a touched parameter reads, where that is not the text encoder's output. Written from version 2 on.
        spaces: what the states are called that a parameter reads beside others, which share rows and columns.
            Written in version 3 only.
    """

    basis: BasisSpec
    retain: RetainSpec | None
    concepts: tuple[str, ...] = ()
    patches: tuple[PatchId, ...] = ()
    reads: Mapping[ParamName, str] = field(default_factory=dict)
    spaces: Mapping[ParamName, str] = field(default_factory=dict)

    def to_json(self, version: int = 1) -> dict[str, JsonValue]:
        """The JSON object."""
        found: dict[str, JsonValue] = {
            "basis": self.basis.to_json(),
            "retain": self.retain.to_json() if self.retain else None,
            "concepts": list(self.concepts),
            "patches": list(self.patches),
        }
        if version > 1:
            found["reads"] = {str(name): what for name, what in self.reads.items()}
        if version >= _SPACES_SINCE:
            found["spaces"] = {str(name): space for name, space in self.spaces.items()}
        return found

    @classmethod
    def read(cls, fields: Fields, version: int = 1) -> "ProtectedSpec":
        """Read one object and refuse unknown fields."""
        patches = patch_ids(fields, "patches")
        check_sorted("protected.patches", patches)
        found = cls(
            BasisSpec.read(fields.fields("basis")),
            None if fields.is_null("retain") else RetainSpec.read(fields.fields("retain")),
            fields.texts("concepts", MAX_LIST),
            patches,
            _reads(fields.fields("reads")) if version > 1 else {},
            _spaces(fields.fields("spaces")) if version >= _SPACES_SINCE else {},
        )
        fields.done()
        return found


def _reads(fields: Fields) -> dict[ParamName, str]:
    found = {ParamName(name): fields.choice(name, READS) for name in fields.names()}
    fields.done()
    return found


def _spaces(fields: Fields) -> dict[ParamName, str]:
    found = {ParamName(name): fields.text(name, _SPACE) for name in fields.names()}
    fields.done()
    return found
