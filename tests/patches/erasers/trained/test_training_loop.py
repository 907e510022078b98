"""The training loop: statistic, stopping, states to go on from, and what happens when numbers or processes die."""

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.models.trainable import base, bits, patches, quick, request, silent, untouched
from support.registries.workshop import start

from rasura.patches.erasers.trained.all_but_one import AllButOne
from rasura.patches.erasers.trained.checkpoints import Checkpoints, State, run_digest
from rasura.patches.erasers.trained.sepme import SepMe
from rasura.patches.erasers.trained.training_loop import (
    Objective,
    Trained,
    TrainingPlan,
    TrainingTask,
    derive_seed,
    smooth_loss,
    train,
)
from rasura.patches.errors import HostWriteError, NotFiniteError
from rasura.patches.models.denoiser import Denoiser
from rasura.patches.solving.solve import build_patches

RUN = run_digest({"method": "test"}, {})


def descent(start_at: float = 3.0) -> tuple[torch.Tensor, TrainingTask]:
    """A parabola with a trembling that depends on the step alone."""
    leaf = torch.full((4,), start_at, requires_grad=True)

    def objective(step: int) -> Objective:
        tremble = torch.randn(4, generator=torch.Generator().manual_seed(derive_seed(0, "tremble", step)))
        total = (leaf + 0.1 * tremble).square().sum()
        return Objective(total, float(total.detach()))

    return leaf, TrainingTask("dog", {"leaf": leaf}, objective)


def watching(values: Callable[[int], float]) -> TrainingTask:
    leaf = torch.zeros(1, requires_grad=True)
    return TrainingTask("dog", {"leaf": leaf}, lambda step: Objective(leaf.sum(), values(step)))


# --- The statistic and the stop ---------------------------------------------------------------------------------------


@given(st.floats(-1e6, 1e6), st.floats(0, 1), st.integers(1, 50))
def test_the_statistic_of_a_constant_is_the_constant(value: float, momentum: float, count: int) -> None:
    mean = None
    for _ in range(count):
        mean = smooth_loss(mean, value, momentum)
    assert mean == pytest.approx(value, rel=1e-12, abs=1e-12)


def test_the_statistic_of_a_ramp_has_a_closed_form() -> None:
    """m_n of L_i = a + b·i is a + b·(n − (α/(1−α))·(1 − αⁿ))."""
    mean, a, b, alpha = None, 2.0, -0.25, 0.9
    for n in range(40):
        mean = smooth_loss(mean, a + b * n, alpha)
        assert mean == pytest.approx(a + b * (n - alpha / (1 - alpha) * (1 - alpha**n)), rel=1e-12)


def test_the_earliest_stop_is_after_the_twelfth_update() -> None:
    found = train(watching(lambda _: -1.0), TrainingPlan(0.1, 1000, tau=0.0), silent)
    assert found == Trained(12, stopped=True, first=-1.0, last=-1.0)


@pytest.mark.parametrize(("tau", "updates"), [(0.7, 12), (0.5, 14), (0.0, 21), (None, 40)])
def test_a_run_stops_at_its_threshold_or_at_the_cap(tau: float | None, updates: int) -> None:
    """A ramp from 1 down by 1/12; smoothed, it lags behind."""
    found = train(watching(lambda i: (12.0 - i) / 12), TrainingPlan(0.1, 40, tau=tau), silent)
    assert (found.updates, found.stopped) == (updates, tau is not None)


def test_a_run_that_may_stop_at_its_cap_says_that_it_stopped() -> None:
    assert train(watching(lambda _: -1.0), TrainingPlan(0.1, 12, tau=0.0), silent).stopped
    assert not train(watching(lambda _: -1.0), TrainingPlan(0.1, 11, tau=0.0), silent).stopped


def test_gradients_are_zeroed_unless_they_shall_add_up() -> None:
    """A constant gradient of 1 for 5 steps, then −1: zeroed, Adam turns back; added up, it goes on."""
    ends = []
    for accumulate in (False, True):
        leaf = torch.zeros(1, requires_grad=True)
        task = TrainingTask("dog", {"x": leaf}, lambda i, x=leaf: Objective(x.sum() * (1 if i < 5 else -1), 0.0))  # type: ignore[misc]
        train(task, TrainingPlan(0.1, 9, accumulate=accumulate), silent)
        ends.append((float(leaf.detach()), float(leaf.grad)))  # type: ignore[arg-type]
    assert ends[0][1] == -1
    assert ends[1][1] == 5 - 4
    assert ends[1][0] < ends[0][0] < 0


def test_progress_names_the_concept_and_the_loss() -> None:
    said: list[tuple[str, int, int]] = []
    train(descent()[1], TrainingPlan(0.1, 3), lambda *what: said.append(what))
    assert said[0] == ("training dog", 0, 3)
    assert [done for _, done, _ in said] == [0, 1, 2, 3]
    assert said[1][0].startswith("training dog\tloss ")


