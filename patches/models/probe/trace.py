"""What a trace says: which linear layers of a denoiser read text alone, what of it, and through what."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final, Literal, TypeAlias

from rasura.patches._io import canonical_json
from rasura.patches._io.sha256 import digest_of
from rasura.patches.types import Digest

__all__ = ["ALONE", "FORMAT", "Seen", "Trace", "TracedLayer"]

Seen: TypeAlias = Literal["text", "normed", "projected", "fused", "refined", "pooled", "stream", "picture"]
FORMAT: Final = "rasura-trace/1"
_CALLED: Final = re.compile(r"attn2\.to_[kv]$|add_[kv]_proj$|text_embedder|caption|context_embedder|cap_embedder")
"""How layers are called that read text in one family or another."""
ALONE: Final[tuple[Seen, ...]] = ("text", "normed", "projected", "fused", "refined")
"""What depends on the words alone."""


@dataclass(frozen=True, slots=True)
class TracedLayer:
    """Linear layers that are alike.

    Attributes:
        pattern: their names without `.weight`, a `*` for every number.
        reads: `text`: the token states as they come; `normed`: after a norm; `projected`: after fixed layers, row by
            row; `fused`: a row a token, after fixed layers that see the whole prompt; `refined`: of the words alone,
            after attention among them in no such order; `pooled`: one pooled text a prompt, no tokens; `stream`: text
            mixed with picture or time; `picture`: no text.
        width: numbers a row.
        input: the argument of the denoiser that they read, or an entry of it.
        through: the modules between, in order, each called with what the one before gave.
        mixed: what else goes into a stream.
    """

    pattern: str
    reads: Seen
    width: int
    input: str = ""
    through: tuple[str, ...] = ()
    mixed: tuple[str, ...] = ()

    def to_json(self) -> dict[str, canonical_json.JsonValue]:
        """The JSON object."""
        return {
            "pattern": self.pattern,
            "reads": self.reads,
            "width": self.width,
            "input": self.input,
            "through": list(self.through),
            "mixed": list(self.mixed),
        }


@dataclass(frozen=True, slots=True)
class Trace:
    """One denoiser, traced.

    Attributes:
        component: `unet` or `transformer`.
        kind: its class.
        config: SHA-256 of its configuration, canonical JSON without names that begin with `_`.
        how: what was run: a random twin, with what made smaller.
        layers: every kind of linear layer that ran, in name order.
    """

    component: str
    kind: str
    config: Digest
    how: str
    layers: tuple[TracedLayer, ...]

    @property
    def alone(self) -> tuple[TracedLayer, ...]:
        """The layers that depend on the words alone."""
        return tuple(layer for layer in self.layers if layer.reads in ALONE)

    @property
    def entrances(self) -> tuple[TracedLayer, ...]:
        """Of these the ones whose input fixed modules make of the tokens' states: here an erasure can sit."""
        return tuple(layer for layer in self.alone if layer.reads != "refined")

    @property
    def lookalikes(self) -> tuple[TracedLayer, ...]:
        """Layers that see text and more, or pooled text, or are called like cross-attention and read the picture."""
        return tuple(
            layer
            for layer in self.layers
            if layer.reads == "pooled" or (layer.reads in {"stream", "picture"} and _CALLED.search(layer.pattern))
        )

    def layer(self, name: str) -> TracedLayer | None:
        """What was found of a parameter `<component>.<module>.weight`; None for one that did not run."""
        plain = name.removesuffix(".weight")
        return next((layer for layer in self.layers if fnmatchcase(plain, layer.pattern)), None)

    def to_json(self) -> dict[str, canonical_json.JsonValue]:
        """The JSON object."""
        return {
            "format": FORMAT,
            "component": self.component,
            "class": self.kind,
            "config_sha256": self.config,
            "how": self.how,
            "layers": [layer.to_json() for layer in self.layers],
        }

    @property
    def digest(self) -> Digest:
        """SHA-256 of the canonical JSON."""
        return digest_of(canonical_json.dumps(self.to_json()))


def digest_config(config: Mapping[str, object]) -> Digest:
    """SHA-256 of a configuration, floats written as they are, without names that begin with `_`."""
    plain = {key: value for key, value in config.items() if not key.startswith("_")}
    return digest_of(json.dumps(plain, sort_keys=True, separators=(",", ":"), default=list).encode())
