"""How much is repeated: `make test` takes some of the kinds, sizes and moments of a check, `make test FULL=1` all of them.

Only repetitions are left out: each assertion is made in both. Two tests are FULL=1's alone, because they say how
something behaves that others prove right: the README's sessions in commands that start cold, and the time of a rewrite
at the width of CLIP ViT-L.
"""

import os
from collections.abc import Sequence
from typing import Final, TypeVar

__all__ = ["FULL", "some"]

FULL: Final = os.environ.get("FULL") == "1"
_T = TypeVar("_T")


def some(chosen: Sequence[_T], all_of_them: Sequence[_T]) -> list[_T]:
    """The chosen ones, which are among all of them; with FULL=1 all."""
    assert all(one in all_of_them for one in chosen)
    return list(all_of_them if FULL else chosen)
