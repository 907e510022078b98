"""Records of bases, and of what was computed on them: retain sets and protected bases."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

from rasura.patches.types import Digest, ParamName
from rasura.registry._storage.records.validation import check_count, check_digest, check_name, check_text, check_time

__all__ = ["BaseParameter", "BaseRecord", "BaseSummary", "BasisRecord", "RetainSetRecord"]


@dataclass(frozen=True, slots=True)
class BaseParameter:
    """One patchable parameter of a base, and the digest of its raw little-endian bytes."""

    name: ParamName
    dtype: str
    shape: tuple[int, ...]
    sha256: Digest
    casts: Mapping[str, Digest]
    """For other dtypes, the digest of the same values rounded to them: `{"F16": …}`."""

    def __post_init__(self) -> None:
        check_text("parameter name", self.name, limit=512)
        check_text("parameter dtype", self.dtype, limit=16)
        check_digest("parameter digest", self.sha256)
        for size in self.shape:
            check_count("parameter shape", size)
        for dtype, digest in self.casts.items():
            check_text("cast dtype", dtype, limit=16)
            check_digest("cast digest", digest)
        object.__setattr__(self, "casts", MappingProxyType(dict(self.casts)))


@dataclass(frozen=True, slots=True)
class BaseSummary:
    """A base without its parameters: what a list shows."""

    digest: Digest
    name: str
    source: str
    text_encoder: Digest
    tokenizer: Digest
    added_at: datetime


@dataclass(frozen=True, slots=True)
class BaseRecord:
    """The weights that patches are computed on."""

    digest: Digest
    """Of the tensor set: every patchable parameter's name, dtype, shape and digest."""
    name: str
    source: str
    text_encoder: Digest
    tokenizer: Digest
    parameters: tuple[BaseParameter, ...]
    added_at: datetime

    def __post_init__(self) -> None:
        check_digest("base digest", self.digest)
        check_name("base name", self.name)
        check_text("base source", self.source, empty=True)
        check_digest("text encoder digest", self.text_encoder)
        check_digest("tokenizer digest", self.tokenizer)
        check_time("added_at", self.added_at)


@dataclass(frozen=True, slots=True)
class RetainSetRecord:
    """Prompts that a patch promised to leave alone."""

    digest: Digest
    name: str
    count: int

    def __post_init__(self) -> None:
        check_digest("retain set digest", self.digest)
        check_name("retain set name", self.name)
        check_count("retain set count", self.count)


@dataclass(frozen=True, slots=True)
class BasisRecord:
    """An orthonormal basis of a protected space, stored once and referenced by digest."""

    digest: Digest
    dimension: int
    """Of the space the basis vectors live in."""
    rank: int
    """Number of basis vectors."""
    rule: str
    """How the rank was chosen."""

    def __post_init__(self) -> None:
        check_digest("basis digest", self.digest)
        check_count("basis dimension", self.dimension)
        check_count("basis rank", self.rank, high=self.dimension)
        check_text("basis rule", self.rule, empty=True)
