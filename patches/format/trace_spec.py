"""Why a patch is separable: what a trace of its base's denoiser says of the layers that it touches.

A trace (`rasura.patches.models.probe`) runs a small random twin of the denoiser under another picture, time and text,
and says of each kind of linear layer what its input depends on. A manifest that names one can be held to it by whoever
has the class and the configuration: `rasura probe MODEL` makes the trace again.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import Final

from rasura.patches._io.json_fields import Fields, JsonValue
from rasura.patches.errors import FormatError
from rasura.patches.types import Digest, ParamName

__all__ = ["FIXED", "TraceSpec", "TracedSpec"]

FIXED: Final = ("text", "normed", "projected", "fused")
"""What a touched layer may read: token states as they come, after norms, after other fixed modules, row by row, or
after fixed modules that see all rows of a prompt."""
_PATTERN: Final = r"[A-Za-z0-9_][A-Za-z0-9_.*]{0,511}"
_NAME: Final = r"[A-Za-z_][A-Za-z0-9_]{0,99}"
_INPUT: Final = _NAME + r"(\[[0-9]{1,4}\])?"
_MOST: Final = 1000
_WEIGHT: Final = ".weight"


@dataclass(frozen=True, slots=True)
class TracedSpec:
    """Linear layers that are alike.

    Attributes:
        pattern: their names without `.weight`, a `*` for the number of a block.
        reads: one of `FIXED`.
        input: the argument of the denoiser whose rows they read, or an entry of it: `encoder_hidden_states_llama3[5]`.
        through: the modules that these rows go through before, in order.
    """

    pattern: str
    reads: str
    input: str
    through: tuple[str, ...]

    def to_json(self) -> dict[str, JsonValue]:
        """The JSON object."""
        return {"pattern": self.pattern, "reads": self.reads, "input": self.input, "through": list(self.through)}

    @classmethod
    def read(cls, fields: Fields) -> "TracedSpec":
        """Read one object and refuse unknown fields."""
        found = cls(
            fields.text("pattern", _PATTERN),
            fields.choice("reads", FIXED),
            fields.text("input", _INPUT),
            fields.texts("through", _MOST, 512),
        )
        fields.done()
        if (found.reads == "text") == bool(found.through):
            raise FormatError(
                f"manifest.json: base.trace: {found.pattern} reads {found.reads}: expected "
                f"{'nothing' if found.reads == 'text' else 'the modules'} that the text goes through before"
            )
        return found


@dataclass(frozen=True, slots=True)
class TraceSpec:
    """A trace, as far as it concerns a patch.

    Attributes:
        kind: the denoiser's class.
        config: SHA-256 of its configuration.
        sha256: digest of the whole trace.
        layers: what it says of the touched layers, by pattern.
    """

    kind: str
    config: Digest
    sha256: Digest
    layers: tuple[TracedSpec, ...]

    def to_json(self) -> dict[str, JsonValue]:
        """The JSON object."""
        return {
            "class": self.kind,
            "config_sha256": self.config,
            "sha256": self.sha256,
            "layers": [layer.to_json() for layer in self.layers],
        }

    @classmethod
    def read(cls, fields: Fields) -> "TraceSpec":
        """Read one object and refuse unknown fields."""
        found = cls(
            fields.text("class", _NAME),
            fields.digest("config_sha256"),
            fields.digest("sha256"),
            tuple(TracedSpec.read(item) for item in fields.records("layers", _MOST)),
        )
        fields.done()
        patterns = [layer.pattern for layer in found.layers]
        if not patterns or any(a >= b for a, b in pairwise(patterns)):
            raise FormatError("manifest.json: base.trace.layers: expected patterns in order, each once")
        return found

    def of(self, touched: Iterable[ParamName]) -> "TraceSpec":
        """What it says of these parameters alone."""
        names = list(touched)
        return TraceSpec(
            self.kind, self.config, self.sha256, tuple(own for own in self.layers if any(_is(own, n) for n in names))
        )

    def check(self, touched: Sequence[ParamName], through: Sequence[ParamName]) -> None:
        """Refuse a trace that gives no reason for a touched parameter, or is of other layers.

        Args:
            touched: the parameters that the patch changes.
            through: what a host must have unpatched.

        Raises:
            FormatError: naming the first.
        """
        if bare := next((name for name in touched if not any(_is(own, name) for own in self.layers)), None):
            raise FormatError(f"manifest.json: base.trace: expected a layer for {bare}, which the patch touches")
        if odd := next((own for own in self.layers if not any(_is(own, name) for name in touched)), None):
            raise FormatError(f"manifest.json: base.trace: expected touched layers alone, got {odd.pattern}")
        modules = [f"{module}.*" for own in self.layers for module in own.through]
        if odd_one := next((name for name in through if not any(fnmatchcase(name, m) for m in modules)), None):
            raise FormatError(f"manifest.json: base.through: {odd_one} is in none of the modules that base.trace names")


def _is(layer: TracedSpec, name: ParamName) -> bool:
    return name.endswith(_WEIGHT) and fnmatchcase(name.removesuffix(_WEIGHT), layer.pattern)
