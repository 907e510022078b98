"""Train the denoiser on cached latents and cached caption embeddings.

    python -m examples.reference_model.training.unet --pictures work/pictures.npz --vae work/vae --text work/text \
        --out work/unet --minutes 70 --workers 2

Each worker is one single-threaded process; they share no gradients but average their weights every few steps through
shared memory. On a busy machine that beats one multi-threaded process, whose threads would wait for each other.
"""

# mypy: disable-error-code="no-untyped-call"
# (many of torch's own methods carry no types)

from __future__ import annotations

import argparse
import random
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn
from torch.nn import functional

from .cache import Cache, make_cache, shorten
from .common import Average, Budget, load_pictures, save_atomically, set_rate
from .vocabulary import STYLES, THINGS, sample_caption

BATCH = 16
STEPS_BETWEEN_AVERAGES = 6
DROPPED_CAPTIONS = 0.10  # these learn the empty prompt, which guidance needs
# Times are drawn from this normal distribution cut to the schedule: the middle decides what is drawn. The loss is not
# weighted: min-SNR weights would all but silence the noisy half, where a caption chooses object and style.
TIME_MEAN, TIME_DEVIATION = 430.0, 270.0
SECONDS_BETWEEN_CHECKPOINTS = 150
# Most of the training reads shortened captions, see `shorten`; the last part all 77 tokens, as a pipeline gives them.
SHARE_WITH_SHORT_TEXT = 0.85


