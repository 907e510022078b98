"""The one training loop: Adam on given parameters, a smoothed statistic that may stop it, states to go on from.

With L_i the watched number before update i + 1 (SepME, arXiv 2402.05947, eq. 37):

    m_0 = L_0,   m_i = α·m_{i−1} + (1−α)·L_i        stop after update i + 1, once i > 10 and m_i ≤ τ

so twelve updates at least are made. The parameters stay as the last update left them.

Nothing random is drawn here, and an objective draws from generators that it derives from (seed, step) alone
(`derive_seed`): a run that was killed goes on from its last state to the very bits of a run that was not. Gradients are
zeroed before each update; SepME's published script never does, which `accumulate` repeats.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import torch

from rasura.patches.algebra.one_thread import use_all_threads
from rasura.patches.erasers.trained.checkpoints import Checkpoints, State
from rasura.patches.errors import NotFiniteError
from rasura.patches.plain_numbers import say_number
from rasura.patches.types import Progress

EARLIEST: Final = 11
"""First index i of an update after which a run may stop, as in SepME's published script."""
_MOMENTS: Final = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """How to train.

    Attributes:
        lr: Adam's step size, on each number.
        steps: most updates.
        momentum: α of the smoothed statistic.
        tau: where the smoothed statistic ends the run; None: it never does.
        accumulate: never zero the gradients.
    """

    lr: float
    steps: int
    momentum: float = 0.9
    tau: float | None = None
    accumulate: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Objective:
    """What one update is computed from.

    Attributes:
        total: scalar with a gradient, to be made smaller.
        watched: what the statistic smooths; detached.
    """

    total: torch.Tensor
    watched: float


@dataclass(frozen=True, slots=True, eq=False)
class TrainingTask:
    """One training.

    Attributes:
        name: the concept, for messages.
        parameters: leaves that require a gradient; changed in place.
        objective: the loss before update number `step` + 1, from the parameters as they are.
        state: further tensors that the objective changes in place (a multiplier); kept with the parameters.
        checkpoints: where states are left, or None.
    """

    name: str
    parameters: Mapping[str, torch.Tensor]
    objective: Callable[[int], Objective]
    state: Mapping[str, torch.Tensor] = field(default_factory=dict)
    checkpoints: Checkpoints | None = None


@dataclass(frozen=True, slots=True)
class Trained:
    """How a training ended.

    Attributes:
        updates: how many were made.
        stopped: whether the statistic ended it, not the cap.
        first: the watched number before training.
        last: the smoothed statistic at the end.
    """

    updates: int
    stopped: bool
    first: float
    last: float

    def facts(self) -> dict[str, str]:
        """The numbers for a manifest."""
        return {
            "steps": str(self.updates),
            "stopped_early": str(int(self.stopped)),
            "loss_first": f"{self.first:.3e}",
            "loss_last": f"{self.last:.3e}",
        }


def smooth_loss(before: float | None, value: float, momentum: float) -> float:
    """m_i = α·m_{i−1} + (1−α)·L_i, and m_0 = L_0."""
    return value if before is None else momentum * before + (1 - momentum) * value


def derive_seed(seed: int, *words: str | int) -> int:
    """A seed of its own for each purpose, 0 to 2⁶³ − 1: SHA-256 of seed and words."""
    text = "\0".join(map(str, (seed, *words)))  # no word holds a NUL, so that no two lists spell the same
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


@use_all_threads()
def train(task: TrainingTask, plan: TrainingPlan, progress: Progress) -> Trained:
    """Train to the end, from the task's last state if it left one.

    Raises:
        NotFiniteError: a loss is NaN or infinite; nothing but the parameters was changed.
        HostWriteError: a state cannot be written.
    """
    optimiser = torch.optim.Adam(list(task.parameters.values()), lr=plan.lr, foreach=False)
    run = _Run(task, plan, optimiser)
    with _one_way():
        while not run.over:
            progress(run.stage, run.updates, plan.steps)
            run.update()
    progress(run.stage, plan.steps, plan.steps)
    return Trained(run.updates, run.stopped, run.first, run.mean)


