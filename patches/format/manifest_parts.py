"""The parts of a manifest, one value a JSON object; each writes itself and reads itself strictly."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from rasura.patches._io.canonical_json import MAX_INTEGER
from rasura.patches._io.json_fields import Fields, JsonValue
from rasura.patches.errors import FormatError
from rasura.patches.format.trace_spec import TraceSpec
from rasura.patches.types import Digest, ParamName, PatchId

MAX_TENSORS: Final = 20_000
MAX_DIMENSION: Final = 1 << 20
MAX_LIST: Final = 10_000
DTYPES: Final = ("BF16", "F16", "F32", "F64")
TEXT: Final = "text"
HIDDEN: Final = "hidden"
IMAGE: Final = "image"
READS: Final = (HIDDEN, IMAGE)
"""What a touched parameter may read besides the text encoder's output: states inside it, or picture features."""
_PARAMETER: Final = r"[A-Za-z0-9_][A-Za-z0-9_.]{0,511}"
_FILE: Final = r"[a-z0-9][a-z0-9._-]{0,99}"
_WORD: Final = r"[a-z0-9][a-z0-9._:+-]{0,99}"


@dataclass(frozen=True, slots=True)
class TensorIdentity:
    """A tensor by content: SHA-256 over its raw little-endian bytes; name, dtype and shape stand beside it."""

    name: ParamName
    dtype: str
    shape: tuple[int, ...]
    sha256: Digest

    def to_json(self) -> dict[str, JsonValue]:
        """The JSON object of this tensor."""
        return {"name": self.name, "dtype": self.dtype, "shape": list(self.shape), "sha256": self.sha256}

    @classmethod
    def read(cls, fields: Fields) -> "TensorIdentity":
        """Read one object and refuse unknown fields."""
        found = cls(
            ParamName(fields.text("name", _PARAMETER)),
            fields.choice("dtype", DTYPES),
            fields.integers("shape", 8, 0, MAX_DIMENSION),
            fields.digest("sha256"),
        )
        fields.done()
        return found


@dataclass(frozen=True, slots=True)
class ConceptSpec:
    """What is erased, what it becomes, and how prompts were made of both."""

    text: str
    anchor: str
    tokens: str
    templates: tuple[str, ...]

    def to_json(self) -> dict[str, JsonValue]:
        """The JSON object."""
        return {
            "text": self.text,
            "anchor": self.anchor,
            "tokens": self.tokens,
            "templates": list(self.templates),
        }

    @classmethod
    def read(cls, fields: Fields) -> "ConceptSpec":
        """Read one object and refuse unknown fields."""
        found = cls(
            fields.text("text"),
            fields.text("anchor"),
            fields.text("tokens", _WORD),
            fields.texts("templates", MAX_LIST),
        )
        fields.done()
        return found


@dataclass(frozen=True, slots=True)
class EraserSpec:
    """Which method with which choices. Options are texts: numbers as decimals, so that the bytes are fixed."""

    name: str
    options: Mapping[str, str]
    seed: int | None = None

    def to_json(self) -> dict[str, JsonValue]:
        """The JSON object."""
        return {"name": self.name, "options": dict(self.options), "seed": self.seed}

    @classmethod
    def read(cls, fields: Fields) -> "EraserSpec":
        """Read one object and refuse unknown fields."""
        found = cls(
            fields.text("name", _WORD),
            text_map(fields.fields("options")),
            None if fields.is_null("seed") else fields.integer("seed", 0, MAX_INTEGER),
        )
        fields.done()
        return found


