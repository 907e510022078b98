"""What the tests of trained erasers share: a tiny model with its problem, and its UNet in float64."""

import copy
import functools
import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from support.models.tiny import TinySpec, tiny_model
from support.values.factories import TinyBase

from rasura.patches._io.tensor_bytes import digest_tensor
from rasura.patches.algebra.rank_rule import RankRule
from rasura.patches.erasers.interface import Eraser, Problem
from rasura.patches.erasers.options import with_options
from rasura.patches.erasers.read_columns import read_columns
from rasura.patches.erasers.request import EraseRequest
from rasura.patches.erasers.trained.sepme import SepMe
from rasura.patches.format.patch import Patch
from rasura.patches.models.denoiser import Denoiser, LayerFactors
from rasura.patches.prompts.concept_prompts import Target
from rasura.patches.solving import solve
from rasura.patches.types import ParamName, Progress

QUICK = {"steps": "3", "batch": "2", "images": "2", "drawing": "2", "lr": "0.05", "rank": "3"}
"""Choices of either method under which a training takes a second."""


@functools.lru_cache(maxsize=4)
def base(seed: int = 0) -> TinyBase:
    """A model that nobody changes."""
    folder = Path(tempfile.mkdtemp(prefix="rasura-trainable-")) / "model"
    return TinyBase.open(tiny_model(folder, TinySpec(size="wide", seed=seed)))


@functools.lru_cache(maxsize=1)
def denoiser() -> Denoiser:
    """Its latents are 8 × 8: a fourth of the work."""
    found = Denoiser.load(base().host, base().host.folder)
    found.unet.register_to_config(sample_size=8)
    return found


def request(eraser: Eraser, *concepts: str, anchor: str = "", **changes: Any) -> EraseRequest:
    """Bare concepts that nothing else is retained beside: the null prompt alone takes 77 of 128 dimensions."""
    made = EraseRequest(
        tuple(Target(concept, anchor) for concept in concepts or ("dog",)),
        None,
        templates=("{}",),
        tokens="tail",
        layers="kv",
        rule=RankRule("relative", 1e-3),
        eraser=eraser,
        held_out=("photo",),
    )
    return replace(made, **changes)


def quick(method: type[Any], **choices: str) -> Any:
    """A method with choices that make it quick."""
    endless = {"tau": "-1e9", "tau_unit": "absolute"} if method is SepMe else {}
    return with_options(method, QUICK | endless | choices)


def problem(asked: EraseRequest, work: Path | None = None) -> Problem:
    """What an eraser is given for a request."""
    own = base()
    prompts = solve._Prompts(own.encoder, asked, silent)
    weights = own.host.originals(asked.eraser.parameters(own.host.parameters(), asked.layers, own.encoder.width))
    columns = tuple(
        read_columns(own.encoder, target, asked.templates_of(target), asked.tokens) for target in asked.targets
    )
    return Problem(
        weights, own.encoder, asked, columns, prompts.reference, lambda: prompts.basis, prompts.retained,
        prompts.moment, denoiser, silent, work,
    )  # fmt: skip


def patches(asked: EraseRequest, work: Path | None = None, progress: Progress | None = None) -> tuple[Patch, ...]:
    """The patches of a request."""
    own = base()
    return solve.build_patches(
        own.host, own.encoder, own.identity, asked, progress or silent, denoiser=denoiser, work=work
    )


def bits(found: Patch) -> str:
    """One digest of a patch's numbers."""
    factors = [digest_tensor(t) for i in found.tensors.increments.values() for t in (i.A, i.B)]
    return hashlib.sha256("".join(factors).encode()).hexdigest()


def frozen_digest() -> str:
    return hashlib.sha256("".join(digest_tensor(t) for t in denoiser().unet.state_dict().values()).encode()).hexdigest()


class Exact:
    """The tiny UNet in float64, with increments beside its layers; its own prediction is ε."""

    def __init__(self) -> None:
        own = denoiser()
        self.denoiser = replace(own, unet=copy.deepcopy(own.unet).double())

    def latents(self, count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        z = self.denoiser.noise(seed, count).double()
        return z, torch.randint(0, 1000, (count,), generator=torch.Generator().manual_seed(seed))

    def __call__(
        self,
        z: torch.Tensor,
        t: torch.Tensor,
        states: torch.Tensor,
        factors: Mapping[ParamName, LayerFactors] | None = None,
    ) -> torch.Tensor:
        """ε, [n, c, h, w] float64, of one prompt's states [length, d]."""
        with self.denoiser.branch(factors or {}), torch.no_grad():
            found: torch.Tensor = self.denoiser.unet(
                z, t, encoder_hidden_states=states.double().expand(z.shape[0], -1, -1)
            ).sample
        return found


def added(*parts: tuple[float, Mapping[ParamName, LayerFactors]]) -> dict[ParamName, LayerFactors]:
    """Σ α·B·A, as factors beside each other."""
    found = {}
    for name in parts[0][1]:
        A = torch.cat([own[name].A for _, own in parts])
        found[name] = LayerFactors(A, torch.cat([alpha * own[name].B for alpha, own in parts], dim=1))
    return found


def of_patch(patch: Patch, dtype: torch.dtype = torch.float64) -> dict[ParamName, LayerFactors]:
    return {name: LayerFactors(i.A.to(dtype), i.B.to(dtype)) for name, i in patch.tensors.increments.items()}


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@contextmanager
def untouched() -> Iterator[None]:
    """The frozen UNet has the same bytes and the same hooks and processors after the block, however it ends."""
    before, processors = frozen_digest(), {k: id(v) for k, v in denoiser().unet.attn_processors.items()}
    try:
        yield
    finally:
        assert frozen_digest() == before
        assert {k: id(v) for k, v in denoiser().unet.attn_processors.items()} == processors
        assert not any(module._forward_hooks for module in denoiser().unet.modules())


def silent(stage: str, done: int, total: int) -> None:
    """Progress that nobody watches."""
