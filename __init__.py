"""rasura: erase concepts from text-to-image models as signed, separable, exactly revertible weight patches.

The repository root is this package: `.dev/rasura` links back here, and the wheel lays everything under `rasura/`.
"""

import os
from typing import TYPE_CHECKING

from rasura.patches._io.settings import Settings, use

if TYPE_CHECKING:
    from rasura.registry.live.attach import attach

__all__ = ["__version__", "attach"]

__version__ = "0.1.0"

use(Settings.read(os.environ))  # whoever comes in, comes in here; nobody below looks at the environment


def __getattr__(name: str) -> object:
    """`rasura.attach`, imported when it is asked for: the name alone must not cost torch and SQLAlchemy."""
    if name == "attach":
        from rasura.registry.live.attach import attach

        return attach
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)
