"""Which rows of what a pipeline reads stand for which tokens of the prompt, whatever it dropped, hid or filled up."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["align_rows", "make_batch", "make_mask", "put_together", "stack_rows"]


def make_batch(ids: torch.Tensor) -> torch.Tensor:
    """Ids [n, L] of what an encoder was given, which may be one prompt's [L]."""
    return ids if ids.dim() == 2 else ids[None]  # noqa: PLR2004  # prompts, positions


def make_mask(ids: torch.Tensor, mask: torch.Tensor | None, filling: int | None) -> torch.Tensor:
    """Which positions of ids [n, L] are those of the prompt.

    Args:
        ids: of one prompt [L], or of several.
        mask: what the encoder was given to attend to; None: to all, what fills prompts up behind them among it.
        filling: the id that prompts are filled up with.
    """
    if mask is not None:
        return make_batch(mask)
    own = make_batch(ids)
    words = torch.ones_like(own) if filling is None else torch.ne(own, filling).to(own.dtype)
    return words.flip(1).cummax(1).values.flip(1)  # up to the last that is no filling


def stack_rows(given: tuple[Any, ...]) -> tuple[torch.Tensor, torch.Tensor | None]:
    """States [n, L, d] float32 and, where the pipeline has one, its mask [n, L]."""
    states = given[0]
    if isinstance(states, list):  # a prompt each, without what is hidden
        longest = max(each.shape[0] for each in states)
        mask = torch.tensor([[i < each.shape[0] for i in range(longest)] for each in states])
        padded = [torch.nn.functional.pad(each, (0, 0, 0, longest - each.shape[0])) for each in states]
        return torch.stack(padded).float().cpu(), mask.float()
    size = states.shape[:2]
    masks = [each for each in given[1:] if isinstance(each, torch.Tensor) and each.shape == size and bool(each.any())]
    rows = states.float().cpu().flatten(2)  # of several layers, side by side
    return rows, masks[0].float().cpu() if masks else None


def align_rows(
    ids: torch.Tensor, attended: torch.Tensor, states: torch.Tensor, mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """For each row of the states its id, and whether it is a row of the prompt: [n, L] each."""
    length = states.shape[1]
    if ids.shape[1] == length:
        return ids, attended if mask is None else mask.bool()
    n = ids.shape[0]
    rows, read = torch.zeros(n, length, dtype=ids.dtype), torch.zeros(n, length, dtype=torch.bool)
    for i in range(n):
        if mask is not None and not _in_one_piece(mask[i]):  # filled up in the middle, and the first ones are dropped
            rows[i], read[i] = ids[i, ids.shape[1] - length :], mask[i].bool()
            continue
        own = ids[i][attended[i]]
        count = int(mask[i].sum()) if mask is not None else min(length, len(own))
        if ids.shape[1] > length and bool(attended[i][0]) and mask is not None and _ends_kept(attended[i], mask[i]):
            kept = torch.cat([ids[i, :1], ids[i, ids.shape[1] - length + 1 :]])
            rows[i], read[i] = kept, mask[i].bool()
        else:  # the first ones are dropped
            rows[i, :count], read[i, :count] = own[len(own) - count :], True
    return rows, read


def put_together(states: torch.Tensor, read: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows that are read one after the other, with what was between them behind; of a prompt [L, d], [L].

    A denoiser that is told which rows are hidden, and reads the others whatever their places, reads the same.
    """
    if _in_one_piece(read):
        return states, read
    order = torch.argsort(~read, stable=True)
    return states[order], read[order]


def _in_one_piece(read: torch.Tensor) -> bool:
    """Whether no row between two that are read is left out."""
    where = read.nonzero().flatten()
    return len(where) == 0 or int(where[-1] - where[0]) + 1 == len(where)


def _ends_kept(attended: torch.Tensor, mask: torch.Tensor) -> bool:
    """Whether the first position and the last ones were kept, as Sana's pipeline does."""
    return torch.equal(torch.cat([attended[:1], attended[len(attended) - len(mask) + 1 :]]), mask.bool())