@dataclass(frozen=True, slots=True)
class BaseSpec:
    """The weights that the patch was computed on.

    Attributes:
        sha256: identity of the whole base (`rasura.patches.models.base_identity.BaseIdentity.digest`), to find it by;
        what a host must have is each touched parameter.
        parameters: the touched parameters.
        text_encoder: tensor-set digest of the text encoder.
        tokenizer: digest of what turns text into ids.
        through: what the text states go through before the touched parameters read them: parameters of the denoiser
            that a host must have unpatched. Empty where they are read as they come; then it is not written.
        read_as: "BF16" where the text encoders read in bfloat16; "" is float32, and is not written.
        trace: why the touched parameters read text alone; None where the table of families answers for it.
    """

    sha256: Digest
    parameters: tuple[TensorIdentity, ...]
    text_encoder: Digest
    tokenizer: Digest
    through: tuple[TensorIdentity, ...] = ()
    trace: TraceSpec | None = None
    read_as: str = ""

    def to_json(self) -> dict[str, JsonValue]:
        """The JSON object."""
        return {
            "sha256": self.sha256,
            "parameters": [parameter.to_json() for parameter in self.parameters],
            "text_encoder_sha256": self.text_encoder,
            "tokenizer_sha256": self.tokenizer,
            **({"through": [parameter.to_json() for parameter in self.through]} if self.through else {}),
            **({"trace": self.trace.to_json()} if self.trace else {}),
            **({"read_as": self.read_as} if self.read_as else {}),
        }

    @classmethod
    def read(cls, fields: Fields) -> "BaseSpec":
        """Read one object and refuse unknown fields."""
        parameters = tuple(TensorIdentity.read(item) for item in fields.records("parameters", MAX_TENSORS))
        _check_sorted("base.parameters", [parameter.name for parameter in parameters])
        encoder, tokenizer = fields.digest("text_encoder_sha256"), fields.digest("tokenizer_sha256")
        through: tuple[TensorIdentity, ...] = ()
        if fields.has("through"):
            through = tuple(TensorIdentity.read(item) for item in fields.records("through", MAX_TENSORS))
            names = [parameter.name for parameter in through]
            _check_sorted("base.through", names)
            if not names or {*names} & {parameter.name for parameter in parameters}:
                raise FormatError("manifest.json: base.through: expected parameters that the patch does not touch")
        trace = TraceSpec.read(fields.fields("trace")) if fields.has("trace") else None
        if trace is not None:
            trace.check([parameter.name for parameter in parameters], [parameter.name for parameter in through])
        read_as = fields.choice("read_as", ("BF16",)) if fields.has("read_as") else ""
        found = cls(fields.digest("sha256"), parameters, encoder, tokenizer, through, trace, read_as)
        fields.done()
        return found


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
            fields.text("rule", _WORD),
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
        reads: what a touched parameter reads, where that is not the text encoder's output. Written in version 2 only.
    """

    basis: BasisSpec
    retain: RetainSpec | None
    concepts: tuple[str, ...] = ()
    patches: tuple[PatchId, ...] = ()
    reads: Mapping[ParamName, str] = field(default_factory=dict)

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
        return found

    @classmethod
    def read(cls, fields: Fields, version: int = 1) -> "ProtectedSpec":
        """Read one object and refuse unknown fields."""
        found = cls(
            BasisSpec.read(fields.fields("basis")),
            None if fields.is_null("retain") else RetainSpec.read(fields.fields("retain")),
            fields.texts("concepts", MAX_LIST),
            _sorted_ids(fields, "patches"),
            _reads(fields.fields("reads")) if version > 1 else {},
        )
        fields.done()
        return found


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor of the patch folder: which file, and its identity."""

    file: str
    tensor: TensorIdentity

    def to_json(self) -> dict[str, JsonValue]:
        """The JSON object."""
        return {"file": self.file, **self.tensor.to_json()}

    @classmethod
    def read(cls, fields: Fields) -> "TensorSpec":
        """Read one object and refuse unknown fields."""
        file = fields.text("file", _FILE)
        return cls(file, TensorIdentity.read(fields))


def _sorted_ids(fields: Fields, name: str) -> tuple[PatchId, ...]:
    found = patch_ids(fields, name)
    _check_sorted(f"protected.{name}", found)
    return found


def _check_sorted(what: str, names: Sequence[str]) -> None:
    """One order, and nothing twice: equal content has equal bytes.

    Raises:
        FormatError: naming the first that stands wrong.
    """
    for before, after in pairwise(names):
        if before >= after:
            raise FormatError(
                f"manifest.json: {what}: expected names in order, each once, got {after!a} after {before!a}"
            )


def _reads(fields: Fields) -> dict[ParamName, str]:
    found = {ParamName(name): fields.choice(name, READS) for name in fields.names()}
    fields.done()
    return found


def patch_ids(fields: Fields, name: str) -> tuple[PatchId, ...]:
    """A list of patch ids."""
    found = fields.texts(name, MAX_LIST, 64)
    for text in found:
        if len(text) != 64 or set(text) - set("0123456789abcdef"):  # noqa: PLR2004
            raise FormatError(f"manifest.json: {name} must hold patch ids of 64 hexadecimal digits, got {text!r}")
    return tuple(PatchId(text) for text in found)


def text_map(fields: Fields) -> dict[str, str]:
    """An object whose keys are data and whose values are texts."""
    found = {name: fields.text(name) for name in fields.names()}
    fields.done()
    return found


def decimal_map(fields: Fields) -> dict[str, str]:
    """An object whose keys are data and whose values are decimals."""
    found = {name: fields.decimal(name) for name in fields.names()}
    fields.done()
    return found
