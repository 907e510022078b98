"""From a request in words to signed-ready patches: prompts, columns, protected span, solution, measurement.

The steps, in this order:
(1) encode the null prompt and the retained prompts, and span what must not be touched;
(2) encode targets and anchors and pair their tokens;
(3) solve all concepts together (`erasers`);
(4) measure each increment, as quantised, on targets, retained and held-out prompts;
(5) write down what was done as a manifest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from rasura.patches.base import CAST_DTYPES, BaseIdentity, cross_attention
from rasura.patches.concepts import (
    Target,
    TextEncoder,
    aligned_columns,
    normal,
)
from rasura.patches.erasers.nullspace import Columns, Erasure, erase, gram_of
from rasura.patches.errors import (
    ErasureRefusedError,
    NotFiniteError,
    UnsupportedHostError,
)
from rasura.patches.file import BASIS, Patch, PatchTensors
from rasura.patches.hosts import Host
from rasura.patches.manifest import Manifest
from rasura.patches.measure import Measured, Reference, measure
from rasura.patches.names import Digest, ParamName
from rasura.patches.neighbours import explained
from rasura.patches.request import EraseRequest
from rasura.patches.specs import (
    BaseSpec,
    BasisSpec,
    ConceptSpec,
    EraserSpec,
    ProtectedSpec,
    RetainSpec,
    TensorIdentity,
)
from rasura.patches.subspace import EXACT, Moment, ProtectedBasis, guarded_basis, protected_basis
from rasura.patches.tensors import dtype_name, is_finite, tensor_digest

if TYPE_CHECKING:
    import torch

METHOD: Final = "null-space"
COMPRESSION: Final = 1e-4
"""Relative singular value below which directions of a concept's columns are not stored."""

Progress = Callable[[str, int, int], None]
"""Called with a stage, how much of it is done, and how much there is."""


def build_patches(
    host: Host, encoder: TextEncoder, base: BaseIdentity, request: EraseRequest, progress: Progress
) -> tuple[Patch, ...]:
    """Erase every concept of the request, one patch each.

    Args:
        host: the base model; read only.
        encoder: its text encoder.
        base: identity of the whole base; the manifests keep the touched parameters.
        request: what to do.
        progress: told what is going on.

    Raises:
        UnsupportedHostError: no cross-attention that fits, or weights that no stack can be composed on.
        NotFiniteError: NaN or infinity in the weights or embeddings.
        ErasureRefusedError: a target lies inside what is protected; the nearest of it are named.
        ConceptError: a prompt that is too long, or a concept that its template hides.
    """
    names = cross_attention(host.parameters(), request.layers, encoder.width)
    weights = host.originals(names)
    _check_weights(weights)
    reference = _reference(encoder, request, progress)  # (1)
    basis = protected_basis(reference.invariants, reference.retained, request.rule)
    basis = guarded_basis(basis, request.guarded.values(), request.options.guard)
    concepts = [_columns(encoder, request, target) for target in request.targets]  # (2)
    progress("solving", 0, 1)
    try:
        solutions = erase(weights, concepts, basis, request.options)  # (3)
    except ErasureRefusedError as error:
        retained = request.retain.concepts if request.retain else ()
        raise explained(error, encoder, (*_names(request), *retained), request.guarded) from None
    progress("solving", 1, 1)
    spec = BaseSpec(base.digest, _identities(weights), base.text_encoder, base.tokenizer)
    patches, gram = [], gram_of(weights)
    for target, columns, solution in zip(request.targets, concepts, solutions, strict=True):
        measured = measure(weights, solution.increments, columns, basis, reference, gram=gram)  # (4)
        patches.append(  # (5)
            _patch(
                request=request,
                target=target,
                columns=columns,
                solution=solution,
                basis=basis,
                base=spec,
                measured=measured,
            )
        )
    return tuple(patches)


def _check_weights(weights: Mapping[ParamName, torch.Tensor]) -> None:
    for name, weight in weights.items():
        if dtype_name(weight.dtype) not in CAST_DTYPES:
            raise UnsupportedHostError(
                f"{name}: expected weights in one of {', '.join(CAST_DTYPES)}, got {dtype_name(weight.dtype)}",
                parameter=name,
            )
        if not is_finite(weight):
            raise NotFiniteError(f"{name}: expected finite weights, got NaN or infinity", parameter=name)


