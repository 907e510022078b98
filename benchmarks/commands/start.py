"""What starting costs: the shell's completion, help, and the commands that look, against an empty interpreter.

`python benchmarks/commands/start.py [--repeats 5]` prints a Markdown table: the median seconds of a whole process,
warm, and which of the heavy libraries it imported. The registry is a new one with a key and nothing else.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HEAVY: Final = ("torch", "diffusers", "transformers", "numpy", "sqlalchemy", "cryptography")
_RUN: Final = (
    "import sys\nsys.argv = ['rasura', *sys.argv[1:]]\n"
    "try:\n    from rasura.cli import main\n    main()\n"
    "finally:\n    print(*sorted({m.partition('.')[0] for m in sys.modules}), file=sys.stderr)\n"
)


@dataclass(frozen=True, slots=True)
class Case:
    """A process: what it is called, what is typed, and the words that are being completed, if any are."""

    name: str
    words: Sequence[str] = ()
    completing: str = ""


CASES: Final = (
    Case("completing a command", completing="rasura patch re"),
    Case("completing an id or a concept", completing="rasura patch show d"),
    Case("completing a stack", completing="rasura patch switch b"),
    Case("completing a key", completing="rasura erase --key a"),
    Case("`rasura --help`", ("--help",)),
    Case("`rasura patch list`", ("patch", "list")),
    Case("`rasura status`", ("status",)),
    Case("`rasura log`", ("log",)),
)


def time_process(arguments: Sequence[str], folder: Path, variables: Mapping[str, str]) -> tuple[float, frozenset[str]]:
    """Seconds of a process, and what it imported."""
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - begun
    return seconds, frozenset(done.stderr.splitlines()[-1].split()) if done.stderr else frozenset()


def find_row(case: Case, folder: Path, repeats: int) -> str:
    """The case's line of the table."""
    variables: dict[str, str] = {}
    if case.completing:
        count = len(case.completing.split()) - (not case.completing.endswith(" "))
        variables = {"_RASURA_COMPLETE": "bash_complete", "COMP_WORDS": case.completing, "COMP_CWORD": str(count)}
    runs = [time_process(["-c", _RUN, *case.words], folder, variables) for _ in range(repeats + 1)][1:]
    heavy = [name for name in HEAVY if any(name in modules for _, modules in runs)]
    return f"| {case.name} | {statistics.median(seconds for seconds, _ in runs):.2f} s | {', '.join(heavy) or 'none'} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    print("| process | time | heavy libraries |\n|---|---:|---|")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for words in (("init",), ("key", "new", "alice")):
            subprocess.run([sys.executable, "-c", _RUN, *words], cwd=folder, check=True, capture_output=True)
        empty = [time_process(["-c", ""], folder, {})[0] for _ in range(repeats + 1)][1:]
        print(f"| an empty interpreter | {statistics.median(empty):.2f} s | none |", flush=True)
        for case in CASES:
            print(find_row(case, folder, repeats), flush=True)


if __name__ == "__main__":
    main()
