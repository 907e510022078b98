"""Print what can be counted about the shipped code: how long, how many, how often.

    python docs/tools/house.py [--ref REF]... [--write]
    python docs/tools/house.py --rooms

Counts the working tree; with `--ref`, which may be given several times, a commit's files, a column each. `--write` puts
the table into docs/house.md, between its two marks, the working tree's column last. `--rooms` prints a line for each
folder of modules instead: what lies in it, how long that is, how many comments it has.

Counted are the modules that the wheel ships, migrations apart: `cli.py`, `__init__.py`, `__main__.py`, and everything
below `api`, `commands`, `evaluation`, `registry` and `patches`. A function's length is that of its statement, with
decorators and docstring. A name is public if neither it nor anything around it begins with an underscore.
"""

import argparse
import ast
import io
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import tokenize
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

__all__ = ["House", "count", "sources"]

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "house.md"
FLOORS: Final = ("commands", "api", "evaluation", "registry", "patches")
_MARKS: Final = ("<!-- house -->\n", "<!-- /house -->\n")

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
Definition: TypeAlias = Function | ast.ClassDef
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Source:
    """A module: its path from the root, its text, and what that says."""

    path: str
    text: str
    tree: ast.Module

    @classmethod
    def read(cls, root: Path, file: Path) -> "Source":
        """Raises SyntaxError where the file is no Python of this version."""
        text = file.read_text()
        return cls(str(file.relative_to(root)), text, ast.parse(text))

    @property
    def lines(self) -> int:
        """All of them, empty ones too."""
        return len(self.text.splitlines())

    def comments(self) -> int:
        """Comments that speak to people; what only linters and type checkers read is none."""
        tokens = tokenize.generate_tokens(io.StringIO(self.text).readline)
        texts = (token.string for token in tokens if token.type == tokenize.COMMENT)
        return sum(not text.startswith(("# noqa", "# type:", "#!", "# ruff:")) for text in texts)

    def definitions(self) -> Iterator[tuple[Definition, bool]]:
        """Every class and function, with whether it is public."""
        yield from _definitions(self.tree.body, public=True)


@dataclass(frozen=True, slots=True)
class House:
    """The figures, in the order of the table."""

    rows: dict[str, str]


def sources(root: Path) -> list[Source]:
    """The shipped modules below `root`, by path."""
    files = [*root.glob("*.py"), *(file for floor in FLOORS for file in (root / floor).rglob("*.py"))]
    return [Source.read(root, file) for file in sorted(files)]


def count(root: Path) -> House:
    """Count the checkout at `root`.

    Raises:
        SyntaxError: a module is no Python of this version.
    """
    modules = sources(root)
    found = [pair for source in modules for pair in source.definitions()]
    functions = [node for node, _ in found if not isinstance(node, ast.ClassDef)]
    lengths = sorted((node.end_lineno or node.lineno) - _first_line(node) + 1 for node in functions)
    told = [node for node, public in found if public]
    public_functions = [node for node in told if not isinstance(node, ast.ClassDef)]
    classes = [node for node in told if isinstance(node, ast.ClassDef)]
    lines = [source.lines for source in modules]
    total = sum(lines)
    comments = sum(source.comments() for source in modules)
    folders = Counter(str(Path(source.path).parent) for source in modules)
    folder, most = folders.most_common(1)[0]
    return House(
        {
            "lines": f"{total}",
            "modules / median / longest, lines": f"{len(lines)} / {statistics.median(lines):g} / {max(lines)}",
            "functions / median / 90 % below / longest, lines": (
                f"{len(lengths)} / {statistics.median(lengths):g} / {_quantile(lengths, 0.9)} / {max(lengths)}"
            ),
            "functions with a return type": _share(functions, lambda node: node.returns is not None),
            "public functions and classes with a docstring": _share(
                told, lambda node: ast.get_docstring(node) is not None
            ),
            "comments in 100 lines": f"{100 * comments / total:.1f}",
            "imports inside functions": f"{sum(_inner_imports(source.tree) for source in modules)}",
            "`TYPE_CHECKING` blocks": f"{sum(_typing_blocks(source.tree) for source in modules)}",
            "most modules in a folder": f"{most} (`{folder}`)",
            "circles of imports among siblings": f"{len(_circles(root))}",
            "names that several public functions of modules share": f"{_shared(_top(modules, public_functions))}",
            "names that several public classes share": f"{_shared(classes)}",
        }
    )


def _definitions(body: Sequence[ast.stmt], *, public: bool) -> Iterator[tuple[Definition, bool]]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            shown = public and not node.name.startswith("_")
            yield node, shown
            # What is defined inside of a function is nobody's but the function's.
            yield from _definitions(node.body, public=shown and isinstance(node, ast.ClassDef))
        elif isinstance(node, ast.If | ast.Try | ast.With):
            yield from _definitions(node.body, public=public)


def _first_line(node: Function) -> int:
    return min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])


def _quantile(ordered: Sequence[int], share: float) -> int:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _share(nodes: Sequence[T], holds: Callable[[T], bool]) -> str:
    return f"{100 * sum(map(holds, nodes)) / len(nodes):.1f} %"


