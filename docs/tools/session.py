r"""Runs the shell sessions of a Markdown page and writes their true output into it, or with --check compares.

`python docs/tools/session.py README.md [--check] [--rasura FOLDER]`

A session is a block fenced as `console`: lines that begin with `$ ` are commands, a `\` at a line's end carries one
on, the lines below are what it prints. All sessions of a page run one after the other in one temporary folder, in which
`examples` and `benchmarks` are the repository's. A command that must fail is followed by `# exit N`.

What differs between two runs or machines is not compared: ids, times, numbers, sizes and the width of columns. An id
that a later command uses is the one that this run printed in the same place.

What runs is this checkout. With `--rasura`, the program of that name in a folder is run for it (`warm.py` makes one).
"""

import argparse
import difflib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
_SECONDS: Final = 600  # for one command
_FENCE: Final = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ID: Final = re.compile(r"\b[0-9a-f]{12,64}\b")
_EXIT: Final = re.compile(r"\s+# exit (\d+)$")
_VARYING: Final = (
    (re.compile(r"\+[0-9a-f]{8}\+[A-Za-z0-9+/]{44}"), "+<key>"),
    (re.compile(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"), "<uuid>"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?Z"), "<time>"),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d)?"), "<time>"),
    (_ID, "<id>"),
    (re.compile(r"-?\b\d+(\.\d+)?(e[+-]?\d+)?\b"), "<n>"),
    (re.compile(r"< <n>"), "<n>"),  # "< 0.001": a number, too, and another processor may get 0.00101
    (re.compile(r"[ \t]+"), " "),
)


class SessionError(Exception):
    """A command ended otherwise than the page says."""


@dataclass(frozen=True, slots=True)
class Step:
    """A command as the page has it, its expected exit code, and the output below it."""

    shown: str
    exit_code: int
    output: str

    @property
    def command(self) -> str:
        """What the shell gets."""
        return _EXIT.sub("", self.shown.removeprefix("$ "))


@dataclass(slots=True)
class Shell:
    """One temporary folder in which steps run in order."""

    folder: Path
    programs: Path | None = None
    """A folder whose programs go before all others."""
    renamed: dict[str, str] = field(default_factory=dict)
    """Ids on the page, and what this run printed in their place."""

    def run(self, step: Step) -> str:
        """What the step prints; an error's sentence and hint included."""
        command = _ID.sub(lambda found: self.renamed.get(found[0], found[0]), step.command)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=self.folder,
            env=environment(self.programs),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        if done.returncode != step.exit_code:
            raise SessionError(f"$ {command}\nexpected exit {step.exit_code}, got {done.returncode}\n{done.stderr}")
        said = [line for line in done.stderr.splitlines() if line.startswith(("error: ", "hint: "))]
        output = done.stdout + "".join(f"{line}\n" for line in said)
        output = output.replace(f"{self.folder.resolve()}/", "")
        self.renamed |= dict(zip(_ID.findall(step.output), _ID.findall(output), strict=False))
        return output


def steps_of(block: str) -> Iterator[Step]:
    """The steps of one session."""
    shown, output, carried = "", "", False
    for line in block.splitlines(keepends=True):
        if carried:
            shown += "\n" + line.rstrip("\n")
        elif line.startswith("$ "):
            if shown:
                yield _step(shown, output)
            shown, output = line.rstrip("\n"), ""
        else:
            output += line
        carried = (carried or line.startswith("$ ")) and line.rstrip("\n").endswith("\\")
    yield _step(shown, output)


def _step(shown: str, output: str) -> Step:
    found = _EXIT.search(shown)
    return Step(shown, int(found[1]) if found else 0, output)


def rewritten(page: str, folder: Path, programs: Path | None = None) -> str:
    """The page with the output of this run."""
    for name in ("examples", "benchmarks"):
        (folder / name).symlink_to(ROOT / name)
    shell = Shell(folder, programs)

    def session(block: re.Match[str]) -> str:
        return "```console\n" + "".join(f"{s.shown}\n{shell.run(s)}" for s in steps_of(block[1])) + "```"

    made = _FENCE.sub(session, page)
    for old, new in shell.renamed.items():  # commands still name the ids of the last run
        made = made.replace(f" {old}", f" {new}")
    return made


def comparable(page: str) -> list[str]:
    """The page's sessions without what differs between two runs."""
    text = "\n".join(_FENCE.findall(page))
    for pattern, stand_in in _VARYING:
        text = pattern.sub(stand_in, text)
    lines = [line.rstrip() for line in text.splitlines()]
    # Rows in the order of their ids: another processor gives other ids.
    runs = groupby(lines, lambda line: line.startswith("<id> "))
    return [line for by_id, run in runs for line in (sorted(run) if by_id else run)]


def environment(programs: Path | None = None) -> dict[str, str]:
    """What commands run in: little of whoever starts them, this checkout, and the programs of a folder before all."""
    names = ("PATH", "LANG", "TMPDIR", "RASURA_CACHE")
    kept = {name: os.environ[name] for name in names if name in os.environ}
    quiet = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    quiet |= {"HF_HUB_OFFLINE": "1", "RASURA_ACTOR": "alice", "HOME": "/nonexistent", "TZ": "UTC"}
    first = [str(folder) for folder in (programs, Path(sys.executable).parent) if folder]
    return {**kept, **quiet, "PATH": ":".join([*first, kept["PATH"]]), "PYTHONPATH": str(ROOT / ".dev")}


def main() -> None:
    """Write or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if the page tells another story")
    parser.add_argument("--rasura", type=Path, metavar="FOLDER", help="run the `rasura` in this folder")
    chosen = parser.parse_args()
    page = chosen.page.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory(prefix="rasura-session-") as folder:
        try:
            made = rewritten(page, Path(folder), chosen.rasura)
        except SessionError as error:
            sys.exit(str(error))
    if not chosen.check:
        chosen.page.write_text(made, encoding="utf-8")
        return
    before, after = comparable(page), comparable(made)
    if before != after:
        sys.exit("\n".join(difflib.unified_diff(before, after, "page", "run", lineterm="")))


if __name__ == "__main__":
    main()
