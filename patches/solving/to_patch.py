"""Writing down what was erased: a solved concept as manifest and tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import torch

from rasura.patches._io.sha256 import digest_of
from rasura.patches._io.tensor_bytes import digest_tensor, dtype_name
from rasura.patches.algebra.protected_subspace import ProtectedBasis
from rasura.patches.erasers.columns import Columns, compress_columns
from rasura.patches.erasers.interface import Erasure
from rasura.patches.erasers.options import encode_options
from rasura.patches.erasers.request import EraseRequest
from rasura.patches.format.manifest import NAMES, NAMES_SIGN, Manifest
from rasura.patches.format.manifest_parts import ConceptSpec, EraserSpec, TensorIdentity
from rasura.patches.format.patch import BASIS, Patch
from rasura.patches.format.patch_tensors import Pairs, PatchTensors, Span
from rasura.patches.format.protected_spec import BasisSpec, ProtectedSpec, RetainSpec
from rasura.patches.models.base_identity import BaseIdentity
from rasura.patches.prompts.concept_prompts import Target
from rasura.patches.types import ParamName

COMPRESSION: Final = 1e-4
"""Relative singular value below which directions of a concept's columns are not stored."""


def describe_patch(
    request: EraseRequest,
    target: Target,
    columns: Columns,
    erasure: Erasure,
    *,
    basis: ProtectedBasis,
    base: BaseIdentity,
    weights: Mapping[ParamName, torch.Tensor],
    measured: Mapping[str, str],
    through: tuple[TensorIdentity, ...] = (),
    read_as: str = "",
    compress: Callable[[Columns], Columns] | None = None,
) -> Patch:
    """The patch of one solved concept.

    Args:
        request: what was asked.
        target: the concept.
        columns: its token embeddings.
        erasure: its solution.
        basis: what text-reading parameters promise.
        base: identity of the whole base.
        weights: pristine values of the touched parameters.
        measured: what was measured.
        through: what the text goes through before the touched parameters read it.
        read_as: the dtype in which the text encoders read; "" is float32.
        compress: makes the columns that are stored; None: `compress_columns` to `COMPRESSION`.
    """
    stored = _pairs(columns, compress)
    tensors = PatchTensors(
        erasure.increments,
        basis.rows,
        basis.energy,
        stored.targets,
        stored.anchors,
        spans={name: Span(own.rows, own.energy) for name, own in erasure.bases.items()},
        pairs={name: _pairs(own) for name, own in erasure.columns.items()},
        spaces=dict(sorted(erasure.spaces.items())),
    )
    eraser = EraserSpec(
        request.eraser.name,
        {"layers": request.layers, **encode_options(request.eraser), **_names(target)},
        getattr(request.eraser, "seed", None),
    )
    manifest = Manifest(
        ConceptSpec(target.concept, target.anchor, request.tokens, request.templates_of(target)),
        eraser,
        base.spec(_identities(weights, erasure), through, read_as),
        _protected(request, target, basis, tensors, erasure),
        tensors.specs(),
        {**measured, **erasure.facts},
        supersedes=tuple(sorted(request.supersedes.get(target.concept, ()))),
        licence=request.licence,
    )
    return Patch(manifest, tensors.arrays)


def _names(target: Target) -> dict[str, str]:
    """Further names of the concept; a patch of one that has none says nothing of them."""
    return {NAMES: NAMES_SIGN.join(target.names)} if target.names else {}


def _identities(weights: Mapping[ParamName, torch.Tensor], erasure: Erasure) -> tuple[TensorIdentity, ...]:
    return tuple(
        TensorIdentity(name, dtype_name(w.dtype), tuple(w.shape), digest_tensor(w))
        for name, w in sorted(weights.items())
        if name in erasure.increments
    )


def _protected(
    request: EraseRequest, target: Target, basis: ProtectedBasis, tensors: PatchTensors, erasure: Erasure
) -> ProtectedSpec:
    sha256 = digest_of(tensors.files()[BASIS])
    retain = request.retain
    # Where parameters have bases of their own, the manifest sums up the one that leaves the least room.
    shown = max([basis, *erasure.bases.values()], key=lambda own: own.rank / own.width)
    promised = basis.rank > 0 or bool(erasure.bases)  # a soft method leaves nobody's targets alone
    return ProtectedSpec(
        BasisSpec(sha256, shown.width, shown.invariants, shown.rank, str(shown.rule), _spectrum(shown)),
        None
        if retain is None
        else RetainSpec(retain.source, len(retain.concepts), retain.sha256, request.retained_templates, retain.cut),
        tuple(name for other in request.targets if other != target for name in other.spoken) if promised else (),
        tuple(sorted(request.guarded)) if promised else (),
        dict(sorted(erasure.reads.items())),
        dict(sorted(erasure.spaces.items())),
    )


def _spectrum(basis: ProtectedBasis) -> dict[str, str]:
    values, kept = basis.spectrum, basis.retained
    numbers = {
        "largest": float(values[0]) if values.numel() else 0.0,
        "last_kept": float(values[kept - 1]) if kept else 0.0,
        "first_left": float(values[kept]) if kept < values.numel() else 0.0,
        "sum_left": float(values[kept:].sum()),
        "sum": float(values.sum()),
    }
    return {name: f"{number:.3e}" for name, number in numbers.items()}


def _pairs(columns: Columns, compress: Callable[[Columns], Columns] | None = None) -> Pairs:
    stored = compress_columns(columns, COMPRESSION) if compress is None else compress(columns)
    return Pairs(stored.targets.T.contiguous(), stored.anchors.T.contiguous())
