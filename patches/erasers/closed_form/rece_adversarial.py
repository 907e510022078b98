"""Embeddings that bring an erased concept back, so that they can be erased too (RECE, arXiv 2407.12383, eq. 9).

With W' the edited projections, the c' whose edited outputs come nearest to the concept's old ones solves

    min_c'  Σ_l ‖W'_l c' − W_l c‖² + γ‖c'‖²      c' = (γI + Σ W'_lᵀW'_l)⁻¹ (Σ W'_lᵀW_l) c
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from rasura.patches.types import ParamName


def search_adversarial(
    weights: Mapping[ParamName, torch.Tensor],
    edited: Mapping[ParamName, torch.Tensor],
    targets: torch.Tensor,
    gamma: float,
) -> torch.Tensor:
    """The embedding c' of each target, [d, n] float64.

    Args:
        weights: pristine W_l [o_l, d] float64.
        edited: W'_l, the same shapes.
        targets: C1 [d, n] float64.
        gamma: γ, above 0: how much a small c' counts.
    """
    inner = torch.stack([W.T @ W for W in edited.values()]).sum(0)  # [d, d]
    cross = torch.zeros_like(targets)
    for name, W in edited.items():
        cross += W.T @ (weights[name] @ targets)  # [d, n]
    values, vectors = torch.linalg.eigh((inner + inner.T) / 2)
    found: torch.Tensor = (vectors / (values.clamp(min=0) + gamma)) @ (vectors.T @ cross)
    return found
