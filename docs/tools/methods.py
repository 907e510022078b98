"""Writes the tables of docs/methods.md from the erasers themselves, or with --check compares.

`python docs/tools/methods.py [--check]`
"""

import argparse
import re
import sys
from pathlib import Path
from typing import Final

from rasura.patches.erasers.catalogue import METHODS, load_method
from rasura.patches.erasers.options import Option, options_of
from rasura.patches.prompts.concept_prompts import GENERIC_TEMPLATES

PAGE: Final = Path(__file__).parents[1] / "methods.md"


def rewritten(page: str) -> str:
    """The page with every table as the program has it.

    Raises:
        ValueError: a method without its place in the page.
    """
    for name in METHODS:
        page = _filled(page, name, _table(name))
    return page


def _filled(page: str, name: str, table: str) -> str:
    pattern = rf"(<!-- method: {re.escape(name)} -->).*?(<!-- end -->)"
    page, count = re.subn(pattern, lambda found: f"{found[1]}\n\n{table}\n\n{found[2]}", page, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"{PAGE.name}: expected one place for method {name}, got {count}")
    return page


def _table(name: str) -> str:
    defaults = load_method(name).defaults
    needs = "needed" if defaults.needs_retain else "optional"
    bare = "" if defaults.templates == GENERIC_TEMPLATES else "".join(f" --template '{t}'" for t in defaults.templates)
    head = (
        f"Source: {METHODS[name].source}. Defaults: `--tokens {defaults.tokens} --layers {defaults.layers} "
        f"--rank-rule {defaults.rule}{bare}`; `--retain` is {needs}."
    )
    rows = "\n".join(_row(option) for option in options_of(load_method(name)))
    return f"{head}\n\n| `--set` | Kind | Default | Meaning |\n|---|---|---|---|\n{rows}"


def _row(option: Option) -> str:
    choices = f": {', '.join(f'`{choice}`' for choice in option.choices)}" if option.choices else ""
    default = f"`{option.default}`" if option.default else "none"
    return f"| `{option.name}` | {option.kind} | {default} | {option.text}{choices} |".replace("`` ", "")


def main() -> None:
    """Write or check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if the page differs")
    page = PAGE.read_text(encoding="utf-8")
    made = rewritten(page)
    if not parser.parse_args().check:
        PAGE.write_text(made, encoding="utf-8")
    elif made != page:
        sys.exit(f"{PAGE.name} does not show the methods' choices as they are; run `make fix`")


if __name__ == "__main__":
    main()
