"""What whoever starts the process chose: how many threads hash, which kernel composes, where encoded prompts are kept.

`patches` never looks at the environment. The front door does, and hands over here what it found. One process has one
such choice, so it is kept in one place and not passed through every call between the front door and a tensor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

THREADS: Final = "OMP_NUM_THREADS"
FUSED: Final = "RASURA_FUSED"
CACHE: Final = "RASURA_CACHE"
ENCODER_DTYPE: Final = "RASURA_ENCODER_DTYPE"
ENCODER_DEVICE: Final = "RASURA_ENCODER_DEVICE"


@dataclass(frozen=True, slots=True)
class Settings:
    """The choices, as they were typed; whoever acts on one says what it may be.

    Attributes:
        threads: how many threads, as for torch and BLAS; anything but a number is the cores that there are.
        fused: "1" asks for the fused kernel on CUDA devices.
        cache: the folder of what can be computed again, for several registries; "" is one in each registry.
        encoder_dtype: in which dtype large text encoders are loaded.
        encoder_device: where they read.
    """

    threads: str = ""
    fused: str = ""
    cache: str = ""
    encoder_dtype: str = ""
    encoder_device: str = ""

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Self:
        """The choices in an environment."""
        names = (THREADS, FUSED, CACHE, ENCODER_DTYPE, ENCODER_DEVICE)
        return cls(*(environment.get(name, "") for name in names))


_CHOSEN: Final = [Settings()]


def use(settings: Settings) -> None:
    """From now on, these."""
    _CHOSEN[0] = settings


def get_settings() -> Settings:
    """The choices in force."""
    return _CHOSEN[0]
