"""The pristine UNet and its noise schedule, for erasers that train or look through it.

Everything is in the language of predicted noise ε, whatever the model itself predicts: for a model that predicts
v = √ᾱ·ε − √(1−ᾱ)·x0 (Salimans and Ho, arXiv 2202.00512, app. D), ε = √ᾱ·v + √(1−ᾱ)·x_t. A model that predicts the
sample is read in the same way. There is no classifier-free guidance but where it is asked for.

The weights are never changed: an increment B·A that is being trained runs beside its layer (`branch`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import torch

from rasura.patches._io.files import read_config
from rasura.patches.algebra.one_thread import use_all_threads
from rasura.patches.errors import NotFiniteError, RasuraError, UnsupportedHostError
from rasura.patches.hosts.interface import Host
from rasura.patches.models.library_output import load_diffusers, quiet
from rasura.patches.types import ParamName

_UNET: Final = "unet."
_SUFFIX: Final = ".weight"
PREDICTIONS: Final = ("epsilon", "v_prediction", "sample")


@dataclass(frozen=True, slots=True, eq=False)
class LayerFactors:
    """An increment B·A that runs beside its layer; either factor may require a gradient.

    Attributes:
        A: [r, d_in] float32.
        B: [d_out, r] float32.
    """

    A: torch.Tensor
    B: torch.Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Denoiser:
    """A frozen UNet (float32) and its schedule, on one device.

    Attributes:
        unet: diffusers' `UNet2DConditionModel`, evaluating, no parameter of which requires a gradient.
        alphas: ᾱ_t, [steps] float32: how much of the picture is left at each training step.
        prediction: one of `PREDICTIONS`.
        schedule: the scheduler's configuration.
        device: where it computes.
    """

    unet: Any  # diffusers ships no types
    alphas: torch.Tensor
    prediction: str
    schedule: Mapping[str, Any]
    device: torch.device

    @classmethod
    def load(cls, host: Host, folder: Path, device: str = "cpu") -> Self:
        """The UNet of a diffusers folder as it was before any patch.

        Raises:
            UnsupportedHostError: no UNet of the Stable Diffusion 1.x or 2.x kind, no schedule, or no such device.
        """
        names = [name for name in host.parameters() if name.startswith(_UNET)]
        state = {n.removeprefix(_UNET): w.to(torch.float32) for n, w in host.originals(names).items()}
        try:
            place = torch.device(device)
            unet = _unet(folder, state).to(place)
            schedule = read_config(folder / "scheduler" / "scheduler_config.json")
            alphas = _alphas(schedule).to(place)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, RasuraError) as error:
            raise UnsupportedHostError(f"{folder}: its UNet or schedule cannot be used: {error}") from error
        prediction = schedule.get("prediction_type", PREDICTIONS[0])
        if prediction not in PREDICTIONS:
            raise UnsupportedHostError(
                f"{folder}: scheduler predicts {prediction!r}: expected one of {', '.join(PREDICTIONS)}"
            )
        return cls(unet, alphas, prediction, schedule, place)

    @property
    def steps(self) -> int:
        """Number of training steps T; t runs from 0 to T − 1."""
        return int(self.alphas.shape[0])

    @property
    def latent(self) -> tuple[int, int, int]:
        """Shape [channels, height, width] of one latent."""
        config = self.unet.config
        return int(config.in_channels), int(config.sample_size), int(config.sample_size)

    @use_all_threads()
    def predict(self, z: torch.Tensor, t: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        """ε(z_t, t, c), [n, c, h, w] float32.

        Args:
            z: noised latents [n, c, h, w].
            t: training steps [n], int64.
            states: text states [n, length, d], any float dtype.
        """
        raw: torch.Tensor = self.unet(z, t, encoder_hidden_states=states.to(torch.float32)).sample
        left = self.alphas[t].view(-1, 1, 1, 1)
        match self.prediction:
            case "epsilon":
                return raw
            case "v_prediction":
                return left.sqrt() * raw + (1 - left).sqrt() * z
            case _:
                return (z - left.sqrt() * raw) / (1 - left).sqrt()

    def noised(self, z0: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """z_t = √ᾱ_t·z0 + √(1−ᾱ_t)·noise, with one t [n] a latent."""
        left = self.alphas[t].view(-1, 1, 1, 1)
        return left.sqrt() * z0 + (1 - left).sqrt() * noise

    def noise(self, seed: int, count: int = 1) -> torch.Tensor:
        """N(0, 1) latents [count, c, h, w]; the same on every device."""
        generator = torch.Generator("cpu").manual_seed(seed)
        return torch.randn(count, *self.latent, generator=generator).to(self.device)

    @use_all_threads()
    def drawn(
        self,
        states: torch.Tensor,
        null: torch.Tensor,
        start: torch.Tensor,
        *,
        steps: int = 20,
        guidance: float = 3.0,
        until: int | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Denoise with DDIM (η = 0) under guidance: latents, and the training step [n] int64 that they are at.

        Args:
            states: text states [n or 1, length, d].
            null: text states [1, length, d] of the null prompt.
            start: noise [n, c, h, w].
            steps: DDIM steps of the whole way.
            guidance: scale w in ε(∅) + w·(ε(c) − ε(∅)).
            until: after how many steps to stop; None goes to the end, where the step is 0.

        Raises:
            NotFiniteError: the UNet gives NaN or infinity.
        """
        with quiet():
            scheduler = load_diffusers().DDIMScheduler.from_config(dict(self.schedule), clip_sample=False)
        scheduler.set_timesteps(steps)
        n = start.shape[0]
        both = torch.cat([null.expand(n, -1, -1), states.expand(n, -1, -1)]).to(self.device, torch.float32)
        z, times = start, scheduler.timesteps.tolist()
        with torch.no_grad():
            for time in times[:until]:
                t = torch.full((2 * n,), time, dtype=torch.int64, device=self.device)
                raw = self.unet(torch.cat([z, z]), t, encoder_hidden_states=both).sample
                without, with_ = raw.chunk(2)
                z = scheduler.step(without + guidance * (with_ - without), time, z).prev_sample
        if not bool(torch.isfinite(z).all()):
            raise NotFiniteError("the UNet gives NaN or infinity: expected finite latents")
        reached = times[until] if until is not None and until < len(times) else 0
        return z, torch.full((n,), reached, dtype=torch.int64, device=self.device)

    @contextmanager
    def branch(self, factors: Mapping[ParamName, LayerFactors]) -> Iterator[None]:
        """For the length of the block, each named layer also adds (x·Aᵀ)·Bᵀ; the weights stay as they are."""
        handles = [
            self.unet.get_submodule(name.removeprefix(_UNET).removesuffix(_SUFFIX)).register_forward_hook(_beside(own))
            for name, own in factors.items()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _beside(factors: LayerFactors) -> Any:
    def hook(_module: object, inputs: Sequence[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
        return output + (inputs[0] @ factors.A.T) @ factors.B.T

    return hook


def _unet(folder: Path, state: Mapping[str, torch.Tensor]) -> Any:
    diffusers = load_diffusers()
    with quiet():
        unet = diffusers.UNet2DConditionModel.from_config(read_config(folder / "unet" / "config.json"))
    unet.load_state_dict(dict(state), strict=True)
    # The fused kernel's backward pass is slower on a CPU.
    unet.set_attn_processor(diffusers.models.attention_processor.AttnProcessor())
    return unet.requires_grad_(False).eval()  # noqa: FBT003  # torch's own signature


def _alphas(schedule: Mapping[str, Any]) -> torch.Tensor:
    with quiet():
        found: torch.Tensor = load_diffusers().DDPMScheduler.from_config(dict(schedule)).alphas_cumprod
    return found
