"""Quantised layers: never merged; what a stack adds to them runs beside them.

    y = layer(x) + B (A x)        A [Σ rank, d_in], B = s·B side by side [d_out, Σ rank]

Rounding W + ΔW to a few bits would lose most of ΔW, and an 8- or 4-bit layer keeps no W to go back to. So the layer's
bytes stay as they are, and a forward hook on the layer adds the composed increment in the dtype of the layer's input.

Design: this is a second writer beside `TorchHost`, with a value of another kind. `TorchHost.write` takes what a
parameter is to be; here `replace` takes what is to be added, because there is nothing to add it to. What both have in
common is that a state is a function of the set: `replace` takes the whole set, and what was attached before is gone.
All state lies in the hooks themselves: a second `SideBranches` over the same modules, or over a deep copy, finds it.
A change is all or nothing, and made between forwards (`rasura.patches.hosts.live.forward_gate`). `exchanging` takes it
back if the block that follows fails, so that plain layers can be written in the same motion
(`rasura.patches.hosts.quantised.quantised_host`).

What holds, and what does not:

* after `replace(())` no hook is left and outputs are those of the untouched layer, bit for bit;
* the branch depends on the set alone, not on order or history; its digest says which set it is;
* y is not bit for bit that of a merged model: it is rounded in other places;
* the numbers of a quantised layer cannot be compared with a base. Whoever opens the host says which base was quantised;
  compared are the identities that the patches name with those of that base, and the shapes of the layers;
* code that `torch.compile` made before would not see a new hook, so all of it is thrown away and compiled again.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, Self, TypeAlias

import torch
from torch import nn

from rasura.patches.algebra.compose import Layer, Term
from rasura.patches.algebra.factors import BranchFactors
from rasura.patches.errors import BaseMismatchError, HostWriteError, UnsupportedHostError
from rasura.patches.format.manifest_parts import TensorIdentity
from rasura.patches.hosts.interface import COMPONENTS
from rasura.patches.hosts.live.forward_gate import writing
from rasura.patches.hosts.live.module_parameters import LiveParameter, find_live_modules, part_of, unwrap
from rasura.patches.hosts.live.write_guards import refuse_bypassed
from rasura.patches.hosts.quantised.branch_factors import BranchHook, SideBranch
from rasura.patches.hosts.quantised.quantised_layers import QuantisedLayer, find_codes, read_quantised_layer
from rasura.patches.types import SHORT, ParamName

__all__ = ["BranchFactors", "QuantisedLayer", "SideBranch", "SideBranches"]

_LOCK: Final = threading.RLock()
_Found: TypeAlias = Mapping[ParamName, tuple[nn.Module, tuple[tuple[str, nn.Module], ...]]]


class SideBranches:
    """The quantised layers of modules in memory, and what is attached to them."""

    def __init__(
        self, components: Mapping[str, nn.Module], label: str, *, base: Iterable[TensorIdentity] | None
    ) -> None:
        """The quantised layers of these components.

        Args:
            components: modules by their names in a pipeline.
            label: what a person calls this model.
            base: the parameters of the base that was quantised. Nobody can check this claim; without it, `replace`
                attaches nothing.
        """
        self._modules = tuple(module for name, module in components.items() if name in COMPONENTS)
        self._components = {name: unwrap(module) for name, module in components.items() if name in COMPONENTS}
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
        found = self._found()
        return {name: layer for name in sorted(found) if (layer := read_quantised_layer(name, found[name][0]))}

    def modules(self, names: Iterable[ParamName]) -> dict[ParamName, nn.Module]:
        """The quantised linear layers of these names.

        Raises:
            UnsupportedHostError: one is missing or plain.
        """
        found = self._found()
        return {name: self._quantised(name, found)[1] for name in names}

    def attached(self) -> Mapping[ParamName, SideBranch]:
        """What runs beside which layers now, in name order; from what lies in the hooks."""
        with _LOCK:
            hooks = [(name, hook.factors) for name, hook in self._hooks() if hook.factors is not None]
        return {n: SideBranch(n, int(f.A.shape[0]), f.sha256) for n, f in sorted(hooks, key=lambda pair: pair[0])}

    def attached_names(self) -> frozenset[ParamName]:
        """Beside which layers something runs now; nothing is hashed."""
        return frozenset(name for name, hook in self._hooks() if hook.factors is not None)

    def identity(self) -> str:
        """The identity of the host that attached something, "" where nothing is or none was named."""
        return next((hook.identity for _, hook in self._hooks() if hook.factors is not None and hook.identity), "")

    def ensure_attachable(self, names: Iterable[ParamName]) -> None:
        """Refuse layers that the model does not call, or not as the last word on their output.

        Raises:
            UnsupportedHostError: with what was found and what to do.
        """
        found = self._found()
        for name in names:
            _, module = self._quantised(name, found)
            refuse_bypassed(LiveParameter(name, find_codes(module), found[name][1]))

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
            HostWriteError: no memory for the factors; nothing was changed.
            BusyError: called from inside a forward of this model; nothing was changed.
        """
        with writing(self._modules), _LOCK:
            self._check_base([layer.name for layer in layers], {each.name: each for each in computed_on})
            wanted = {name: BranchFactors.of(terms) for name, terms in _together(layers).items()}
            with self.exchanging({**dict.fromkeys(self.attached_names()), **wanted}):
                pass
            return self.attached()

    @contextmanager
    def exchanging(self, wanted: Mapping[ParamName, BranchFactors | None], identity: str = "") -> Iterator[None]:
        """Attach these factors, None for nothing, before the block, and take all of it back if the block fails.

        Nobody computes with the model meanwhile. Hooks that hold nothing any more go when the block has succeeded.

        Args:
            wanted: by layer; what is not named stays as it is.
            identity: of the host that does it; kept with what is attached.

        Raises:
            UnsupportedHostError, BaseMismatchError, HostWriteError, BusyError: see `replace`; nothing was changed.
        """
        with writing(self._modules), _LOCK:
            made = self._made({name: factors for name, factors in wanted.items() if factors is not None})
            present = {name: hook for name, hook in self._hooks() if name in wanted}
            undo: list[Callable[[], None]] = []
            try:
                for name, hook in present.items():
                    undo.append(hook.holding(made[name][0] if name in made else None, identity))
                for name in made.keys() - present.keys():
                    undo.append(BranchHook(made[name][0], identity).attached_to(made[name][1]))  # noqa: PERF401
                self._compare(wanted)
                yield
            except BaseException:
                for step in reversed(undo):
                    step()
                raise
            for hook in present.values():
                if hook.factors is None:
                    hook.remove()
            if undo and "torch._dynamo" in sys.modules:
                torch.compiler.reset()

    def _made(self, wanted: Mapping[ParamName, BranchFactors]) -> dict[ParamName, tuple[BranchFactors, nn.Module]]:
        """What is to be attached, where the layers are; whatever could fail has failed here."""
        self.ensure_attachable(wanted)
        found, made = self._found(), {}
        for name, factors in wanted.items():
            layer, module = self._quantised(name, found)
            shape = (factors.B.shape[0], factors.A.shape[1])
            if shape != layer.shape:
                raise BaseMismatchError(
                    f"{self._label}: {name}: expected shape {[*shape]}, got {[*layer.shape]}; the patch was made for "
                    "another model",
                    hint="rasura base list",
                    parameter=name,
                )
            try:
                made[name] = factors.beside(module), module
            except RuntimeError as error:  # torch's own, out of memory among them
                raise HostWriteError(
                    f"{self._label}: expected to attach {len(wanted)} side branches, got {error}; nothing was changed"
                ) from None
        return made

    def _compare(self, wanted: Mapping[ParamName, BranchFactors | None]) -> None:
        now = self.attached()
        for name, factors in wanted.items():
            if (now[name].sha256 if name in now else None) != (factors.sha256 if factors else None):
                raise HostWriteError(
                    f"{name}: expected to find what was attached, got something else; nothing was changed",
                    parameter=name,
                )

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

    def _found(self) -> _Found:
        return {name: (module, ancestors) for name, module, ancestors in find_live_modules(self._components)}

    def _hooks(self) -> list[tuple[ParamName, BranchHook]]:
        # Torch has no public way to list them.
        return [
            (name, hook)
            for name, module, _ in find_live_modules(self._components)
            for hook in module._forward_hooks.values()  # noqa: SLF001
            if isinstance(hook, BranchHook)
        ]

    def _quantised(self, name: ParamName, found: _Found) -> tuple[QuantisedLayer, nn.Module]:
        layer = read_quantised_layer(name, found[name][0]) if name in found else None
        if layer is None:
            raise UnsupportedHostError(
                f"{self._label}: expected a quantised linear layer {name}, got "
                f"{'a plain one, which is merged' if name in found else 'none'}",
                hint="TorchHost.of(pipe)" if name in found else "",
                parameter=name,
            )
        return layer, found[name][0]


def _together(layers: Sequence[Layer]) -> dict[ParamName, tuple[Term, ...]]:
    """One branch a layer, however often it is named."""
    grouped: dict[ParamName, tuple[Term, ...]] = {}
    for layer in layers:
        grouped[layer.name] = grouped.get(layer.name, ()) + layer.terms
    return grouped


def _digest(identity: TensorIdentity | None) -> str:
    return "none" if identity is None else f"{identity.sha256[:SHORT]}… ({identity.dtype} {[*identity.shape]})"
