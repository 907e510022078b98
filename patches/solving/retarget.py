"""A closed-form patch for another UNet that reads the same text encoder: the same detector, the responses of its W.

Every closed-form increment of a cross-attention projection is ΔW_l = W_l Q A with one Q [d, r] for all layers that
share a detector A, because the edit is a map of the text embedding: c ↦ c + Q A c. On other weights W' that map is
ΔW'_l = W'_l Q A, and A, the protected basis and the targets stay as they are. Q comes from

    weights     min_Q Σ_l ‖W_l Q − B_l‖² over the layers that share A, where the old base is at hand; the relative
                residual tells whether the responses are of that form at all (those of a trained patch are not)
    targets     Q = D (A T)⁺ with the stored targets T, anchors T* and D = T* − T: what sends each target to its anchor
                as seen by A; approximate, because the patch's rank and ridge are not in it

Where the layers together have fewer rows than the embedding is wide, Q is not determined by them; then it is looked for
in the span of D, in which it lies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch

from rasura.patches._io.tensor_bytes import digest_tensor, dtype_name
from rasura.patches.algebra.increment import Increment
from rasura.patches.algebra.one_thread import use_one_thread
from rasura.patches.algebra.protected_subspace import NOISE
from rasura.patches.erasers.interface import Reference
from rasura.patches.errors import BaseMismatchError, ErasureRefusedError, InputError
from rasura.patches.format.manifest_parts import TensorIdentity
from rasura.patches.format.patch import Patch
from rasura.patches.hosts.interface import ParameterInfo
from rasura.patches.models.base_identity import LAYERS, BaseIdentity, find_cross_attention
from rasura.patches.plain_numbers import say_beside
from rasura.patches.solving.from_manifest import DERIVED, is_trained
from rasura.patches.solving.measure import Measurer
from rasura.patches.solving.reproject import read_stored_erasure, with_references
from rasura.patches.types import SHORT, ParamName

__all__ = [
    "FIT",
    "Responses",
    "build_increments_on",
    "check_layers",
    "describe_origin",
    "responses_of",
    "retarget_patch",
]

FIT: Final = 1e-2
"""Relative residual of W Q = B over which responses are not of that form. Closed-form ones leave less than 1e-4."""
_ENCODER: Final = "text_encoder"


@dataclass(frozen=True, slots=True, eq=False)
class Responses:
    """The map of each parameter's patch, and how it was found.

    Attributes:
        maps: Q [d, r] float64 with B_l = W_l Q, for every touched parameter.
        way: "weights" or "targets".
        fit: relative residual, ‖W Q − B‖ / ‖B‖ or ‖Q A T − D‖ / ‖D‖.
    """

    maps: Mapping[ParamName, torch.Tensor]
    way: str
    fit: float


def check_layers(patch: Patch, infos: Mapping[ParamName, ParameterInfo], where: str) -> None:
    """Refuse a model that has not the layers of this patch, or more of their kind than it knows.

    Raises:
        InputError: the patch touches the text encoder, which both models share.
        BaseMismatchError: naming the first layer.
    """
    touched = patch.tensors.increments
    if odd := next((name for name in touched if name.startswith(_ENCODER)), None):
        raise InputError(
            f"patch {patch.patch_id[:SHORT]} touches the text encoder ({odd}), which both bases share: it fits as it "
            "is",
            hint=f"rasura patch apply {patch.patch_id[:SHORT]} --model MODEL",
        )
    for name, increment in touched.items():
        shape = infos[name].shape if name in infos else None
        if shape is None or shape[-1] != increment.shape[1] or len(shape) != 2:  # noqa: PLR2004
            raise BaseMismatchError(
                f"{where}: {name}: expected a projection of embeddings of width {increment.shape[1]}, got "
                f"{'none' if shape is None else list(shape)}",
                hint="rasura base list",
                parameter=name,
            )
    layers = patch.manifest.eraser.options.get("layers", "")
    more = sorted(set(find_cross_attention(infos, layers)) - set(touched)) if layers in LAYERS else []
    if more:
        raise BaseMismatchError(
            f"{where}: {more[0]} would stay as it is: expected the layers of the patch's own base, got "
            f"{len(more)} more",
            hint="rasura erase --base MODEL --concept TEXT",
            parameter=more[0],
        )


@use_one_thread()
def responses_of(patch: Patch, weights: Mapping[ParamName, torch.Tensor] | None) -> Responses:
    """What the patch does to the text embedding, as each parameter has it.

    Args:
        patch: the patch.
        weights: pristine values of the parameters that it touches, of its own base; None where they are not at hand.

    Raises:
        ErasureRefusedError: the responses are not of the form W·Q, as those of trained patches.
    """
    if weights is None:
        if is_trained(patch.manifest.eraser):
            raise _no_form(patch, None)
        return _from_targets(patch)
    maps: dict[ParamName, torch.Tensor] = {}
    left = asked = 0.0
    for names in _groups(patch):
        Q, missed, size = _fitted(patch, names, weights)
        maps |= dict.fromkeys(names, Q)
        left, asked = left + missed, asked + size
    fit = (left / asked) ** 0.5 if asked > 0 else 0.0
    if fit > FIT:
        raise _no_form(patch, fit)
    return Responses(maps, "weights", fit)


@use_one_thread()
def build_increments_on(
    patch: Patch, responses: Responses, weights: Mapping[ParamName, torch.Tensor]
) -> dict[ParamName, Increment]:
    """ΔW'_l = W'_l Q A on another base's pristine weights.

    Raises:
        BoundExceededError: a response too large for the grid.
    """
    return {
        name: Increment.quantised(own.A, weights[name].to(torch.float64) @ responses.maps[name])
        for name, own in patch.tensors.increments.items()
    }


@use_one_thread()
def retarget_patch(
    patch: Patch,
    increments: Mapping[ParamName, Increment],
    way: str,
    base: BaseIdentity,
    weights: Mapping[ParamName, torch.Tensor],
    *,
    references: Mapping[str, Reference],
) -> Patch:
    """The patch on another base.

    Args:
        patch: computed on a base with the same text encoder and tokenizer.
        increments: what it does there.
        way: how these were found, see `Responses`.
        base: identity of the other base.
        weights: pristine values of the touched parameters there.
        references: what it is measured on, by space; no retained prompts where they are not known.
    """
    stored, columns, basis = read_stored_erasure(patch)
    stored = with_references(replace(stored, increments=increments), references)
    numbers = Measurer(weights, references[""]).measure(stored, columns, basis)
    decimals = numbers.decimals(free=stored.free, guarded=stored.guarded)
    parameters = tuple(
        TensorIdentity(name, dtype_name(w.dtype), tuple(w.shape), digest_tensor(w))
        for name, w in sorted(weights.items())
        if name in increments
    )
    tensors = replace(patch.tensors, increments=increments)
    manifest = replace(
        patch.manifest,
        base=base.spec(parameters, patch.manifest.base.through, patch.manifest.base.read_as),
        tensors=tensors.specs(),
        measured=dict(decimals),
    )
    return describe_origin(Patch(manifest, tensors.arrays), patch, way)


def describe_origin(made: Patch, old: Patch, way: str) -> Patch:
    """The same patch, saying which one on another base it was made of, and how; it supersedes nothing there.

    Args:
        made: the patch.
        old: the one on another base.
        way: "weights" or "targets", see `Responses`, or "words" where it was solved anew.
    """
    named = {DERIVED: "retargeted", f"{DERIVED}_from": old.patch_id, f"{DERIVED}_by": way}
    eraser = replace(made.manifest.eraser, options={**made.manifest.eraser.options, **named})
    return Patch(replace(made.manifest, eraser=eraser, supersedes=(), requires=()), made.arrays)


def _groups(patch: Patch) -> list[list[ParamName]]:
    """The parameters by detector."""
    groups: list[list[ParamName]] = []
    for name, increment in patch.tensors.increments.items():
        same = next((g for g in groups if torch.equal(patch.tensors.increments[g[0]].A, increment.A)), None)
        if same is None:
            groups.append([name])
        else:
            same.append(name)
    return groups


def _fitted(
    patch: Patch, names: Sequence[ParamName], weights: Mapping[ParamName, torch.Tensor]
) -> tuple[torch.Tensor, float, float]:
    """Q [d, r] of layers that share a detector, the squared residual, and the squared size of their responses."""
    W = torch.cat([weights[name].to(torch.float64) for name in names])
    B = torch.cat([patch.tensors.increments[name].B.to(torch.float64) for name in names])
    if W.shape[0] >= W.shape[1]:
        Q = _solved(W.T @ W, W.T @ B)
        Q = Q + _solved(W.T @ W, W.T @ (B - W @ Q))  # once more: normal equations lose half the digits
    else:
        pairs = patch.tensors.pairs_of(names[0])
        D = (pairs.anchors - pairs.targets).T
        Q = D @ torch.linalg.lstsq(W @ D, B, driver="gelsd").solution
    return Q, float((W @ Q - B).square().sum()), float(B.square().sum())


def _solved(gram: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    values, vectors = torch.linalg.eigh(gram)
    inverse = torch.where(values > NOISE * values[-1], 1 / values, torch.zeros_like(values))
    found: torch.Tensor = (vectors * inverse) @ (vectors.T @ right)
    return found


def _from_targets(patch: Patch) -> Responses:
    maps: dict[ParamName, torch.Tensor] = {}
    left = 0.0
    for names in _groups(patch):
        pairs = patch.tensors.pairs_of(names[0])
        T, D = pairs.targets.T, (pairs.anchors - pairs.targets).T
        seen = patch.tensors.increments[names[0]].A.to(torch.float64) @ T  # [r, m]
        Q = D @ torch.linalg.pinv(seen, rtol=1e-6)
        left = max(left, float(torch.linalg.vector_norm(Q @ seen - D) / torch.linalg.vector_norm(D)))
        maps |= dict.fromkeys(names, Q)
    return Responses(maps, "targets", left)


def _no_form(patch: Patch, fit: float | None) -> ErasureRefusedError:
    how = (
        "W·Q misses them by {}, expected at most {}".format(*say_beside(fit, FIT))
        if fit is not None
        else "they were trained, or made elsewhere"
    )
    return ErasureRefusedError(
        f"the responses of patch {patch.patch_id[:SHORT]} ({patch.manifest.eraser.name}) are no map of the text "
        f"embedding: {how}; on other weights they mean nothing",
        hint="rasura erase --base MODEL --concept TEXT",
        **({} if fit is None else {"fit": f"{fit:.3e}"}),
    )
