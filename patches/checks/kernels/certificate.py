"""What a stack leaves of one patch's concept, at most, over stated sets of embeddings (`comeback` has the mathematics).

The numbers are made of the base's weights, the increments of the whole stack and the concept's columns, never of what
a manifest claims. The columns are the patch's own, or its words encoded anew (`TextEncoder`): a patch stores
combinations of its columns, which have the same span and another hull, so mixtures and balls want the encoder.

What is covered are the linear maps that the patch touches, one by one and together, on embeddings of the set. Not
covered: prompts and embeddings outside of it, layers that the patch does not touch, layers that read pictures, what a
patch of the text encoder makes of the words, the rounding of patched weights to the model's dtype, and what attention
and the denoiser, which are not linear, make of a share.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from rasura.patches._io.tensor_bytes import as_tensor
from rasura.patches.checks.kernels.comeback import (
    Blind,
    Pencil,
    bound_ball,
    find_blind,
    find_hull,
    find_radius,
    find_span,
)
from rasura.patches.checks.kernels.footprint import Space, spaces_of
from rasura.patches.checks.kernels.weigh import Originals
from rasura.patches.format.manifest_parts import TEXT
from rasura.patches.format.member import Member
from rasura.patches.format.patch_tensors import Pairs
from rasura.patches.types import ParamName, PatchId

__all__ = ["Ball", "Certificate", "LayerShare", "Mixtures", "certify"]


@dataclass(frozen=True, slots=True)
class LayerShare:
    """The largest share in one layer.

    Attributes:
        name: of its weight.
        span: over the span; None where nothing there responds.
        attained: of a single column, and
        bound: over all mixtures; both None without the columns themselves, `bound` also where none is proved.
    """

    name: ParamName
    span: float | None
    attained: float | None = None
    bound: float | None = None


@dataclass(frozen=True, slots=True)
class Ball:
    """No point within `radius` of a mixture has a share above `bound`; None: no bound is proved."""

    radius: float
    bound: float | None


@dataclass(frozen=True, slots=True)
class Mixtures:
    """What is known of mixtures of the columns, and of what lies near them.

    Attributes:
        attained: the largest share of a single column; some mixture has at least that.
        bound: no mixture has more; None where that cannot be proved, because responses cancel.
        radius: nothing nearer than this to a mixture gets the whole response back; 0 where that is not proved.
        apart: the median distance between a column and what it was to become: the unit for `radius`.
        ball: the bound for a radius that somebody asked for.
        blind: the nearest embedding that the patches treat as what it was to become.
    """

    attained: float
    bound: float | None
    radius: float
    apart: float
    ball: Ball | None
    blind: Blind | None


@dataclass(frozen=True, slots=True)
class Certificate:
    """What comes back at most of one concept, in layers that read one space.

    Attributes:
        patch: whose concept.
        space: `text`, or the parameter that reads states of its own.
        words: what the columns stand for.
        columns: how many there are.
        span: the largest share over their span, all layers together; None where nothing responds.
        directions: of the span.
        silent: directions of the columns that hardly respond, and are left out.
        mixtures: None where only combinations of the columns are stored.
        layers: layer by layer.
    """

    patch: PatchId
    space: Space
    words: tuple[str, ...]
    columns: int
    span: float | None
    directions: int
    silent: int
    mixtures: Mixtures | None
    layers: tuple[LayerShare, ...]


def certify(
    member: Member,
    stack: Sequence[Member],
    originals: Originals,
    *,
    columns: Pairs | None = None,
    words: Sequence[str] = (),
    radius: float | None = None,
) -> tuple[Certificate, ...]:
    """The certificates of one patch's concept under a whole stack, a space each.

    Args:
        member: the patch; one of the stack.
        stack: everything that would be applied.
        originals: the base's weights of all that the patch touches.
        columns: its concept's token embeddings as they are, a row each; None: the stored combinations of them.
        words: what they stand for.
        radius: of a ball around the mixtures, in units of the embedding.
    """
    said = tuple(words) or (member.patch.manifest.concept.text,)
    found = []
    for space, names in spaces_of(member.patch).items():
        own = columns if space == TEXT else None
        pairs = member.patch.tensors.pairs_of(names[0]) if own is None else own
        whole = own is not None or pairs.targets.shape[0] == 1  # one column has no other combinations than multiples
        layers = {name: _Layer(as_tensor(originals[name]).cpu(), _increments(stack, name)) for name in names}
        pencils = {
            name: Pencil.of(pairs.targets.T, pairs.anchors.T, [layer.see(pairs)]) for name, layer in layers.items()
        }
        together = Pencil.of(pairs.targets.T, pairs.anchors.T, ((p.asked, p.left) for p in pencils.values()))
        span = find_span(together)
        found.append(
            Certificate(
                member.patch_id,
                space,
                said,
                int(pairs.targets.shape[0]),
                None if span is None else span.share,
                0 if span is None else span.directions,
                0 if span is None else span.silent,
                _mix(together, layers, radius) if whole else None,
                tuple(_share(name, pencil, whole=whole) for name, pencil in pencils.items()),
            )
        )
    return tuple(found)


def _share(name: ParamName, pencil: Pencil, *, whole: bool) -> LayerShare:
    span, hull = find_span(pencil), find_hull(pencil) if whole else None
    share = None if span is None else span.share
    return LayerShare(name, share) if hull is None else LayerShare(name, share, hull.attained, hull.bound)


def _mix(pencil: Pencil, layers: Mapping[ParamName, _Layer], radius: float | None) -> Mixtures | None:
    hull = find_hull(pencil)
    if hull is None:
        return None
    base, patched, detectors = _grams(layers.values())
    gain = float(torch.linalg.eigvalsh(patched)[-1].clamp_min(0).sqrt())  # eigvalsh sorts upwards: σ₁ is the last
    ball = None if radius is None else Ball(radius, bound_ball(pencil, hull, gain, radius))
    apart = float(torch.linalg.vector_norm(pencil.targets - pencil.anchors, dim=0).median())
    blind = find_blind(pencil, detectors, base)
    return Mixtures(hull.attained, hull.bound, find_radius(pencil, hull, gain), apart, ball, blind)


@dataclass(frozen=True, slots=True, eq=False)
class _Layer:
    """W [o, d] in the base's dtype, and the factors (s·B, A) of everything that changes it."""

    weight: torch.Tensor
    factors: tuple[tuple[torch.Tensor, torch.Tensor], ...]

    def see(self, pairs: Pairs) -> tuple[torch.Tensor, torch.Tensor]:
        """G and R [o, n] of n columns."""
        asked = self.weight.to(torch.float64) @ (pairs.targets - pairs.anchors).T  # [o, n]
        left = asked.clone()
        for B, A in self.factors:
            left += B @ (A @ pairs.targets.T)  # A first: ΔW never stands in memory as a whole
        return asked, left


def _grams(layers: Iterable[_Layer]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Σ WᵀW and Σ (W + Δ)ᵀ(W + Δ), [d, d], and all detectors below each other [r, d]; each distinct one once."""
    found: dict[bytes, torch.Tensor] = {}
    base = patched = torch.zeros((), dtype=torch.float64)
    for layer in layers:
        wide = layer.weight.to(torch.float64)
        base = base + wide.T @ wide
        for B, A in layer.factors:
            wide = wide + B @ A
            found.setdefault(A.numpy().tobytes(), A)
        patched = patched + wide.T @ wide
    return base, patched, torch.cat(list(found.values()))


def _increments(stack: Sequence[Member], name: ParamName) -> tuple[tuple[torch.Tensor, torch.Tensor], ...]:
    found = [(m.patch.tensors.increments.get(name), m.strength.value) for m in stack]
    return tuple((i.B.to(torch.float64) * s, i.A.to(torch.float64)) for i, s in found if i is not None)
