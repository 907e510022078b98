"""A patch kept off further targets without solving it again: its detector is projected, its responses stay.

    A' = A (I − V Vᵀ)        V orthonormal columns: what of the other patches' targets lies outside the protected span

So A' is orthogonal to everything that A was orthogonal to, and to those targets. What it costs is measured: the part of
the concept that lies in the span of V is no longer erased. For trained patches it is the exact way to a promise that
they lacked, without an hour on a GPU; B is no longer what training would find for A'.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import torch

from rasura.patches._io.sha256 import digest_of
from rasura.patches.algebra.increment import Increment
from rasura.patches.algebra.one_thread import use_one_thread
from rasura.patches.algebra.protected_subspace import ProtectedBasis, build_guarded_basis
from rasura.patches.algebra.rank_rule import RankRule
from rasura.patches.checks.kernels.capacity import GUARD
from rasura.patches.erasers.columns import Columns
from rasura.patches.erasers.free_share import FREE_FLOOR, free_norm, say_free
from rasura.patches.erasers.interface import Erasure, Reference
from rasura.patches.errors import ErasureRefusedError
from rasura.patches.format.patch import BASIS, Patch
from rasura.patches.format.patch_tensors import Span
from rasura.patches.format.protected_spec import BasisSpec
from rasura.patches.solving.from_manifest import DERIVED
from rasura.patches.solving.measure import Measurer
from rasura.patches.types import SHORT, ParamName, PatchId

__all__ = ["find_own_basis", "read_stored_erasure", "reproject", "with_references"]

_NOTHING: Final = 1e-6
"""Norm of a detector row, of 1, below which nothing of it is left but rounding."""


@dataclass(frozen=True, slots=True, eq=False)
class _Bases:
    """What the parameters of a patch protect: the shared basis, and those of single parameters."""

    shared: ProtectedBasis
    own: Mapping[ParamName, ProtectedBasis]

    def of(self, name: ParamName) -> ProtectedBasis:
        return self.own.get(name, self.shared)

    @property
    def shown(self) -> ProtectedBasis:
        """The one that leaves the least room."""
        return max([self.shared, *self.own.values()], key=lambda basis: basis.rank / basis.width)


@use_one_thread()
def reproject(
    patch: Patch,
    guarded: Mapping[PatchId, torch.Tensor],
    weights: Mapping[ParamName, torch.Tensor],
    reference: Reference,
) -> Patch:
    """The patch kept off these targets, superseding the old one.

    Args:
        patch: every touched parameter reads text embeddings.
        guarded: rows [m, d] of the other patches' targets, by patch.
        weights: pristine values of the touched parameters.
        reference: what it is measured on.

    Raises:
        ErasureRefusedError: a parameter reads something else, the room is used up, or nothing of the concept is left.
    """
    _check_reads(patch)
    bases = _guarded(patch, guarded)
    columns = _columns(patch)
    free = min(_free(patch, columns, basis) for basis in (bases.shared, *bases.own.values()))
    increments = {name: _projected(patch, name, own, bases.of(name)) for name, own in patch.tensors.increments.items()}
    erasure = Erasure(increments, free, bases.shown.guards, basis=bases.shared, bases=bases.own)
    measured = Measurer(weights, reference).measure(erasure, columns, bases.shared)
    return _described(patch, bases, increments, guarded, measured.decimals(free=free, guarded=erasure.guarded))


def find_own_basis(patch: Patch, span: Span | None = None) -> ProtectedBasis:
    """What a patch, or one parameter of it, promises, as the basis that it was; without the spectrum."""
    spec, tensors = patch.manifest.protected.basis, patch.tensors
    rows, energy = (tensors.protected, tensors.energy) if span is None else (span.rows, span.energy)
    behind = torch.nonzero(energy > 0)
    guards = int(rows.shape[0]) - (int(behind[-1]) + 1 if behind.numel() else 0)
    invariants = min(spec.invariants, int(rows.shape[0]) - guards)
    spectrum = torch.zeros(0, dtype=torch.float64)
    return ProtectedBasis(rows, energy, invariants, RankRule.parse(spec.rule), spectrum, guards)


def read_stored_erasure(patch: Patch) -> tuple[Erasure, Columns, ProtectedBasis]:
    """A patch whose parameters read text embeddings, as it was when it was solved: to be measured anew."""
    tensors, measured = patch.tensors, patch.manifest.measured
    shared = find_own_basis(patch)
    concept = patch.manifest.concept.text
    erasure = Erasure(
        tensors.increments,
        float(measured.get("free", "0")),
        int(measured.get("guarded", "0")),
        basis=shared,
        bases={name: find_own_basis(patch, span) for name, span in tensors.spans.items()},
        columns={
            space: Columns(concept, own.targets.T.contiguous(), own.anchors.T.contiguous())
            for space, own in tensors.pairs.items()
        },
        reads=patch.manifest.protected.reads,
        spaces=tensors.spaces,
    )
    return erasure, _columns(patch), shared


def with_references(erasure: Erasure, references: Mapping[str, Reference]) -> Erasure:
    """An erasure that was stored, with what its further spaces are measured on."""
    return replace(erasure, references={ParamName(space): own for space, own in references.items() if space})


def _check_reads(patch: Patch) -> None:
    for name, what in patch.manifest.protected.reads.items():
        raise ErasureRefusedError(
            f"patch {patch.patch_id[:SHORT]} ({patch.manifest.concept.text}) cannot be kept off other patches' "
            f"targets: {name} reads "
            f"{'other states of the prompt' if what == 'hidden' else 'picture features'}, and targets "
            "are known as text embeddings only; expected a patch of attn2.to_k and attn2.to_v alone",
            hint="rasura erase --base MODEL --concept TEXT --protect ID",
            parameter=name,
        )


def _guarded(patch: Patch, guarded: Mapping[PatchId, torch.Tensor]) -> _Bases:
    targets = tuple(guarded.values())
    return _Bases(
        build_guarded_basis(find_own_basis(patch), targets, GUARD),
        {
            name: build_guarded_basis(find_own_basis(patch, span), targets, GUARD)
            for name, span in patch.tensors.spans.items()
        },
    )


def _columns(patch: Patch) -> Columns:
    targets, anchors = patch.tensors.targets.T.contiguous(), patch.tensors.anchors.T.contiguous()
    return Columns(patch.manifest.concept.text, targets, anchors)


def _free(patch: Patch, columns: Columns, basis: ProtectedBasis) -> float:
    """Share of the targets' energy outside the basis."""
    share = free_norm(columns.targets, basis)
    if share < FREE_FLOOR:
        raise ErasureRefusedError(
            f"concept {columns.name!r} lies inside the targets that are to be left alone and what patch "
            f"{patch.patch_id[:SHORT]} protects: {say_free(share)}",
            hint=f"rasura erase --base MODEL --concept {shlex.quote(columns.name)} --rank-rule {basis.rule.coarser}",
            concept=columns.name,
            free=f"{share:.3e}",
        )
    return share**2


