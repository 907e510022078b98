"""From a request in words to signed-ready patches: prompts, columns, protected span, solution, measurement.

The steps, in this order:
(1) encode the null prompt, the retained and the held-out prompts;
(2) encode targets and anchors and pair their tokens;
(3) let the request's eraser solve all concepts (`erasers`);
(4) measure each increment, as quantised, on targets, retained and held-out prompts (`measure`);
(5) write down what was done as a manifest (`to_patch`).
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

import torch

from rasura.patches._io.tensor_bytes import digest_tensor, dtype_name, is_finite
from rasura.patches.algebra.one_thread import use_one_thread
from rasura.patches.algebra.protected_subspace import (
    Moment,
    ProtectedBasis,
    build_guarded_basis,
    build_protected_basis,
)
from rasura.patches.checks.kernels.capacity import GUARD
from rasura.patches.erasers.columns import Columns, compress_columns
from rasura.patches.erasers.interface import Erasure, Problem, Reference
from rasura.patches.erasers.read_columns import read_columns
from rasura.patches.erasers.request import EraseRequest
from rasura.patches.errors import ErasureRefusedError, NotFiniteError, UnsupportedHostError
from rasura.patches.format.manifest_parts import TensorIdentity
from rasura.patches.format.patch import Patch
from rasura.patches.hosts.interface import Host
from rasura.patches.models.base_identity import CAST_DTYPES, BaseIdentity
from rasura.patches.models.denoiser import Denoiser
from rasura.patches.models.remembered_texts import recall
from rasura.patches.models.text_encoders.text_encoder import TextEncoder
from rasura.patches.models.text_spaces import TextSpace
from rasura.patches.prompts.concept_prompts import find_token_positions
from rasura.patches.prompts.nearest_anchor import with_anchor
from rasura.patches.prompts.nearest_concepts import explain_nearest
from rasura.patches.solving.by_space import Solved, guard_in, list_through, merge_erasures, read_spaces
from rasura.patches.solving.measure import Measurer
from rasura.patches.solving.moments import Moments, sum_moment, sum_moments
from rasura.patches.solving.to_patch import COMPRESSION, describe_patch
from rasura.patches.types import SHORT, ParamName, PatchId, Progress

Loader = Callable[[], "Denoiser"]


@use_one_thread()
def build_patches(
    host: Host,
    encoder: TextEncoder,
    base: BaseIdentity,
    request: EraseRequest,
    progress: Progress,
    *,
    denoiser: Loader | None = None,
    work: Path | None = None,
    moments: Moments | None = None,
) -> tuple[Patch, ...]:
    """Erase every concept of the request, one patch each.

    Args:
        host: the base model; read only.
        encoder: its text encoder.
        base: identity of the whole base; the manifests keep the touched parameters.
        request: what to do.
        progress: told what is going on.
        denoiser: loads the base's UNet, for methods that look through it.
        work: where a long training may leave checkpoints to resume from.
        moments: kept from one request to the next, saves encoding the same prompts again.

    Raises:
        UnsupportedHostError: no layers that fit, or weights that no stack can be composed on.
        NotFiniteError: NaN or infinity in the weights or embeddings, or in a loss.
        ErasureRefusedError: a target lies inside what is protected; the nearest of it are named.
        ConceptError: a prompt that is too long, or a concept that its template hides.
    """
    known: Moments = {} if moments is None else moments
    spaces = read_spaces(host, encoder, request)
    first = spaces[0][1]
    request = replace(request, targets=tuple(with_anchor(first, t, request.anchors) for t in request.targets))
    weights = host.originals(name for space, _ in spaces for name in space.names)
    _check_weights(weights)
    _sum_together(spaces, request, progress, known)
    parts = []
    for space, own in spaces:
        asked = guard_in(space, own.width, request)
        prompts = _Prompts(own, asked, progress, known)
        problem = Problem(
            weights={name: weights[name] for name in space.names},
            encoder=own,
            request=asked,
            columns=tuple(read_columns(own, t, asked.templates_of(t), asked.tokens) for t in asked.targets),  # (2)
            reference=prompts.reference,  # (1)
            basis=partial(getattr, prompts, "basis"),
            retained=prompts.retained,
            moment=prompts.moment,
            denoiser=denoiser or _no_denoiser,
            progress=progress,
            work=work,
        )
        parts.append(Solved(space, problem, problem.basis, _solve(problem, asked)))
    erasures = merge_erasures(parts)
    _check_erases(request, erasures)
    through = list_through(spaces)
    return tuple(_describe_all(parts[0], weights, request, erasures, through=through, base=base))


def _solve(problem: Problem, request: EraseRequest) -> tuple[Erasure, ...]:
    """One erasure a concept; a refusal names what is nearest to the concept that was refused."""
    try:
        found = request.eraser.solve(problem)  # (3)
    except ErasureRefusedError as error:
        if "guards" in error.details:
            raise _named(error, tuple(request.guarded)) from None
        if "concept" not in error.details:
            raise
        retained = request.retain.concepts if request.retain else ()
        raise explain_nearest(error, problem.encoder, (*request.names, *retained), request.guarded) from None
    return found


def _check_erases(request: EraseRequest, erasures: Sequence[Erasure]) -> None:
    """Refuse a solution that is nothing: it would pass every check, and erase nothing."""
    for target, erasure in zip(request.targets, erasures, strict=True):
        if not any(increment.A.any() and increment.B.any() for increment in erasure.increments.values()):
            raise ErasureRefusedError(
                f"erasing {target.concept!r} by {request.eraser.name} with these choices changes nothing: expected a "
                "change of some layer; what is protected, and the other concepts, may leave it no room",
                hint=f"rasura erase --base MODEL --concept {shlex.quote(target.concept)} --retain FILE",
                concept=target.concept,
                anchor=target.anchor,
                moved="0",
            )


def _describe_all(
    first: Solved,
    weights: Mapping[ParamName, torch.Tensor],
    request: EraseRequest,
    erasures: Sequence[Erasure],
    *,
    through: tuple[TensorIdentity, ...],
    base: BaseIdentity,
) -> Iterator[Patch]:
    problem = first.problem
    bases = [first.basis() if erasure.basis is None else erasure.basis for erasure in erasures]
    asked = list(zip(erasures, problem.columns, bases, strict=True))
    numbers = Measurer(weights, problem.reference).measure_all(asked)  # (4)
    for target, (erasure, columns, basis), measured in zip(request.targets, asked, numbers, strict=True):
        yield describe_patch(
            request,
            target,
            columns,
            erasure,
            basis=basis,
            base=base,
            weights=weights,
            measured=measured.decimals(free=erasure.free, guarded=erasure.guarded),
            through=through,
            read_as=problem.encoder.dtype,
            compress=partial(_compress, problem.encoder),
        )  # (5)


@dataclass(frozen=True, eq=False)  # no slots: cached_property keeps its value in __dict__
class _Prompts:
    """The prompts of a request that are not targets: encoded when first asked for."""

    encoder: TextEncoder
    request: EraseRequest
    progress: Progress
    moments: Moments = field(default_factory=dict)

    @cached_property
    def reference(self) -> Reference:
        return Reference(
            self.encoder.encode_all([""])[0],
            self.moment(self.request.retained_prompts, "encoding retained prompts", self.request.retained_count),
            self.moment(self.request.held_out_prompts, "encoding held-out prompts", len(self.request.held_out)),
        )

    @cached_property
    def basis(self) -> ProtectedBasis:
        basis = build_protected_basis(self.reference.invariants, self.reference.retained, self.request.rule)
        return build_guarded_basis(basis, self.request.guarded.values(), GUARD)

    def retained(self, tokens: str) -> Iterator[torch.Tensor]:
        """Tokens [b, d] float64 of the retained prompts, in the request's order."""
        pairs = self.request.retained_phrases()
        for part, hidden in self.encoder.encode_with(pairs):
            if tokens == "all":
                yield hidden.reshape(-1, hidden.shape[-1])
                continue
            chosen = [find_token_positions(self.encoder, prompt, phrase, tokens) for prompt, phrase in part]
            yield torch.cat([hidden[i, own] for i, own in enumerate(chosen)])

    def moment(self, prompts: Callable[[], Iterable[str]], stage: str, total: int) -> Moment:
        """The second moment of all tokens of these prompts."""
        return sum_moment(
            self.encoder, prompts, total, self.moments, lambda done: self.progress(stage, min(done, total), total)
        )