class _Run:
    """The state of one training between two updates."""

    def __init__(self, task: TrainingTask, plan: TrainingPlan, optimiser: Any) -> None:
        self._task, self._plan, self._optimiser = task, plan, optimiser
        self.updates, self._done = 0, False
        self.first = self.mean = math.nan
        found = task.checkpoints.load() if task.checkpoints else None
        if found is not None:
            self._restore(found)

    @property
    def stopped(self) -> bool:
        """Whether the statistic allows to stop after the last update."""
        return self._plan.tau is not None and self.updates > EARLIEST and self.mean <= self._plan.tau

    @property
    def stage(self) -> str:
        """What is going on, and behind a tab how well."""
        return f"training {self._task.name}" + (f"\tloss {say_number(self.mean)}" if self.updates else "")

    @property
    def over(self) -> bool:
        return self._done or self.stopped or self.updates >= self._plan.steps

    def update(self) -> None:
        if not self._plan.accumulate:
            self._optimiser.zero_grad()
        objective = self._task.objective(self.updates)  # of the parameters as they are, before update `updates` + 1
        # Before the gradient: one step on NaN would leave nothing to go back to.
        self._check(objective)
        objective.total.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        before = self.mean if self.updates else None
        self.mean = smooth_loss(before, objective.watched, self._plan.momentum)
        self.first = self.first if self.updates else objective.watched
        self.updates += 1
        keep = self._task.checkpoints
        if keep and (self.over or self.updates % keep.every == 0):
            keep.save(State(self.updates, self.over, self._tensors()))

    def _check(self, objective: Objective) -> None:
        if not (math.isfinite(objective.watched) and math.isfinite(float(objective.total.detach()))):
            raise NotFiniteError(
                f"training {self._task.name!r}: the loss of step {self.updates} is NaN or infinite: expected a "
                f"finite number; step size {self._plan.lr:g} may be too large",
                hint=f"--set lr={self._plan.lr / 10:g}",
                concept=self._task.name,
                step=self.updates,
            )

    def _tensors(self) -> dict[str, torch.Tensor]:
        # float64 holds Python's floats to the bit: the statistic goes on as it was.
        found = {"statistic": torch.tensor([self.first, self.mean], dtype=torch.float64)}
        for i, leaf in enumerate(self._task.parameters.values()):
            found[f"{i}/value"] = leaf.detach()
            found |= {f"{i}/{name}": self._optimiser.state[leaf][name] for name in _MOMENTS}
            if self._plan.accumulate and leaf.grad is not None:
                found[f"{i}/grad"] = leaf.grad
        return found | {f"state/{i}": tensor for i, tensor in enumerate(self._task.state.values())}

    def _restore(self, found: State) -> None:
        self.updates, self._done = found.updates, found.done
        self.first, self.mean = found.tensors["statistic"].tolist()
        with torch.no_grad():
            for i, leaf in enumerate(self._task.parameters.values()):
                leaf.copy_(found.tensors[f"{i}/value"])  # in place: the objective holds these very tensors
                moments = {name: found.tensors[f"{i}/{name}"] for name in _MOMENTS}
                # Adam counts its steps on the CPU.
                placed = {name: m if name == "step" else m.to(leaf.device) for name, m in moments.items()}
                self._optimiser.state[leaf] = placed
                if (grad := found.tensors.get(f"{i}/grad")) is not None:
                    leaf.grad = grad.to(leaf.device)
            for i, tensor in enumerate(self._task.state.values()):
                tensor.copy_(found.tensors[f"state/{i}"])


@contextmanager
def _one_way() -> Iterator[None]:
    """On a GPU, convolutions whose gradients have the same bits each time; nothing elsewhere."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield
