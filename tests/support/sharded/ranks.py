"""The processes of one group, forked from one that has imported what all of them need: only the first import is paid.

    if __name__ == "__main__":
        fork_ranks(PROCESSES, Path(sys.argv[1]), _main)

They are processes of their own in all that matters here: forked before any thread or process group exists.
"""

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

__all__ = ["fork_ranks", "read_rank"]


def fork_ranks(count: int, folder: Path, main: Callable[[int], None]) -> None:
    """Run `main(rank)` in `count` processes, each with its own stdout in `folder`; ends when all have ended."""
    children = []
    for rank in range(count):
        child = os.fork()
        if child == 0:
            _be(rank, folder, main)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)


def read_rank(folder: Path, rank: int) -> str:
    """What a process printed."""
    return _out(folder, rank).read_text()


def _be(rank: int, folder: Path, main: Callable[[int], None]) -> None:
    """The child: never returns."""
    with _out(folder, rank).open("w") as file:
        os.dup2(file.fileno(), 1)
    try:
        main(rank)
    except BaseException:  # noqa: BLE001  # whatever it was, this process must end here
        traceback.print_exc()
    sys.stdout.flush()
    os._exit(0)


def _out(folder: Path, rank: int) -> Path:
    return folder / f"rank-{rank}.out"
