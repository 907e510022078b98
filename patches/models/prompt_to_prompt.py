"""Prompt-to-prompt: cross-attention maps of one prompt, put into the frozen UNet's pass for another.

The maps softmax(Q·Kᵀ) of every `attn2` say where in the picture each token acts (Hertz et al., arXiv 2208.01626). With
the maps of c and the values of c', the prediction keeps the layout of c and takes the content of c'. Tokens are
matched by a matrix R [length, length] whose rows sum to 1: M' = M·R.

Only attention processors are exchanged, for the length of a block; afterwards the UNet has its own again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch

_CROSS: Final = ".attn2."

Change = Callable[[str, "torch.Tensor"], "torch.Tensor"]
"""From a layer's name and its maps [n·heads, positions, length] to the maps that are used."""


@dataclass(frozen=True, slots=True)
class _Controlled:
    """An attention processor that lets somebody see and change the maps.

    For the attention of a transformer block: three-dimensional states, neither norms nor residual of its own.
    """

    name: str
    change: Change

    def __call__(
        self,
        attn: Any,  # diffusers ships no types
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        **_: Any,
    ) -> torch.Tensor:
        read = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = (
            attn.head_to_batch_dim(x) for x in (attn.to_q(hidden_states), attn.to_k(read), attn.to_v(read))
        )
        maps = self.change(self.name, attn.get_attention_scores(query, key, attention_mask))
        found = attn.batch_to_head_dim(torch.bmm(maps, value))
        out: torch.Tensor = attn.to_out[1](attn.to_out[0](found))
        return out


@contextmanager
def controlled(unet: Any, change: Change) -> Iterator[None]:
    """For the length of the block, every cross-attention map of the UNet passes through `change`."""
    own = dict(unet.attn_processors)
    unet.set_attn_processor({name: _Controlled(name, change) if _CROSS in name else p for name, p in own.items()})
    try:
        yield
    finally:
        unet.set_attn_processor(own)


@contextmanager
def recording(unet: Any) -> Iterator[dict[str, torch.Tensor]]:
    """The maps [n·heads, positions, length] of the passes in the block, by layer; those of the last pass stay."""
    maps: dict[str, torch.Tensor] = {}

    def keep(name: str, found: torch.Tensor) -> torch.Tensor:
        maps[name] = found.detach()
        return found

    with controlled(unet, keep):
        yield maps


@contextmanager
def injecting(unet: Any, maps: dict[str, torch.Tensor], matching: torch.Tensor, where: torch.Tensor) -> Iterator[None]:
    """In the block, passes use recorded maps.

    Args:
        unet: the UNet.
        maps: as `recording` gave them, for as many latents as the pass has.
        matching: R [n, length, length], one a latent.
        where: [n] bool, which latents take them; the others keep their own.
    """

    def put(name: str, found: torch.Tensor) -> torch.Tensor:
        heads = found.shape[0] // matching.shape[0]
        taken = torch.bmm(maps[name], matching.repeat_interleave(heads, 0))
        return torch.where(where.repeat_interleave(heads).view(-1, 1, 1), taken, found)

    with controlled(unet, put):
        yield


def match_positions(source: range, goal: range, length: int) -> torch.Tensor:
    """R [length, length] float32 for two prompts that differ in one phrase; rows sum to 1, so that M·R is a map.

    Tokens before the phrase stay where they are. A phrase of as many tokens is matched one by one, another is spread
    evenly. Tokens behind it keep their distance from its last token; what would fall off the end goes to the last.

    Args:
        source: positions of the phrase in the prompt whose maps were recorded.
        goal: positions of the phrase in the prompt that uses them.
        length: tokens of a prompt.
    """
    found = torch.zeros(length, length)
    found[range(source[0]), range(source[0])] = 1
    if len(source) == len(goal):
        found[list(source), list(goal)] = 1
    else:
        found[source[0] : source[-1] + 1, goal[0] : goal[-1] + 1] = 1 / len(goal)
    for position in range(source[-1] + 1, length):
        found[position, min(goal[-1] + position - source[-1], length - 1)] = 1
    return found
