"""Values that a live model has had, with their digests: what comes back is neither composed nor hashed again.

A server that swaps a few stacks, or applies and reverts one, meets the same values over and over. Nothing is believed
for it. What the model holds is recognised by comparing every bit with a remembered value, never by remembering that it
was written; and before a remembered value is used, a checksum tells whether it still is what was hashed.

Comparing costs a tenth of SHA-256 and nothing of composing. The price is memory: up to `count` values of each touched
parameter, where its original is kept. An original that is kept anyway is one of them and costs nothing more.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import torch

from rasura.patches._io.parallel import count_at_once
from rasura.patches._io.tensor_bytes import digest_tensors, is_finite
from rasura.patches.algebra.compose import Layer, compose_digested
from rasura.patches.errors import InputError
from rasura.patches.hosts.interface import MadeOf, Value
from rasura.patches.hosts.live.bit_compare import compute_checksum, same_bits
from rasura.patches.types import Digest, ParamName

__all__ = ["Remembered", "compose_values"]


@dataclass(frozen=True, slots=True, eq=False)
class _Kept:
    value: Value
    made_of: MadeOf | None
    checksum: int
    finite: bool

    def intact(self) -> bool:
        return compute_checksum(self.value.tensor) == self.checksum


class Remembered:
    """The last values of each parameter. Threads may ask at once: none changes a list that another one reads."""

    def __init__(self, count: int) -> None:
        """Remember up to `count` values of each parameter; 0 remembers nothing.

        Raises:
            InputError: a negative count.
        """
        if count < 0:
            raise InputError(f"remember={count}: expected how many values to remember, 0 or more")
        self._count = count
        self._kept: dict[ParamName, list[_Kept]] = {}

    def __iter__(self) -> Iterator[torch.Tensor]:
        """All that is remembered; the host's kept originals may be among it."""
        return (kept.value.tensor for each in self._kept.values() for kept in each)

    def put(self, name: ParamName, value: Value, made_of: MadeOf | None = None) -> None:
        """Remember a value that was just hashed, in place of an older one."""
        # a value that comes back stands there once
        others = [k for k in self._kept.get(name, ()) if k.value.digest != value.digest]
        if not self._count:
            return
        finite = made_of is not None or is_finite(value.tensor)  # nothing else is composed
        new = _Kept(value, made_of, compute_checksum(value.tensor), finite)
        self._kept[name] = [new, *others][: self._count]

    def made(self, name: ParamName, made_of: MadeOf) -> Value | None:
        """The value that is made of this, if it is remembered and intact."""
        return self._first(name, [k for k in self._kept.get(name, ()) if k.made_of == made_of])

    def equal(self, name: ParamName, tensor: torch.Tensor) -> Value | None:
        """The value whose bits a tensor has, if it is remembered and intact; the tensor itself may be that value."""
        alike = (k for k in self._kept.get(name, ()) if k.value.tensor is tensor or same_bits(tensor, k.value.tensor))
        return self._first(name, [k] if (k := next(alike, None)) else [])

    def copy_of(self, name: ParamName, tensor: torch.Tensor) -> torch.Tensor | None:
        """A remembered tensor whose bits a tensor has now; whatever was hashed, these bits are what is to come back."""
        kept = (k.value.tensor for k in self._kept.get(name, ()))
        # what lies in the very memory that is to be written to is no copy
        return next((t for t in kept if t.data_ptr() != tensor.data_ptr() and same_bits(tensor, t)), None)

    def known_finite(self, name: ParamName, tensor: torch.Tensor) -> bool:
        """Whether a tensor is a remembered one, by its place in memory, and was finite when it was remembered."""
        return any(
            k.finite and k.value.tensor.data_ptr() == tensor.data_ptr() and k.value.tensor.dtype == tensor.dtype
            for k in self._kept.get(name, ())
        )

    def digests(
        self, tensors: Mapping[ParamName, torch.Tensor], *, held: Collection[ParamName] = ()
    ) -> dict[ParamName, Digest]:
        """SHA-256 of raw bytes, by comparing where possible; those `held` are never written to, and remembered."""
        found = dict(zip(tensors, count_at_once(lambda name: self.equal(name, tensors[name]), tensors), strict=True))
        known = {name: value.digest for name, value in found.items() if value is not None}
        fresh = digest_tensors({name: t for name, t in tensors.items() if name not in known})
        for name, digest in fresh.items():
            # the model's own tensor is overwritten in place: remembered, it would change under its digest
            if name in held:
                self.put(name, Value(tensors[name], digest))
        return {**fresh, **known}

    def _first(self, name: ParamName, found: list[_Kept]) -> Value | None:
        if not found:
            return None
        intact = found[0].intact()  # if not, whatever happened to it, it is not what was hashed
        others = [k for k in self._kept.get(name, ()) if k is not found[0]]
        # The last one used is the last one to go.
        self._kept[name] = [*(found if intact else ()), *others][: self._count]
        return found[0].value if intact else None


def compose_values(
    layers: Mapping[ParamName, Layer],
    originals: Mapping[ParamName, torch.Tensor],
    made_of: Mapping[ParamName, MadeOf],
    memory: Remembered,
) -> dict[ParamName, Value]:
    """What parameters are under a set of patches, with digests.

    Args:
        layers: what the set adds to each parameter.
        originals: their values without patches.
        made_of: what determines each result; names the originals, too.
        memory: what is known already; results go there.

    Raises:
        AlgebraError, BoundExceededError, NotFiniteError: see `rasura.patches.algebra.compose.compose`.
    """
    # What a value is made of decides it to the bit, so that equal makings are equal values.
    known = {name: value for name in layers if (value := memory.made(name, made_of[name])) is not None}
    fresh = compose_digested(originals, [layer for name, layer in layers.items() if name not in known])
    for name, (tensor, digest) in fresh.items():
        known[name] = Value(tensor, digest)
        memory.put(name, known[name], made_of[name])
    return known
