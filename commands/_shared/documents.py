"""Documents that commands write for people to keep: written whole, and never over something else."""

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import click

from rasura.patches._io.files import read_regular
from rasura.patches.errors import ExistsError, HostWriteError, NotFoundError, RasuraError, RegistryError

_LIMIT: Final = 16 * 1024**2
_MODE: Final = 0o644


def write_document(path: Path, data: bytes, known: Callable[[bytes], object] | None = None) -> None:
    """Write a file in one step; an older one is replaced only if `known` can read it as the same kind of document.

    Raises:
        ExistsError: something else is there.
        HostWriteError: it cannot be written; nothing is left of it.
    """
    from rasura.registry._storage.files.durable_files import write_atomic

    _check_place(path, known)
    try:
        write_atomic(path, data)
    except RegistryError as error:
        raise HostWriteError(error.message, hint="-o another file") from None


def write_lines(path: Path | None, lines: Iterable[bytes]) -> int:
    """Write pieces one after the other to a new file, which is there whole or not at all; None: to standard output.

    Returns:
        How many bytes they have.

    Raises:
        ExistsError: the file is there.
        HostWriteError: it cannot be written; nothing is left of it.
        OutputError: standard output takes no more.
    """
    import tempfile

    from rasura.registry._storage.files.durable_files import sync_folder

    if path is None:
        return _print_pieces(lines)
    _check_place(path, None)
    try:
        descriptor, name = tempfile.mkstemp(prefix=".incoming-", dir=path.parent)
    except OSError as error:
        raise HostWriteError(f"cannot write {path}: {error.strerror}", hint="-o another file") from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            size = sum(file.write(piece) for piece in lines)
            os.fchmod(descriptor, _MODE)
            file.flush()
            os.fsync(descriptor)
        Path(name).replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise HostWriteError(f"cannot write {path}: {error.strerror}", hint="-o another file") from None
    finally:
        Path(name).unlink(missing_ok=True)
    return size


def _print_pieces(pieces: Iterable[bytes]) -> int:
    """Printed one by one, so that what fails while a piece is made is not taken for the output's failure."""
    from rasura.commands._shared.output import printing

    size, command = 0, click.get_current_context().command_path.removeprefix("rasura ")
    for piece in pieces:
        with printing(command):
            size += sys.stdout.buffer.write(piece)
    return size


def _check_place(path: Path, known: Callable[[bytes], object] | None) -> None:
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
