"""How much of one patch's work another disturbs, from stored factors and targets alone."""

from __future__ import annotations

import math

import torch

from rasura.patches.checks.kernels.footprint import share
from rasura.patches.checks.kernels.weigh import Originals, weigh
from rasura.patches.format.manifest_parts import TEXT
from rasura.patches.format.patch import Patch
from rasura.patches.format.protected_spec import HIDDEN, IMAGE
from rasura.patches.types import ParamName

__all__ = ["measure_disturbance", "measure_own_leak"]


def measure_disturbance(patch: Patch, other: Patch) -> float | None:
    """‖Δ_patch T‖ / ‖Δ_other T‖ on the other's targets T, norms summed over each one's own parameters.

    Returns:
        None where the two read nothing in common, or the other does nothing.
    """
    # A picture's features have no stored targets: nothing can be said of them from text.
    if not {_reads(patch, name) for name in patch.tensors.increments} & {
        _reads(other, name) for name in other.tensors.increments
    } - {IMAGE}:
        return None
    work = _effect(other, other)
    return _effect(patch, other) / work if work > 0 else None


def measure_own_leak(patch: Patch, originals: Originals | None = None) -> float:
    """‖Δ U √E‖ / ‖W U √E‖ over the patch's own protected rows U with energies E: what it leaks on its own promise.

    The denominator is what the base's weights give, or without them what the patch's tensors do (`weigh`).
    """
    total = 0.0
    for name, increment in patch.tensors.increments.items():
        if _reads(patch, name) == IMAGE:
            continue
        span = patch.tensors.span_of(name)
        seen = increment.A.to(torch.float64) @ (span.rows * span.energy.sqrt()[:, None]).T  # A U √E, [r, k]
        total += float((increment.B.to(torch.float64) @ seen).square().sum())
    return share(math.sqrt(total), weigh([patch], originals)[0].promise)


def _reads(patch: Patch, name: ParamName) -> str:
    return patch.manifest.protected.reads.get(name, TEXT)


def _effect(patch: Patch, other: Patch) -> float:
    """‖Δ_patch T‖ over the parameters for which the other's targets T are known."""
    total = 0.0
    for name, increment in patch.tensors.increments.items():
        what, space = _reads(patch, name), patch.tensors.space_of(name)  # the other may touch others of this space
        if what == IMAGE or (what == HIDDEN and space not in other.tensors.pairs):
            continue
        targets = other.tensors.pairs[space].targets if what == HIDDEN else other.tensors.targets
        seen = increment.A.to(torch.float64) @ targets.T  # A T, [r, m]
        B = increment.B.to(torch.float64)
        # ‖B S‖² = tr(Sᵀ BᵀB S) with BᵀB [r, r]: d_out rows for m columns are never made.
        total += float((seen * (B.T @ B @ seen)).sum())
    return math.sqrt(max(0.0, total))
