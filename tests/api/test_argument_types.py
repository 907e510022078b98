"""A call that is given another plain type than it asks for says so, of every public call and every argument."""

import ast
import importlib
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

import rasura
from rasura.api.argument_types import _ALIASES
from rasura.patches.errors import InputError

WRONG: Final[dict[str, tuple[object, ...]]] = {
    "str": (3, None, ["x"], b"x", Path("x")),
    "str | None": (3, ["x"], b"x", True),
    "bool": (1, "yes", None, 0.0),
    "int": ("3", 1.5, True, None),
    "int | None": ("3", 1.5, True),
    "float": ("3", None, True, [1.0]),
    "float | None": ("x", True, [1.0]),
    "bytes | None": ("x", 3),
    "bytes": ("x", 3, None),
    "str | Sequence[str]": (3, None, [3], b"x"),
    "str | list[str]": (3, None, [3], b"x"),
    "Literal['intoto', 'cyclonedx', 'spdx']": (3, None, ["spdx"]),
    "Literal['bundle', 'jsonl', 'cloudevents', 'ocsf', 'cef', 'intoto']": (3, None, ["jsonl"]),
    "str | Path": (3, None, ["x"], b"x"),
    "str | Path | None": (3, ["x"], True, b"x"),
    "datetime | str | None": (3, ["2026-01-01"]),
    "Lines": (3, None, ["x", 3], [None], b"x"),
    "Lines | Mapping[str, Lines]": (3, None, ["x", 3], {"x": 3}),
    "Ids": (3, None, [3], b"x"),
    "Ids | None": (3, [3], b"x"),
    "str | Iterable[str]": (3, None, [3], b"x"),
    "Iterable[str | Path]": (3, None, "x", [3]),
    "Sequence[str | Path]": (3, None, "x", [3]),
    "Sequence[str]": (3, None, "x", [3]),
    "Mapping[str, str] | None": ("x", {"x": 3}, ["x"]),
    "GoalRef": (3, None, [3], {"x": []}),
    "GoalRef | Iterable[str]": (3, None, [3], {"x": []}),
    "Factor": (None, [1], b"x", True),
    "PolicyRef": (3, None, ["x"]),
    "PolicyRef | None": (3, ["x"]),
    "Policy | str | Path": (3, None, ["x"]),
    "Plan | str | Path": (3, None, ["x"]),
    "RetainSet | str | Path | None": (3, ["x"]),
    "str | Target | Iterable[str | Target]": (3, None, [3]),
    "KeepOn | str": (3, None, ["cpu"]),
    "Judgement": (3, None, ["good"]),
    "Format": (3, None, ["jsonl"]),
    "EraseRequest": ("dog", 3, None),
    "EvaluationRequest": ("dog", 3, None),
    "Plan": ("plan.json", 3, None),
    "Progress": ("x", 3, None),
    "Callable[[], int]": ("x", 3, None),
    "Callable[[Step], None]": ("x", 3, None),
}
"""By an annotation: values that are wrong for it."""
ANYTHING: Final = {"object"}
CALLS: Final[dict[str, Callable[..., Any]]] = {
    **{name: getattr(rasura, name) for name in ("init", "open", "upgrade", "options", "request", "attach")},
    **{name: getattr(rasura, name) for name in rasura.__all__ if name.startswith("verify_")},
    **{
        f"Registry.{name}": getattr(rasura.Registry, name)
        for name in dir(rasura.Registry)
        if not name.startswith("_") and hasattr(getattr(rasura.Registry, name), "__wrapped__")
    },
}


def arguments() -> Iterator[tuple[str, str, str]]:
    for name, call in sorted(CALLS.items()):
        for parameter in inspect.signature(call).parameters.values():
            if parameter.name == "self" or parameter.annotation in ANYTHING:
                continue
            annotation = parameter.annotation
            yield name, parameter.name, annotation


