"""Find the linear layers of a denoiser whose input depends on text alone, by running it.

Five forwards: one, and one each with another picture, another time, another text, another pooled text. A hook on every
module keeps what goes in and comes out. A layer reads text alone if what goes in is the same, bit for bit, under
another picture and time, and another under another text. What it reads is found by comparing bits again: the token
states themselves, or what a chain of modules made of them, each of which is called with nothing else and gives every
row by itself, or all rows of the prompt together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from json import dumps, loads
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from rasura.patches._io.files import read_config
from rasura.patches.errors import NotFoundError, UnsupportedHostError
from rasura.patches.models.probe.denoiser_inputs import LENGTH, SHAPES, Inputs, make_inputs
from rasura.patches.models.probe.random_twin import make_twins
from rasura.patches.models.probe.trace import Seen, Trace, TracedLayer, digest_config

__all__ = ["probe_config", "probe_folder", "probe_live"]

_DENOISERS: Final = ("unet", "transformer")
_CHANGES: Final = ("picture", "time", "text", "pooled")
_ORDER: Final[tuple[Seen, ...]] = ("text", "normed", "projected", "fused", "refined", "pooled", "picture", "stream")
_DEEP: Final = 4
_CLOSE: Final = 1e-5
_HINT: Final = "rasura probe MODEL --json"


def probe_folder(folder: Path) -> Trace:
    """Trace the denoiser of a diffusers folder, from its configuration.

    Raises:
        NotFoundError: no denoiser with a `config.json`.
        UnsupportedHostError: a class that diffusers has not, or that cannot be run on small inputs.
    """
    for component in _DENOISERS:
        path = folder / component / "config.json"
        if path.is_file():
            try:
                config = read_config(path)
            except ValueError:
                config = None
            if not isinstance(config, dict) or not isinstance(config.get("_class_name"), str):
                raise UnsupportedHostError(f"{path}: expected the configuration of a denoiser with its _class_name")
            return probe_config(component, config["_class_name"], config)
    raise NotFoundError(
        f"{folder}: expected a diffusers folder with unet/config.json or transformer/config.json, got neither",
        hint="give the folder that holds model_index.json",
    )


def probe_live(model: object) -> Trace:
    """Trace the denoiser of a live pipeline, or a denoiser, from its configuration; the model itself is not run.

    Raises:
        UnsupportedHostError: neither of these, or as `probe_folder`.
    """
    parts = {name: getattr(model, name, None) for name in _DENOISERS}
    if isinstance(model, nn.Module):
        inner = getattr(model, "_orig_mod", model)
        parts = {"unet" if "UNet" in type(inner).__name__ else "transformer": inner}
    for component, module in parts.items():
        module = getattr(module, "_orig_mod", module)  # noqa: PLW2901  # behind torch.compile
        config = getattr(module, "config", None)
        if isinstance(module, nn.Module) and isinstance(config, Mapping):
            return probe_config(component, type(module).__name__, dict(config))
    raise UnsupportedHostError(
        f"expected a diffusers pipeline with a denoiser, or a denoiser of diffusers, got {type(model).__name__}",
        hint="rasura.probe(pipe), or rasura.probe('FOLDER')",
    )


def probe_config(component: str, kind: str, config: Mapping[str, Any]) -> Trace:
    """Trace a class of diffusers as a configuration builds it.

    Args:
        component: what the pipeline calls it.
        kind: the class.
        config: as `config.json` has it.

    Raises:
        UnsupportedHostError: diffusers has no such class, or it does not run on any small input known here; what was
            seen is said.
    """
    return _probed(component, kind, dumps({k: v for k, v in config.items() if not k.startswith("_")}, default=list))


@lru_cache(maxsize=64)
def _probed(component: str, kind: str, text: str) -> Trace:
    config: dict[str, Any] = loads(text)
    said: list[str] = []
    for twin in make_twins(kind, config):
        for shape in SHAPES:
            try:
                layers = _trace(twin.module, shape)
            except Exception as error:  # noqa: BLE001  # a class refuses a shape in its own way
                said.append(f"{shape}: {type(error).__name__}: {error}".splitlines()[0][:160])
                continue
            named = tuple(sorted(layers, key=lambda layer: layer.pattern))
            return Trace(
                component, kind, digest_config(config), twin.how, tuple(_placed(each, component) for each in named)
            )
    raise UnsupportedHostError(
        f"{kind}: its forward takes nothing that a probe knows to give; seen: {'; '.join(said[:3])}",
        hint="rasura methods",
        seen=tuple(said),
    )


def _placed(layer: TracedLayer, component: str) -> TracedLayer:
    through = tuple(f"{component}.{name}" for name in layer.through)
    return TracedLayer(f"{component}.{layer.pattern}", layer.reads, layer.width, layer.input, through, layer.mixed)


@dataclass(slots=True)
class _Run:
    """What went into every module and came out, call by call."""

    inputs: Inputs
    given: dict[str, list[torch.Tensor]] = field(default_factory=dict)
    made: dict[str, torch.Tensor] = field(default_factory=dict)
    lone: set[str] = field(default_factory=set)
    """Modules that were called once, with one tensor and nothing else, and gave one."""


def _trace(module: Any, shape: str) -> list[TracedLayer]:
    seeds = dict.fromkeys(_CHANGES, 0)
    base = _run(module, make_inputs(module, shape, seeds))
    others = {change: _run(module, make_inputs(module, shape, seeds | {change: 1})) for change in _CHANGES}
    moved = {
        name: frozenset(c for c, run in others.items() if not _same(calls, run.given.get(name, ())))
        for name, calls in base.given.items()
    }
    found: dict[str, dict[str, TracedLayer]] = {}
    for name, part in module.named_modules():
        if isinstance(part, nn.Linear) and name in base.given and (depends := moved[name]):
            layer = _layer(module, name, base, moved, depends)
            if layer is not None:
                found.setdefault(layer.pattern, {})[name] = layer
    return [line for alike in found.values() for line in _put_together(alike)]


def _put_together(alike: Mapping[str, TracedLayer]) -> Iterator[TracedLayer]:
    """What holds of all layers that are called alike: that of the one of which the least can be said.

    Layers that read text alone, and not the same of it, are lines of their own.
    """
    if len({layer.input for layer in alike.values()}) > 1 and all(layer.input for layer in alike.values()):
        yield from (replace(layer, pattern=name) for name, layer in alike.items())
    else:
        yield max(alike.values(), key=lambda layer: _ORDER.index(layer.reads))


def _layer(
    module: Any, name: str, base: _Run, moved: Mapping[str, frozenset[str]], depends: frozenset[str]
) -> TracedLayer | None:
    pattern, width = _pattern(module, name), module.get_submodule(name).in_features
    mixed = tuple(sorted(depends - {"text"}))
    if "text" not in depends:
        if depends == {"time"}:
            return None
        reads: Seen = "pooled" if depends == {"pooled"} else "stream" if "pooled" in depends else "picture"
        return TracedLayer(pattern, reads, width, mixed=() if reads == "pooled" else mixed)
    if mixed:
        return TracedLayer(pattern, "stream", width, mixed=mixed)
    way = _way(base.given[name], base, moved)
    if way is None:
        return TracedLayer(pattern, "refined", width)
    source, through = way
    return TracedLayer(
        pattern,
        _say_what_is_made(module, base.inputs.words[source], through),
        width,
        source,
        tuple(_pattern(module, each) for each in through),
    )


def _say_what_is_made(module: Any, words: torch.Tensor, through: Sequence[str]) -> Seen:
    """What these modules make of token states."""
    if not through:
        return "text"
    if not _row_by_row(module, words, through):
        return "fused"
    norms = all("Norm" in type(module.get_submodule(each)).__name__ for each in through)
    return "normed" if norms else "projected"


def _pattern(module: Any, name: str) -> str:
    """A module's name with a `*` for every number of a block; the number of a step in a row of steps stays."""
    parts, at, found = name.split("."), module, []
    for part in parts:
        found.append("*" if isinstance(at, nn.ModuleList) else part)
        at = at.get_submodule(part)
    return ".".join(found)


