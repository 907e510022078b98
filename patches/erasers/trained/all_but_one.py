"""All but One: change a concept's guidance term alone (Hong, Lee, Woo, AAAI 2024, 38(19), article 30107).

    L_erase = mean ‖γ1·T − γ2·ψ_θ(c)‖²,     L_unc = mean ‖ε_θ0(z_t, ∅) − ε_θ(z_t, ∅)‖²          (`all_but_one_loss`)
    L       = L_erase + λ·(L_unc − ϵ)       λ fixed, or by dual ascent: λ ← max(0, λ + ρ·(L_unc − ϵ))

trained with Adam on latents that the frozen model leaves partway under c. The loss has a minimum at ψ_θ(c) = T·γ1/γ2,
so nothing has to stop it early. The paper gives no code; step size, λ, ϵ, κ, g, latents and guidance are ours.

    k, v, kv    ΔW_l = B_l·A with A orthogonal to the null prompt and all else that is protected
                (`prompt_null_space`): L_unc is 0 exactly whatever B_l is, and the patch is separable
    q, out      ΔW_l = B_l·A_l, both trained: the input is a picture's, and nothing about it can be promised from text;
                λ is all that holds the unconditional prediction, and what it lets go is measured
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Final

import torch

from rasura.patches.algebra.increment import Increment
from rasura.patches.algebra.protected_subspace import make_empty_basis
from rasura.patches.erasers.interface import Defaults, Erasure, Problem
from rasura.patches.erasers.options import check_options, option
from rasura.patches.erasers.trained.all_but_one_loss import (
    TARGETS,
    Views,
    Wanted,
    compute_drift_loss,
    compute_erase_loss,
    view_latents,
)
from rasura.patches.erasers.trained.checkpoints import Checkpoints
from rasura.patches.erasers.trained.prompt_null_space import Protection, Room, detectors, room_of
from rasura.patches.erasers.trained.training_loop import (
    Objective,
    Trained,
    TrainingPlan,
    TrainingTask,
    derive_seed,
    train,
)
from rasura.patches.erasers.trained.training_samples import partway, responses, run_of, scenes, trace_branches
from rasura.patches.errors import InputError, UnsupportedHostError
from rasura.patches.format.protected_spec import IMAGE
from rasura.patches.hosts.interface import ParameterInfo
from rasura.patches.models.base_identity import LAYERS, find_cross_attention
from rasura.patches.models.denoiser import Denoiser, LayerFactors
from rasura.patches.models.prompt_to_prompt import match_positions
from rasura.patches.models.refuse_family import refuse_several_encoders
from rasura.patches.prompts.concept_prompts import prompts_of
from rasura.patches.types import ParamName

IMAGE_LAYERS: Final = {"q": ".to_q.weight", "out": ".to_out.0.weight"}
JUDGED: Final = 8
"""Latents, apart from those of the training, on which the result is measured."""


@dataclass(frozen=True, slots=True)
class AllButOne:
    """The method with its choices."""

    name: ClassVar[str] = "all-but-one"
    defaults: ClassVar[Defaults] = Defaults(tokens="tail", layers="kv", rule="relative:1e-3", needs_retain=False)

    target: str = option("alternative", "what the concept's guidance becomes", choices=TARGETS)
    gamma_target: float = option(1.0, "scale γ1 of the target", low=0, high=100)
    gamma_guidance: float = option(1.0, "scale γ2 of the trained guidance", low=1e-3, high=100)
    lagrangian: str = option("fixed", "whether λ stays or follows the drift", choices=("fixed", "dual"))
    lam: float = option(1.0, "multiplier λ of the unconditional drift, or where it starts", low=0, high=1e6)
    slack: float = option(0.0, "mean squared drift ϵ that dual ascent allows", low=0, high=1e6, needs="lagrangian=dual")
    ascent: float = option(10.0, "step size ρ of dual ascent", low=0, high=1e6, needs="lagrangian=dual")
    stop_gradient: bool = option(default=False, text="no gradient through the null prompt inside the guidance")
    kappa: float = option(
        0.9, "quantile below which an explicit signal is left out", low=0, high=1, needs="target=explicit"
    )
    push: float = option(
        -1.0, "weight g of the concept in an explicit signal", low=-100, high=100, needs="target=explicit"
    )
    pull: float = option(
        1.0, "weight g of the anchor in an explicit signal", low=-100, high=100, needs="target=explicit"
    )
    p2p_share: float = option(
        0.8, "first share of the way in which p2p keeps the layout", low=0, high=1, needs="target=p2p"
    )
    lr: float = option(3e-3, "Adam's step size", low=1e-12, high=10)
    steps: int = option(200, "updates", low=1, high=1_000_000)
    batch: int = option(2, "latents an update", low=1, high=1024)
    images: int = option(48, "latents drawn to train on", low=1, high=1_000_000)
    guidance: float = option(3.0, "guidance scale of those latents", low=0, high=100)
    drawing: int = option(20, "denoising steps of a whole picture", low=1, high=1000)
    rank: int = option(8, "most detectors of one patch", low=1, high=1024)
    protect_rows: str = option("all", "which tokens of other concepts' prompts stay", choices=("all", "informative"))
    tolerance: float = option(1e-6, "share of energy below which their directions are let go; 0: none", low=0, high=1)
    seed: int = option(0, "seed of latents, batches and image-side detectors", low=0, high=2**53 - 1)

    def __post_init__(self) -> None:
        check_options(self)

    def parameters(self, infos: Mapping[ParamName, ParameterInfo], layers: str, width: int) -> list[ParamName]:
        """Cross-attention: `layers` is k, v, kv, q (`to_q`) or out (`to_out.0`, its bias untouched)."""
        if layers in LAYERS:
            found = find_cross_attention(infos, layers, width)
            refuse_several_encoders(
                infos, f"method {self.name}", "rasura erase --base MODEL --concept TEXT --method null-space"
            )
            return found
        if layers not in IMAGE_LAYERS:
            expected = ", ".join([*LAYERS, *IMAGE_LAYERS])
            raise InputError(f"layers {layers!r}: expected one of {expected}", hint="rasura methods all-but-one")
        refuse_several_encoders(
            infos, f"method {self.name}", "rasura erase --base MODEL --concept TEXT --method null-space"
        )
        ending = f".attn2{IMAGE_LAYERS[layers]}"
        found = [name for name in sorted(infos) if name.startswith("unet.") and name.endswith(ending)]
        if not found:
            raise UnsupportedHostError(f"the model has no {ending[1:]}: expected a UNet of the SD 1.x or 2.x family")
        return found

    def solve(self, problem: Problem) -> tuple[Erasure, ...]:
        """Train one increment a concept; refusals come before anything is drawn."""
        image = problem.request.layers in IMAGE_LAYERS
        # Before the UNet is loaded: text alone shows which concepts lie inside of what is protected.
        parts = [None if image else _part(self, problem, index) for index in range(len(problem.columns))]
        denoiser = problem.denoiser()
        return tuple(_erased(self, problem, denoiser, index, part) for index, part in enumerate(parts))


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """Room of one concept on the text side, and the directions A [r, d] float64 of its tokens in it."""

    room: Room
    A: torch.Tensor
    free: float


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """One training: what it looks at, what it changes, and whether the null prompt's prediction may move."""

    views: Views
    null: torch.Tensor
    factors: Mapping[ParamName, LayerFactors]
    moves_null: bool
    multiplier: torch.Tensor  # λ, [1] float64


