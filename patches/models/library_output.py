"""Keep other libraries' progress bars and notices off a terminal that is not theirs."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers and diffusers, as far as they are imported, and put their settings back afterwards."""
    with ExitStack() as undo:
        for library in ("transformers", "diffusers"):
            logging = sys.modules.get(f"{library}.utils.logging")
            if logging is not None:
                _silence(logging, undo)
        yield


def _silence(logging: ModuleType, undo: ExitStack) -> None:
    undo.callback(logging.set_verbosity, logging.get_verbosity())
    logging.set_verbosity_error()
    if logging.is_progress_bar_enabled():
        undo.callback(logging.enable_progress_bar)
        logging.disable_progress_bar()
