"""The ways of applying a set of patches to a live model and taking it out again."""

from __future__ import annotations

import gc
import itertools
import statistics
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from host_layers import Patch, equal_share, load, load_quickly, model, patch, weights

from rasura.patches.algebra.compose import Layer, compose, layers_of
from rasura.patches.algebra.strength import ONE
from rasura.patches.hosts.live.torch_host import TorchHost
from rasura.patches.types import ParamName
from rasura.registry.apply.hosts.cached_host import Glance

__all__ = ["Row", "copying", "diffusers_fuse", "layers", "motion", "peak", "rasura_bare", "rasura_live"]

_MANY: Final = 64
"""Adapters of SDXL that diffusers itself would load for too long."""


@dataclass(frozen=True, slots=True)
class Row:
    """A way, its seconds a cycle (apply all, revert all), its share of restored weights, and seconds of loading."""

    way: str
    seconds: float
    restored: float
    loading: float = 0.0


def layers(patches: Sequence[Patch]) -> tuple[Layer, ...]:
    """What the set does to each parameter."""
    return layers_of((patch, ONE) for patch in patches)


def motion(host: TorchHost, wanted: Sequence[Layer]) -> None:
    """What `rasura.registry.apply.motion` does with tensors: hash, compose, hash, keep, write, read back."""
    with host.alone():
        _moved(Glance(host), wanted, host.kept())


def _moved(seen: Glance, wanted: Sequence[Layer], kept: Collection[ParamName]) -> None:
    host, names = seen.host, sorted({*(layer.name for layer in wanted), *kept})
    originals = host.lent(names)
    seen.original_digests(names), seen.digests(names)
    host.ensure_writable(names)
    made_of = {layer.name: tuple(id(term.increment) for term in layer.terms) for layer in wanted}
    found = host.compose({layer.name: layer for layer in wanted}, originals, made_of)
    new = {name: value.tensor for name, value in found.items()}
    gone = [name for name in names if name not in new]
    seen.write({**new, **{name: originals[name] for name in gone}}, forget=gone)


def rasura_live(kind: str, dtype: torch.dtype, patches: Sequence[Patch], repeats: int) -> list[Row]:
    """Everything that a live motion does with tensors; no registry, signatures or checks."""
    again = layers(patches)
    # Three sets in turn: of two remembered values one is the base, so that none of these is known when it comes.
    turns = [layers([patch(kind, len(patches) * turn + i) for i in range(len(patches))]) for turn in (1, 2, 3)]
    ways: dict[str, tuple[int, Iterator[Sequence[Layer]]]] = {
        "rasura, nothing remembered": (0, itertools.repeat(again)),
        "rasura, a new set each time": (2, itertools.cycle(turns)),
        "rasura, sets that come back": (2, itertools.repeat(again)),
    }
    return [_live(way, model(kind, dtype), *how, repeats) for way, how in ways.items()]


def _live(way: str, live: Any, remember: int, wanted: Iterator[Sequence[Layer]], repeats: int) -> Row:
    host = TorchHost({"unet": live}, "live", remember=remember)
    before = [w.clone() for w in weights(live)]

    def cycle() -> None:
        motion(host, next(wanted))
        motion(host, ())

    return Row(way, timed(cycle, repeats), equal_share(weights(live), before))


def rasura_bare(kind: str, dtype: torch.dtype, patches: Sequence[Patch], repeats: int) -> Row:
    """Composing and copying alone."""
    live = model(kind, dtype)
    base = {f"unet.{name}": p.clone() for name, p in live.named_parameters()}
    present = {f"unet.{name}": p for name, p in live.named_parameters()}
    wanted = layers(patches)

    def cycle() -> None:
        for layer in wanted:
            present[layer.name].copy_(compose(base[layer.name], layer.terms))
        for layer in wanted:
            present[layer.name].copy_(base[layer.name])

    return Row("rasura, compose and copy", timed(cycle, repeats), equal_share([*present.values()], [*base.values()]))


def diffusers_fuse(kind: str, dtype: torch.dtype, patches: Sequence[Patch], repeats: int) -> list[Row]:
    """`fuse_lora` and `unfuse_lora` of adapters that are loaded already, and PEFT's merge and unmerge beneath them."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    live, quick = model(kind, dtype), len(patches) >= _MANY and kind == "SDXL"
    before = [w.clone() for w in weights(live)]
    begun = time.perf_counter()
    names = load_quickly(live, patches) if quick else load(live, patches)
    loading = 0.0 if quick else time.perf_counter() - begun
    tuners = [m for m in live.modules() if isinstance(m, BaseTunerLayer)]

    def fuse() -> None:
        live.fuse_lora(adapter_names=names)
        live.unfuse_lora()

    def merge() -> None:
        for layer in tuners:
            layer.merge(adapter_names=names)
        for layer in tuners:
            layer.unmerge()

    first = timed(fuse, 1, warm=False)
    restored = equal_share(weights(live), before)
    if quick:  # minutes a cycle, in which a first run does not show
        return [Row("diffusers fuse_lora/unfuse_lora", first, restored)]
    return [
        Row("diffusers fuse_lora/unfuse_lora", timed(fuse, repeats, warm=False), restored, loading),
        Row("PEFT merge/unmerge", timed(merge, repeats, warm=False), restored, loading),
    ]


def copying(kind: str, dtype: torch.dtype, repeats: int) -> Row:
    """The limit: the touched bytes there and back."""
    live = weights(model(kind, dtype))
    base, other = [w.clone() for w in live], [w.clone() for w in live]

    def cycle() -> None:
        for source in (other, base):
            for weight, value in zip(live, source, strict=True):
                weight.copy_(value)

    return Row("plain copy", timed(cycle, repeats), equal_share(live, base))


def timed(work: Callable[[], object], repeats: int, *, warm: bool = True) -> float:
    """Median seconds of the processor, after one run that does not count."""
    if warm:
        work()
    gc.collect()
    seconds = []
    for _ in range(repeats):
        begun = time.process_time()
        work()
        seconds.append(time.process_time() - begun)
    return statistics.median(seconds)


def peak(work: Callable[[], object]) -> int:
    """Bytes by which the process grew most while it worked, looked at every millisecond."""
    gc.collect()
    start = most = _resident()
    done = threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.001):
            most = max(most, _resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return max(most, _resident()) - start


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def held(tensors: Mapping[str, Any]) -> int:
    """Bytes of these tensors."""
    return sum(t.numel() * t.element_size() for t in tensors.values())
