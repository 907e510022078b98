"""Train the autoencoder: 64x64x3 pictures <-> 16x16x4 latents of unit variance (scaling_factor 1).

python -m examples.reference_model.training.vae --pictures work/pictures.npz --out work/vae --minutes 13
"""

# mypy: disable-error-code="no-untyped-call"
# (many of torch's own methods carry no types)

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional

from .common import Average, Budget, Pictures, load_pictures, set_rate, to_unit

BATCH = 12
GENERATOR_SHARE = 0.85  # of each batch; the rest are other vendors' drawings and other objects
VALIDATION_EVERY = 12  # every twelfth picture is never trained on


def build() -> AutoencoderKL:
    """The untrained autoencoder."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=64,
        scaling_factor=1.0,
    )


def slopes(x: Tensor) -> Tensor:
    """Horizontal and vertical differences, flattened: what makes lines crisp."""
    return torch.cat([(x[..., 1:] - x[..., :-1]).flatten(1), (x[..., 1:, :] - x[..., :-1, :]).flatten(1)], dim=1)


def reconstruction_loss(output: Tensor, target: Tensor) -> Tensor:
    """L1 + MSE + slopes + colour."""
    chroma = (output - output.mean(1, keepdim=True)) - (target - target.mean(1, keepdim=True))
    loss = (output - target).abs().mean() + 0.5 * functional.mse_loss(output, target)
    return loss + 0.5 * (slopes(output) - slopes(target)).abs().mean() + 0.5 * chroma.abs().mean()


@torch.no_grad()
def psnr(vae: AutoencoderKL, pixels: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of the pictures through mode encoding and decoding."""
    errors = []
    for batch in pixels.split(32):
        output = vae.decode(vae.encode(batch).latent_dist.mode()).sample.clamp(-1, 1)
        errors.append(((output - batch) / 2).square().mean(dim=(1, 2, 3)))
    return float(-10 * torch.cat(errors).mean().log10())


@torch.no_grad()
def fold_scale(vae: AutoencoderKL, pixels: Tensor) -> None:
    """Fold each latent channel's mean and deviation into the two 1x1 convolutions; what is computed stays the same.

    Latents then have zero mean and unit variance, as the UNet's noise schedule assumes, with scaling_factor 1.
    """
    latents = torch.cat([vae.encode(batch).latent_dist.mode() for batch in pixels.split(32)])
    mean, deviation = latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3))
    channels = len(mean)
    quant, post = vae.quant_conv, vae.post_quant_conv
    quant.weight[:channels] /= deviation[:, None, None, None]
    quant.bias[:channels] = (quant.bias[:channels] - mean) / deviation
    quant.bias[channels:] -= 2 * deviation.log()  # the log-variance half
    post.bias += (post.weight[..., 0, 0] * mean).sum(dim=1)
    post.weight *= deviation[None, :, None, None]


def split(pictures: Pictures) -> tuple[Pictures, Pictures, Pictures]:
    """Generator's training pictures, all other training pictures, and the generator's validation pictures."""
    kept_out = np.arange(len(pictures.pixels)) % VALIDATION_EVERY == 0
    own = pictures.of_generator
    return pictures.where(own & ~kept_out), pictures.where(~own & ~kept_out), pictures.where(own & kept_out)


def sample_batch(own: Pictures, other: Pictures, rng: np.random.Generator) -> Tensor:
    """A batch of mostly the generator's pictures."""
    count = int(rng.binomial(BATCH, GENERATOR_SHARE))
    picked = own.pixels[rng.integers(len(own.pixels), size=count)]
    rest = other.pixels[rng.integers(len(other.pixels), size=BATCH - count)]
    return to_unit(np.concatenate([picked, rest]))


@dataclass(frozen=True)
class Plan:
    """How long and how fast to train, and where to keep checkpoints."""

    minutes: float
    rate: float
    seed: int
    out: Path


def loss_of(vae: AutoencoderKL, batch: Tensor) -> Tensor:
    """Reconstruction plus a faint pull of the latents towards a normal distribution."""
    posterior = vae.encode(batch).latent_dist
    loss = reconstruction_loss(vae.decode(posterior.sample()).sample, batch)
    return loss + 1e-4 / 64 * torch.as_tensor(posterior.kl()).mean()


def train(vae: AutoencoderKL, pictures: Pictures, plan: Plan) -> None:
    """Train in place; the averaged weights are left in the module."""
    rng = np.random.default_rng(plan.seed)
    own, other, validation = split(pictures)
    checked = to_unit(validation.pixels[rng.permutation(len(validation.pixels))[:96]])
    optimiser = torch.optim.AdamW(vae.parameters(), lr=plan.rate, betas=(0.9, 0.98), weight_decay=1e-4)
    average = Average(vae, 0.995)
    budget, step = Budget(plan.minutes), 0
    while not budget.over:
        set_rate(optimiser, budget.rate(step, plan.rate))
        loss = loss_of(vae, sample_batch(own, other, rng))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimiser.step()
        average.update(vae.parameters())
        step += 1
        if step % 100 == 0:
            quality = psnr(vae, checked)
            print(f"step {step} {budget.spent:.0f} s loss {loss.item():.4f} psnr {quality:.2f} dB", flush=True)
        if step % 300 == 0:
            vae.save_pretrained(plan.out / "checkpoint")
    average.copy_to(vae)
    print(f"done: {step} steps of {BATCH}, {budget.spent:.0f} s, psnr {psnr(vae, checked):.2f} dB", flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=13)
    parser.add_argument("--rate", type=float, default=2.5e-3)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--resume", type=Path, help="start from this saved autoencoder")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    pictures = load_pictures(args.pictures)
    vae = AutoencoderKL.from_pretrained(args.resume) if args.resume else build()
    train(vae, pictures, Plan(args.minutes, args.rate, args.seed, args.out))
    own = pictures.where(pictures.of_generator)
    fold_scale(vae, to_unit(own.pixels[::3]))
    vae.save_pretrained(args.out)


if __name__ == "__main__":
    main()
