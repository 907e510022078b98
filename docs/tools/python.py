"""Writes the reference of docs/python.md from signatures and docstrings, or with --check says whether it is up to date.

    python docs/tools/python.py [--check]

What stands above the mark is written by hand and kept. Below it come the public names of the package, then whatever
their signatures name: values that calls give, and the words that stand for what may be written in several ways.
"""

import argparse
import ast
import dataclasses
import functools
import importlib
import inspect
import itertools
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import rasura
from rasura.patches.errors import RasuraError
from rasura.registry.live.live_model import LiveModel

PAGE: Final = Path(__file__).parents[1] / "python.md"
MARK: Final = "<!-- reference: written by make fix -->\n"
WIDTH: Final = 100
_LONGEST: Final = 40
_SECTION: Final = re.compile(r"^(Args|Attributes|Raises|Returns|Yields):$", re.MULTILINE)
_ITEM: Final = re.compile(r"^ {4}(\S[^:]*): (.*)$")


def page(head: str) -> str:
    """The whole page: what was written by hand, and the reference.

    Raises:
        ValueError: a public name without a docstring.
    """
    public = {name: getattr(rasura, name) for name in sorted(rasura.__all__) if not name.startswith("__")}
    functions = {name: value for name, value in public.items() if inspect.isfunction(value)}
    values = {n: v for n, v in public.items() if inspect.isclass(v) and v is not rasura.Registry}
    named = _named_by([*functions.values(), rasura.Registry, LiveModel])
    given = {name: v for name, v in named.items() if inspect.isclass(v) and v not in (*public.values(), LiveModel)}
    words = {name: value for name, value in named.items() if isinstance(value, str)}
    parts = [
        head + MARK,
        "## Making and opening",
        *(_function(f"rasura.{name}", value) for name, value in functions.items()),
        f"## The registry\n\n{_described(rasura.Registry)}",
        *_methods("registry", rasura.Registry, "###"),
        f"## A live model\n\nWhat `rasura.attach` gives. {_described(LiveModel)}",
        *_methods("model", LiveModel, "###"),
        "## Values",
        *(_value(f"rasura.{name}", value) for name, value in values.items()),
        "## What calls give",
        *(_value(name, value) for name, value in sorted(given.items())),
        "## Words in signatures",
        "\n".join(f"* `{name}`: {text}" for name, text in sorted(words.items())),
        f"## Errors\n\nAll of `rasura.errors`, each with `code`, `hint` and `details`.\n\n{_errors()}",
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _function(name: str, function: Callable[..., object], level: str = "###") -> str:
    return f"{level} {name}\n\n```python\n{_signature(name, function)}\n```\n\n{_described(function)}"


def _methods(receiver: str, kind: type, level: str) -> Iterator[str]:
    """Public methods in the order of the source, under the headings that its comments give."""
    source = inspect.getsource(kind)
    for found in re.finditer(r"^    (?:# ([A-Z][\w ]+)|def ([a-z]\w*)\()", source, re.MULTILINE):
        heading, name = found[1], found[2]
        if heading:
            yield f"{level} {heading}"
        elif isinstance(member := inspect.getattr_static(kind, name), property):
            yield f"#### {receiver}.{name}\n\n```python\n{receiver}.{name}{_result(member.fget)}\n```\n\n" + (
                _described(member)
            )
        else:
            yield _function(f"{receiver}.{name}", getattr(kind, name), "####")
    for base in kind.__bases__:
        if base.__module__.startswith("rasura.api"):
            yield from _methods(receiver, base, level)


def _value(name: str, kind: type) -> str:
    """A class: what it is and where, its fields, and the first line on each of its methods."""
    short = name.rpartition(".")[2]
    itself = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", short).lower()
    lines = [f"### {name}\n\n{_first(kind)} In `{kind.__module__}`.\n"]
    if dataclasses.is_dataclass(kind):
        told = _said_of_fields(kind)
        fields = [field for field in dataclasses.fields(kind) if not field.name.startswith("_")]
        lines += [f"* `{_field(field)}`{told.get(field.name, '')}" for field in fields]
    for member, value in _members(kind).items():
        if member.startswith("_"):
            continue
        if isinstance(value, property):
            lines.append(f"* `{itself}.{member}{_result(value.fget)}`: {_first(value)}")
        elif inspect.isfunction(value):
            lines.append(f"* `{_one_line(f'{itself}.{member}', value)}`: {_first(value)}")
        elif isinstance(value, classmethod):
            lines.append(f"* `{_one_line(f'{short}.{member}', getattr(kind, member))}`: {_first(value.__func__)}")
    return "\n".join(lines)


def _field(field: dataclasses.Field[Any]) -> str:
    text = f"{field.name}: {_type(field.type)}"
    return text if field.default is dataclasses.MISSING else f"{text} = {_default(field.default)}"


def _said_of_fields(kind: type) -> dict[str, str]:
    """`: what it is` for each field of which something is said: in the class's docstring, or below the field."""
    told = {}
    for base in reversed([base for base in kind.__mro__ if dataclasses.is_dataclass(base)]):
        _, _, attributes = inspect.cleandoc(base.__doc__ or "").partition("\nAttributes:\n")
        (tree,) = ast.parse(inspect.cleandoc(inspect.getsource(base))).body
        assert isinstance(tree, ast.ClassDef)
        for field, after in itertools.pairwise(tree.body):
            if isinstance(field, ast.AnnAssign) and isinstance(after, ast.Expr):
                told[ast.unparse(field.target)] = f": {' '.join(str(ast.literal_eval(after.value)).split())}"
        told |= {name: f": {said}" for name, said in _items(attributes)}
    return told


def _described(thing: object) -> str:
    """A docstring as Markdown: sentences as they are, sections as lists."""
    doc = inspect.getdoc(thing)
    if not doc:
        raise ValueError(f"{thing}: expected a docstring")
    parts = _SECTION.split(doc)
    text = [_paragraphs(parts[0])]
    for title, body in zip(parts[1::2], parts[2::2], strict=True):
        items = [f"* `{name}`: {said}" for name, said in _items(body)]
        text.append(f"{title}:\n\n" + "\n".join(items) if items else f"{title}: {' '.join(body.split())}")
    return "\n\n".join(text)


def _paragraphs(text: str) -> str:
    return "\n\n".join(" ".join(part.split()) for part in text.strip().split("\n\n"))


def _items(body: str) -> Iterator[tuple[str, str]]:
    """`name: what it is`, which goes on in lines that are indented further."""
    found: list[list[str]] = []
    for line in body.splitlines():
        if item := _ITEM.match(line):
            found.append([item[1], item[2]])
        elif found and line.strip():
            found[-1].append(line.strip())
    for name, *said in found:
        yield name, " ".join(said)


def _first(thing: object) -> str:
    """The first sentence or two: up to the first empty line."""
    return " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())


def _signature(name: str, function: Callable[..., object]) -> str:
    """As one would write it, over several lines where it is long."""
    line = _one_line(name, function)
    if len(line) <= WIDTH:
        return line
    inside = ",\n    ".join(_parameters(function))
    return f"{name}(\n    {inside},\n){_result(function)}"


def _one_line(name: str, function: Callable[..., object]) -> str:
    return f"{name}({', '.join(_parameters(function))}){_result(function)}"


def _parameters(function: Callable[..., object]) -> Iterator[str]:
    found = list(inspect.signature(function).parameters.values())
    star = False
    for parameter in found:
        if parameter.name == "self":
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not star:
            star = True
            yield "*"
        text = f"{parameter.name}: {_type(parameter.annotation)}"
        yield text if parameter.default is parameter.empty else f"{text} = {_default(parameter.default)}"


def _default(value: object) -> str:
    """The value; of what is a function or long, only that there is one."""
    return "…" if callable(value) or len(repr(value)) > _LONGEST else repr(value).replace("'", '"')


def _result(function: Any) -> str:
    returned = inspect.signature(function).return_annotation
    return "" if returned is inspect.Signature.empty else f" -> {_type(returned)}"


def _type(annotation: Any) -> str:
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return re.sub(r"(?:\w+\.)+(?=\w)", "", text).replace("'", "")


def _named_by(things: list[Any]) -> dict[str, Any]:
    """What the signatures of functions and public methods name of ours: classes, and texts on aliases."""
    found: dict[str, Any] = {}
    for thing in things:
        members = [thing] if inspect.isfunction(thing) else list(_public(thing))
        for function in map(inspect.unwrap, members):
            annotations = " ".join(str(a) for a in inspect.get_annotations(function).values())
            module = importlib.import_module(function.__module__)
            for dotted in re.findall(r"[A-Za-z_][\w.]*", annotations):
                value = _resolved(module, dotted)
                if value is not None:
                    found[dotted.rpartition(".")[2]] = value
    return found


def _members(kind: type) -> dict[str, Any]:
    """What a class has of its own, and what the classes of ours have that it is made of, after it."""
    ours = [base for base in kind.__mro__ if base is kind or base.__module__.startswith("rasura.api")]
    return {name: member for base in reversed(ours) for name, member in vars(base).items()}


def _public(kind: type) -> Iterator[Any]:
    for name, member in _members(kind).items():
        function = member.fget if isinstance(member, property) else member
        if not name.startswith("_") and inspect.isfunction(function):
            yield function


def _resolved(module: Any, dotted: str) -> Any:
    """A class of ours, or what is said of an alias of ours; None for everything else."""
    name, _, inner = dotted.partition(".")
    place = _places(module).get(name)
    home = module if place is None else importlib.import_module(place)
    if inner:  # a module, and a name in it
        if place is None:
            return None
        home, name = importlib.import_module(f"{place}.{name}"), inner
    value = getattr(home, name, None)
    if inspect.isclass(value):
        return value if value.__module__.startswith("rasura.") else None
    return _said_below(home, name) if home.__name__.startswith("rasura.") else None


@functools.cache
def _places(module: Any) -> dict[str, str]:
    """Which module each imported name of ours comes from, imports for type checkers included."""
    tree = ast.parse(inspect.getsource(module))
    imports = (n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and (n.module or "").startswith("rasura"))
    return {alias.asname or alias.name: str(n.module) for n in imports for alias in n.names}


@functools.cache
def _said_below(module: Any, name: str) -> str | None:
    """The text below the assignment of a name."""
    body = ast.parse(inspect.getsource(module)).body
    for assigned, after in itertools.pairwise(body):
        targets = [assigned.target] if isinstance(assigned, ast.AnnAssign) else getattr(assigned, "targets", [])
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            said = after.value if isinstance(after, ast.Expr) else None
            return str(said.value) if isinstance(said, ast.Constant) else None
    return None


def _errors() -> str:
    rows = ["| Error | Code | Meaning |", "|---|---|---|"]

    def visit(kind: type[RasuraError], depth: int) -> None:
        rows.append(f"| {'· ' * depth}`{kind.__name__}` | `{kind.code}` | {_first(kind)} |")
        for child in kind.__subclasses__():
            if child.__module__.startswith("rasura.patches.errors."):
                visit(child, depth + 1)

    visit(RasuraError, 0)
    return "\n".join(rows)


def main() -> None:
    """Write or check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if the page is out of date")
    now = PAGE.read_text(encoding="utf-8")
    made = page(now.partition(MARK)[0])
    if not parser.parse_args().check:
        PAGE.write_text(made, encoding="utf-8")
    elif now != made:
        sys.exit(f"{PAGE.name} is not what signatures and docstrings say; run `make fix`")


if __name__ == "__main__":
    main()
