"""How well a text explains given pictures to a model: the loss that diffusion models are trained with.

Pictures are taken to the latent space, noised, and the model is asked for the noise (or the velocity, or the picture:
whatever its scheduler's `prediction_type` says that it predicts). The better the text fits the pictures, the smaller
the error. An attack looks for a text that makes it small.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler
from PIL.Image import Image

from rasura.patches.errors import UnsupportedHostError


@dataclass(frozen=True, slots=True, eq=False)
class Noised:
    """Some latents, noised.

    Attributes:
        noisy: [b, c, h, w].
        times: [b] steps of the training schedule.
        goal: [b, c, h, w] what the model should predict.
    """

    noisy: torch.Tensor
    times: torch.Tensor
    goal: torch.Tensor


class Denoising:
    """A pipeline in the state that it is in, and the latents of pictures."""

    def __init__(self, pipeline: Any, pictures: Sequence[Image], generator: torch.Generator) -> None:
        """Encode the pictures; all randomness comes from the generator, which is one of the CPU."""
        self.pipeline = pipeline
        self.generator = generator
        self._scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
        self._latents = encode_pictures(pipeline, pictures)
        for module in (pipeline.unet, pipeline.text_encoder, pipeline.vae):
            module.requires_grad_(requires_grad=False)

    def noised(self, size: int) -> Noised:
        """Latents in turn, one in each of `size` equal parts of the schedule, with fresh noise."""
        steps = int(self._scheduler.config.num_train_timesteps)
        shift = torch.rand(size, generator=self.generator)
        times = ((torch.arange(size) + shift) * steps / size).long()
        pick = torch.randint(len(self._latents), (size,), generator=self.generator)
        clean = self._latents[pick]
        noise = torch.randn(clean.shape, generator=self.generator).to(clean)
        times = times.to(clean.device)
        return Noised(self._scheduler.add_noise(clean, noise, times), times, self._goal(clean, noise, times))

    def losses(self, states: torch.Tensor, noised: Noised) -> torch.Tensor:
        """Mean squared error [n] of each of some texts' states [n, length, d] over all noised latents."""
        n, b = len(states), len(noised.noisy)
        found = self.pipeline.unet(
            noised.noisy.repeat(n, 1, 1, 1),
            noised.times.repeat(n),
            encoder_hidden_states=states.repeat_interleave(b, dim=0),
        ).sample
        error: torch.Tensor = (found - noised.goal.repeat(n, 1, 1, 1)) ** 2
        return error.reshape(n, -1).mean(dim=1)

    def _goal(self, clean: torch.Tensor, noise: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        kind = self._scheduler.config.prediction_type
        match kind:
            case "epsilon":
                return noise
            case "v_prediction":
                goal: torch.Tensor = self._scheduler.get_velocity(clean, noise, times)
                return goal
            case "sample":
                return clean
        raise _unknown(kind)


@dataclass(frozen=True, slots=True, eq=False)
class SlottedPrompt:
    """A prompt some of whose tokens are free.

    Attributes:
        ids: [length] token ids, padded; those of the slots do not count where vectors are given.
        slots: positions of the free tokens.
    """

    ids: torch.Tensor
    slots: range

    @classmethod
    def of(cls, tokenizer: Any, prompt: str, free: int) -> SlottedPrompt:
        """The prompt with `free` more tokens at its end; tokens that do not fit are cut off the prompt."""
        length = int(tokenizer.model_max_length)
        inner = tokenizer(prompt)["input_ids"][: length - free - 1]
        while len(inner) > 1 and inner[-1] == tokenizer.eos_token_id:
            inner = inner[:-1]
        ids = [*inner, *[tokenizer.eos_token_id] * (free + 1)]
        ids += [tokenizer.pad_token_id] * (length - len(ids))
        return cls(torch.tensor(ids), range(len(inner), len(inner) + free))

    @classmethod
    def before(cls, tokenizer: Any, prompt: str, free: int) -> SlottedPrompt:
        """The prompt with `free` more tokens at its beginning; tokens that do not fit are cut off the prompt."""
        length = int(tokenizer.model_max_length)
        start, *inner = tokenizer(prompt)["input_ids"]
        inner = [token for token in inner if token != tokenizer.eos_token_id][: length - free - 2]
        ids = [start, *[tokenizer.eos_token_id] * free, *inner, tokenizer.eos_token_id]
        ids += [tokenizer.pad_token_id] * (length - len(ids))
        return cls(torch.tensor(ids), range(1, 1 + free))

    def with_tokens(self, tokens: torch.Tensor) -> torch.Tensor:
        """Ids [n, length] with these tokens [n, slots]."""
        found = self.ids.repeat(len(tokens), 1)
        found[:, self.slots.start : self.slots.stop] = tokens
        return found


def states_of_ids(pipeline: Any, ids: torch.Tensor) -> torch.Tensor:
    """Last hidden states [n, length, d] of ids [n, length]."""
    found: torch.Tensor = pipeline.text_encoder(ids.to(pipeline.device)).last_hidden_state
    return found


def states_of_vectors(pipeline: Any, prompt: SlottedPrompt, vectors: torch.Tensor) -> torch.Tensor:
    """Last hidden states [1, length, d] with vectors [slots, d] in place of the free tokens' embeddings.

    The text encoder takes ids alone, so its embedding layer's answer is changed on the way.
    """

    def put(_module: object, _inputs: object, found: torch.Tensor) -> torch.Tensor:
        before, after = found[:, : prompt.slots.start], found[:, prompt.slots.stop :]
        return torch.cat([before, vectors[None].to(found), after], dim=1)

    handle = pipeline.text_encoder.get_input_embeddings().register_forward_hook(put)
    try:
        return states_of_ids(pipeline, prompt.ids[None])
    finally:
        handle.remove()


def estimate_clean(scheduler: Any, noisy: torch.Tensor, found: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
    """The clean latents [b, c, h, w] that a prediction at a time stands for.

    Raises:
        UnsupportedHostError: a scheduler of another kind.
    """
    share: torch.Tensor = scheduler.alphas_cumprod.to(noisy)[time.long()]
    match kind := scheduler.config.prediction_type:
        case "epsilon":
            return (noisy - (1 - share).sqrt() * found) / share.sqrt()
        case "v_prediction":
            return share.sqrt() * noisy - (1 - share).sqrt() * found
        case "sample":
            return found
    raise _unknown(kind)


def _unknown(kind: object) -> UnsupportedHostError:
    return UnsupportedHostError(
        f"the scheduler's prediction_type is {kind!r}: expected epsilon, v_prediction or sample",
        hint="rasura evaluate --attack none",
    )


def encode_pictures(pipeline: Any, pictures: Sequence[Image]) -> torch.Tensor:
    """Scaled latents [n, c, h, w] of pictures, the mode of the encoder's distribution."""
    pixels = np.stack([np.asarray(picture.convert("RGB")) for picture in pictures])
    unit = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    config = pipeline.vae.config
    with torch.no_grad():
        found: torch.Tensor = pipeline.vae.encode(unit.to(pipeline.device)).latent_dist.mode()
    shift, scale = float(getattr(config, "shift_factor", None) or 0.0), float(config.scaling_factor)
    return (found - shift) * scale
