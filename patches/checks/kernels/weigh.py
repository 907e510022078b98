"""What a check divides by, computed from what was verified: never from a number that a manifest claims.

A leak is a share of what the base itself does on what is protected, ‖W U √E‖. With the base's weights at hand that is
computed from them. Without, it is estimated from the patch's own tensors: on its targets a patch does what turns W T
into W C*, so ‖Δ T‖ ÷ ‖C* − T‖ is what the parameter makes of a vector, and of U √E it makes about as much.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from rasura.patches._io.arrays import Array, as_array, widen
from rasura.patches._io.tensor_bytes import RawValue, Storable
from rasura.patches.checks.kernels.footprint import share, spaces_of
from rasura.patches.format.patch import Patch
from rasura.patches.format.patch_arrays import PatchArrays, SpanArrays
from rasura.patches.types import ParamName

Originals = Mapping[ParamName, Storable]
"""The base's own values of parameters, in the base's dtype."""

_HELD: Final = 0.999
"""Share of a promise's energy that is weighed: the rest could only make the result larger, a leak's share smaller."""


@dataclass(frozen=True, slots=True)
class Weighed:
    """What the base does with what one patch protects and erases.

    Attributes:
        promise: ‖W U √E‖ over the parameters of which text can tell the inputs; with weights at most half a thousandth
            too small.
        residual: ‖(W + Δ) T − W C*‖ ÷ ‖W (C* − T)‖; None without the base's weights, or where there are no such
            parameters.
    """

    promise: float
    residual: float | None = None


def weigh(patches: Sequence[Patch], originals: Originals | None = None) -> list[Weighed]:
    """What the base does with what each patch protects and erases; each weight is read once, for all of them.

    Args:
        patches: verified ones.
        originals: the base's weights. Of a patch of which a parameter is missing here, the result is an estimate.
    """
    known = originals or {}
    read = {place: names for place, p in enumerate(patches) if (names := _names(p)) and all(n in known for n in names)}
    held, left, asked = ([0.0] * len(patches) for _ in range(3))
    leading: dict[tuple[int, ParamName | None], _Strongest] = {}  # most parameters share one: each is looked at once
    for name in sorted({name for names in read.values() for name in names}):
        mine = [place for place, names in read.items() if name in names]
        own = {place: (place, patches[place].arrays.span_owner(name)) for place in mine}
        for place, key in own.items():
            if key not in leading:
                leading[key] = _strongest(patches[place].arrays.span_of(name))
        promises = [leading[own[place]] for place in mine]
        found = _weigh_one(name, [patches[place] for place in mine], promises, known[name])
        for place, (protected, rest, wanted) in zip(mine, found, strict=True):
            held[place] += protected
            left[place] += rest
            asked[place] += wanted
    return [
        Weighed(math.sqrt(held[place]), share(math.sqrt(left[place]), math.sqrt(asked[place])))
        if place in read
        else Weighed(_estimate(patch))
        for place, patch in enumerate(patches)
    ]


def digest_promise(arrays: PatchArrays) -> bytes:
    """SHA-256 over all protected rows and energies: equal for equal promises, whatever a manifest calls them."""
    shared = ("", SpanArrays(arrays.protected, arrays.energy))
    parts = (name.encode() + digest_span(span) for name, span in (shared, *sorted(arrays.spans.items())))
    return hashlib.sha256(b"".join(parts)).digest()


def digest_span(span: SpanArrays) -> bytes:
    """SHA-256 over rows and energies."""
    found = hashlib.sha256(str(span.rows.shape).encode())
    for array in (span.rows, span.energy):
        found.update(array.tobytes())
    return found.digest()


def _names(patch: Patch) -> frozenset[ParamName]:
    return frozenset(name for names in spaces_of(patch).values() for name in names)


@dataclass(frozen=True, slots=True, eq=False)
class _Strongest:
    """The strongest protected rows as columns √(E/ΣE)·u [d, k], and ΣE; `key` is equal for equal rows."""

    key: bytes
    columns: Array
    total: float


def _weigh_one(
    name: ParamName, patches: Sequence[Patch], promises: Sequence[_Strongest], weight: Storable
) -> list[tuple[float, float, float]]:
    """For each patch ‖W U √E‖², ‖(W + Δ) T − W C*‖² and ‖W (C* − T)‖² in one parameter."""
    leading = {promise.key: promise for promise in promises}
    wanted = [patch.arrays.pairs_of(name) for patch in patches]
    # [d, k] for each distinct promise, then [d, m] for each patch: many small products become one GEMM.
    columns = [*(p.columns for p in leading.values()), *((pair.anchors - pair.targets).T for pair in wanted)]
    # float32 is enough for the four digits that anybody looks at, and half the memory
    inputs = np.concatenate(columns, axis=1).astype(np.float32)  # [d, Σ k + Σ m]
    if isinstance(weight, RawValue):
        whole = widen(weight) @ inputs  # [o, Σ k + Σ m]
    else:
        wide = weight.float()  # a tensor on a device stays there: its columns are many, what comes back is little
        whole = as_array(wide @ wide.new_tensor(inputs))
    outputs = np.split(whole, np.cumsum([part.shape[1] for part in columns])[:-1], axis=1)
    heads = zip(leading.values(), outputs[: len(leading)], strict=True)
    energies = {promise.key: _energy(part) * promise.total for promise, part in heads}
    found = []
    for patch, promise, pair, asked in zip(patches, promises, wanted, outputs[len(leading) :], strict=True):
        increment = patch.arrays.increments[name]
        # ΔW never stands in memory as a whole: A first, so that what is in between is [r, m].
        seen = increment.detector.astype(np.float64) @ pair.targets.T  # [r, m]
        done = increment.response.astype(np.float64) @ seen  # [o, m]
        # (W + Δ) T − W C* = Δ T − W (C* − T), and `asked` is W (C* − T) [o, m] already
        found.append((energies[promise.key], _energy(done - asked), _energy(asked)))
    return found


def _energy(part: Array) -> float:
    return float(np.square(part).sum())


def _strongest(span: SpanArrays) -> _Strongest:
    total = float(span.energy.sum())
    if total == 0:
        return _Strongest(digest_span(span), span.rows[:0].T, 0.0)
    order = np.argsort(-span.energy)
    energy = span.energy[order] / total  # [k], shares of the whole
    kept = int((energy.cumsum() < _HELD).sum()) + 1
    columns = (span.rows[order[:kept]] * np.sqrt(energy[:kept])[:, None]).T  # [d, k]
    return _Strongest(digest_span(span), columns, total)


def _estimate(patch: Patch) -> float:
    """‖W U √E‖ as the patch's own effect gives it: ‖Δ T‖ ÷ ‖C* − T‖ · √ΣE in each parameter."""
    total = 0.0
    for name in _names(patch):
        pairs, increment = patch.arrays.pairs_of(name), patch.arrays.increments[name]
        seen = increment.detector.astype(np.float64) @ pairs.targets.T  # [r, m] = [r, d] @ [d, m]
        moved = _energy(increment.response.astype(np.float64) @ seen)
        asked = _energy(pairs.anchors - pairs.targets)
        total += moved / asked * float(patch.arrays.span_of(name).energy.sum()) if asked > 0 else 0.0
    return math.sqrt(total)
