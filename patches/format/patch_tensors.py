"""The numbers of a patch as tensors, for those who compute with torch: the same memory as its arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import torch

from rasura.patches._io.arrays import as_array, view_as_tensor
from rasura.patches.algebra.increment import Increment
from rasura.patches.format.manifest_parts import TensorSpec
from rasura.patches.format.patch_arrays import PairArrays, PatchArrays, SpanArrays
from rasura.patches.types import ParamName

__all__ = ["Pairs", "PatchTensors", "Span"]


@dataclass(frozen=True, slots=True, eq=False)
class Span:
    """What a parameter promises not to touch: orthonormal `rows` [k, d], and the prompts' `energy` [k]; float64."""

    rows: torch.Tensor
    energy: torch.Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Rows that stand for a concept's columns, and what they become: `targets` and `anchors` [m, d] float64."""

    targets: torch.Tensor
    anchors: torch.Tensor


@dataclass(frozen=True, slots=True, eq=False)
class PatchTensors:
    """The numbers of a patch; see `rasura.patches.format.patch_arrays.PatchArrays`.

    Attributes:
        increments: ΔW = B·A a parameter.
        protected: [k, d] float64 orthonormal rows that no detector may see.
        energy: [k] float64, mean squared component of protected prompts along each row.
        targets: [m, d] float64, rows that stand for the concept's columns.
        anchors: [m, d] float64, what they become.
        spans: what a parameter protects, where that is not `protected`.
        pairs: targets and anchors in a parameter's own input space, where that is not the text embedding.
        spaces: what the states are called that a parameter reads beside others: spans and pairs have them by that name.
    """

    increments: Mapping[ParamName, Increment]
    protected: torch.Tensor
    energy: torch.Tensor
    targets: torch.Tensor
    anchors: torch.Tensor
    spans: Mapping[ParamName, Span] = field(default_factory=dict)
    pairs: Mapping[ParamName, Pairs] = field(default_factory=dict)
    spaces: Mapping[ParamName, str] = field(default_factory=dict)

    @classmethod
    def of(cls, arrays: PatchArrays) -> Self:
        """Those of arrays."""
        return cls(
            arrays.increments,
            view_as_tensor(arrays.protected),
            view_as_tensor(arrays.energy),
            view_as_tensor(arrays.targets),
            view_as_tensor(arrays.anchors),
            {n: Span(view_as_tensor(own.rows), view_as_tensor(own.energy)) for n, own in arrays.spans.items()},
            {n: Pairs(view_as_tensor(own.targets), view_as_tensor(own.anchors)) for n, own in arrays.pairs.items()},
            arrays.spaces,
        )

    @property
    def arrays(self) -> PatchArrays:
        """The same without torch."""
        return PatchArrays(
            self.increments,
            as_array(self.protected),
            as_array(self.energy),
            as_array(self.targets),
            as_array(self.anchors),
            {name: SpanArrays(as_array(own.rows), as_array(own.energy)) for name, own in self.spans.items()},
            {name: PairArrays(as_array(own.targets), as_array(own.anchors)) for name, own in self.pairs.items()},
            self.spaces,
        )

    def space_of(self, name: ParamName) -> ParamName:
        """Under which name the columns stand that a parameter reads, if they are not the shared ones."""
        return ParamName(self.spaces.get(name, name))

    def span_of(self, name: ParamName) -> Span:
        """What a parameter promises not to touch."""
        own = self.spans.get(name) or self.spans.get(self.space_of(name))
        return own or Span(self.protected, self.energy)

    def pairs_of(self, name: ParamName) -> Pairs:
        """The concept's columns as a parameter reads them."""
        return self.pairs.get(self.space_of(name)) or Pairs(self.targets, self.anchors)

    def files(self) -> dict[str, bytes]:
        """The three tensor files, in their one encoding."""
        return self.arrays.files()

    def specs(self) -> tuple[TensorSpec, ...]:
        """The manifest's list of every tensor, sorted by file and name."""
        return self.arrays.specs()

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> Self:
        """Read the three tensor files strictly; raises as `PatchArrays.from_files`."""
        return cls.of(PatchArrays.from_files(files))