def stand_in(annotation: str) -> object:
    """Something that may be given where nothing else is asked."""
    known: dict[str, object] = {"int": 1, "float": 1.0, "bool": True, "bytes": b"x", "Iterable[str | Path]": ["x"]}
    known |= {"Judgement": "good", "Callable[[], int]": int, "Callable[[Step], None]": print}
    texts = {"Ids", "Lines", "GoalRef", "GoalRef | Iterable[str]", "PolicyRef"}
    if annotation in known or annotation in texts:
        return known.get(annotation, "x")
    return object() if annotation.isidentifier() and annotation[:1].isupper() else "x"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[rasura.Registry]:
    with rasura.init(tmp_path_factory.mktemp("types")) as opened:
        yield opened


@pytest.mark.parametrize(("name", "argument", "annotation"), [*arguments()])
def test_a_wrong_type_is_said_before_anything_is_done(
    registry: rasura.Registry, name: str, argument: str, annotation: str
) -> None:
    assert annotation in WRONG, f"{name}: {argument}: say in WRONG what {annotation} may not be"
    call = CALLS[name]
    given = {
        p.name: stand_in(p.annotation)
        for p in inspect.signature(call).parameters.values()
        if p.default is inspect.Parameter.empty and p.name != "self"
    }
    bound = (registry,) if name.startswith("Registry.") else ()
    for wrong in WRONG[annotation]:
        with pytest.raises(InputError) as refused:
            call(*bound, **{**given, argument: wrong})
        assert refused.value.details["argument"] == argument
        assert refused.value.message.startswith(f"{name.removeprefix('Registry.')}: {argument}: expected ")


def test_the_message_says_what_would_do(registry: rasura.Registry) -> None:
    said: dict[str, Callable[[], object]] = {
        "a number or None, got 'x'": lambda: registry.certify("brand", ball="x"),  # type: ignore[arg-type]
        "a text or texts, got 3": lambda: registry.certify("brand", also=3),  # type: ignore[arg-type]
        "a mapping of texts to texts or None, got {'ridge': 1}": lambda: rasura.request(
            "dog",
            settings={"ridge": 1},  # type: ignore[dict-item]
        ),
        "True or False, got 'yes'": lambda: registry.hosts(look="yes"),  # type: ignore[arg-type]
    }
    for text, call in said.items():
        with pytest.raises(InputError) as refused:
            call()
        assert refused.value.message.endswith(f"expected {text}")


def test_what_python_refuses_itself_is_left_to_it(registry: rasura.Registry) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'bal'"):
        registry.certify("brand", bal=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        registry.patch()  # type: ignore[call-arg]


def test_numbers_of_other_libraries_and_paths_of_others_are_what_they_are(registry: rasura.Registry) -> None:
    numpy = pytest.importorskip("numpy")
    with pytest.raises(rasura.errors.NotFoundError):
        registry.entry(numpy.int64(10**6))

    class Elsewhere:
        def __fspath__(self) -> str:
            return "nowhere"

    with pytest.raises(rasura.errors.RasuraError) as refused:
        registry.add_base(Elsewhere())  # type: ignore[arg-type]
    assert "argument" not in refused.value.details


def test_names_that_are_not_looked_at_are_classes() -> None:
    """A name that only a checker imports is taken for a class, of which no plain value is one; aliases are resolved."""
    for module in {inspect.getmodule(inspect.unwrap(call)) for call in CALLS.values()}:
        assert module is not None
        tree = ast.parse(Path(str(module.__file__)).read_text())
        checked = [n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
        used = {
            word
            for call in CALLS.values()
            if inspect.getmodule(inspect.unwrap(call)) is module
            for p in inspect.signature(call).parameters.values()
            if isinstance(p.annotation, str)
            for word in (n.id for n in ast.walk(ast.parse(p.annotation)) if isinstance(n, ast.Name))
        }
        for block in checked:
            for line in ast.walk(block):
                if isinstance(line, ast.ImportFrom):
                    for name in used.intersection(alias.name for alias in line.names) - _ALIASES.keys():
                        found = getattr(importlib.import_module(str(line.module)), name)
                        assert isinstance(found, type), f"{name} of {line.module} is no class: name it in _ALIASES"
