"""Train the judge on rendered drawings of all vendors; it never sees a generated picture.

python -m examples.reference_model.training.train_classifier --pictures work/pictures.npz --out work/judge --minutes 5
"""

# mypy: disable-error-code="no-untyped-call"
# (many of torch's own methods carry no types)

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from rasura.evaluation.judges.classifier import Network, load_judge

from .common import Budget, Pictures, load_pictures, set_rate, to_unit
from .render import VENDORS
from .vocabulary import STYLES, THINGS

BATCH = 96
VALIDATION_EVERY = 12
CHANNELS, STRIDES, HIDDEN = (32, 64, 64, 128, 128, 192), (2, 1, 2, 1, 2, 1), 192


def augment(pictures: Tensor, noise: torch.Generator) -> Tensor:
    """Shift, blur, brightness, contrast, a blank patch and noise: what generated pictures may differ in."""
    count = len(pictures)
    shift = torch.randint(-3, 4, (2,), generator=noise).tolist()
    padded = functional.pad(pictures, (3, 3, 3, 3), mode="replicate")
    out = padded[..., 3 + shift[0] : 67 + shift[0], 3 + shift[1] : 67 + shift[1]].clone()
    blurred = functional.avg_pool2d(functional.pad(out, (1, 1, 1, 1), mode="replicate"), 3, 1)
    amount = (2 * torch.rand(count, 1, 1, 1, generator=noise) - 1).clamp(min=0)  # half of them stay sharp
    out = torch.lerp(out, blurred, amount)
    gain = 1 + 0.15 * torch.randn(count, 3, 1, 1, generator=noise)
    out = out * gain + 0.1 * torch.randn(count, 3, 1, 1, generator=noise)
    for picture in out[: count // 3]:
        x, y = torch.randint(0, 48, (2,), generator=noise).tolist()
        picture[:, y : y + 16, x : x + 16] = picture.mean()
    strength = 0.15 * torch.rand(count, 1, 1, 1, generator=noise)
    return out + strength * torch.randn(out.shape, generator=noise)


def train(model: Network, data: Pictures, minutes: float, rate: float, seed: int) -> int:
    """Train in place; returns the number of steps."""
    rng = np.random.default_rng(seed)
    noise = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.02)
    budget, step = Budget(minutes), 0
    while not budget.over:
        chosen = rng.integers(len(data.pixels), size=BATCH)
        set_rate(optimiser, budget.rate(step, rate, warmup_steps=30))
        things, styles = model(augment(to_unit(data.pixels[chosen]), noise))
        thing, style = torch.from_numpy(data.thing[chosen]), torch.from_numpy(data.style[chosen])
        loss = functional.cross_entropy(things, thing, label_smoothing=0.05)
        loss = loss + 0.5 * functional.cross_entropy(styles, style, label_smoothing=0.05)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        step += 1
        if step % 50 == 0:
            print(f"step {step} {budget.spent:.0f} s loss {loss.item():.3f}", flush=True)
    return step


@torch.no_grad()
def accuracy(model: Network, data: Pictures) -> tuple[float, float]:
    """Share of pictures with the right object, and with the right style."""
    model.eval()
    answers = [model(part) for part in to_unit(data.pixels).split(128)]
    things = torch.cat([thing for thing, _ in answers]).argmax(1).numpy()
    styles = torch.cat([style for _, style in answers]).argmax(1).numpy()
    return float((things == data.thing).mean()), float((styles == data.style).mean())


def save(model: Network, folder: Path) -> None:
    """Write fp16 weights and the facts that load_judge needs."""
    folder.mkdir(parents=True, exist_ok=True)
    half = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    save_file(half, folder / "classifier.safetensors")
    facts = {
        "input": "3x64x64 in [-1, 1]",
        "architecture": {"channels": CHANNELS, "strides": STRIDES, "hidden": HIDDEN},
        "objects": [thing.name for thing in THINGS],
        "styles": list(STYLES),
    }
    (folder / "classifier.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    data = load_pictures(args.pictures)
    kept_out = np.arange(len(data.pixels)) % VALIDATION_EVERY == 0
    model = Network(objects=len(THINGS), styles=len(STYLES), channels=CHANNELS, strides=STRIDES, hidden=HIDDEN)
    steps = train(model, data.where(~kept_out), args.minutes, args.rate, args.seed)
    save(model, args.out)
    stored = load_judge(args.out).network
    for index, vendor in enumerate(VENDORS):
        thing, style = accuracy(stored, data.where(kept_out & (data.vendor == index)))
        print(f"{vendor}: unseen placements, object {thing:.3f}, style {style:.3f}")
    print(f"done: {steps} steps of {BATCH}")


if __name__ == "__main__":
    main()
