"""`rasura methods`."""

from typing import Any

import click

from rasura.commands._shared.command import command
from rasura.commands._shared.output import Result, fields, line, table
from rasura.patches.erasers.catalogue import METHODS, load_method
from rasura.patches.erasers.options import options_of


@command(None, "methods")
@click.argument("name", required=False)
def methods(name: str | None, registry_at: str | None) -> Result:
    """List the erasers, or the choices of one. Needs no registry."""
    del registry_at
    data = {"methods": [_data(name)] if name else _all()}
    return Result(data, lambda: _print_one(data["methods"][0]) if name else _print(data["methods"]))


def _all() -> list[dict[str, Any]]:
    return [{"name": method.name, "text": method.text, "source": method.source} for method in METHODS.values()]


def _data(name: str) -> dict[str, Any]:
    eraser = load_method(name)
    defaults = eraser.defaults
    return {
        "name": name,
        "text": METHODS[name].text,
        "source": METHODS[name].source,
        "defaults": {"tokens": defaults.tokens, "layers": defaults.layers, "rank_rule": defaults.rule},
        "needs_retain": defaults.needs_retain,
        "options": [
            {"name": o.name, "kind": o.kind, "default": o.default, "text": o.text, "choices": list(o.choices)}
            for o in options_of(eraser)
        ],
    }


def _print(found: list[dict[str, Any]]) -> None:
    table(("method", "what it does", "source"), [(m["name"], m["text"], m["source"]) for m in found])


def _print_one(method: dict[str, Any]) -> None:
    fields([("method", method["name"]), ("does", method["text"]), ("source", method["source"])])
    fields([(f"--{name.replace('_', '-')}", f"[default: {value}]") for name, value in method["defaults"].items()])
    line("")
    rows = [
        (o["name"], o["kind"], o["default"], o["text"] + (f" ({', '.join(o['choices'])})" if o["choices"] else ""))
        for o in method["options"]
    ]
    table(("--set", "kind", "default", "meaning"), rows)
