"""Quantised layers: never merged; what a stack adds to them runs beside them.

    y = layer(x) + B (A x)        A [Σ rank, d_in], B = s·B side by side [d_out, Σ rank]

Rounding W + ΔW to a few bits would lose most of ΔW, and an 8- or 4-bit layer keeps no W to go back to. So the layer's
bytes stay as they are, and a forward hook on the layer adds the composed increment in the dtype of the layer's input.

Design: this is a second writer beside `TorchHost`, with a value of another kind. `TorchHost.write` takes what a
parameter is to be; here `replace` takes what is to be added, because there is nothing to add it to. What both have in
common is that a state is a function of the set: `replace` takes the whole set, and what was attached before is gone.
All state lies in the hooks themselves: a second `SideBranches` over the same modules, or over a deep copy, finds it.

What holds, and what does not:

* after `replace(())` no hook is left and outputs are those of the untouched layer, bit for bit;
* the branch depends on the set alone, not on order or history; its digest says which set it is;
* y is not bit for bit that of a merged model: it is rounded in other places;
* the numbers of a quantised layer cannot be compared with a base. Whoever opens the host says which base was quantised;
  compared are the identities that the patches name with those of that base, and the shapes of the layers;
* code that `torch.compile` made before would not see a new hook, so all of it is thrown away and compiled again.
"""

from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

import torch
from torch import nn
from torch.nn import functional

from rasura.patches.compose import Layer, Term, beside
from rasura.patches.errors import BaseMismatchError, UnsupportedHostError
from rasura.patches.hosts import COMPONENTS
from rasura.patches.hosts.torch_guards import is_quantised, refuse_bypassed
from rasura.patches.hosts.torch_modules import LiveParameter, live_modules, part_of, unwrapped
from rasura.patches.names import Digest, ParamName
from rasura.patches.tensors import tensor_digest

if TYPE_CHECKING:
    from rasura.patches.specs import TensorIdentity

__all__ = ["QuantisedLayer", "SideBranch", "SideBranches"]

_LOCK: Final = threading.RLock()


@dataclass(frozen=True, slots=True)
class QuantisedLayer:
    """A linear layer whose weight is not stored as plain floating-point numbers."""

    name: ParamName
    kind: str
    """The class and dtype of its weight, such as `Int8Params of int8`."""
    shape: tuple[int, int]
    """(d_out, d_in)."""


@dataclass(frozen=True, slots=True)
class SideBranch:
    """What runs beside one layer."""

    name: ParamName
    rank: int
    """Σ rank of the increments."""
    sha256: Digest
    """Over the digests of A and of s·B as float32: equal for equal sets."""


class SideBranches:
    """The quantised layers of modules in memory, and what is attached to them."""

    def __init__(
        self, components: Mapping[str, nn.Module], label: str, *, base: Iterable[TensorIdentity] | None
    ) -> None:
        """The quantised layers of these components.

        Args:
            components: modules by their names in a pipeline.
            label: what a person calls this model.
            base: the parameters of the base that was quantised. Nobody can check this claim; without it, nothing is
                attached.
        """
        self._components = {name: unwrapped(module) for name, module in components.items() if name in COMPONENTS}
        self._label = label
        self._base = None if base is None else {identity.name: identity for identity in base}

    @classmethod
    def of(cls, model: object, label: str = "", *, base: Iterable[TensorIdentity] | None) -> Self:
        """Those of a diffusers pipeline, or of one of its modules.

        Raises:
            UnsupportedHostError: neither of these.
        """
        parts = getattr(model, "components", None)
        if not isinstance(parts, Mapping):
            parts = {part_of(model): model}
        modules = {str(name): part for name, part in parts.items() if isinstance(part, nn.Module)}
        return cls(modules, label or type(model).__name__, base=base)

    def layers(self) -> Mapping[ParamName, QuantisedLayer]:
        """All quantised linear layers, in name order; plain ones are `TorchHost`'s."""
        found = {name: layer for name, module, _ in live_modules(self._components) if (layer := _layer(name, module))}
        return dict(sorted(found.items()))

    def attached(self) -> Mapping[ParamName, SideBranch]:
        """What runs beside which layers now, in name order."""
        with _LOCK:
            found = {name: hook.branch for name, module, _ in live_modules(self._components) for hook in _hooks(module)}
        return dict(sorted(found.items()))

    def replace(
        self, layers: Sequence[Layer], computed_on: Iterable[TensorIdentity] = ()
    ) -> Mapping[ParamName, SideBranch]:
        """Make these increments all that runs beside the layers; without any, nothing does.

        Args:
            layers: the whole set's increments by layer, as `compose.layers_of` groups them.
            computed_on: the identities of the touched parameters, as the patches' manifests name them.

        Returns:
            What is attached now.

        Raises:
            UnsupportedHostError: no such quantised layer, one that the model does not call, or no word of the base;
                nothing was changed.
            BaseMismatchError: a patch of another base; nothing was changed.
            BoundExceededError: strengths too large for the exact sum; nothing was changed.
        """
        with _LOCK:
            self._check_base([layer.name for layer in layers], {each.name: each for each in computed_on})
            modules = {name: (module, ancestors) for name, module, ancestors in live_modules(self._components)}
            made = [(self._hook(layer, modules), modules[layer.name][0]) for layer in _together(layers)]
            before = self.attached()
            for module, _ in modules.values():
                for hook in _hooks(module):
                    hook.remove()
            for hook, module in made:
                hook.attach(module)
            now = self.attached()
            if now != before and "torch._dynamo" in sys.modules:
                torch.compiler.reset()
        return now

    def _check_base(self, touched: Iterable[ParamName], computed_on: Mapping[ParamName, TensorIdentity]) -> None:
        for name in touched:
            if self._base is None:
                raise UnsupportedHostError(
                    f"{self._label}: expected to be told which base was quantised, for {name} cannot be compared with "
                    "it, got none",
                    hint="SideBranches.of(pipe, base=identity.parameters)",
                    parameter=name,
                )
            told, named = self._base.get(name), computed_on.get(name)
            if told is None or told != named:
                raise BaseMismatchError(
                    f"{self._label}: {name}: expected the sha256 that the patch was computed on, "
                    f"{_digest(named)}, got {_digest(told)} in the base that was named; the patch was made for other "
                    "weights",
                    hint="rasura base list",
                    parameter=name,
                )

    def _hook(self, layer: Layer, modules: Mapping[ParamName, tuple[nn.Module, Any]]) -> _Hook:
        found = _layer(layer.name, modules[layer.name][0]) if layer.name in modules else None
        if found is None:
            raise UnsupportedHostError(
                f"{self._label}: expected a quantised linear layer {layer.name}, got "
                f"{'a plain one, which is merged' if layer.name in modules else 'none'}",
                hint="TorchHost.of(pipe)" if layer.name in modules else "",
                parameter=layer.name,
            )
        module, ancestors = modules[layer.name]
        refuse_bypassed(LiveParameter(layer.name, _weight(module), ancestors))
        shape = layer.terms[0].increment.shape
        if shape != found.shape:
            raise BaseMismatchError(
                f"{self._label}: {layer.name}: expected shape {[*shape]}, got {[*found.shape]}; the patch was made for "
                "another model",
                hint="rasura base list",
            )
        B, A = beside(layer.terms)
        return _Hook(layer.name, A.to(torch.float32), B.to(torch.float32))