def _part(method: AllButOne, problem: Problem, index: int) -> _Part:
    room = room_of(problem, index, Protection(method.tolerance, method.protect_rows))
    return _Part(room, *detectors(problem.columns[index], room.basis, method.rank))


def _erased(method: AllButOne, problem: Problem, denoiser: Denoiser, index: int, part: _Part | None) -> Erasure:
    concept = problem.columns[index].name
    null = problem.reference.invariants[None].to(denoiser.device, torch.float32)  # [1, length, d]
    factors = _factors(method, problem, concept, part, denoiser.device)
    views = _views(method, problem, denoiser, index, seed=method.seed, count=method.images)
    multiplier = torch.full((1,), method.lam, dtype=torch.float64)
    run = _Run(views, null, factors, part is None, multiplier)
    end = _trained(method, problem, denoiser, concept, run)
    increments = _increments(factors, part)
    # Latents of another seed, which no update has seen.
    judged = _views(method, problem, denoiser, index, seed=derive_seed(method.seed, "judged"), count=JUDGED)
    facts = {**end.facts(), **_judged(method, denoiser, replace(run, views=judged), increments)}
    if method.lagrangian == "dual":
        facts["multiplier"] = f"{float(multiplier):.3e}"
    if part is None:
        reads = dict.fromkeys(increments, IMAGE)
        return Erasure(increments, 1.0, 0, basis=make_empty_basis(problem.encoder.width), reads=reads, facts=facts)
    facts |= part.room.facts(increments, problem.weights)
    return Erasure(increments, part.free, part.room.basis.guards, basis=part.room.basis, facts=facts)


