"""A model, copied so that the copy may be written: the way out where a model may not be patched in place.

Every file becomes a file of its own. Where the file system can (Btrfs, XFS, bcachefs), the copy shares the blocks of
the source until one of them is written, so it costs neither time nor space; elsewhere it is a plain copy. Hard links
would be as cheap everywhere, but whoever edits such a copy by other means would edit the source.

A folder is copied without weights in other formats beside the safetensors, and a single file without the running
averages (`model_ema`) of its weights, which would keep what is erased.
"""

import errno
import fcntl
import json
import os
import shutil
import stat
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

from rasura.patches._io.byte_ranges import read_range, sync_folder, write_range
from rasura.patches._io.file_lock import locked
from rasura.patches._io.safetensors_file import TensorInfo
from rasura.patches.errors import ExistsError, HostError, HostWriteError, InputError, UnsupportedHostError
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.hosts.disk.compvis_layout import find_single_layout, is_single_name
from rasura.patches.hosts.disk.compvis_names import is_average
from rasura.patches.hosts.disk.diffusers_layout import find_layout, is_second_copy, read_weights
from rasura.patches.hosts.disk.state_folder import STATE_FOLDER, StateFolder
from rasura.patches.hosts.disk.weight_files import WeightFiles

__all__ = ["copy_model", "remove_copy"]

_FICLONE: Final = 0x40049409  # linux/fs.h: share all blocks of another file
_SKIPPED: Final = frozenset({STATE_FOLDER, ".git", ".cache"})  # ours, and two tools' bookkeeping of the source


def copy_model(source: Path, out: Path) -> None:
    """Copy the model `source` to `out`, as it was before anything was applied to it: a folder, or a single file.

    `out` appears complete or not at all. Links are followed, so that a Hugging Face cache can be the source.

    Raises:
        NotFoundError: no model at `source`.
        UnsupportedHostError: no model that can be patched, or a folder that holds pipes or devices.
        InputError: `out` lies inside `source`, or is no name for a single file.
        ExistsError: `out` exists and is no empty folder.
        BusyError: another process is writing to `source`.
        HostWriteError: copying failed; nothing is left of it.
    """
    host = CheckpointHost.open(source)
    target = Path(os.path.abspath(out))  # noqa: PTH100  # resolve() would follow a link at `out` itself
    _check_free(target, host)
    temporary = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}.partial"
    with locked(host.path, exclusive=False):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if host.single:
                _copy_single(host.path, temporary)
            else:
                _copy_tree(host.path, temporary, ())
            _put_originals_back(host.path, temporary)
            temporary.rename(target)
            sync_folder(target.parent)
        except BaseException as error:
            _remove(temporary)
            if isinstance(error, OSError):
                raise _failed(target, error) from None
            raise


def remove_copy(out: Path) -> None:
    """Remove a copy that could not be patched, and what is kept beside it; as far as possible."""
    state = StateFolder(out)
    _remove(state.path)
    _remove(out)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _check_free(target: Path, host: CheckpointHost) -> None:
    if host.single:
        if target.exists() or target.is_symlink():
            raise ExistsError(f"expected nothing at {target}, got something", path=str(target))
        if not is_single_name(target):
            raise InputError(f"expected the name of a file, such as NAME.safetensors, got {target.name}")
        return
    if target.resolve().is_relative_to(host.path):
        raise InputError(f"expected a folder outside of {host.path}, got {target}")
    if target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
        raise ExistsError(f"expected no folder or an empty one at {target}, got something else", path=str(target))


def _copy_tree(source: Path, target: Path, above: tuple[Path, ...]) -> None:
    """Copy a folder; `above` are the real paths of the folders that lead to it, so that a link in circles is seen."""
    real = source.resolve()
    if real in above:
        raise UnsupportedHostError(f"{source}: expected folders that end, got a link back to {real}")
    target.mkdir()
    for entry in sorted(source.iterdir()):
        if entry.name in _SKIPPED or (len(above) == 1 and is_second_copy(source.name, entry.name)):
            continue
        mode = entry.stat().st_mode
        if stat.S_ISDIR(mode):
            _copy_tree(entry, target / entry.name, (*above, real))
        elif stat.S_ISREG(mode):
            _copy_file(entry, target / entry.name)
        else:
            raise UnsupportedHostError(f"{entry}: expected a file or a folder, got a pipe, socket or device")
    sync_folder(target)


def _copy_file(source: Path, target: Path) -> None:
    with source.open("rb") as reader, _new_file(target, like=reader) as writer:
        try:
            fcntl.ioctl(writer.fileno(), _FICLONE, reader.fileno())
        except OSError:  # another file system, or one that cannot share blocks
            shutil.copyfileobj(reader, writer, 4 * 2**20)
        writer.flush()
        os.fsync(writer.fileno())


def _new_file(target: Path, like: BinaryIO) -> BinaryIO:
    """A new file that nobody may read who may not read the other one, and that its owner may write."""
    mode = stat.S_IMODE(os.fstat(like.fileno()).st_mode) & 0o666 | 0o600
    return os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb")


def _copy_single(source: Path, target: Path) -> None:
    header, _ = read_weights(source.parent, source.name)
    kept = [tensor for tensor in header.tensors if not is_average(tensor.name)]
    if len(kept) == len(header.tensors):
        _copy_file(source, target)
        return
    with source.open("rb") as reader, _new_file(target, like=reader) as writer:
        writer.write(_head(kept, header.metadata))
        for tensor in kept:
            start, stop = header.data_start + tensor.start, header.data_start + tensor.stop
            writer.writelines(read_range(reader.fileno(), start, stop))
        writer.flush()
        os.fsync(writer.fileno())


def _head(tensors: Sequence[TensorInfo], metadata: Mapping[str, str]) -> bytes:
    """The header of a file that holds these tensors, in this order, and no others."""
    entries: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    position = 0
    for tensor in tensors:
        end = position + tensor.stop - tensor.start
        entries[tensor.name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [position, end]}
        position = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _put_originals_back(source: Path, target: Path) -> None:
    """What is applied to the source is not applied to the copy."""
    kept = StateFolder(source).kept()
    single = target.is_file()
    layout = find_single_layout(target) if single else find_layout(target)
    with WeightFiles(target.parent if single else target, layout.files, writable=True) as files:
        for name, original in kept.items():
            place = layout.place(name, str(target))
            write_range(files.descriptor(place.file), place.start, _whole(original.read(), place.stop - place.start))
        files.sync()


def _whole(data: bytearray, size: int) -> Iterator[bytearray]:
    if len(data) != size:
        raise HostError(f"expected an original of {size} bytes, got {len(data)}")
    yield data


def _failed(target: Path, error: OSError) -> HostWriteError:
    hint = "choose a place with more room: --out PATH" if error.errno in {errno.ENOSPC, errno.EDQUOT} else ""
    return HostWriteError(
        f"expected to copy the model to {target}, got {error.strerror or error}; nothing is left of it",
        hint=hint,
        errno=error.errno,
    )
