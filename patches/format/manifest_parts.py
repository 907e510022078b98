"""The parts of a manifest, one value a JSON object; each writes itself and reads itself strictly."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from rasura.patches._io.canonical_json import MAX_INTEGER
from rasura.patches._io.json_fields import Fields, JsonValue
from rasura.patches.errors import FormatError
from rasura.patches.format.manifest_fields import MAX_LIST, check_sorted, text_map
from rasura.patches.format.trace_spec import TraceSpec
from rasura.patches.types import Digest, ParamName

MAX_TENSORS: Final = 20_000
MAX_DIMENSION: Final = 1 << 20
DTYPES: Final = ("BF16", "F16", "F32", "F64")
TEXT: Final = "text"
_PARAMETER: Final = r"[A-Za-z0-9_][A-Za-z0-9_.]{0,511}"
_FILE: Final = r"[a-z0-9][a-z0-9._-]{0,99}"
WORD: Final = r"[a-z0-9][a-z0-9._:+-]{0,99}"


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
            fields.text("tokens", WORD),
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
            fields.text("name", WORD),
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
        check_sorted("base.parameters", [parameter.name for parameter in parameters])
        encoder, tokenizer = fields.digest("text_encoder_sha256"), fields.digest("tokenizer_sha256")
        through: tuple[TensorIdentity, ...] = ()
        if fields.has("through"):
            through = tuple(TensorIdentity.read(item) for item in fields.records("through", MAX_TENSORS))
            names = [parameter.name for parameter in through]
            check_sorted("base.through", names)
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
