"""What a row of the table of families says: its text encoders, and the layers that read what of them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import prod
from typing import Final, Literal

from rasura.patches.hosts.interface import ParameterInfo
from rasura.patches.types import ParamName

__all__ = ["CROSS_ATTENTION", "OF_TEXT", "Encoder", "Family", "Layered", "Reader", "Reads", "States", "find_matching"]


Reads = Literal["text", "normed", "pooled", "projected", "fused", "stream", "picture"]

OF_TEXT: Final = frozenset({"text", "normed", "projected", "fused"})
"""What is a fixed function of each token's state, or of a prompt's: there a detector can sit."""

States = Literal["last", "penultimate"]
"""Hidden states after the last block and the final norm, or after the block before the last, without the norm."""


_OF_PROCESSORS: Final = frozenset({"QwenImage21Pipeline"})
"""Pipelines whose tokenizer lies in a processor of text and pictures."""


@dataclass(frozen=True, slots=True)
class Encoder:
    """One of a pipeline's text encoders."""

    component: str
    kind: Literal["CLIP", "T5", "pipeline"]
    """`pipeline`: whatever the family's pipeline reads with, by its own `encode_prompt`."""
    width: int
    """Of the published models, in numbers a token."""
    states: States = "last"
    """Which of its hidden states the layers read that read text."""
    length: int | None = None
    """Positions that the family's pipeline pads a prompt to by default; None: as many as the encoder has."""
    masked: bool = False
    """Whether padding is hidden, from the encoder and from what reads it, and captions are cleaned before."""

    causal: bool = False
    """Whether a position knows only what stands before it; of kind `pipeline`, for which its class cannot tell."""
    pipeline: str = ""
    """The class of diffusers whose `encode_prompt` reads, of kind `pipeline`."""
    alone: bool = False
    """Whether what else is read in the same call changes what a prompt gives: its filling is read like words."""
    layered: bool = False
    """Whether the pipeline gives the states of all its layers, one above the other."""
    method: str = "encode_prompt"
    """The method of the pipeline that reads, where each of its encoders has one of its own."""

    @property
    def tokenizer(self) -> str:
        """The tokenizer beside it, or what holds it."""
        return "processor" if self.pipeline in _OF_PROCESSORS else self.component.replace("text_encoder", "tokenizer")


@dataclass(frozen=True, slots=True)
class Reader:
    """Linear layers by a pattern of their names (`*` is any text), and what they read."""

    pattern: str
    reads: Reads
    through: tuple[str, ...] = ()
    """The modules, with their component, that the states go through in this order before these layers read them."""


@dataclass(frozen=True, slots=True)
class Layered:
    """Maps of which each reads one layer of an encoder, as the denoiser's configuration names them in order.

    Attributes:
        encoder: whose hidden states they read.
        pattern: the maps, a `*` for their number; those beyond the configuration's list read the family's sequence.
        key: of the configuration.
        argument: of the denoiser, which takes the layers one above the other.
    """

    encoder: Encoder
    pattern: str
    key: str
    argument: str

    @property
    def component(self) -> str:
        """The encoder's name in a pipeline."""
        return self.encoder.component

    def number_of(self, name: ParamName) -> int | None:
        """The number of a map; None for another layer."""
        before, _, after = self.pattern.partition("*")
        number = name.removeprefix(before).removesuffix(after)
        return int(number) if fnmatchcase(name, self.pattern) and number.isdecimal() else None


@dataclass(frozen=True, slots=True)
class Family:
    """A row of the table.

    Attributes:
        name: as people call it.
        encoders: all its text encoders.
        readers: its linear layers that see text, or are taken for such.
        has: patterns that must all match a parameter.
        sequence: the encoders whose states are read: parts of the sequence of positions, and in each the encoders that
            fill it side by side.
        lacks: patterns that must match none.
        dimensions: a pattern, and of how many dimensions the parameters are that it matches.
        doubled: a matrix, and a convolution of which one filter has half as many numbers as the matrix has rows.
        layered: maps that read layers of a further encoder.
    """

    name: str
    encoders: tuple[Encoder, ...]
    readers: tuple[Reader, ...]
    has: tuple[str, ...]
    sequence: tuple[tuple[Encoder, ...], ...]
    lacks: tuple[str, ...] = ()
    dimensions: tuple[str, int] | None = None
    doubled: tuple[ParamName, ParamName] | None = None
    layered: Layered | None = None

    @property
    def beside(self) -> tuple[Encoder, ...]:
        """Encoders whose states further spaces read."""
        return () if self.layered is None else (self.layered.encoder,)

    @property
    def components(self) -> tuple[str, ...]:
        """The parts of a pipeline that hold its patchable parameters, the denoiser first."""
        return (self.has[0].partition(".")[0], *(encoder.component for encoder in self.encoders))

    def fits(self, infos: Mapping[ParamName, ParameterInfo]) -> bool:
        """Whether a host with these parameters is of this family."""
        if not all(any(find_matching(infos, pattern)) for pattern in self.has):
            return False
        if any(any(find_matching(infos, pattern)) for pattern in self.lacks):
            return False
        if self.doubled is not None:
            rows, patch = (infos[name].shape if name in infos else () for name in self.doubled)
            if not rows or rows[0] != 2 * prod(patch[1:]):
                return False
        if self.dimensions is None:
            return True
        pattern, count = self.dimensions
        shapes = [info.shape for info in find_matching(infos, pattern)]
        return bool(shapes) and all(len(shape) == count for shape in shapes)

    def reads(self, name: ParamName) -> Reads | None:
        """What a parameter reads of the text; None if it is no text layer of this family."""
        return next((reader.reads for reader in self.readers if fnmatchcase(name, reader.pattern)), None)

    def way_to(self, name: ParamName) -> tuple[str, ...]:
        """The modules that the text goes through before a parameter reads it."""
        return next((reader.through for reader in self.readers if fnmatchcase(name, reader.pattern)), ())

    def reading(self, infos: Mapping[ParamName, ParameterInfo], reads: Reads = "text") -> list[ParamName]:
        """The parameters that read this, in name order."""
        return [name for name in sorted(infos) if self.reads(name) == reads]

    def entrances(self, infos: Mapping[ParamName, ParameterInfo]) -> list[ParamName]:
        """The parameters through which text enters: they read the embeddings themselves, or what all of them pass."""
        return self.reading(infos, "text") or self.reading(infos, "normed") or self.reading(infos, "fused")

    def through(self, *, entrances: bool) -> tuple[str, ...]:
        """The modules that text goes through before its entrances, or before cross-attention, read it."""
        kinds = ("text", "normed", "fused") if entrances else ("text", "projected")
        ways = [
            reader.through
            for reader in self.readers
            if reader.reads in kinds and (entrances or CROSS_ATTENTION in f".{reader.pattern}")
        ]
        return ways[0] if ways else ()


CROSS_ATTENTION: Final = ".attn2."


def find_matching(infos: Mapping[ParamName, ParameterInfo], pattern: str) -> Iterator[ParameterInfo]:
    """The parameters whose names match."""
    return (info for name, info in infos.items() if fnmatchcase(name, pattern))
