"""Lists of prompts in blocks whose ends the prompts themselves decide, so that what is known of a block stays known.

Where a block ends is decided by the prompts in it alone, never by their place in the list (content-defined chunking,
as in LBFS, Muthitacharoen et al., SOSP 2001), so a word less moves no other boundary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Final

__all__ = ["digest_prompt", "split_prompts"]

_LONGEST: Final = 8
"""The most prompts of a block, in averages."""


def split_prompts(prompts: Iterable[str], average: int) -> Iterator[list[str]]:
    """Blocks of about `average` prompts, a power of two; where they end, a prompt's own digest says."""
    block: list[str] = []
    for prompt in prompts:
        block.append(prompt)
        last = int.from_bytes(digest_prompt(prompt)[:8], "big") % average == 0
        if last or len(block) == average * _LONGEST:
            yield block
            block = []
    if block:
        yield block


def digest_prompt(prompt: str) -> bytes:
    """SHA-256 of a prompt."""
    return hashlib.sha256(prompt.encode(errors="surrogatepass")).digest()