@pytest.mark.parametrize("flaw", [math.nan, math.inf])
def test_a_loss_that_is_no_number_ends_the_run_with_concept_and_step(flaw: float) -> None:
    leaf, task = descent()
    whole = task.objective

    def objective(step: int) -> Objective:
        found = whole(step)
        return found if step < 4 else Objective(found.total * flaw, found.watched)

    with pytest.raises(NotFiniteError, match="'dog': the loss of step 4") as caught:
        train(replace(task, objective=objective), TrainingPlan(0.1, 9), silent)
    assert (caught.value.details["concept"], caught.value.details["step"]) == ("dog", 4)
    assert caught.value.hint == "--set lr=0.01"
    assert bool(torch.isfinite(leaf).all())


def test_seeds_of_different_purposes_differ() -> None:
    seeds = {derive_seed(seed, word, i) for seed in range(3) for word in ("noise", "time") for i in range(10)}
    assert len(seeds) == 60
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(1, "23") != derive_seed(12, "3")


# --- States -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("died", [1, 4, 7])
def test_a_run_that_died_ends_with_the_bits_of_one_that_did_not(tmp_path: Path, died: int, accumulate: bool) -> None:
    plan = TrainingPlan(0.1, 10, accumulate=accumulate)
    leaf, task = descent()
    whole = train(task, plan, silent)
    _, broken = descent()
    keep = Checkpoints(tmp_path / "work", RUN, every=3)

    def dying(step: int) -> Objective:
        if step == died:
            raise KeyboardInterrupt
        return broken.objective(step)

    with pytest.raises(KeyboardInterrupt):
        train(replace(broken, objective=dying, checkpoints=keep), plan, silent)
    again, fresh = descent(start_at=-77.0)  # what a state holds replaces what is there
    if died < 3:
        again, fresh = descent()
    steps: list[int] = []

    def counted(step: int) -> Objective:
        steps.append(step)
        return fresh.objective(step)

    assert train(replace(fresh, objective=counted, checkpoints=keep), plan, silent) == whole
    assert torch.equal(again, leaf)
    assert steps == list(range(died // 3 * 3, 10))


def test_a_run_that_is_over_is_not_run_again(tmp_path: Path) -> None:
    keep, plan = Checkpoints(tmp_path, RUN), TrainingPlan(0.1, 30, tau=1e9)
    leaf, task = descent()
    whole = train(replace(task, checkpoints=keep), plan, silent)
    assert whole.updates == 12
    again, fresh = descent(5.0)

    def never(_: int) -> Objective:
        raise AssertionError

    assert train(replace(fresh, objective=never, checkpoints=keep), plan, silent) == whole
    assert torch.equal(again, leaf)


def test_multipliers_are_kept_with_the_parameters(tmp_path: Path) -> None:
    keep = Checkpoints(tmp_path, RUN)
    leaf, multiplier = torch.zeros(1, requires_grad=True), torch.ones(1, dtype=torch.float64)

    def objective(step: int) -> Objective:
        multiplier.add_(step)
        return Objective(leaf.sum(), 0.0)

    task = TrainingTask("dog", {"x": leaf}, objective, {"multiplier": multiplier}, keep)
    train(task, TrainingPlan(0.1, 4), silent)
    assert float(multiplier) == 1 + 0 + 1 + 2 + 3
    other = torch.zeros(1, dtype=torch.float64)
    train(replace(task, state={"multiplier": other}), TrainingPlan(0.1, 4), silent)
    assert torch.equal(other, multiplier)


def saved(folder: Path) -> Checkpoints:
    keep = Checkpoints(folder, RUN)
    keep.save(State(3, done=False, tensors={"x": torch.arange(4.0)}))
    return keep


def test_only_the_newest_state_stays(tmp_path: Path) -> None:
    keep = saved(tmp_path)
    keep.save(State(6, done=True, tensors={"x": torch.ones(2)}))
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".safetensors"]
    found = keep.load()
    assert found is not None
    assert (found.updates, found.done, found.tensors["x"].tolist()) == (6, True, [1.0, 1.0])


def test_a_state_serves_its_own_run_only(tmp_path: Path) -> None:
    assert saved(tmp_path).load() is not None
    assert Checkpoints(tmp_path, run_digest({"method": "other"}, {})).load() is None
    assert Checkpoints(tmp_path / "elsewhere", RUN).load() is None


@pytest.mark.parametrize("flaw", ["cut", "flipped", "gone", "json", "other run", "half written"])
def test_a_damaged_state_counts_as_none(tmp_path: Path, flaw: str) -> None:
    keep = saved(tmp_path)
    (tensors,), (index,) = tmp_path.glob("*.safetensors"), tmp_path.glob("*.json")
    data, document = tensors.read_bytes(), json.loads(index.read_bytes())
    match flaw:
        case "cut":
            tensors.write_bytes(data[:-1])
        case "flipped":
            tensors.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        case "gone":
            tensors.unlink()
        case "json":
            index.write_text("{")
        case "other run":
            index.write_text(json.dumps(document | {"run": "0" * 64}, sort_keys=True, separators=(",", ":")))
        case _:
            # Killed between the tensors and the index: the old index names a file that is still there.
            (tmp_path / tensors.name.replace("-3", "-6")).write_bytes(b"half")
            assert keep.load() is not None
            return
    assert keep.load() is None


def test_a_folder_that_cannot_be_written_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "work").write_text("a file")
    with pytest.raises(HostWriteError, match="state cannot be written"):
        Checkpoints(tmp_path / "work", RUN).save(State(1, done=False, tensors={"x": torch.ones(1)}))


