"""Documents that commands write for people to keep: written whole, and never over something else."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

_LIMIT: Final = 16 * 1024**2


def write_document(path: Path, data: bytes, known: Callable[[bytes], object] | None = None) -> None:
    """Write a file in one step; an older one is replaced only if `known` can read it as the same kind of document.

    Raises:
        ExistsError: something else is there.
        HostWriteError: it cannot be written; nothing is left of it.
    """
    from rasura.patches.errors import HostWriteError, RegistryError
    from rasura.registry._storage.durable_files import write_atomic

    _check_place(path, known)
    try:
        write_atomic(path, data)
    except RegistryError as error:
        raise HostWriteError(error.message, hint="-o another file") from None


def _check_place(path: Path, known: Callable[[bytes], object] | None) -> None:
    from rasura.patches._io.files import read_regular
    from rasura.patches.errors import ExistsError, NotFoundError, RasuraError

    try:
        old = read_regular(path, _LIMIT)
        if known is not None:
            known(old)
            return
    except NotFoundError:
        return
    except RasuraError:
        raise ExistsError(f"{path} exists already, and is something else", hint="-o another file") from None
    raise ExistsError(f"{path} exists already", hint="-o another file")
