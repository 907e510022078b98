"""Processes that write a model and are killed while they do.

`Nursery` starts one Python process that imports torch once and then forks a child for every `Attempt`; the child opens
the host, writes, and dies by SIGKILL at a chosen step of the journal, in a chosen call to the system, or after a chosen
time. Real processes, real kills: nothing in the child runs after the signal.
"""

import gc
import json
import os
import resource
import select
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from support.crashes.powercut import PowerCut

from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.hosts.disk.journal.rollback_journal import RollbackJournal
from rasura.patches.types import ParamName

__all__ = ["NAMES", "Attempt", "Nursery", "Outcome", "State", "values"]

State = Literal["pristine", "doubled", "halved"]

_KEY = "attentions.0.transformer_blocks.0.attn2.to_k.weight"
NAMES = (
    ParamName(f"unet.down_blocks.1.{_KEY}"),
    ParamName(f"unet.mid_block.{_KEY}"),
    ParamName("text_encoder.text_model.encoder.layers.1.mlp.fc2.weight"),
)


@dataclass(frozen=True, slots=True)
class Attempt:
    """What the child does to the model in `folder`, and what happens to it."""

    folder: str
    state: State | None
    """What to write; None only opens the host."""
    only: int | None = None
    """Write this many of the parameters, the first ones; None writes all."""
    stop: int | None = None
    """SIGKILL when the journal reaches this step, counted from 0."""
    delay: float | None = None
    """SIGKILL from outside after this many seconds."""
    file_limit: int | None = None
    """Bytes that no file may grow over (RLIMIT_FSIZE): writing beyond fails with EFBIG."""
    user: int | None = None
    """Become this user first."""
    call: int | None = None
    """SIGKILL in this call that changes files, counted from 0; -1 after the last one. See `powercut`."""
    seed: int | None = None
    """With `call`: of what the medium loses; None loses nothing."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the child ended."""

    killed: bool
    steps: int = 0
    """Steps that the journal reached, where the child finished."""
    calls: int = 0
    """Calls that changed files, where the child finished and they were counted."""
    error: str = ""
    """Class of the error that stopped it, "" for none."""
    message: str = ""
    hint: str = ""


class CountingJournal(RollbackJournal):
    """Counts its steps and kills its process at one of them."""

    steps = 0
    stop: int | None = None

    def reached(self, step: str) -> None:  # noqa: ARG002  # any step will do
        if CountingJournal.steps == CountingJournal.stop:
            os.kill(os.getpid(), signal.SIGKILL)
        CountingJournal.steps += 1


class CountingHost(CheckpointHost):
    journal_type = CountingJournal


def values(host: CheckpointHost, state: State) -> dict[ParamName, Any]:
    """The tensors of a state, from the originals."""
    factor = {"pristine": 1, "doubled": 2, "halved": 0.5}[state]
    return {name: tensor * factor for name, tensor in host.originals(NAMES).items()}


class Nursery:
    """One warm process that forks children."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    @classmethod
    @contextmanager
    def started(cls) -> Iterator["Nursery"]:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
        with subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        ) as process:
            try:
                yield cls(process)
            finally:
                process.communicate()  # its input ends, and so does it

    def run(self, attempt: Attempt) -> Outcome:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(attempt)) + "\n")
        self._process.stdin.flush()
        return Outcome(**json.loads(self._process.stdout.readline()))


def _serve() -> None:
    import torch

    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()  # what is imported is never garbage: no child need copy it to look
    for line in sys.stdin:
        print(json.dumps(asdict(_fork(Attempt(**json.loads(line))))), flush=True)  # noqa: T201  # the protocol


def _fork(attempt: Attempt) -> Outcome:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        if attempt.delay is not None:  # on busy cores this process may wake too late: the kernel's timer never does
            signal.setitimer(signal.ITIMER_REAL, attempt.delay)
        _live(attempt, writer)
    os.close(writer)
    if attempt.delay is not None:
        select.select([reader], [], [], attempt.delay)
        os.kill(child, signal.SIGKILL)
    with os.fdopen(reader, "rb") as pipe:
        report = pipe.read()
    _, status = os.waitpid(child, 0)
    assert report or os.WIFSIGNALED(status), f"the child ended with status {status} and no report"
    return Outcome(**json.loads(report)) if report else Outcome(killed=True)


def _live(attempt: Attempt, writer: int) -> None:
    """The child: never returns."""
    try:
        os.write(writer, json.dumps(asdict(_attempt(attempt))).encode())
    except BaseException:  # noqa: BLE001  # whatever it was, this process must end here
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _attempt(attempt: Attempt) -> Outcome:
    from rasura.patches.errors import RasuraError

    CountingJournal.stop = attempt.stop
    if attempt.file_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (attempt.file_limit, attempt.file_limit))
    if attempt.user is not None:
        os.setgroups([])
        os.setgid(attempt.user)
        os.setuid(attempt.user)
    power = None
    if attempt.call is not None:
        power = PowerCut(attempt.call, attempt.seed)
        power.install()
    try:
        host = CountingHost.open(Path(attempt.folder))
        if attempt.state is not None:
            names = NAMES[: attempt.only]
            wanted = {name: value for name, value in values(host, attempt.state).items() if name in names}
            host.write(wanted, forget=names if attempt.state == "pristine" else ())
    except RasuraError as error:
        return Outcome(
            killed=False,
            steps=CountingJournal.steps,
            error=type(error).__name__,
            message=error.message,
            hint=error.hint,
        )
    if power is not None and attempt.seed is not None and attempt.call == -1:
        power.strike()
    return Outcome(killed=False, steps=CountingJournal.steps, calls=power.calls if power else 0)


if __name__ == "__main__":
    _serve()