def test_a_run_is_named_by_all_that_decides_it() -> None:
    one = torch.ones(2, 3)
    names = {
        run_digest({"a": "1"}, {"x": one}),
        run_digest({"a": "2"}, {"x": one}),
        run_digest({"a": "1"}, {"y": one}),
        run_digest({"a": "1"}, {"x": one.T}),
        run_digest({"a": "1"}, {"x": one + 1e-7}),
        run_digest({"a": "1"}, {"x": one.double()}),
    }
    assert len(names) == 6


# --- Both methods on a real UNet --------------------------------------------------------------------------------------

BOTH = pytest.mark.parametrize("method", [SepMe, AllButOne])


@BOTH
def test_the_same_seed_gives_the_same_bits_and_another_seed_others(method: type[SepMe | AllButOne]) -> None:
    with untouched():
        torch.manual_seed(1)
        (first,) = patches(request(quick(method)))
        torch.manual_seed(2)
        (second,) = patches(request(quick(method)))
        (other,) = patches(request(quick(method, seed="1")))
    assert first.patch_id == second.patch_id
    assert bits(first) == bits(second) != bits(other)


@BOTH
def test_an_exception_in_the_middle_leaves_the_base_as_it_was(method: type[SepMe | AllButOne]) -> None:
    def failing(stage: str, done: int, total: int) -> None:
        if stage.startswith("training") and done == 2:
            raise KeyboardInterrupt

    with untouched(), pytest.raises(KeyboardInterrupt):
        patches(request(quick(method)), progress=failing)


PROGRAM = """
import os, signal, sys
from pathlib import Path
from support.models.trainable import base, bits, denoiser, patches, quick, request
from rasura.patches.erasers.trained.all_but_one import AllButOne
from rasura.patches.erasers.trained.sepme import SepMe

def train(method, last):
    def tell(stage, done, total):
        if stage.startswith("training"):
            print(done, flush=True)
            if done == last:
                os.kill(os.getpid(), signal.SIGKILL)

    (patch,) = patches(request(quick(method, steps="27")), Path(sys.argv[1], method.__name__), tell)
    print(bits(patch), flush=True)

base(), denoiser()  # before any process of its own needs them
for method in (SepMe, AllButOne):
    for last in (26, None):
        child = os.fork()
        if child == 0:
            train(method, last)
            os._exit(0)
        print("ended", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.mark.slow
def test_a_process_that_is_killed_goes_on_to_the_same_patch(tmp_path: Path) -> None:
    """Two processes a method; what they import they have from the one that forks them."""
    with start(["-c", PROGRAM, str(tmp_path)], tmp_path) as process:
        out, err = process.communicate(timeout=600)
    runs = [run.split() for run in re.split(r"ended (?:-?\d+)\n", out)[:-1]]
    assert re.findall(r"ended (-?\d+)", out) == ["-9", "0"] * 2, err
    for method, killed, resumed in zip((SepMe, AllButOne), runs[::2], runs[1::2], strict=True):
        assert killed == [str(done) for done in range(27)]
        assert resumed[:-1] == ["25", "26", "27"]
        (whole,) = patches(request(quick(method, steps="27")))
        assert resumed[-1] == bits(whole)


@pytest.mark.gpu
@BOTH
def test_on_a_gpu_the_same_seed_gives_the_same_bits(method: type[SepMe | AllButOne]) -> None:
    own, asked = base(), request(quick(method, steps="12"))
    frozen = Denoiser.load(own.host, own.host.folder, "cuda")
    made = [
        build_patches(own.host, own.encoder, own.identity, asked, silent, denoiser=lambda: frozen)[0] for _ in range(2)
    ]
    assert bits(made[0]) == bits(made[1])
    assert all(i.B.device.type == "cpu" for i in made[0].tensors.increments.values())
    on_cpu = patches(asked)[0]
    for name, increment in made[0].tensors.increments.items():
        other = on_cpu.tensors.increments[name]
        assert torch.equal(increment.A, other.A)
        assert float((increment.dense() - other.dense()).norm() / other.dense().norm()) < 0.05
