"""Commands that are killed: `rasura …` in a process of its own that dies in a call of its choosing, or from outside.

`CommandNursery` starts one process that imports what commands import and then forks a child for every `Typed`. The
child types the command and dies by SIGKILL in its call number `call` that changes files (`powercut`), or after `delay`
seconds. `cold` runs the same in a process that starts from nothing, as a person's does.
"""

import contextlib
import gc
import importlib
import io
import json
import os
import pkgutil
import select
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from support.crashes.powercut import PowerCut

__all__ = ["CommandNursery", "Ended", "Typed", "cold"]


@dataclass(frozen=True, slots=True)
class Typed:
    """A command, and what happens to its process."""

    arguments: tuple[str, ...]
    cwd: str
    call: int = -1
    """SIGKILL in this call that changes files, counted from 0; -1 lets it live."""
    delay: float | None = None
    """SIGKILL from outside after this many seconds."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How it ended; of a killed one nothing else is known."""

    killed: bool
    code: int = 0
    out: str = ""
    err: str = ""
    calls: int = 0
    """Calls that changed files."""

    @property
    def envelope(self) -> dict[str, Any]:
        """The JSON document that it printed."""
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found


class CommandNursery:
    """One warm process that forks children."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    @classmethod
    @contextmanager
    def started(cls, **variables: str) -> Iterator["CommandNursery"]:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"} | variables
        with subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        ) as process:
            try:
                yield cls(process)
            finally:
                process.communicate()  # its input ends, and so does it

    def run(self, typed: Typed) -> Ended:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(typed)) + "\n")
        self._process.stdin.flush()
        return Ended(**json.loads(self._process.stdout.readline()))


def cold(typed: Typed, **variables: str) -> Ended:
    """Type a command in a process that has imported nothing; `call` does not count here, `delay` does."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"} | variables
    command = [sys.executable, "-m", "rasura", *typed.arguments]
    with subprocess.Popen(
        command, cwd=typed.cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            out, err = process.communicate(timeout=typed.delay)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return Ended(killed=True)
    return Ended(killed=False, code=process.returncode, out=out, err=err)


def _serve() -> None:
    import torch

    _import_all()
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()  # what is imported is never garbage: no child need copy it to look
    for line in sys.stdin:
        given = json.loads(line)
        ended = _fork(Typed(**given | {"arguments": tuple(given["arguments"])}))
        print(json.dumps(asdict(ended)), flush=True)  # noqa: T201  # the protocol


def _import_all() -> None:
    """Every command, and what it imports when it is typed: no child imports it again."""
    import cryptography.hazmat.primitives.asymmetric.ec
    import cryptography.hazmat.primitives.asymmetric.ed25519
    import cryptography.hazmat.primitives.serialization  # noqa: F401

    for name in ("rasura.commands", "rasura.registry", "rasura.patches", "rasura.evaluation"):
        package = importlib.import_module(name)
        for module in pkgutil.walk_packages(package.__path__, f"{name}."):
            with contextlib.suppress(ImportError):  # of a library that is not there
                importlib.import_module(module.name)


def _fork(typed: Typed) -> Ended:
    with tempfile.TemporaryFile() as report:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            _live(typed, report.fileno())
        os.close(writer)
        if typed.delay is not None:
            select.select([reader], [], [], typed.delay)  # readable when the child has ended
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        os.close(reader)
        report.seek(0)
        said = report.read()
    assert said or os.WIFSIGNALED(status), f"the child ended with status {status} and no report"
    return Ended(**json.loads(said)) if said and not os.WIFSIGNALED(status) else Ended(killed=True)


def _live(typed: Typed, report: int) -> None:
    """The child: never returns."""
    try:
        os.pwrite(report, json.dumps(asdict(_type(typed))).encode(), 0)
    except BaseException:  # noqa: BLE001  # whatever it was, this process must end here
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _type(typed: Typed) -> Ended:
    from rasura.cli import main

    os.chdir(typed.cwd)
    sys.argv = ["rasura", *typed.arguments]
    power = PowerCut(typed.call, None)
    power.install()
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    code: Any = None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code
    power.remove()
    said, complained = (stream.buffer.getvalue().decode() for stream in (out, err))
    return Ended(killed=False, code=int(code or 0), out=said, err=complained, calls=power.calls)


if __name__ == "__main__":
    _serve()
