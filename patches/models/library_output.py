"""The two libraries that take seconds to import, and their progress bars and notices off a terminal that is not theirs.

A command that draws nothing and reads no prompt imports neither.
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers and diffusers, as far as they are imported, and put their settings back afterwards."""
    with ExitStack() as undo:
        for library in ("transformers", "diffusers"):
            logging = sys.modules.get(f"{library}.utils.logging")
            if logging is not None:
                _silence(logging, undo)
        yield


def load_transformers() -> Any:
    """The module `transformers`, imported now if it was not."""
    import transformers

    return transformers


def load_diffusers() -> Any:
    """The module `diffusers`, imported now if it was not. Its classes are imported when they are asked for: quietly."""
    import transformers.utils.logging  # noqa: F401  # first, so that `quiet` can silence it while diffusers is imported

    with quiet():
        import diffusers
    return diffusers


def _silence(logging: ModuleType, undo: ExitStack) -> None:
    undo.callback(logging.set_verbosity, logging.get_verbosity())
    logging.set_verbosity_error()
    if logging.is_progress_bar_enabled():
        undo.callback(logging.enable_progress_bar)
        logging.disable_progress_bar()
