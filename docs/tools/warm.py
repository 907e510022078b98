"""`rasura` without its imports: each command is a fork of one process that has imported the package.

`start` runs `python docs/tools/warm.py SOCKET`, which imports what the commands import, says `ready` and waits, and
writes a `rasura` program that sends its arguments, working folder, environment and standard streams there. A child of
the warm process runs the command with them, in a process of its own that ends with it, and the program ends with its
exit code.

A child starts with the state of a process that has imported and run nothing: one thread, no registry, no model. What
libraries read from the environment while they are imported they read from the warm process's, so a command whose
environment differs in that is run cold, as is everything when nobody waits at the socket.
"""

import array
import contextlib
import gc
import importlib
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

_AT_IMPORT: Final = ("HF_", "TRANSFORMERS_", "DIFFUSERS_", "OMP_", "MKL_", "OPENBLAS_", "PYTHON", "HOME", "LD_")
_OURS: Final = ("rasura.commands", "rasura.registry", "rasura.patches", "rasura.evaluation")
_THEIRS: Final = (
    "transformers.models.clip.modeling_clip",
    "transformers.models.clip.tokenization_clip",
    "transformers.models.auto.tokenization_auto",
    "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion",
    "diffusers.models.unets.unet_2d_condition",
    "diffusers.schedulers.scheduling_dpmsolver_multistep",
    "cryptography.hazmat.primitives.asymmetric.ec",
    "cryptography.hazmat.primitives.asymmetric.ed25519",
    "cryptography.hazmat.primitives.serialization",
    "alembic.command",
)
_HEAD: Final = 4  # bytes that say how long a request is

# The first lines are read by a shell, which finds an interpreter in a path with spaces, and to Python are a text.
_CLIENT: Final = """#!/bin/sh
'''exec' "{python}" -ISE "$0" "$@"
' '''
import array, json, os, socket, sys
asked = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
line = socket.socket(socket.AF_UNIX)
try:
    line.connect({path!r})
    line.sendmsg([len(asked).to_bytes(4, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))])
    line.sendall(asked)
    answer = line.makefile().readline()
except OSError:
    answer = "cold"
if answer.strip() == "cold":
    os.execv({python!r}, [{python!r}, "-m", "rasura", *sys.argv[1:]])
sys.exit(int(answer or 1))
"""


@contextmanager
def start(folder: Path, environment: Mapping[str, str]) -> Iterator[Path]:
    """A folder with a program `rasura` that is warm until the end.

    Args:
        folder: where to put it; its path is short, as those of sockets must be.
        environment: of the warm process.

    Raises:
        RuntimeError: the imports fail.
    """
    path = folder / "socket"
    command = [sys.executable, str(Path(__file__)), str(path)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise RuntimeError("the warm process ended while it imported")
            _write_client(folder, path)
            yield folder
        finally:
            process.terminate()


def _write_client(folder: Path, path: Path) -> None:
    """A program called `rasura` in this folder that asks at this socket."""
    program = folder / "rasura"
    program.write_text(_CLIENT.format(python=sys.executable, path=str(path)), encoding="utf-8")
    program.chmod(0o755)


def _import_all() -> None:
    """Everything that a command may import; what an optional library is missing for stays out."""
    for name in _OURS:
        package = importlib.import_module(name)
        for module in pkgutil.walk_packages(package.__path__, f"{name}."):
            with contextlib.suppress(ImportError):
                importlib.import_module(module.name)
    for name in _THEIRS:
        importlib.import_module(name)


def _serve(path: Path) -> None:
    """Fork for whoever asks, until this process is told to end."""
    _import_all()
    threads = Path("/proc/self/task")
    if threads.exists() and (many := len(list(threads.iterdir()))) != 1:
        # a lock that another thread holds would be held in every child for ever
        sys.exit(f"expected one thread after the imports, got {many}")
    gc.collect()
    gc.freeze()  # what is imported is never garbage: no child need copy it to look
    signal.signal(signal.SIGCHLD, _reap)
    with socket.socket(socket.AF_UNIX) as waiting:
        waiting.bind(str(path))
        waiting.listen()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            line, _ = waiting.accept()
            if os.fork() == 0:
                waiting.close()
                _attend(line)
            line.close()


def _reap(*_: object) -> None:
    """Children that ended; so their seconds count as this process's."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _attend(line: socket.socket) -> None:
    """In a child: read what is asked, have a grandchild do it, and say how that ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    arguments, folder, environment, streams = _read(line)
    if dict(_decisive(environment)) != dict(_decisive(os.environ)):
        line.sendall(b"cold\n")
        os._exit(0)
    child = os.fork()
    if child == 0:
        line.close()
        _run(arguments, folder, environment, streams)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    line.sendall(f"{code if code >= 0 else 128 - code}\n".encode())  # as a shell counts signals
    os._exit(0)


def _run(arguments: list[str], folder: str, environment: Mapping[str, str], streams: list[int]) -> None:
    """Be `rasura` with these arguments, and end."""
    for own, given in enumerate(streams):
        os.dup2(given, own)
        os.close(given)
    sys.stdin, sys.stdout, sys.stderr = (_open_again(own) for own in range(3))
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["rasura", *arguments]
    code: object = 1
    try:
        from rasura.cli import main
        from rasura.patches._io.settings import Settings, use

        use(Settings.read(environment))  # which importing the package does for whoever starts cold
        main()
    except SystemExit as end:
        code = end.code
    except BaseException:  # noqa: BLE001  # nothing may return to the loop of the warm process
        traceback.print_exc()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)


def _open_again(own: int) -> IO[Any]:
    """A standard stream as the interpreter opens it: by lines where somebody looks, and for errors."""
    by_lines = own == 2 or os.isatty(own)  # noqa: PLR2004
    if own == 0:
        return open(own, encoding="utf-8", closefd=False)
    return open(own, "w", buffering=1 if by_lines else -1, encoding="utf-8", closefd=False)


def _read(line: socket.socket) -> tuple[list[str], str, dict[str, str], list[int]]:
    numbers = array.array("i")
    head, ancillary, _, _ = line.recvmsg(_HEAD, socket.CMSG_SPACE(3 * numbers.itemsize))
    for _, _, data in ancillary:
        numbers.frombytes(data)
    size, read = int.from_bytes(head, "big"), b""
    while len(read) < size:
        read += line.recv(size - len(read))
    arguments, folder, environment = json.loads(read)
    return arguments, folder, environment, list(numbers)


def _decisive(environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    return ((name, value) for name, value in environment.items() if name.startswith(_AT_IMPORT))


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
