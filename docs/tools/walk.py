"""Print the walk of one command: which of our functions it enters, file by file, and how often it comes back to a file.

    python docs/tools/walk.py [--list] -- patch apply ID --model MODEL

A *stop* is a function or method of a module of `rasura` that the command enters, counted once however often it is
called, behind the front door (`cli.py` and `commands/` are left out). A *room* is a file in which a stop lies. A
*return* is a stop whose file was left for another one before. The order is that of the first call. What runs in other
threads is not seen, nor are comprehensions and generators' resumptions.

The command does what it does: to look at an apply without one, walk `patch apply … --dry-run`.
"""

import argparse
import inspect
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

from rasura import cli

ROOT: Final = Path(cli.__file__).resolve().parent
_DOOR: Final = ("cli.py", "commands/", "__init__.py", "__main__.py", "docs/")


@dataclass(slots=True)
class Walk:
    """What was entered so far, in order."""

    stops: list[tuple[str, str]] = field(default_factory=list)
    """File and function of each stop."""
    seen: set[CodeType] = field(default_factory=set)

    def enter(self, frame: FrameType, event: str, argument: Any) -> None:
        """Take a step; for `sys.setprofile`."""
        del argument
        code = frame.f_code
        if event != "call" or code in self.seen:
            return
        self.seen.add(code)
        # A class's body is no function; what Python makes itself (`<listcomp>`) nobody reads as one.
        if not code.co_flags & inspect.CO_OPTIMIZED or code.co_name.startswith("<") or code.co_filename.startswith("<"):
            return
        try:
            file = str(Path(code.co_filename).resolve().relative_to(ROOT))
        except ValueError:  # a library's
            return
        if not file.startswith((*_DOOR, ".venv")):
            self.stops.append((file, code.co_qualname))

    @property
    def rooms(self) -> int:
        """How many files."""
        return len({file for file, _ in self.stops})

    @property
    def returns(self) -> int:
        """How often a stop lies in a file that was left before."""
        left: set[str] = set()
        count, last = 0, ""
        for file, _ in self.stops:
            if file != last:
                count += file in left
                left.add(last)
                last = file
        return count


def main() -> None:
    """Parse, walk, print."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--list", action="store_true", help="every stop, too")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="after --: what follows `rasura`")
    arguments = parser.parse_args()
    walk = Walk()
    sys.argv = ["rasura", *(word for word in arguments.command if word != "--")]
    sys.setprofile(walk.enter)
    try:
        cli.main()
    except SystemExit as end:
        code = end.code
    finally:
        sys.setprofile(None)
    if arguments.list:
        sys.stdout.writelines(f"{file}: {name}\n" for file, name in walk.stops)
    sys.stdout.write(f"{len(walk.stops)} stops in {walk.rooms} rooms with {walk.returns} returns\n")
    sys.exit(code)


if __name__ == "__main__":
    main()
