"""What somebody else's erasure changes, parameter by parameter: how much, and what that parameter reads.

    text      a layer that reads text embeddings as they are: can be split into what is separable and a rest
    picture   a linear layer of attention or feed-forward that reads picture features: can be taken, is measured only
    other     convolutions, norms, biases, embeddings, layers of a text encoder, or what reads something else: no patch
              can hold it

ΔW of whole weights is the difference to the base in float64. A parameter whose numbers are the base's, rounded to the
type that the file has, is unchanged: storing a model in half precision changes nothing that anybody meant.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import torch

from rasura.patches._io.tensor_bytes import torch_dtype
from rasura.patches.errors import ErasureRefusedError, InputError
from rasura.patches.foreign.foreign import ADAPTER, Foreign
from rasura.patches.hosts.interface import Host, ParameterInfo
from rasura.patches.models.base_identity import TEXT_LAYERS, find_cross_attention
from rasura.patches.models.families import find_family
from rasura.patches.plain_numbers import say_number
from rasura.patches.types import ParamName, Progress

__all__ = ["OTHER", "PICTURE", "TEXT", "Change", "Size", "find_changes", "refuse_other", "sort_layers"]

TEXT: Final = "text"
PICTURE: Final = "picture"
OTHER: Final = "other"
_MATRIX: Final = 2
_PICTURE: Final = re.compile(
    r"(?:unet|transformer)\..*(?:\.attn\d?\.(?:to_[qkv]|to_out\.0)|\.ff\.net\.(?:0\.proj|2)|\.proj_in|\.proj_out)\.weight"
)
_SHOWN: Final = 3


@dataclass(frozen=True, slots=True)
class Size:
    """How large a change is.

    Attributes:
        name: the parameter.
        kind: `TEXT`, `PICTURE` or `OTHER`.
        shape: of the parameter.
        change: ‖ΔW‖, Frobenius.
        weight: ‖W‖.
    """

    name: ParamName
    kind: str
    shape: tuple[int, ...]
    change: float
    weight: float

    @property
    def relative(self) -> float:
        """‖ΔW‖ / ‖W‖; infinite where W is zero."""
        return self.change / self.weight if self.weight else float("inf")


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """One parameter's change: its size, and ΔW [d_out, …] float64."""

    size: Size
    delta: torch.Tensor


def sort_layers(infos: Mapping[ParamName, ParameterInfo]) -> dict[ParamName, str]:
    """What every parameter of a base is to whoever adopts: `TEXT`, `PICTURE` or `OTHER`.

    Raises:
        UnsupportedHostError: no layers that read text.
    """
    family, text = find_family(infos), set(find_cross_attention(infos, TEXT_LAYERS))
    found: dict[ParamName, str] = {}
    for name, info in infos.items():
        reads = family.reads(name) if family else None
        sees = len(info.shape) == _MATRIX and _PICTURE.fullmatch(name) and reads in {None, "picture"}
        found[name] = TEXT if name in text else PICTURE if sees else OTHER
    return found


def find_changes(host: Host, foreign: Foreign, scale: float, progress: Progress) -> Iterator[Change]:
    """Every parameter that changes, in name order, one in memory at a time.

    Args:
        host: the base.
        foreign: what somebody made of it.
        scale: ΔW is multiplied by this.
        progress: told what is going on.
    """
    kinds = sort_layers(host.parameters())
    names = sorted(foreign.tensors)
    for index, name in enumerate(names):
        progress("comparing with the base", index, len(names))
        W = host.originals([name])[name]
        value = foreign.tensors[name].value()
        if foreign.form == ADAPTER:
            delta = value
        elif torch.equal(W.to(torch_dtype(foreign.tensors[name].dtype)), value):
            continue
        else:
            delta = value.to(torch.float64) - W.to(torch.float64)
        delta = delta * scale
        size = float(torch.linalg.vector_norm(delta))
        if size > 0:
            weight = float(torch.linalg.vector_norm(W.to(torch.float64)))
            yield Change(Size(name, kinds[name], tuple(W.shape), size, weight), delta)
    progress("comparing with the base", len(names), len(names))


def refuse_other(sizes: Iterable[Size], *, picture: bool, leave_out: bool, what: str) -> None:
    """Refuse changes that the patch would lack, unless somebody said to leave them out.

    Args:
        sizes: of all changes.
        picture: whether layers that read the picture are taken.
        leave_out: whether what is not taken is to be left out.
        what: the file, for messages.

    Raises:
        InputError: nothing is changed.
        ErasureRefusedError: naming the largest, how large they are, and what would do.
    """
    found = list(sizes)
    if not found:
        raise InputError(f"{what} is the base: expected weights that differ from it, got none", hint="rasura base list")
    taken = {TEXT, PICTURE} if picture else {TEXT}
    out = sorted((s for s in found if s.kind not in taken), key=lambda s: -s.change)
    if len(out) == len(found) or (out and not leave_out):
        raise _refusal(found, out, picture=picture, what=what)


def _refusal(found: list[Size], out: list[Size], *, picture: bool, what: str) -> ErasureRefusedError:
    share = (sum(s.change**2 for s in out) / sum(s.change**2 for s in found)) ** 0.5
    named = "; ".join(f"{s.name} {list(s.shape)} by {say_number(s.relative, 2)} of its norm" for s in out[:_SHOWN])
    more = f"; and {len(out) - _SHOWN} more" if len(out) > _SHOWN else ""
    reading = sum(s.kind == PICTURE for s in out)
    text = sum(s.kind == TEXT for s in found)
    ways = []
    if reading and not picture:
        ways.append(
            f"--take whole also takes the {reading} of them that are linear layers reading the picture: measured, "
            "never proved"
        )
    if text:
        ways.append(
            f"--leave-out takes the {text} layers that read text alone, and measures what that leaves of the erasure"
        )
    if not ways:
        ways.append("erase anew with a method of ours, or serve that model as it is")
    kinds = "neither read text nor the picture through a linear layer" if picture else "do not read text"
    return ErasureRefusedError(
        f"{what} changes {len(out)} of {len(found)} parameters that {kinds}, with {say_number(share, 2)} of the "
        f"change's norm: {named}{more}. A patch that lacks them is another erasure. What may help: {'; '.join(ways)}",
        hint="rasura adopt FILE --base MODEL --concept TEXT " + ("--leave-out" if text else ""),
        share=f"{share:.3e}",
        parameters={s.name: f"{s.relative:.3e}" for s in out[:100]},
        left_out=len(out),
    )
