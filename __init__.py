"""rasura: erase concepts from text-to-image models as signed, separable, exactly revertible weight patches.

The repository root is this package: `.dev/rasura` links back here, and the wheel lays everything under `rasura/`.
"""

__version__ = "0.1.0"
