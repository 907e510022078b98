"""What `rasura patch check` says of pairs beyond the verdict: parameter by parameter, by angles, as a picture."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rasura.evaluation.plots.figure import InterferenceData, draw_interference
from rasura.patches.checks.kernels.footprint import Footprint
from rasura.patches.checks.kernels.interference import (
    Interference,
    compute_angles,
    compute_cosines,
    group_by_parameter,
)

if TYPE_CHECKING:
    from rasura.registry.trust.check import Judged

__all__ = ["draw_pairs", "list_pairs"]


def list_pairs(checked: Judged, *, layers: bool, angles: bool) -> dict[str, Any]:
    """How each patch disturbs each other one, for machines.

    Args:
        checked: the set.
        layers: parameter by parameter.
        angles: the cosines of the principal angles between the detectors of each pair.
    """
    found: dict[str, Any] = {}
    pairs = [(p, q) for q in checked.stack for p in checked.stack if p is not q]
    if layers:
        shares = ((p, q, group_by_parameter(p.patch, q.patch)) for p, q in pairs)
        found["layers"] = [{"patch": p.patch_id, "other": q.patch_id, "parameters": s} for p, q, s in shares if s]
    if angles:
        prints = {member.patch_id: Footprint.of(member.patch) for member in checked.stack}
        once = [(p, q) for p, q in pairs if p.patch_id < q.patch_id]
        spectra = ((p, q, compute_angles(prints[p.patch_id], prints[q.patch_id])) for p, q in once)
        found["angles"] = [{"patch": p.patch_id, "other": q.patch_id, "cosines": c} for p, q, c in spectra if c]
    return found


def draw_pairs(checked: Judged, path: Path) -> None:
    """Draw who disturbs whom.

    Raises:
        InputError: more patches than a picture holds, or a name that is none of a picture.
        RegistryError: it cannot be written.
    """
    prints = [Footprint.of(member.patch) for member in checked.stack]
    matrix = Interference(prints, [member.strength.value for member in checked.stack]).matrix()
    names = tuple(member.patch.manifest.concept.text for member in checked.stack)
    limit = next((r.limit for r in checked.verdict.relations if r.check == "pair"), math.inf)
    data = InterferenceData(names, matrix.numpy(), limit, checked.capacity, compute_cosines(prints).numpy())
    draw_interference(data, path)