class _Hook:
    """A forward hook that adds B (A x); the only record of what is attached."""

    def __init__(self, name: ParamName, A: torch.Tensor, B: torch.Tensor) -> None:
        self.A, self.B = A, B
        digest = hashlib.sha256(f"{tensor_digest(A)}{tensor_digest(B)}".encode()).hexdigest()
        self.branch = SideBranch(name, int(A.shape[0]), Digest(digest))
        self._handle: Any = None

    def attach(self, module: nn.Module) -> None:
        """Run after every forward of this module; the factors go where its weight is."""
        device = next((tensor.device for tensor in (*module.parameters(), *module.buffers())), torch.device("cpu"))
        if device.type != "meta":
            self.A, self.B = self.A.to(device), self.B.to(device)
        self._handle = module.register_forward_hook(self, with_kwargs=True)

    def remove(self) -> None:
        """Run no more."""
        self._handle.remove()

    def __call__(
        self, _: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: torch.Tensor
    ) -> torch.Tensor:
        given = args[0] if args else next(iter(kwargs.values()))
        A, B = (factor.to(device=given.device, dtype=given.dtype) for factor in (self.A, self.B))
        return output + functional.linear(functional.linear(given, A), B).to(output.dtype)


def _together(layers: Sequence[Layer]) -> list[Layer]:
    """One hook a layer, however often it is named."""
    grouped: dict[ParamName, tuple[Term, ...]] = {}
    for layer in layers:
        grouped[layer.name] = grouped.get(layer.name, ()) + layer.terms
    return [Layer(name, terms) for name, terms in grouped.items()]


def _hooks(module: nn.Module) -> Iterator[_Hook]:
    # A copy: hooks are removed while this is read. Torch has no public way to list them.
    yield from [hook for hook in module._forward_hooks.values() if isinstance(hook, _Hook)]  # noqa: SLF001


def _layer(name: ParamName, module: nn.Module) -> QuantisedLayer | None:
    shape = getattr(module, "out_features", None), getattr(module, "in_features", None)
    weight = _weight(module)
    if not isinstance(shape[0], int) or not isinstance(shape[1], int) or not is_quantised(weight):
        return None
    kind = f"{type(weight).__name__} of {str(weight.dtype).removeprefix('torch.')}"
    return QuantisedLayer(name, kind, (shape[0], shape[1]))


def _weight(module: nn.Module) -> torch.Tensor:
    """The tensor that holds the codes: `weight`, or whatever the layer has instead of one."""
    found = getattr(module, "weight", None)
    if isinstance(found, torch.Tensor):
        return found
    codes = [t for t in (*module.parameters(recurse=False), *module.buffers(recurse=False)) if is_quantised(t)]
    return codes[0] if codes else torch.empty(0)


def _digest(identity: TensorIdentity | None) -> str:
    return "none" if identity is None else f"{identity.sha256[:12]}… ({identity.dtype} {[*identity.shape]})"