def _inner_imports(tree: ast.Module) -> int:
    """Import statements below any function; one that is nested in two counts once."""
    inside = {
        node
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(outer)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    return len(inside)


def _typing_blocks(tree: ast.Module) -> int:
    return sum(isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" for node in ast.walk(tree))


def _top(modules: Sequence[Source], functions: Sequence[Function]) -> list[Function]:
    """Those that no class holds."""
    top = {id(node) for source in modules for node in source.tree.body}
    return [node for node in functions if id(node) in top]


def _shared(nodes: Sequence[Definition]) -> int:
    return sum(times > 1 for times in Counter(node.name for node in nodes).values())


def _circles(root: Path) -> list[frozenset[str]]:
    """Of each package, the largest sets of children of which each reaches each by imports between siblings.

    Imports for types alone do not count: they happen in no program.
    """
    graph = _imports(root)
    found: list[frozenset[str]] = []
    for package in sorted({name.rpartition(".")[0] for name in graph}):
        edges: dict[str, set[str]] = {}
        for importer, imported in ((a, b) for a, several in graph.items() for b in several):
            one, other = _child(importer, package), _child(imported, package)
            if one and other and one != other:
                edges.setdefault(one, set()).add(other)
        reached = {child: _reach(edges, child) for child in edges}
        circles = {frozenset(b for b in reached if b in reached[a] and a in reached[b]) for a in reached}
        found += [frozenset(f"{package}.{child}" for child in circle) for circle in circles if circle]
    return found


def _child(module: str, package: str) -> str:
    """The child of `package` in which `module` lies; empty where it lies elsewhere."""
    if not module.startswith(f"{package}."):
        return ""
    return module.removeprefix(f"{package}.").partition(".")[0]


def _reach(edges: dict[str, set[str]], start: str) -> set[str]:
    reached: set[str] = set()
    waiting = [start]
    while waiting:
        for following in edges.get(waiting.pop(), set()) - reached:
            reached.add(following)
            waiting.append(following)
    return reached


def _imports(root: Path) -> dict[str, set[str]]:
    """Which module imports which, as grimp reads the sources, in a process whose `rasura` is the one at `root`."""
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "rasura").symlink_to(root)
        program = (
            "import grimp\n"
            "graph = grimp.build_graph('rasura', exclude_type_checking_imports=True, cache_dir=None)\n"
            "for name in graph.modules:\n"
            "    print(name, *graph.find_modules_directly_imported_by(name))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=place,
            env={**os.environ, "PYTHONPATH": place},
            capture_output=True,
            text=True,
            check=True,
        )
    shipped = tuple(f"rasura.{floor}" for floor in (*FLOORS, "cli"))
    lines = (line.split() for line in done.stdout.splitlines() if line.startswith(shipped))
    return {name: {other for other in others if other.startswith(shipped)} for name, *others in lines}


def _counted_at(ref: str) -> House:
    with tempfile.TemporaryDirectory() as place:
        packed = subprocess.run(["git", "archive", ref], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(place, filter="data")
        return count(Path(place))


def table(columns: dict[str, House]) -> str:
    """A Markdown table with a column a house."""
    names = list(next(iter(columns.values())).rows)
    return _lines(["", *columns], [[name, *(house.rows[name] for house in columns.values())] for name in names])


def table_of_rooms(root: Path) -> str:
    """A Markdown table with a line for each folder of modules: of what lies in the folder itself, not below it."""
    rooms: dict[str, list[Source]] = {}
    for source in sources(root):
        rooms.setdefault(str(Path(source.path).parent), []).append(source)
    body = []
    for room, inside in sorted(rooms.items()):
        lines, comments = sum(each.lines for each in inside), sum(each.comments() for each in inside)
        body.append([f"`{room}`", f"{len(inside)}", f"{lines}", f"{100 * comments / max(1, lines):.1f}"])
    return _lines(["room", "modules", "lines", "comments in 100 lines"], body)


def _lines(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    rule = ["---", *("---:" for _ in head[1:])]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in [head, rule, *body])


def main() -> None:
    """Parse, count, print or write."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--ref", action="append", default=[], metavar="REF", help="a commit; default: the working tree")
    parser.add_argument("--write", action="store_true", help="into docs/house.md, the working tree's column last")
    parser.add_argument("--rooms", action="store_true", help="a line for each folder of the working tree instead")
    arguments = parser.parse_args()
    if arguments.rooms:
        sys.stdout.write(table_of_rooms(ROOT))
        return
    columns = {ref: _counted_at(ref) for ref in arguments.ref}
    if arguments.write or not columns:
        columns["now"] = count(ROOT)
    text = table(columns)
    if not arguments.write:
        sys.stdout.write(text)
        return
    page = PAGE.read_text()
    before, after = (page.partition(mark)[side] for mark, side in zip(_MARKS, (0, 2), strict=True))
    PAGE.write_text(f"{before}{_MARKS[0]}{text}{_MARKS[1]}{after}")


if __name__ == "__main__":
    main()
