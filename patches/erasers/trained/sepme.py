"""SepME: concept-irrelevant unlearning with decoupled weights (arXiv 2402.05947; SRS-ME, the authors' later text).

With r_θ = ε_θ(x_t, c) − ε(x_t, ∅), θ0 the frozen model, and M the number of touched layers:

    L_cor = mean(r_θ ⊙ r_θ0)                                       unnormalised, unbounded below (eq. 28)
    L     = L_cor + λ·(1/M)·Σ_l Σ |ΔW_l|                           one concept
    L     = Σ_i η_i·L_cor,i + λ·(1/M)·Σ_l Σ |Σ_i ΔW_l,i|           several at once, η_i = max_k|L_cor,k| / |L_cor,i|

trained with Adam until the smoothed L_cor is at most τ (`training_loop`). There is no classifier-free guidance in it.

Weights are decoupled (eqs 24 to 26): every ΔW_l acts only on what is free of the null prompt, watermarks, retained
prompts, registered patches and the prompts of the other concepts (`prompt_null_space`). So what one patch does is the
same whether the others are there or not, each can be trained for itself, and any of them can be taken out. Two
spellings:

    compact   ΔW_l = B_l·A, A the orthonormal directions of the concept's own tokens in the free space; B_l trained
    full      ΔW_l = B_l·S, S an orthonormal basis of the whole free space, as published up to the choice of basis;
              afterwards ΔW_l·AᵀA, which does the same to the concept's prompts, or the strongest directions of all

∅ is the null prompt, or the prompt with the anchor in the concept's place (the paper's phrase pairs, app. A4). It is
evaluated by the frozen model: where it is protected this is the same number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Final

import torch

from rasura.patches.algebra.increment import Increment
from rasura.patches.erasers.interface import Defaults, Erasure, Problem
from rasura.patches.erasers.options import check_options, option
from rasura.patches.erasers.trained.checkpoints import Checkpoints
from rasura.patches.erasers.trained.prompt_null_space import Protection, Room, compute_complement, detectors, room_of
from rasura.patches.erasers.trained.sepme_loss import Lesson, before, compute_mean_norm, objective
from rasura.patches.erasers.trained.training_loop import Trained, TrainingPlan, TrainingTask, derive_seed, train
from rasura.patches.erasers.trained.training_samples import drawn, responses, run_of, scenes, trace_branches
from rasura.patches.hosts.interface import ParameterInfo
from rasura.patches.models.base_identity import find_cross_attention
from rasura.patches.models.denoiser import Denoiser
from rasura.patches.models.refuse_family import refuse_several_encoders
from rasura.patches.types import ParamName

SEPARATOR: Final = "|"


@dataclass(frozen=True, slots=True)
class SepMe:
    """The method with its choices."""

    name: ClassVar[str] = "sepme"
    defaults: ClassVar[Defaults] = Defaults(tokens="tail", layers="kv", rule="relative:1e-3", needs_retain=False)

    lr: float = option(1e-2, "Adam's step size on each entry of a response", low=1e-12, high=10)
    lam: float = option(1e-6, "weight λ of the mean L1 norm of the change", low=0, high=1e6)
    tau: float = option(-0.4, "smoothed correlation at which training ends (published: 1e-4, absolute)")
    tau_unit: str = option("share", "τ is a share of mean(r²), or a number", choices=("share", "absolute"))
    steps: int = option(300, "most updates (published: 1000)", low=1, high=1_000_000)
    batch: int = option(4, "pictures an update (published: 1)", low=1, high=1024)
    images: int = option(16, "pictures drawn to train on (published: 1000)", low=1, high=1_000_000)
    guidance: float = option(3.0, "guidance scale of those pictures (published: 7.5)", low=0, high=100)
    drawing: int = option(20, "denoising steps of those pictures (published: 100)", low=1, high=1000)
    neutral: str = option("anchor", "what the concept is compared with", choices=("anchor", "null"))
    mode: str = option("separate", "one run a concept, or one for all", choices=("separate", "simultaneous"))
    rank: int = option(8, "most directions of a concept's tokens", low=1, high=4096)
    basis: str = option("compact", "train on those, or on all free directions", choices=("compact", "full"))
    export: str = option(
        "compressed", "what of a full run is kept", choices=("compressed", "whole"), needs="basis=full"
    )
    rank_limit: int = option(64, "most directions of a whole export", low=1, high=4096, needs="export=whole")
    protect_rows: str = option("all", "which tokens of other concepts' prompts stay", choices=("all", "informative"))
    tolerance: float = option(1e-6, "share of energy below which their directions are let go; 0: none", low=0, high=1)
    watermark: str = option("", "prompts protected as exactly as the null prompt, separated by |")
    accumulate: bool = option(default=False, text="never zero gradients, as the published script does")
    seed: int = option(0, "seed of pictures, steps and noise", low=0, high=2**53 - 1)

    def __post_init__(self) -> None:
        check_options(self)

    def parameters(self, infos: Mapping[ParamName, ParameterInfo], layers: str, width: int) -> list[ParamName]:
        """Cross-attention projections: `layers` is k, v or kv (published)."""
        found = find_cross_attention(infos, layers, width)
        refuse_several_encoders(
            infos, f"method {self.name}", "rasura erase --base MODEL --concept TEXT --method null-space"
        )
        return found

    def solve(self, problem: Problem) -> tuple[Erasure, ...]:
        """Train one increment a concept; refusals come before anything is drawn."""
        # Before the UNet is loaded: text alone shows which concepts lie inside of what is protected.
        parts = [_part(self, problem, index) for index in range(len(problem.columns))]
        denoiser = problem.denoiser()
        lessons = [_lesson(self, problem, part, denoiser) for part in parts]
        if self.mode == "simultaneous":
            ends = [_trained(self, problem, denoiser, lessons)] * len(lessons)  # one run, told of each patch
        else:
            ends = [_trained(self, problem, denoiser, [lesson]) for lesson in lessons]
        return tuple(_erasure(self, problem, *found) for found in zip(parts, lessons, ends, strict=True))


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """What text alone decides of one concept: room, and the directions A [r, d] float64 of its tokens in it."""

    index: int
    room: Room
    A: torch.Tensor
    free: float


def _part(method: SepMe, problem: Problem, index: int) -> _Part:
    marks = tuple(mark.strip() for mark in method.watermark.split(SEPARATOR) if mark.strip())
    room = room_of(problem, index, Protection(method.tolerance, method.protect_rows, marks))
    A, free = detectors(problem.columns[index], room.basis, method.rank)  # [r, d], the share of energy that is free
    return _Part(index, room, A, free)


def _lesson(method: SepMe, problem: Problem, part: _Part, denoiser: Denoiser) -> Lesson:
    scene = scenes(problem, part.index, denoiser, anchored=method.neutral == "anchor")
    detector = (
        # [r, d], or [d − k, d]
        (part.A if method.basis == "compact" else compute_complement(part.room.basis)).float().to(denoiser.device)
    )
    pictures, which = drawn(
        denoiser,
        scene,
        method.images,
        steps=method.drawing,
        guidance=method.guidance,
        seed=method.seed,
        progress=problem.progress,
    )
    return Lesson(scene, detector, responses(problem, detector.shape[0], denoiser.device), pictures, which)


def _trained(method: SepMe, problem: Problem, denoiser: Denoiser, lessons: Sequence[Lesson]) -> Trained:
    """One run, of one concept or of several together; the responses hold what it found."""
    task = TrainingTask(
        ", ".join(lesson.scene.concept for lesson in lessons),
        {f"{i}/{name}": B for i, lesson in enumerate(lessons) for name, B in lesson.responses.items()},
        lambda step: objective(
            denoiser, lessons, batch=method.batch, lam=method.lam, seed=derive_seed(method.seed, "update", step)
        ),
    )
    if problem.work is not None:
        inputs = {f"{i}/{k}": t for i, own in enumerate(lessons) for k, t in _inputs(own).items()}
        task = replace(task, checkpoints=Checkpoints(problem.work, run_of(method, denoiser, task.name, inputs)))
    # L_cor starts at mean(r²), which every concept has another: a share of it means the same for all.
    tau = method.tau * before(denoiser, lessons, method.seed) if method.tau_unit == "share" else method.tau
    return train(task, TrainingPlan(method.lr, method.steps, tau=tau, accumulate=method.accumulate), problem.progress)


def _inputs(lesson: Lesson) -> dict[str, torch.Tensor]:
    """What decides a run besides choices and weights."""
    scene = lesson.scene
    return {"A": lesson.detector, "states": scene.states, "neutral": scene.neutral, "pictures": lesson.pictures}


def _erasure(method: SepMe, problem: Problem, part: _Part, lesson: Lesson, end: Trained) -> Erasure:
    # A [r, d]; each B [d_out, r]
    A, found = _exported(method, part, {name: B.detach().cpu().double() for name, B in lesson.responses.items()})
    increments = {name: Increment.quantised(A, B) for name, B in found.items()}
    size = compute_mean_norm(trace_branches(A, found).values())
    facts = {**end.facts(), "change_l1": f"{float(size):.3e}", **part.room.facts(increments, problem.weights)}
    return Erasure(increments, part.free, part.room.basis.guards, basis=part.room.basis, facts=facts)


def _exported(
    method: SepMe, part: _Part, found: Mapping[ParamName, torch.Tensor]
) -> tuple[torch.Tensor, Mapping[ParamName, torch.Tensor]]:
    """Detector and responses, float64, of what is kept: of a full run its part on the concept, or its strongest."""
    if method.basis == "compact":
        return part.A, found
    S = compute_complement(part.room.basis)  # [d − k, d]
    if method.export == "compressed":
        # A lies in the span of S, so that ΔW AᵀA = (B S Aᵀ) A: responses [d_out, r].
        return part.A, {name: B @ (S @ part.A.T) for name, B in found.items()}
    # All layers share one detector, so their responses are cut together: [Σ d_out, d − k].
    _, _, right = torch.linalg.svd(torch.cat(list(found.values())), full_matrices=False)
    top = right[: method.rank_limit]  # [r, d − k]
    return top @ S, {name: B @ top.T for name, B in found.items()}