def build(cross_attention_dim: int) -> UNet2DConditionModel:
    """The untrained denoiser: cross-attention at 16x16, 8x8 and in the middle."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=(48, 96, 160),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=(1, 2, 4),
        cross_attention_dim=cross_attention_dim,
        norm_num_groups=16,
    )


def scheduler() -> DDIMScheduler:
    """Noise schedule and sampler. v-prediction: epsilon needs many more pictures before anything is recognisable."""
    return DDIMScheduler(
        beta_schedule="linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,
        timestep_spacing="trailing",
    )


class Teacher:
    """Draws training batches and computes the loss."""

    def __init__(self, cache: Cache, seed: int) -> None:
        self._cache = cache
        self._words = random.Random(seed)
        self._noise = torch.Generator().manual_seed(seed)
        self._alphas = scheduler().alphas_cumprod
        self._short, self._mask = shorten(cache.embeddings.float())

    def _caption(self, index: int) -> str:
        if self._words.random() < DROPPED_CAPTIONS:
            return ""
        return sample_caption(THINGS[self._cache.things[index]], STYLES[self._cache.styles[index]], self._words)

    def _times(self) -> Tensor:
        """One time from each of BATCH equally likely slices, which lowers the variance of the loss."""
        low, high = (torch.special.ndtr(torch.tensor((edge - TIME_MEAN) / TIME_DEVIATION)) for edge in (0.0, 999.0))
        places = (torch.arange(BATCH) + torch.rand(BATCH, generator=self._noise)) / BATCH
        times = TIME_MEAN + TIME_DEVIATION * torch.special.ndtri(low + (high - low) * places)
        return torch.as_tensor(times).round().long().clamp(0, 999)

    def loss(self, unet: UNet2DConditionModel, *, short_text: bool) -> Tensor:
        """The v-prediction loss of one random batch."""
        chosen = [self._words.randrange(len(self._cache.things)) for _ in range(BATCH)]
        rows = [self._cache.rows[self._caption(i)] for i in chosen]
        text = self._short[rows] if short_text else self._cache.embeddings[rows].float()
        mask = self._mask.expand(BATCH, -1) if short_text else None
        clean = self._cache.latents[chosen]
        noise = torch.randn(clean.shape, generator=self._noise)
        times = self._times()
        alpha = self._alphas[times]
        signal, sigma = alpha.sqrt()[:, None, None, None], (1 - alpha).sqrt()[:, None, None, None]
        noisy = signal * clean + sigma * noise
        guess: Tensor = unet(noisy, times, encoder_hidden_states=text, encoder_attention_mask=mask).sample
        loss: Tensor = functional.mse_loss(guess, signal * noise - sigma * clean)
        return loss


@dataclass(frozen=True)
class Plan:
    """What every worker needs to know."""

    out: Path
    minutes: float
    rate: float
    seed: int
    workers: int
    resume: bool


def exchange(parameters: list[Tensor], slots: Tensor, rank: int) -> None:
    """Publish this worker's weights and continue from everyone's mean. No locks: a torn read only blurs the mean."""
    with torch.no_grad():
        slots[rank] = nn.utils.parameters_to_vector(parameters)
        nn.utils.vector_to_parameters(slots.mean(dim=0), parameters)


def work(rank: int, plan: Plan, cache: Cache, slots: Tensor, counts: Tensor) -> None:
    """One worker's training loop; worker 0 also averages over time, reports and writes checkpoints."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    unet = build(cache.embeddings.shape[-1])
    unet.set_attn_processor(AttnProcessor())  # the fused attention's backward pass is slow on CPUs
    parameters = list(unet.parameters())
    optimiser = torch.optim.AdamW(parameters, lr=plan.rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    step, spent = 0, 0.0
    average: Average | None = Average(unet, 0.998) if rank == 0 else None
    if plan.resume:
        state = torch.load(plan.out / "state.pt", weights_only=True)
        unet.load_state_dict(state["unet"])
        optimiser.load_state_dict(state["optimiser"])
        step, spent = state["step"], state["spent"]
        if average is not None:
            average.values = state["average"]
    else:
        nn.utils.vector_to_parameters(slots[rank].clone(), parameters)
    slots[rank] = nn.utils.parameters_to_vector(parameters).detach()
    teacher = Teacher(cache, plan.seed + 1000 * rank + step)
    budget, saved, losses = Budget(plan.minutes, spent), spent, 0.0
    while not budget.over:
        set_rate(optimiser, budget.rate(step, plan.rate, warmup_steps=100))
        loss = teacher.loss(unet, short_text=budget.share < SHARE_WITH_SHORT_TEXT)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        step += 1
        counts[rank] += BATCH
        losses += loss.item()
        if plan.workers > 1 and step % STEPS_BETWEEN_AVERAGES == 0:
            exchange(parameters, slots, rank)
        if average is None:
            continue
        average.update(parameters)
        if step % 50 == 0:
            print(f"step {step} {budget.spent:.0f} s samples {int(counts.sum())} loss {losses / 50:.4f}", flush=True)
            losses = 0.0
        if budget.spent - saved > SECONDS_BETWEEN_CHECKPOINTS or budget.over:
            saved = budget.spent
            state = {"unet": unet.state_dict(), "optimiser": optimiser.state_dict(), "average": average.values}
            save_atomically(state | {"step": step, "spent": saved, "samples": counts}, plan.out / "state.pt")
    if average is not None:
        export(plan.out)


def export(folder: Path) -> None:
    """Write the averaged weights of the last checkpoint as a diffusers folder."""
    state = torch.load(folder / "state.pt", weights_only=True)
    averages = iter(state["average"])
    unet = build(state["unet"]["down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"].shape[1])
    with torch.no_grad():
        for parameter in unet.parameters():
            parameter.copy_(next(averages))
    unet.save_pretrained(folder / "unet")


def train(plan: Plan, cache: Cache) -> None:
    """Start the workers from the same weights and wait for them."""
    torch.manual_seed(plan.seed)
    start = nn.utils.parameters_to_vector(build(cache.embeddings.shape[-1]).parameters()).detach()
    slots = start.repeat(plan.workers, 1).share_memory_()
    counts = torch.zeros(plan.workers, dtype=torch.int64).share_memory_()
    if plan.resume:
        counts.copy_(torch.load(plan.out / "state.pt", weights_only=True)["samples"])
    spawn(work, (plan, cache, slots, counts), nprocs=plan.workers)
    print(f"done: {int(counts.sum())} samples", flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=70)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--resume", action="store_true", help="go on from OUT/state.pt, with the time already spent")
    args = parser.parse_args()
    torch.set_num_threads(args.workers)
    args.out.mkdir(parents=True, exist_ok=True)
    cache = make_cache(load_pictures(args.pictures), args.vae, args.text, args.out)
    train(Plan(args.out, args.minutes, args.rate, args.seed, args.workers, args.resume), cache)


if __name__ == "__main__":
    main()
