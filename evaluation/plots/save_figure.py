"""Figures as files: PNG or SVG by the suffix, equal bytes for equal input, whole or not at all."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rasura.patches.errors import InputError
from rasura.registry._storage.files.durable_files import write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES: Final = (".png", ".svg")
INK: Final = "#202020"
SOFT: Final = "#707070"
_INSTALL: Final = "pip install 'rasura[plot]'"
_DPI: Final = 144


def check_plot(path: Path) -> None:
    """Refuse, before anything is computed, what no figure could be written to.

    Raises:
        InputError: neither `.png` nor `.svg`, no such folder, or matplotlib or scipy is missing.
    """
    if path.suffix.lower() not in SUFFIXES:
        shown = path.suffix or "no suffix"
        raise InputError(
            f"{path}: expected a name that ends in {' or '.join(SUFFIXES)}, got {shown}", hint="--plot FILE.png"
        )
    if not path.parent.is_dir():
        raise InputError(f"{path}: expected a folder that exists, got {path.parent}", hint=f"mkdir -p {path.parent}")
    try:
        import matplotlib.figure  # noqa: F401
        import scipy.cluster.hierarchy  # noqa: F401
    except ImportError as error:
        raise InputError(f"a plot needs matplotlib and scipy: {error}", hint=_INSTALL) from None


@contextmanager
def make_figure(width: float, height: float) -> Iterator[Figure]:
    """A figure of so many inches, drawn by matplotlib's defaults whatever a person's own settings are."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with warnings.catch_warnings(), mpl.rc_context():
        warnings.simplefilter("ignore", UserWarning)  # a script that the font lacks shows as boxes
        mpl.rcdefaults()
        mpl.rc("svg", hashsalt="rasura")
        mpl.rc("font", size=9)
        mpl.rc("axes", edgecolor=SOFT)
        mpl.rc("text", color=INK)
        yield Figure(figsize=(width, height), dpi=_DPI)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure; inside `new_figure`, whose settings count until the last byte.

    Raises:
        RegistryError: it cannot be written; what was there before is as it was.
    """
    kind = path.suffix.lower().removeprefix(".")
    metadata = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}[kind]
    data = io.BytesIO()
    figure.savefig(data, format=kind, metadata=metadata)
    write_atomic(path, data.getvalue())