def _projected(patch: Patch, name: ParamName, increment: Increment, basis: ProtectedBasis) -> Increment:
    A = basis.project(increment.A.to(torch.float64).T).T
    norms = torch.linalg.vector_norm(A, dim=1)
    if not bool((norms > _NOTHING).any()):
        raise ErasureRefusedError(
            f"nothing of what patch {patch.patch_id[:SHORT]} ({patch.manifest.concept.text}) does in {name} is left "
            "beside the targets that are to be left alone",
            hint=f"rasura patch check {patch.patch_id[:SHORT]}",
            parameter=name,
        )
    return Increment.quantised(A * (norms > _NOTHING)[:, None], increment.B)


def _described(
    patch: Patch,
    bases: _Bases,
    increments: Mapping[ParamName, Increment],
    guarded: Mapping[PatchId, torch.Tensor],
    measured: Mapping[str, str],
) -> Patch:
    tensors = replace(
        patch.tensors,
        increments=increments,
        protected=bases.shared.rows,
        energy=bases.shared.energy,
        spans={name: Span(basis.rows, basis.energy) for name, basis in bases.own.items()},
    )
    old, shown = patch.manifest, bases.shown
    sha256 = digest_of(tensors.files()[BASIS])
    spec = old.protected.basis
    basis = BasisSpec(sha256, shown.width, shown.invariants, shown.rank, spec.rule, spec.spectrum)
    patches = tuple(sorted({*old.protected.patches, *guarded}))
    options = {**old.eraser.options, DERIVED: "projected", f"{DERIVED}_from": patch.patch_id}
    manifest = replace(
        old,
        eraser=replace(old.eraser, options=options),
        protected=replace(old.protected, basis=basis, patches=patches),
        tensors=tensors.specs(),
        measured=dict(measured),
        supersedes=(patch.patch_id,),
    )
    return Patch(manifest, tensors.arrays)