def _way(
    calls: Sequence[torch.Tensor], base: _Run, moved: Mapping[str, frozenset[str]]
) -> tuple[str, tuple[str, ...]] | None:
    """From which argument, and through which modules, the rows come that a layer reads; None if by no such way."""
    if any(call.numel() != LENGTH * call.shape[-1] for call in calls):  # parts of tokens, not a row a token
        return None
    steps = [name for name in base.lone if moved[name] == {"text"}]
    steps.sort(key=lambda name: (name.count("."), name))
    waiting: list[tuple[str, torch.Tensor, tuple[str, ...]]] = [(n, w, ()) for n, w in base.inputs.words.items()]
    while waiting:
        source, value, through = waiting.pop(0)
        if all(_rows_of(call, value) for call in calls):
            return source, through
        if len(through) == _DEEP:
            continue
        waiting += [
            (source, base.made[name], (*through, name))
            for name in steps
            if name not in through and _rows_of(base.given[name][0], value) and not _rows_of(base.made[name], value)
        ]
    return None


def _rows_of(call: torch.Tensor, value: torch.Tensor) -> bool:
    """Whether a call has these rows, however they are arranged."""
    alike = call.shape[-1] == value.shape[-1] and call.numel() == value.numel()
    return alike and torch.equal(call.flatten(), value.flatten())


def _row_by_row(module: Any, words: torch.Tensor, through: Sequence[str]) -> bool:
    """Whether the modules give each row by itself: another row elsewhere changes nothing of it."""
    other = words.clone()
    other[0] = other[0].flip(0) + 1
    for name in through:
        step = module.get_submodule(name)
        with torch.no_grad():
            words, other = step(words[None])[0], step(other[None])[0]
    return torch.allclose(words[1:], other[1:], atol=_CLOSE, rtol=_CLOSE)


def _run(module: Any, inputs: Inputs) -> _Run:
    found = _Run(inputs)
    handles = [
        part.register_forward_hook(_keeping(found, name), with_kwargs=True)
        for name, part in module.named_modules()
        if name
    ]
    try:
        with torch.no_grad():
            given = module(**inputs.given)
    finally:
        for handle in handles:
            handle.remove()
    del given
    return found


def _keeping(found: _Run, name: str) -> Any:
    def hook(part: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], output: Any) -> None:
        tensors = [each for each in (*args, *kwargs.values()) if isinstance(each, torch.Tensor)]
        if not tensors:
            return
        calls = found.given.setdefault(name, [])
        calls.append(tensors[0].detach())
        others = [each for each in (*args, *kwargs.values()) if each is not None]
        if len(calls) == 1 and len(others) == 1 and isinstance(output, torch.Tensor):
            found.made[name] = output.detach()
            found.lone.add(name)
        else:
            found.lone.discard(name)
        del part

    return hook


def _same(calls: Sequence[torch.Tensor], others: Sequence[torch.Tensor]) -> bool:
    return len(calls) == len(others) and all(
        a.shape == b.shape and torch.equal(a, b) for a, b in zip(calls, others, strict=True)
    )
