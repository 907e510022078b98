"""Second moments of many prompts, summed block by block, so that lists that differ by a word share nearly all blocks.

A retain set is encoded once. The next takedown leaves one more word out of the same list: only the blocks that held the
word are encoded anew (`rasura.patches.prompts.prompt_blocks`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, MutableMapping, Sequence
from typing import Final

from rasura.patches.algebra.one_thread import use_one_thread
from rasura.patches.algebra.protected_subspace import Moment
from rasura.patches.models.text_encoders.text_encoder import TextEncoder
from rasura.patches.prompts.prompt_blocks import digest_prompt, split_prompts

Moments = MutableMapping[str, Moment]
"""Moments of prompts that were encoded already, by the prompts' digest; of one text encoder."""

_BLOCKS: Final = 24
"""About so many blocks a list: of each word that is left out, the 24th part of a list is encoded anew."""
_BYTES: Final = 128 << 20
"""What the moments of a list's blocks may take together: each has d² numbers."""
_LEAST: Final = 32
"""Prompts of a block on average, at least: small batches encode more slowly."""


@use_one_thread()
def sum_moment(
    encoder: TextEncoder,
    prompts: Callable[[], Iterable[str]],
    total: int,
    moments: Moments,
    progress: Callable[[int], None],
) -> Moment:
    """The second moment of all tokens of these prompts, from what is known of them.

    Args:
        encoder: reads them.
        prompts: gives them, twice the same; never all in memory.
        total: how many there are at most; it decides how long blocks are.
        moments: of blocks and of whole lists that are known; what is new is added.
        progress: told how many prompts are done.

    Raises:
        ConceptError: a prompt longer than the encoder reads.
        NotFiniteError: the encoder gives NaN or infinity.
    """
    key = _key(encoder, prompts())
    if key in moments:
        return moments[key]
    found, done = Moment(encoder.width), 0
    for block in split_prompts(prompts(), _average(total, encoder.width)):
        own = _key(encoder, block)
        if own not in moments:
            part = Moment(encoder.width)
            for number, hidden in enumerate(encoder.encode(block)):
                part.add(hidden)
                progress(min(total, done + (number + 1) * hidden.shape[0]))
            moments[own] = part
        found.add_all(moments[own])
        done += len(block)
        progress(min(done, total))
    moments[key] = found
    return found


@use_one_thread()
def sum_moments(
    encoders: Sequence[TextEncoder],
    prompts: Callable[[], Iterable[str]],
    total: int,
    moments: Moments,
    progress: Callable[[int, int], None],
) -> None:
    """Make known the moments of these prompts for encoders that share what they read, batch by batch side by side.

    Args:
        encoders: the layers of one, say.
        prompts: as `sum_moment` takes them.
        total: how many there are at most.
        moments: of blocks that are known; what is new is added.
        progress: told how many prompts are done, and of how many.

    Raises:
        ConceptError, NotFiniteError: as `sum_moment`.
    """
    done = 0
    for block in split_prompts(prompts(), _average(total, encoders[0].width)):
        unknown = {key: own for own in encoders if (key := _key(own, block)) not in moments}
        parts = {key: Moment(own.width) for key, own in unknown.items()}
        for batches in zip(*(own.encode(block) for own in unknown.values()), strict=True):
            for part, hidden in zip(parts.values(), batches, strict=True):
                part.add(hidden)
        moments.update(parts)
        done += len(block)
        progress(min(done, total), total)


def _average(total: int, width: int) -> int:
    """How many prompts a block has on average: a power of two, so that a word less seldom changes it."""
    blocks = max(1, min(_BLOCKS, _BYTES // (8 * width * width)))
    return max(_LEAST, 1 << max(0, (total - 1) // blocks).bit_length())


def _key(encoder: TextEncoder, prompts: Iterable[str]) -> str:
    """The digest of the prompts in their order, and of what reads them where an encoder has several ways."""
    found = hashlib.sha256()
    for prompt in prompts:
        found.update(digest_prompt(prompt))
    if not encoder.space:
        return found.hexdigest()
    both = [digest_prompt(text) for text in (encoder.space, found.hexdigest())]
    return hashlib.sha256(b"".join(both)).hexdigest()
