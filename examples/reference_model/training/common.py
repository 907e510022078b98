"""What the training scripts share: a time budget with its learning-rate curve, weight averaging, the pictures' file."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from .render import VENDORS
from .vocabulary import DRAWN

# The generator draws like one colour set and one ink set: at this size it learns a few drawings well or many badly.
GENERATOR_VENDORS = ("noto", "fluent-emoji-high-contrast")


class Budget:
    """A wall-clock budget. Schedules follow the share that is spent, so a slow machine still ends with a low rate."""

    def __init__(self, minutes: float, spent_seconds: float = 0.0) -> None:
        self._seconds = minutes * 60
        self._start = time.monotonic() - spent_seconds

    @property
    def spent(self) -> float:
        """Seconds used, earlier runs included."""
        return time.monotonic() - self._start

    @property
    def share(self) -> float:
        """0 at the start, 1 at the end."""
        return min(1.0, self.spent / self._seconds)

    @property
    def over(self) -> bool:
        """Whether the budget is used up."""
        return self.spent >= self._seconds

    def rate(self, step: int, peak: float, warmup_steps: int = 50) -> float:
        """Linear warm-up by steps, then a cosine down to 2 % of the peak by time."""
        cosine = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * self.share))
        return peak * min(1.0, (step + 1) / warmup_steps) * cosine


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Give every parameter group one learning rate."""
    for group in optimiser.param_groups:
        group["lr"] = rate


class Average:
    """An exponential moving average of a module's parameters that follows fast at first."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._decay = decay
        self.updates = 0
        self.values = [p.detach().clone() for p in module.parameters()]

    @torch.no_grad()
    def update(self, parameters: Iterable[Tensor]) -> None:
        """Move towards the current parameters."""
        self.updates += 1
        decay = min(self._decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self.values, [p.detach() for p in parameters], 1 - decay)

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Write the averages into a module of the same shape."""
        for parameter, value in zip(module.parameters(), self.values, strict=True):
            parameter.copy_(value)


@dataclass(frozen=True)
class Pictures:
    """Rendered pictures with label indices (THINGS, STYLES, VENDORS)."""

    pixels: npt.NDArray[np.uint8]
    thing: npt.NDArray[np.int64]
    style: npt.NDArray[np.int64]
    vendor: npt.NDArray[np.int64]
    mirrored: npt.NDArray[np.int64]

    def where(self, mask: npt.NDArray[np.bool_]) -> Pictures:
        """The pictures that a mask selects."""
        return Pictures(self.pixels[mask], self.thing[mask], self.style[mask], self.vendor[mask], self.mirrored[mask])

    def unmirrored(self) -> Pictures:
        """The same pictures, all facing the way they were drawn."""
        pixels = np.where(self.mirrored[:, None, None, None] == 1, self.pixels[:, :, ::-1], self.pixels)
        return replace(self, pixels=pixels, mirrored=np.zeros_like(self.mirrored))

    @property
    def of_generator(self) -> npt.NDArray[np.bool_]:
        """Mask of the pictures that the generator is trained on."""
        vendors = [VENDORS.index(name) for name in GENERATOR_VENDORS]
        mask: npt.NDArray[np.bool_] = np.isin(self.vendor, vendors) & (self.thing < len(DRAWN))
        return mask


def load_pictures(path: Path) -> Pictures:
    """The file that render.py writes."""
    with np.load(path) as arrays:
        return Pictures(*(arrays[name] for name in ("pictures", "thing", "style", "vendor", "mirrored")))


def to_unit(pixels: npt.NDArray[np.uint8]) -> Tensor:
    """uint8 NHWC -> float NCHW in [-1, 1]."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(127.5).sub_(1).contiguous()


def save_atomically(state: object, path: Path) -> None:
    """torch.save that never leaves half a file behind."""
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.replace(path)