@use_one_thread()
def references_of(
    encoder: TextEncoder,
    request: EraseRequest,
    touched: Iterable[ParamName],
    progress: Progress,
    moments: Moments | None = None,
) -> dict[str, Reference]:
    """Null, retained and held-out prompts of a request, by space: what its patches are measured on; "" is the first."""
    known: Moments = {} if moments is None else moments
    spaces = encoder.reading_by_space(request.layers, sorted(touched))
    _sum_together(spaces, request, progress, known)
    return {space.name: _Prompts(own, request, progress, known).reference for space, own in spaces}


def _sum_together(
    spaces: Sequence[tuple[TextSpace, TextEncoder]], request: EraseRequest, progress: Progress, moments: Moments
) -> None:
    """Read the prompts once for all spaces: one pass of an encoder gives all its layers."""
    readers = [own for space, own in spaces if space.layer is not None]
    if len(readers) < 2:  # noqa: PLR2004  # nothing to share
        return
    for prompts, total in (
        (request.retained_prompts, request.retained_count),
        (request.held_out_prompts, len(request.held_out)),
    ):
        sum_moments(readers, prompts, total, moments, partial(progress, "encoding prompts by layer"))


def _named(error: ErasureRefusedError, patches: tuple[PatchId, ...]) -> ErasureRefusedError:
    """The same refusal for want of room, with the patches that take it, the largest first."""
    sizes = error.details["guards"]
    if not isinstance(sizes, list) or len(sizes) != len(patches):
        return error
    taken = sorted(zip(sizes, patches, strict=True), reverse=True)
    named = ", ".join(f"{patch_id[:SHORT]} takes {size}" for size, patch_id in taken)
    details = {**error.details, "guards": {patch_id: size for size, patch_id in taken}}
    return ErasureRefusedError(f"{error.message}; {named}", hint=error.hint, **details)


def _no_denoiser() -> Denoiser:
    raise UnsupportedHostError(
        "this method looks through the UNet: expected the model's folder, got weights alone",
        hint="rasura erase --base MODEL",
    )


def _check_weights(weights: Mapping[ParamName, torch.Tensor]) -> None:
    for name, weight in weights.items():
        if dtype_name(weight.dtype) not in CAST_DTYPES:
            raise UnsupportedHostError(
                f"{name}: expected weights in one of {', '.join(CAST_DTYPES)}, got {dtype_name(weight.dtype)}",
                parameter=name,
            )
        if not is_finite(weight):
            raise NotFiniteError(f"{name}: expected finite weights, got NaN or infinity", parameter=name)


def _compress(encoder: TextEncoder, columns: Columns) -> Columns:
    """Fewer columns that stand for all, to be stored in a patch; of the same columns found once."""

    def read() -> tuple[torch.Tensor, torch.Tensor]:
        found = compress_columns(columns, COMPRESSION)
        return found.targets, found.anchors

    asked = ("stored", repr(COMPRESSION), digest_tensor(columns.targets), digest_tensor(columns.anchors))
    targets, anchors = recall(encoder, asked, read)
    return Columns(columns.name, targets, anchors, columns.pairs)
