"""How many directions of a spectrum count, by a rule that has a name."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Final, Self

import torch

from rasura.patches.errors import InputError

RULES: Final = ("absolute", "relative", "energy", "count")


@dataclass(frozen=True, slots=True)
class RankRule:
    """Where to cut the spectrum λ₁ ≥ λ₂ ≥ … of the retained second moment (mean of c·cᵀ).

    absolute v: keep λ ≥ v, as SPEED does.       relative v: keep λ ≥ v·λ₁.
    energy v: keep until Σ kept ≥ v·Σ all.       count v: keep the v largest.
    """

    kind: str = "relative"
    value: float = 1e-3

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "kind:value".

        Raises:
            InputError: an unknown kind, or a value out of range.
        """
        kind, _, number = text.partition(":")
        try:
            value = float(number)
        except ValueError:
            value = float("nan")
        top = {"absolute": sys.float_info.max, "relative": 1.0, "energy": 1.0, "count": float(1 << 20)}.get(kind)
        if top is None or not 0 < value <= top or (kind == "count" and value != int(value)):
            raise InputError(
                f"rank rule {text!r} is not understood: expected one of "
                "absolute:V, relative:V (V ≤ 1), energy:V (V ≤ 1), count:N",
                hint="--rank-rule relative:1e-4",
            )
        return cls(kind, value)

    @property
    def coarser(self) -> RankRule:
        """The next rule to try when this one leaves too little to erase with."""
        match self.kind:
            case "absolute":
                return RankRule(self.kind, self.value * 10)
            case "relative":
                return RankRule(self.kind, min(1.0, self.value * 10))
            case "energy":
                return RankRule(self.kind, self.value * 0.9)
            case _:
                return RankRule(self.kind, max(1, int(self.value) // 2))

    def __str__(self) -> str:
        """The text that `parse` reads."""
        shown = str(int(self.value)) if self.kind == "count" else format(self.value, "g")
        return f"{self.kind}:{shown if float(shown) == self.value else repr(self.value)}"

    def keep(self, spectrum: torch.Tensor) -> int:
        """How many of the descending eigenvalues [k] stay."""
        if spectrum.numel() == 0 or float(spectrum[0]) <= 0:
            return 0
        match self.kind:
            case "absolute":
                return int((spectrum >= self.value).sum())
            case "relative":
                return int((spectrum >= self.value * spectrum[0]).sum())
            case "energy":
                reached = spectrum.clamp(min=0).cumsum(0)  # rounding leaves tiny eigenvalues below zero
                return int((reached < self.value * reached[-1]).sum()) + 1
            case _:
                return min(int(self.value), int(spectrum.numel()))  # a count
