"""A training loop that can be killed at any moment and goes on from its last checkpoint.

What a step draws depends on the seed and the step's number alone, so an interrupted run sees the batches that an
uninterrupted one would have seen.
"""

# mypy: disable-error-code="no-untyped-call"
# (many of torch's own methods carry no types)

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from examples.reference_model.training.common import Average, save_atomically, set_rate
from torch import Tensor, nn

REPORT_EVERY = 50


@dataclass(frozen=True, slots=True)
class Course:
    """How long and how fast to train. The rate is constant, so that any checkpoint is useful, and falls at the end.

    `average` is the decay of the moving average of the weights, or None for none. In bfloat16, products are; weights,
    sums and the optimiser stay in float32: half the time on a CPU that multiplies bfloat16.
    """

    steps: int
    rate: float
    warmup: int = 100
    cooldown: float = 0.15
    average: float | None = None
    seed: int = 7
    weight_decay: float = 0.01
    seconds_between_checkpoints: float = 600.0
    precision: torch.dtype = torch.float32

    def rate_at(self, step: int) -> float:
        """Linear up over the warm-up, constant, then linear down to 2 % over the last share of the steps."""
        left = (self.steps - step) / max(1.0, self.cooldown * self.steps)
        return self.rate * min(1.0, (step + 1) / self.warmup) * min(1.0, max(0.02, left))


@dataclass(frozen=True, slots=True)
class Dice:
    """The randomness of one step."""

    words: random.Random
    noise: torch.Generator


def dice_for(seed: int, step: int) -> Dice:
    """The same dice for the same step, whatever was drawn before."""
    number = seed * 10_000_019 + step
    return Dice(random.Random(number), torch.Generator().manual_seed(number))


@dataclass(slots=True)
class Learner:
    """A module in training, with everything that a checkpoint holds."""

    module: nn.Module
    optimiser: torch.optim.Optimizer
    average: Average | None
    step: int = 0

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The module with its averaged weights for a while."""
        if self.average is None:
            yield
            return
        own = [parameter.detach().clone() for parameter in self.module.parameters()]
        self.average.copy_to(self.module)
        try:
            yield
        finally:
            with torch.no_grad():
                for parameter, value in zip(self.module.parameters(), own, strict=True):
                    parameter.copy_(value)

    def save(self, path: Path) -> None:
        """Write a checkpoint."""
        values = None if self.average is None else (self.average.values, self.average.updates)
        state = {"module": self.module.state_dict(), "optimiser": self.optimiser.state_dict(), "step": self.step}
        save_atomically(state | {"average": values}, path)

    def load(self, path: Path, device: torch.device) -> None:
        """Read what save wrote."""
        state = torch.load(path, weights_only=True, map_location=device)
        self.module.load_state_dict(state["module"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step = state["step"]
        if self.average is not None:
            self.average.values, self.average.updates = state["average"]


def learn(
    module: nn.Module,
    loss_of: Callable[[Dice], Tensor],
    course: Course,
    checkpoint: Path,
    seen: Callable[[Learner], None] | None = None,
) -> None:
    """Train in place from the last checkpoint, if there is one; leaves the averaged weights in the module.

    `seen` is called at every checkpoint.
    """
    device = next(module.parameters()).device
    fused = device.type in {"cpu", "cuda"}
    optimiser = torch.optim.AdamW(
        module.parameters(), lr=course.rate, betas=(0.9, 0.98), weight_decay=course.weight_decay, fused=fused
    )
    learner = Learner(module, optimiser, None if course.average is None else Average(module, course.average))
    if checkpoint.exists():
        learner.load(checkpoint, device)
        print(f"goes on from step {learner.step}", flush=True)
    saved = started = time.monotonic()
    first, losses = learner.step, 0.0
    while learner.step < course.steps:
        set_rate(optimiser, course.rate_at(learner.step))
        with torch.autocast(device.type, course.precision, enabled=course.precision != torch.float32):
            loss = loss_of(dice_for(course.seed, learner.step))
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimiser.step()
        if learner.average is not None:
            learner.average.update(module.parameters())
        learner.step += 1
        losses += loss.item()
        if learner.step % REPORT_EVERY == 0:
            pace = (time.monotonic() - started) / (learner.step - first)
            count = min(REPORT_EVERY, learner.step - first)
            print(f"step {learner.step}/{course.steps} loss {losses / count:.4f} {pace:.2f} s a step", flush=True)
            losses = 0.0
        if time.monotonic() - saved > course.seconds_between_checkpoints or learner.step == course.steps:
            learner.save(checkpoint)
            if seen is not None:
                seen(learner)
            saved = time.monotonic()
    if learner.average is not None:
        learner.average.copy_to(module)
