"""Names of a denoiser's parameters in its authors' own code, as single files and LoRA files have them, and ours.

    txt_in.weight                               transformer.context_embedder.weight
    double_blocks.0.img_mlp.0.bias              transformer.transformer_blocks.0.ff.net.0.proj.bias
    double_blocks.0.img_attn.qkv.weight         …attn.to_q.weight, …to_k.weight, …to_v.weight: its rows, in this order
    single_blocks.0.linear1.weight              in parts of several sizes: known, and not written to

A spelling is a table of such pairs, read in both directions. Block numbers stand for themselves (`#`), and what comes
after a module (`weight`, `bias`) is the same in both.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

__all__ = ["Names", "Spelling", "in_blocks"]

Names = Mapping[str, str | tuple[str, ...]]
"""Native name → ours; several of ours, where one matrix holds their rows, one after the other, as many of each."""

_LEAVES: Final = frozenset({"weight", "bias"})


@dataclass(frozen=True)
class Spelling:
    """One way to call the parameters of a family's denoiser; names are without component and without prefix.

    Attributes:
        marks: native names that a file has that is spelled so.
        modules: modules, whose parameters are called alike in both.
        whole: parameters.
        mixed: modules that hold ours otherwise than as a range of rows each, and which of ours.
        plain: whether what has no row is called the same.
        lacks: native names that no such file has.
        prefixes: what stands before them in single files.
        encoders: what stands before text encoders' names in single files that have them, and the component.
        without: names of ours that a model has that is spelled otherwise.
    """

    marks: tuple[str, ...]
    modules: Names
    whole: Mapping[str, str] = field(default_factory=dict)
    mixed: Names = field(default_factory=dict)
    plain: bool = False
    lacks: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ("model.diffusion_model.", "")
    encoders: Mapping[str, str] = field(default_factory=dict)
    without: tuple[str, ...] = ()

    def find_prefix(self, names: Iterable[str]) -> str | None:
        """What stands before the names in a file with these; None where it is spelled otherwise."""
        known = frozenset(names)
        return next(
            (
                prefix
                for prefix in self.prefixes
                if all(prefix + mark in known for mark in self.marks)
                and not any(prefix + name in known for name in self.lacks)
            ),
            None,
        )

    def read(self, native: str) -> tuple[str, ...]:
        """Ours, of a native parameter: one, or several whose rows it holds; empty where it holds none as a range."""
        if (found := self._look_up(native, self._known, self._heads)) is not None:
            return found
        return (native,) if self.plain and self._look_up(native, self._odd, self._heads) is None else ()

    def read_mixed(self, native: str) -> tuple[str, ...]:
        """Ours, of a native parameter that holds them, but not as ranges."""
        return self._look_up(native, self._odd, self._heads) or ()

    def write(self, name: str) -> str | None:
        """The native parameter that is ours and nothing else; None where it holds more, or is not in the table."""
        if (found := self._look_up(name, self._reversed, self._our_heads)) is not None:
            return found[0] or None
        return name if self.plain else None

    def holder(self, name: str) -> str | None:
        """The native parameter in which ours lies, with others or in another order; None of one that is by itself."""
        found = self._look_up(name, self._holders, self._our_heads)
        return found[0] if found else None

    def _look_up(
        self, name: str, table: Mapping[str, tuple[str, ...]], heads: tuple[str, ...]
    ) -> tuple[str, ...] | None:
        key, number = _canonical(name, heads)
        if (found := table.get(key)) is not None:
            return tuple(each.replace("#", number) for each in found)
        stem, _, leaf = key.rpartition(".")
        if leaf in _LEAVES and (found := table.get(f"{stem}.*")) is not None:
            return tuple(f"{each.removesuffix('.*')}.{leaf}".replace("#", number) if each else "" for each in found)
        return None

    @cached_property
    def _known(self) -> dict[str, tuple[str, ...]]:
        return {**_modules(self.modules), **{native: (ours,) for native, ours in self.whole.items()}}

    @cached_property
    def _odd(self) -> dict[str, tuple[str, ...]]:
        return _modules(self.mixed)

    @cached_property
    def _reversed(self) -> dict[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        for native, ours in (*self._known.items(), *self._odd.items()):
            alone = len(ours) == 1 and native not in self._odd
            for each in ours:
                if f"{each.rpartition('.')[0]}.*" not in found:  # the first of several names is the one that is written
                    found[each] = (native if alone else "",)
        return found

    @cached_property
    def _holders(self) -> dict[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        for native, ours in (*self._odd.items(), *self._known.items()):
            for each in ours if len(ours) > 1 or native in self._odd else ():
                found.setdefault(each, (native,))
        return found

    @cached_property
    def _heads(self) -> tuple[str, ...]:
        return _find_heads((*self._known, *self._odd))

    @cached_property
    def _our_heads(self) -> tuple[str, ...]:
        return _find_heads(self._reversed)


def in_blocks(native: str, ours: str, names: Names) -> Iterator[tuple[str, str | tuple[str, ...]]]:
    """Rows of a block's inside: `native` and `ours` are put before each name."""
    for key, value in names.items():
        yield native + key, ours + value if isinstance(value, str) else tuple(ours + each for each in value)


def _modules(names: Names) -> dict[str, tuple[str, ...]]:
    return {
        f"{native}.*": (f"{ours}.*",) if isinstance(ours, str) else tuple(f"{each}.*" for each in ours)
        for native, ours in names.items()
    }


def _find_heads(keys: Iterable[str]) -> tuple[str, ...]:
    """What stands before block numbers, the longer first."""
    return tuple(sorted({key.partition("#")[0] for key in keys if "#" in key}, key=len, reverse=True))


def _canonical(name: str, heads: tuple[str, ...]) -> tuple[str, str]:
    """The name with `#` for its block's number, and the number."""
    for head in heads:
        if name.startswith(head) and (found := re.match(r"\d{1,4}", name[len(head) :])):
            return f"{head}#{name[len(head) + found.end() :]}", found[0]
    return name, ""