def _factors(
    method: AllButOne, problem: Problem, concept: str, part: _Part | None, device: torch.device
) -> dict[ParamName, LayerFactors]:
    """What is trained: responses, and on the image side detectors too, orthonormal at first."""
    if part is not None:
        # A stays as it is: that it is orthogonal to all that is protected is the promise.
        return trace_branches(part.A.float().to(device), responses(problem, part.A.shape[0], device))
    rank = min([method.rank, *(min(weight.shape) for weight in problem.weights.values())])
    found = {}
    for name, B in responses(problem, rank, device).items():
        generator = torch.Generator("cpu").manual_seed(derive_seed(method.seed, concept, "detector", name))
        # [d_in, r]; float64 on the CPU, so that the directions are the same on every device.
        drawn = torch.randn(problem.weights[name].shape[1], rank, generator=generator, dtype=torch.float64)
        A = torch.linalg.qr(drawn)[0].T.float().contiguous().to(device)  # [r, d_in], orthonormal rows
        found[name] = LayerFactors(A.requires_grad_(), B)
    return found


def _views(method: AllButOne, problem: Problem, denoiser: Denoiser, index: int, *, seed: int, count: int) -> Views:
    scene = scenes(problem, index, denoiser)
    latents = partway(
        denoiser,
        scene,
        count,
        steps=method.drawing,
        guidance=method.guidance,
        seed=seed,
        progress=problem.progress,
    )
    wanted = Wanted(method.target, method.kappa, method.push, method.pull, method.p2p_share)
    return view_latents(denoiser, scene, latents, _matching(problem, index).to(denoiser.device), wanted)


def _matching(problem: Problem, index: int) -> torch.Tensor:
    """R [prompts, length, length] between each prompt of the concept and the same of the anchor."""
    encoder, target = problem.encoder, problem.request.targets[index]
    templates = problem.request.templates_of(target)
    pairs = zip(prompts_of(target.concept, templates), prompts_of(target.anchor, templates), strict=True)
    found = [(encoder.subject(one, target.concept), encoder.subject(two, target.anchor)) for one, two in pairs]
    return torch.stack(
        [match_positions(source, goal, encoder.length) for source, goal in found]
    )  # [prompts, length, length]


