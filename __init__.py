"""rasura: erase concepts from text-to-image models as signed, separable, exactly revertible weight patches.

    import rasura

    with rasura.init("work") as registry:       # rasura.open() for one that is there
        registry.new_key("alice")
        registry.erase("sd15", rasura.request("dog", anchor="cat", retain="retain.txt"))

docs/python.md tells all of it. The names below are imported when they are asked for: `import rasura` alone costs
neither torch nor SQLAlchemy.

The repository root is this package: `.dev/rasura` links back here, and the wheel lays everything under `rasura/`.
"""

import importlib
import os
from typing import TYPE_CHECKING, Final

from rasura.patches._io.settings import Settings, use

if TYPE_CHECKING:
    from rasura.api.asking import methods, options, probe, request
    from rasura.api.attach import attach
    from rasura.api.calls.checking.evaluations import verify_evaluation
    from rasura.api.calls.proving.cases import verify_report
    from rasura.api.calls.proving.verify import verify_file, verify_model, verify_receipt
    from rasura.api.front_door import init, open, upgrade  # noqa: A004  # see there
    from rasura.api.registry import Registry
    from rasura.evaluation.evaluate import EvaluationRequest
    from rasura.patches import errors
    from rasura.patches.algebra.stack import Stack
    from rasura.patches.algebra.strength import Strength
    from rasura.patches.checks.policy import Policy
    from rasura.patches.erasers.request import EraseRequest
    from rasura.patches.format.patch import Patch
    from rasura.patches.prompts.concept_prompts import Target
    from rasura.patches.prompts.retain_set import RetainSet

__all__ = [
    "EraseRequest",
    "EvaluationRequest",
    "Patch",
    "Policy",
    "Registry",
    "RetainSet",
    "Stack",
    "Strength",
    "Target",
    "__version__",
    "attach",
    "errors",
    "init",
    "methods",
    "open",
    "options",
    "probe",
    "request",
    "upgrade",
    "verify_evaluation",
    "verify_file",
    "verify_model",
    "verify_receipt",
    "verify_report",
]

__version__ = "0.1.0"

# Public name: the module that holds it; "" where the name is a module itself. The same names stand in the imports
# above, for type checkers, and in __all__; tests/api/test_names.py compares the three.
_PLACES: Final = {
    "EraseRequest": "rasura.patches.erasers.request",
    "EvaluationRequest": "rasura.evaluation.evaluate",
    "Patch": "rasura.patches.format.patch",
    "Policy": "rasura.patches.checks.policy",
    "Registry": "rasura.api.registry",
    "RetainSet": "rasura.patches.prompts.retain_set",
    "Stack": "rasura.patches.algebra.stack",
    "Strength": "rasura.patches.algebra.increment",
    "Target": "rasura.patches.prompts.concept_prompts",
    "attach": "rasura.api.attach",
    "errors": "",
    "init": "rasura.api.front_door",
    "methods": "rasura.api.asking",
    "open": "rasura.api.front_door",
    "options": "rasura.api.asking",
    "probe": "rasura.api.asking",
    "request": "rasura.api.asking",
    "upgrade": "rasura.api.front_door",
    "verify_evaluation": "rasura.api.calls.checking.evaluations",
    "verify_file": "rasura.api.calls.proving.verify",
    "verify_model": "rasura.api.calls.proving.verify",
    "verify_receipt": "rasura.api.calls.proving.verify",
    "verify_report": "rasura.api.calls.proving.cases",
}

use(Settings.read(os.environ))  # whoever comes in, comes in here; nobody below looks at the environment


def __getattr__(name: str) -> object:
    """A public name, imported when it is asked for (PEP 562)."""
    if name not in _PLACES:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    place = _PLACES[name]
    return getattr(importlib.import_module(place), name) if place else importlib.import_module(f"rasura.patches.{name}")


def __dir__() -> list[str]:
    """What completion offers and `help` tells: the public names, and what every module has."""
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
