"""The public names: pinned, complete in all three places where they stand, and free of cost until one is used."""

import ast
import pydoc
import subprocess
import sys
from pathlib import Path

import pytest

import rasura

NAMES = {
    "EraseRequest",
    "EvaluationRequest",
    "Patch",
    "Policy",
    "Registry",
    "RetainSet",
    "Stack",
    "Strength",
    "Target",
    "__version__",
    "attach",
    "errors",
    "init",
    "methods",
    "open",
    "options",
    "probe",
    "request",
    "upgrade",
    "verify_evaluation",
    "verify_file",
    "verify_model",
    "verify_receipt",
    "verify_report",
}


def imported_for_types() -> set[str]:
    """The names under `if TYPE_CHECKING`."""
    tree = ast.parse(Path(rasura.__file__).read_text())
    block = next(n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")
    return {alias.asname or alias.name for n in block.body if isinstance(n, ast.ImportFrom) for alias in n.names}


def test_these_names_are_public_and_no_others() -> None:
    assert set(rasura.__all__) == NAMES
    assert rasura.__all__ == sorted(rasura.__all__)


def test_table_types_and_all_have_the_same_names() -> None:
    lazy = NAMES - {"__version__"}
    assert set(rasura._PLACES) == lazy
    assert imported_for_types() == lazy


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_name_is_there(name: str) -> None:
    assert getattr(rasura, name) is not None


def test_completion_offers_the_public_names_only() -> None:
    """In a fresh process: whatever else was imported by then does not show."""
    code = "import rasura; print(*(n for n in dir(rasura) if not n.startswith('__')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == NAMES - {"__version__"}


def test_help_tells_the_public_names() -> None:
    shown = pydoc.plain(pydoc.render_doc(rasura))
    assert [name for name in sorted(NAMES - {"__version__", "errors"}) if name not in shown] == []
    assert "TYPE_CHECKING" not in shown


def test_other_names_are_no_attributes() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = rasura.nothing


def imported_by(code: str) -> set[str]:
    shown = f"{code}\nimport sys\nprint(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", shown], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


HEAVY = {"torch", "diffusers", "transformers", "huggingface_hub", "alembic", "click", "PIL"}


@pytest.mark.parametrize("code", ["import rasura", "import rasura; rasura.methods(); rasura.options; rasura.errors"])
def test_the_names_alone_cost_neither_torch_nor_a_database(code: str) -> None:
    found = imported_by(code)
    assert found & (HEAVY | {"numpy", "sqlalchemy"}) == set()
    assert "rasura" in found


def test_opening_a_registry_costs_no_torch() -> None:
    found = imported_by("import rasura; rasura.open; rasura.Registry; rasura.verify_file")
    assert found & HEAVY == set()
    assert "sqlalchemy" in found