def _trained(method: AllButOne, problem: Problem, denoiser: Denoiser, concept: str, run: _Run) -> Trained:
    sides = ("A", "B") if run.moves_null else ("B",)
    task = TrainingTask(
        concept,
        {f"{name}/{side}": getattr(own, side) for name, own in run.factors.items() for side in sides},
        lambda step: objective(method, denoiser, run, derive_seed(method.seed, concept, "update", step)),
        state={"multiplier": run.multiplier},
    )
    if problem.work is not None:
        inputs = {f"{name}/A": own.A.detach() for name, own in run.factors.items()}
        inputs |= {name: getattr(run.views, name) for name in ("z", "t", "states", "target")}
        task = replace(task, checkpoints=Checkpoints(problem.work, run_of(method, denoiser, concept, inputs)))
    return train(task, TrainingPlan(method.lr, method.steps), problem.progress)


def objective(method: AllButOne, denoiser: Denoiser, run: _Run, seed: int) -> Objective:
    """The loss of one update on a random batch; also moves λ where it follows the drift."""
    generator = torch.Generator("cpu").manual_seed(seed)
    chosen = torch.randint(0, run.views.z.shape[0], (method.batch,), generator=generator)  # [b]
    erase, drift = compute_losses(method, denoiser, run, run.views.some(chosen.to(denoiser.device)))
    # This update's λ; dual ascent moves it for the next.
    multiplier = float(run.multiplier)
    if method.lagrangian == "dual":
        run.multiplier.add_(method.ascent * (float(drift.detach()) - method.slack)).clamp_(min=0)
    return Objective(erase + multiplier * (drift - method.slack), float(erase.detach()))


def compute_losses(method: AllButOne, denoiser: Denoiser, run: _Run, views: Views) -> tuple[torch.Tensor, torch.Tensor]:
    """L_erase and L_unc, scalars. Where the null prompt cannot move, its pass is saved and L_unc is 0."""
    gammas = method.gamma_target, method.gamma_guidance
    with denoiser.branch(run.factors):
        if not run.moves_null:
            told = denoiser.predict(views.z, views.t, views.states)
            # A sees nothing of ∅, so that its prediction is the frozen one and needs no pass.
            return compute_erase_loss(views.target, told - views.nothing, gammas), torch.zeros((), device=told.device)
        both = torch.cat([views.states, run.null.expand_as(views.states)])  # [2b, length, d]
        told, nothing = denoiser.predict(torch.cat([views.z] * 2), torch.cat([views.t] * 2), both).chunk(2)
    start = nothing.detach() if method.stop_gradient else nothing  # what ψ is counted from
    return compute_erase_loss(views.target, told - start, gammas), compute_drift_loss(views.nothing, nothing)


def _increments(factors: Mapping[ParamName, LayerFactors], part: _Part | None) -> dict[ParamName, Increment]:
    return {
        name: Increment.quantised(own.A.detach().cpu().double() if part is None else part.A, own.B.detach().cpu())
        for name, own in factors.items()
    }


def _judged(
    method: AllButOne, denoiser: Denoiser, run: _Run, increments: Mapping[ParamName, Increment]
) -> dict[str, str]:
    """On latents that were not trained on: how much of the way was gone, and how far the null prompt drifted."""
    views = run.views
    kept = {name: LayerFactors(i.A.to(denoiser.device), i.B.to(denoiser.device)) for name, i in increments.items()}
    with torch.no_grad(), denoiser.branch(kept):
        told = denoiser.predict(views.z, views.t, views.states)
        nothing = denoiser.predict(views.z, views.t, run.null.expand_as(views.states))
    gammas = method.gamma_target, method.gamma_guidance
    before = float(compute_erase_loss(views.target, views.guidance, gammas))
    after = float(compute_erase_loss(views.target, told - nothing, gammas))
    drift = float(compute_drift_loss(views.nothing, nothing) / views.nothing.square().mean())
    moved = float((told - nothing - views.guidance).square().mean() / views.guidance.square().mean())
    found = {"erase_before": before, "erase_after": after, "drift_null": drift**0.5, "target_effect": moved**0.5}
    return {name: f"{value:.3e}" for name, value in found.items()}
