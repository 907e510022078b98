"""Several spaces of text, each solved by itself, and what comes of them put together as one erasure a concept.

In each space (`rasura.patches.models.text_spaces`) the null prompt, what is retained, the concept's columns and other
patches' targets are other rows, so each has a basis and a solution of its own. A layer's increment sees the rows of its
own space alone: what is exact there stays exact beside the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from rasura.patches.algebra.increment import Increment
from rasura.patches.algebra.protected_subspace import ProtectedBasis
from rasura.patches.erasers.columns import Columns
from rasura.patches.erasers.interface import Erasure, Problem, Reference
from rasura.patches.erasers.request import EraseRequest
from rasura.patches.errors import BaseMismatchError
from rasura.patches.format.manifest_parts import TensorIdentity
from rasura.patches.format.protected_spec import HIDDEN
from rasura.patches.hosts.interface import Host
from rasura.patches.models.text_encoders.text_encoder import TextEncoder
from rasura.patches.models.text_spaces import TextSpace
from rasura.patches.types import SHORT, ParamName, PatchId

__all__ = ["Solved", "guard_in", "list_through", "merge_erasures", "read_spaces"]


@dataclass(frozen=True, slots=True, eq=False)
class Solved:
    """A space's solutions, one a concept, in the request's order."""

    space: TextSpace
    problem: Problem
    basis: Callable[[], ProtectedBasis]
    erasures: tuple[Erasure, ...]


def read_spaces(host: Host, encoder: TextEncoder, request: EraseRequest) -> tuple[tuple[TextSpace, TextEncoder], ...]:
    """The spaces that the request's layers read, with the encoders as each sees them.

    Raises:
        UnsupportedHostError, InputError: no layers that fit.
    """
    width = encoder.reading_for(request.layers).width
    names = request.eraser.parameters(host.parameters(), request.layers, width)
    return encoder.reading_by_space(request.layers, names)


def list_through(parts: Sequence[tuple[TextSpace, TextEncoder]]) -> tuple[TensorIdentity, ...]:
    """The parameters that text goes through before the layers of any of these spaces read it."""
    found = (parameter for _, own in parts if own.readout is not None for parameter in own.readout.parameters)
    return tuple(dict.fromkeys(found))


def guard_in(space: TextSpace, width: int, request: EraseRequest) -> EraseRequest:
    """The request, with the other patches' targets as this space has them.

    Raises:
        BaseMismatchError: a patch whose targets there are not known, or are of another width.
    """
    guarded = dict(_list_guards(space, request))
    for patch_id, rows in guarded.items():
        if rows.shape[-1] != width:
            raise BaseMismatchError(
                f"patch {patch_id[:SHORT]} cannot be protected here: its targets are {rows.shape[-1]} numbers a row, "
                f"and --layers {request.layers} reads {width}",
                hint="rasura patch list",
            )
    return replace(request, guarded=guarded)


def _list_guards(space: TextSpace, request: EraseRequest) -> Iterator[tuple[PatchId, torch.Tensor]]:
    if not space.name:
        yield from request.guarded.items()
        return
    for patch_id in request.guarded:
        rows = request.guarded_apart.get(patch_id, {}).get(space.name)
        if rows is None:
            raise BaseMismatchError(
                f"patch {patch_id[:SHORT]} cannot be protected here: what it erases is not known as {space.name} has "
                f"it, which {space.names[0]} reads; expected a patch of the same layers",
                hint=f"rasura patch show {patch_id[:SHORT]}",
            )
        yield patch_id, rows


def merge_erasures(parts: Sequence[Solved]) -> tuple[Erasure, ...]:
    """One erasure a concept: what the first space has is the patch's own, the others' are kept apart by their names."""
    if len(parts) == 1:
        return parts[0].erasures
    return tuple(_merged(parts, number) for number in range(len(parts[0].erasures)))


def _merged(parts: Sequence[Solved], number: int) -> Erasure:
    """The erasure of one concept in all spaces, padded to one rank: a LoRA file is read with one for all."""
    own = [part.erasures[number] for part in parts]
    made = {name: increment for erasure in own for name, increment in erasure.increments.items()}
    rank = max(increment.rank for increment in made.values())
    columns: dict[ParamName, Columns] = {}
    references: dict[ParamName, Reference] = {}
    bases: dict[ParamName, ProtectedBasis] = dict(own[0].bases)
    for part, erasure in zip(parts[1:], own[1:], strict=True):
        space = ParamName(part.space.name)
        columns[space], references[space] = part.problem.columns[number], part.problem.reference
        bases |= {**erasure.bases, space: part.basis() if erasure.basis is None else erasure.basis}
    return replace(
        own[0],
        increments={name: _padded(increment, rank) for name, increment in sorted(made.items())},
        free=min(erasure.free for erasure in own),
        guarded=max(erasure.guarded for erasure in own),
        bases=bases,
        columns=columns,
        references=references,
        reads={name: HIDDEN for part in parts[1:] for name in part.space.names},
        spaces={name: part.space.name for part in parts[1:] for name in part.space.names},
    )


def _padded(increment: Increment, rank: int) -> Increment:
    missing = rank - increment.rank
    if not missing:
        return increment
    A, B = increment.A, increment.B
    return Increment(
        torch.cat([A, A.new_zeros(missing, A.shape[1])]), torch.cat([B, B.new_zeros(B.shape[0], missing)], dim=1)
    )