def _reference(encoder: TextEncoder, request: EraseRequest, progress: Progress) -> Reference:
    concepts = request.retain.concepts if request.retain else ()
    known = {normal(c) for c in (*concepts, *_names(request))}
    retained = request.prompts(concepts)
    held_out = request.prompts([c for c in request.held_out if normal(c) not in known])
    null = encoder.encode_all([""])[0]
    return Reference(
        null,
        _moment(encoder, retained, "encoding retained prompts", progress),
        _moment(encoder, held_out, "encoding held-out prompts", progress),
    )


def _names(request: EraseRequest) -> tuple[str, ...]:
    return tuple(target.concept for target in request.targets)


def _moment(encoder: TextEncoder, prompts: Sequence[str], stage: str, progress: Progress) -> Moment:
    moment, done = Moment(encoder.width), 0
    for hidden in encoder.encode(prompts):
        moment.add(hidden)
        done += hidden.shape[0]
        progress(stage, done, len(prompts))
    return moment


def _columns(encoder: TextEncoder, request: EraseRequest, target: Target) -> Columns:
    targets, anchors = aligned_columns(encoder, target, request.templates_of(target), request.tokens)
    columns = Columns(target.concept, targets, anchors)
    return _compressed(columns, EXACT) if targets.shape[1] > 2 * targets.shape[0] else columns


def _identities(weights: Mapping[ParamName, torch.Tensor]) -> tuple[TensorIdentity, ...]:
    return tuple(
        TensorIdentity(name, dtype_name(w.dtype), tuple(w.shape), tensor_digest(w))
        for name, w in sorted(weights.items())
    )


def _patch(
    *,
    request: EraseRequest,
    target: Target,
    columns: Columns,
    solution: Erasure,
    basis: ProtectedBasis,
    base: BaseSpec,
    measured: Measured,
) -> Patch:
    stored = _compressed(columns, COMPRESSION)
    tensors = PatchTensors(
        solution.increments, basis.rows, basis.energy, stored.targets.T.contiguous(), stored.anchors.T.contiguous()
    )
    manifest = Manifest(
        ConceptSpec(target.concept, target.anchor, request.tokens, request.templates_of(target)),
        EraserSpec(METHOD, _options(request)),
        base,
        _protected(request, target, basis, tensors),
        tensors.specs(),
        measured.decimals(free=solution.free, guarded=solution.guarded),
        licence=request.licence,
    )
    return Patch(manifest, tensors)


def _options(request: EraseRequest) -> dict[str, str]:
    options = request.options
    return {
        "layers": request.layers,
        "ridge": format(options.ridge, "g"),
        "energy": format(options.energy, "g"),
        "guard": format(options.guard, "g"),
        "rank_limit": str(options.rank_limit),
    }


def _protected(request: EraseRequest, target: Target, basis: ProtectedBasis, tensors: PatchTensors) -> ProtectedSpec:
    sha256 = Digest(hashlib.sha256(tensors.files()[BASIS]).hexdigest())
    retain = request.retain
    return ProtectedSpec(
        BasisSpec(sha256, basis.width, basis.invariants, basis.rank, str(basis.rule), _spectrum(basis)),
        RetainSpec(retain.source, len(retain.concepts), retain.sha256, request.all_templates) if retain else None,
        tuple(other.concept for other in request.targets if other != target),
        tuple(sorted(request.guarded)),
    )


def _spectrum(basis: ProtectedBasis) -> dict[str, str]:
    values, kept = basis.spectrum, basis.retained
    numbers = {
        "largest": float(values[0]),
        "last_kept": float(values[kept - 1]) if kept else 0.0,
        "first_left": float(values[kept]) if kept < values.numel() else 0.0,
        "sum_left": float(values[kept:].sum()),
        "sum": float(values.sum()),
    }
    return {name: f"{number:.3e}" for name, number in numbers.items()}


def _compressed(columns: Columns, tolerance: float) -> Columns:
    """Fewer columns that stand for all: ‖X·C1 − Y·C*‖ is the same for every X and Y, to the tolerance.

    The eigenvectors of the 2d × 2d Gram matrix are as good as a singular value decomposition down to 1e-8 of the
    largest singular value, and cost the same however many prompts there are.
    """
    import torch

    width = columns.targets.shape[0]
    stacked = torch.cat([columns.targets, columns.anchors])  # [2d, n]
    values, vectors = torch.linalg.eigh(stacked @ stacked.T)
    values, vectors = values.flip(0), vectors.flip(1)
    kept = int((values > tolerance**2 * values[0]).sum())
    scaled = vectors[:, :kept] * values[:kept].sqrt()
    return Columns(columns.name, scaled[:width].contiguous(), scaled[width:].contiguous())
