"""What the composer's numbers must equal: the same norms, term by term, from increments that nothing has compressed."""

from collections.abc import Callable, Sequence

import torch

from rasura.patches.algebra.compose import layers_of
from rasura.patches.format.manifest_parts import TEXT
from rasura.patches.format.member import Member
from rasura.patches.format.protected_spec import IMAGE
from rasura.patches.types import ParamName

Inputs = Callable[[ParamName, str], torch.Tensor | None]
"""From a parameter, and what it reads, to columns [d, m] float64; None where what it reads of something is unknown."""


def energy(stack: Sequence[Member], inputs: torch.Tensor | Inputs) -> float:
    """‖Σ_p s_p Δ_p X‖ summed over the touched parameters, for columns X [d, m] float64 (one a parameter)."""
    reads = {name: what for member in stack for name, what in member.patch.manifest.protected.reads.items()}
    total = 0.0
    for layer in layers_of((member.patch.tensors.increments, member.strength) for member in stack):
        what = reads.get(layer.name, TEXT)
        columns = inputs if isinstance(inputs, torch.Tensor) else inputs(layer.name, what)
        if columns is None or what == IMAGE:
            continue
        moved = [term.increment.dense(term.strength) @ columns for term in layer.terms]
        total += float(torch.stack(moved).sum(0).square().sum())
    return float(total**0.5)
