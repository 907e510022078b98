# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""Every eraser of the catalogue from the command line to the model and back, and what the log says of it afterwards."""

from pathlib import Path
from typing import Any, Final

import pytest
from support.commandline import rasura
from support.registries.workshop import Workshop, workshop

from rasura.patches.erasers.catalogue import METHODS

MODEL = ("--model", "the model")
_TRAINED: Final = {"steps": "2", "batch": "2", "images": "2", "drawing": "2", "lr": "0.05", "rank": "3"}
# Choices under which a method takes a moment.
CHOICES: Final[dict[str, dict[str, str]]] = {
    "null-space": {},
    "span": {"rounds": "1", "words": "4", "left": "0.5"},
    "joint": {"words": "4", "sentences": "2", "contexts": "2"},
    "speed": {"aug": "4"},
    "uce": {},
    "rece": {"epochs": "1"},
    "sepme": _TRAINED,
    "all-but-one": _TRAINED,
    "clip-null-space": {},
}


def test_every_eraser_is_here() -> None:
    assert set(CHOICES) == set(METHODS)


@pytest.mark.parametrize("method", CHOICES)
def test_an_erasure_is_applied_reverted_and_logged(method: str, workshop: Workshop) -> None:
    def run(*arguments: str | Path) -> dict[str, Any]:
        return rasura(*arguments, "--json", cwd=workshop.folder).data

    before = workshop.digests()
    (workshop.folder / "keep.txt").write_text("painting\ncat\na\nthe\n")
    # Soft and shortened erasers leak more than a policy in earnest would have; what is asked here is the way.
    (workshop.folder / "loose.toml").write_text("[limits]\nown = inf\nstack = inf\nmoved = 0\n")
    run("policy", "set", "loose.toml")
    what = ("--base", "tiny", "--concept", "dog", "--anchor", "cat", "--retain", "keep.txt", "--template", "{}")
    chosen = (part for name, value in CHOICES[method].items() for part in ("--set", f"{name}={value}"))
    (made,) = run("erase", *what, "--method", method, *chosen)["patches"]
    assert (made["method"], made["new"]) == (method, True)
    applied = run("patch", "apply", made["id"], *MODEL)
    status = run("patch", "status", *MODEL)
    assert (set(status["applied"]), status["drifted"]) == ({made["id"]}, [])
    assert applied["before"] != applied["after"]
    assert run("patch", "revert", made["id"], *MODEL)["after"] == applied["before"]
    after = workshop.digests()
    assert {name: after[name] for name in before if name.endswith(".safetensors")} == {
        name: digest for name, digest in before.items() if name.endswith(".safetensors")
    }
    actions = [(entry.action, entry.outcome) for entry in workshop.entries()[-5:]]
    assert actions == [
        ("patch.erase", "success"),
        ("patch.apply", "begun"),
        ("patch.apply", "done"),
        ("patch.revert", "begun"),
        ("patch.revert", "done"),
    ]
    assert run("audit", "verify")["size"] == len(workshop.entries())
