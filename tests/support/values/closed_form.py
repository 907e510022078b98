"""A problem for closed-form erasers on vectors like CLIP's, without a model; and the published formulas, d × d."""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from support.models.tiny import tiny_components
from support.values.factories import World

from rasura.patches.algebra.protected_subspace import Moment, ProtectedBasis
from rasura.patches.algebra.rank_rule import RankRule
from rasura.patches.erasers.columns import Columns
from rasura.patches.erasers.interface import Problem
from rasura.patches.erasers.request import EraseRequest
from rasura.patches.models.denoiser import Denoiser
from rasura.patches.models.text_encoders.text_encoder import TextEncoder
from rasura.patches.prompts.concept_prompts import Target
from rasura.patches.solving.moments import sum_moment
from rasura.patches.types import PatchId


@dataclass(frozen=True)
class Setting:
    """What a closed-form eraser is given."""

    world: World
    concepts: tuple[Columns, ...]
    rule: RankRule = field(default_factory=lambda: RankRule("absolute", 0.1))
    batch: int = 50
    anchor: str = "anchor"

    def problem(
        self, guarded: Mapping[PatchId, torch.Tensor] | None = None, retained: torch.Tensor | None = None
    ) -> Problem:
        """`retained`: columns [d, m] in place of the world's."""
        request = EraseRequest(
            tuple(Target(columns.name, self.anchor) for columns in self.concepts),
            None,
            tokens="last",
            rule=self.rule,
            guarded=guarded or {},
        )
        kept = self.world.retained_columns if retained is None else retained

        def batches(_: str) -> Iterator[torch.Tensor]:
            return iter(torch.split(kept.T, self.batch))

        return Problem(
            weights=self.world.weights,
            encoder=encoder(),
            request=request,
            columns=self.concepts,
            reference=self.world.reference,
            basis=self.world.basis,
            retained=batches,
            moment=sum_prompts,
            denoiser=no_denoiser,
            progress=lambda *_: None,
        )


@functools.cache
def encoder() -> TextEncoder:
    parts = tiny_components()
    return TextEncoder.of_clip(parts["tokenizer"], parts["text_encoder"])


def sum_prompts(prompts: Callable[[], Iterable[str]], stage: str, total: int) -> Moment:
    """As the tiny encoder reads them: of another width than the world's, whose words nobody types."""
    return sum_moment(encoder(), prompts, total, {}, lambda _: None)


def no_denoiser() -> Denoiser:
    raise AssertionError("no closed-form eraser looks at pictures")


def projector(basis: ProtectedBasis) -> torch.Tensor:
    return torch.eye(basis.width, dtype=torch.float64) - basis.rows.T @ basis.rows


def eye(width: int) -> torch.Tensor:
    return torch.eye(width, dtype=torch.float64)


def speed_map(
    C1: torch.Tensor, C: torch.Tensor, C2: torch.Tensor, P: torch.Tensor, *, ridge: float, lamb: float = 0.0
) -> torch.Tensor:
    """SPEED's solution without W, [d, d]: (C*C1ᵀ − C1C1ᵀ) P Q M, with inverses of d × d matrices as published."""
    identity = eye(P.shape[0])
    M: torch.Tensor = torch.linalg.inv(C1 @ C1.T @ P + ridge * identity)
    if C2.shape[1] == 0:
        return (C - C1) @ C1.T @ P @ M
    inner = C2.T @ P @ M @ C2 + lamb * eye(C2.shape[1])
    Q = identity - M @ C2 @ torch.linalg.inv(inner) @ C2.T @ P
    found: torch.Tensor = (C - C1) @ C1.T @ P @ Q @ M
    return found


def uce_map(
    C1: torch.Tensor, C: torch.Tensor, C0: torch.Tensor, *, alpha: float, beta: float, ridge: float
) -> torch.Tensor:
    """UCE's solution without W: W' W⁻¹ − I, term by term as published."""
    identity = eye(C1.shape[0])
    right = alpha * C1 @ C1.T + beta * C0 @ C0.T + ridge * identity
    left = alpha * C @ C1.T + beta * C0 @ C0.T + ridge * identity
    found: torch.Tensor = left @ torch.linalg.inv(right) - identity
    return found


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())
