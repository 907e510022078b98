"""How changes that are in force together stand to each other: the map in a report, and what it says in words."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rasura.evaluation.plots.figure import InterferenceData, draw_interference
from rasura.patches._io.sha256 import digest_of
from rasura.patches.algebra.stack import Stack
from rasura.patches.checks.kernels.footprint import Footprint
from rasura.patches.checks.kernels.interference import Interference, compute_cosines
from rasura.patches.errors import InputError, RasuraError
from rasura.registry.trust.check import judge_registered

if TYPE_CHECKING:
    from rasura.patches._io.json_fields import JsonValue
    from rasura.registry.registry import Registry
    from rasura.registry.standing.standing import Placed

__all__ = ["draw_map"]

_DRAWN: Final = 64
"""Patches up to which the map of a stack is drawn."""


def draw_map(registry: Registry, placed: Iterable[Placed]) -> tuple[bytes, JsonValue]:
    """How the changes that are in force together stand to each other; nothing where there is one, or no plotting."""
    sets = [each.applied for each in placed if 1 < len(each.applied) <= _DRAWN]
    if not sets:
        return b"", None
    stack = max(sets, key=len)
    try:
        checked = judge_registered(registry, Stack(stack), registry.policy())
        prints = [Footprint.of(member.patch) for member in checked.stack]
        matrix = Interference(prints, [member.strength.value for member in checked.stack]).matrix().numpy()
    except RasuraError as error:
        return b"", {"names": [], "limit": None, "worst": None, "said": error.message, "picture": None}
    names = tuple(member.patch.manifest.concept.text for member in checked.stack)
    limit = next((r.limit for r in checked.verdict.relations if r.check == "pair"), math.inf)
    pairs = [(float(matrix[p, q]), p, q) for p in range(len(names)) for q in range(len(names)) if p != q]
    value, p, q = max((each for each in pairs if math.isfinite(each[0])), default=(math.nan, 0, 0))
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "map.png"
            draw_interference(
                InterferenceData(names, matrix, limit, checked.capacity, compute_cosines(prints).numpy()), path
            )
            picture = path.read_bytes()
    except InputError:  # no matplotlib: the numbers are there all the same
        picture = b""
    worst: JsonValue = None
    if math.isfinite(value):
        worst = {"share": f"{value:.4f}", "disturbing": names[p], "disturbed": names[q]}
    return picture, {
        "names": list(names),
        "limit": f"{limit:.4f}" if math.isfinite(limit) else None,
        "worst": worst,
        "said": None,
        "picture": digest_of(picture) if picture else None,
    }
