"""The choices of the text encoder's null-space method, and what its closed and its guided way have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import torch

from rasura.patches.algebra.protected_subspace import ProtectedBasis
from rasura.patches.erasers.interface import Defaults
from rasura.patches.erasers.options import check_options, option
from rasura.patches.erasers.text_encoder.alphaedit import Space, rewrite, ridge_of
from rasura.patches.erasers.text_encoder.edit import Edit, others_of
from rasura.patches.errors import InputError

AUTO: Final = "auto"


@dataclass(frozen=True, slots=True)
class Choices:
    """What a person may choose, and what follows from it for one layer."""

    name: ClassVar[str] = "clip-null-space"
    defaults: ClassVar[Defaults] = Defaults(tokens="tail", layers=AUTO, rule="relative:1e-3")

    values: str = option("states", "how new values are chosen", choices=("states", "mapped", "guided"))
    positions: str = option("all", "which positions are rewritten", choices=("all", "tokens"))
    policy: str = option(
        "rule", "what is free: by the rank rule, or what has 1/90000 of the mean eigenvalue", choices=("rule", "paper")
    )
    shared_p: bool = option(False, "all layers use the last one's projector, as the paper's code does by a slip")  # noqa: FBT003
    ridge: float = option(
        0.1, "softness λ as a share of the keys' mean squared free norm; 0 fits exactly", low=0, needs="lam=0"
    )
    lam: float = option(0.0, "λ itself, on the sum of the keys' moment, in place of ridge; 0 takes ridge", low=0)
    energy: float = option(0.9, "share of the effect on the keys that the rank must carry", low=1e-9, high=1)
    rank_limit: int = option(128, "most detectors of one layer", low=1, high=1024)
    guard: str = option(
        "span", "protected patches: held like retained keys, or disturbed little", choices=("span", "soft")
    )
    guard_share: float = option(0.9999, "share of other concepts' free energy that is held", low=1e-9, high=1)
    epochs: int = option(10, "guided: rounds over the layers", low=1, high=1000, needs="values=guided")
    steps: int = option(6, "guided: Adam steps a layer and round", low=1, high=10_000, needs="values=guided")
    lr: float = option(0.2, "guided: Adam's step length", low=1e-9, needs="values=guided")
    batch: int = option(8, "guided: prompts and pictures a round", low=1, high=64, needs="values=guided")
    t_low: int = option(10, "guided: least training step of the noise", low=0, high=100_000, needs="values=guided")
    t_high: int = option(50, "guided: largest training step of the noise", low=0, high=100_000, needs="values=guided")
    draw_steps: int = option(10, "guided: steps in which a picture is drawn", low=1, high=1000, needs="values=guided")
    guidance: float = option(
        7.5, "guided: guidance scale with which it is drawn", low=0, high=100, needs="values=guided"
    )
    seed: int = option(0, "guided: of noise, steps and prompts", low=0, high=2**53 - 1)

    def __post_init__(self) -> None:
        check_options(self)
        if self.t_low > self.t_high:
            raise InputError(
                f"method {self.name}: options t_low and t_high: expected t_low ≤ t_high, got {self.t_low} and "
                f"{self.t_high}",
                hint=f"rasura methods {self.name}",
            )

    def room(self, edits: Sequence[Edit], own: int, space: Space) -> ProtectedBasis:
        """What a concept's edit must not touch in a layer.

        Raises:
            ErasureRefusedError: the concept lies inside it, or it is the whole space.
        """
        basis = edits[own].room(space, others_of(edits, own, space.layer), self.guard_share)
        edits[own].check_free(space, basis, self._coarser(space))
        return basis

    def rewritten(
        self, edit: Edit, space: Space, basis: ProtectedBasis, change: torch.Tensor, keys: torch.Tensor
    ) -> torch.Tensor:
        """ΔW [d, d_ff] that changes the values of keys [d_ff, m] by R [d, m] and leaves all that is protected alone."""
        pristine = edit.columns(edit.pristine[space.layer].keys)  # [d_ff, m]
        lam = self.lam or ridge_of(pristine, basis, self.ridge)  # what a lower edit has made the anchor's weighs little
        return rewrite(change, keys, basis, lam, space.earlier)

    def _coarser(self, space: Space) -> str:
        return f"--rank-rule {space.basis.rule.coarser}" if self.policy == "rule" else "--set policy=rule"
