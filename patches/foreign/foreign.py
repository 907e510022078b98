"""What another program made of a base: each of our parameters, as its file says it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import torch

from rasura.patches.errors import UnsupportedHostError
from rasura.patches.types import ParamName

__all__ = ["ADAPTER", "WEIGHTS", "Foreign", "ForeignTensor", "refuse_unknown"]

WEIGHTS: Final = "weights"
ADAPTER: Final = "adapter"
_SHOWN: Final = 4


@dataclass(frozen=True, slots=True, eq=False)
class ForeignTensor:
    """What a file says of one of our parameters.

    Attributes:
        dtype: of the numbers in the file, in safetensors' spelling.
        value: reads it: whole weights in their own type, or of an adapter ΔW in float64; in the parameter's shape.
    """

    dtype: str
    value: Callable[[], torch.Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Foreign:
    """A file or folder that somebody else made.

    Attributes:
        what: its path, for messages.
        form: `WEIGHTS` or `ADAPTER`.
        tensors: by our names.
        scaled: whether an adapter's scale is known from the file; if not, it was taken as 1.
    """

    what: str
    form: str
    tensors: Mapping[ParamName, ForeignTensor]
    scaled: bool = True


def refuse_unknown(what: str, lost: list[str] | list[ParamName], total: int) -> None:
    """Refuse a file with parameters that the base has not, or with none at all.

    Raises:
        UnsupportedHostError: naming some.
    """
    if lost or not total:
        names = ", ".join(lost[:_SHOWN]) + (f" and {len(lost) - _SHOWN} more" if len(lost) > _SHOWN else "")
        raise UnsupportedHostError(
            f"{what}: expected parameters of the base, got {len(lost)} of {total} that it does not have"
            + (f": {names}" if lost else ""),
            hint="rasura base list",
            names=list(lost[:100]),
        )
