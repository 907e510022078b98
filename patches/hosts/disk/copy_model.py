"""A model's files, copied so that the copy may be written; `rasura.patches.hosts.disk.new_copy` makes a model of them.

Every file becomes a file of its own. Where the file system can (Btrfs, XFS, bcachefs), the copy shares the blocks of
the source until one of them is written, so it costs neither time nor space; elsewhere it is a plain copy. Hard links
would be as cheap everywhere, but whoever edits such a copy by other means would edit the source.

A folder is copied without weights in other formats beside the safetensors, and a single file without the running
averages (`model_ema`) of its weights, which would keep what is erased.
"""

import fcntl
import json
import os
import shlex
import shutil
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from rasura.patches._io.byte_ranges import read_range, sync_folder, write_range
from rasura.patches._io.file_lock import locked
from rasura.patches._io.safetensors_file import TensorInfo
from rasura.patches.errors import ExistsError, InputError, UnsupportedHostError
from rasura.patches.hosts.check_value import check_same
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.hosts.disk.layouts.compvis_layout import find_single_layout, is_single_name
from rasura.patches.hosts.disk.layouts.compvis_names import is_average
from rasura.patches.hosts.disk.layouts.diffusers_layout import find_layout, is_second_copy, read_weights
from rasura.patches.hosts.disk.state_folder import STATE_FOLDER, StateFolder, beside_file
from rasura.patches.hosts.disk.weight_files import WeightFiles

__all__ = ["check_free", "copy_files"]

_FICLONE: Final = 0x40049409  # linux/fs.h: share all blocks of another file
_SKIPPED: Final = frozenset({STATE_FOLDER, ".git", ".cache"})  # ours, and two tools' bookkeeping of the source


def copy_files(host: CheckpointHost, target: Path) -> None:
    """Copy a model to `target`, where nothing is, as it was before anything was applied to it.

    Links are followed, so that a Hugging Face cache can be the source. Others may read the model meanwhile, not write.

    Raises:
        UnsupportedHostError: a folder that holds pipes or devices, or that a link leads back to.
        BusyError: another process is writing to the source.
        OSError: copying failed; what is there of it stays.
    """
    with locked(host.path, exclusive=False):
        if host.single:
            _copy_single(host.path, target)
        else:
            _copy_tree(host.path, target, ())
        _put_originals_back(host.path, target)


def check_free(target: Path, host: CheckpointHost) -> None:
    """Refuse a place where a copy of this model may not come to stand.

    Raises:
        InputError: it lies inside the model, or is no name for a single file.
        ExistsError: something is there, other than an empty folder in place of a folder.
    """
    if host.single:
        if target.exists() or target.is_symlink():
            raise ExistsError(f"expected nothing at {target}, got something", path=str(target))
        if not is_single_name(target):
            raise InputError(f"expected the name of a file, such as NAME.safetensors, got {target.name}")
        if (kept := beside_file(target)).exists():
            raise ExistsError(
                f"expected nothing beside {target}, got {kept.name}: originals that are kept of a model that is gone",
                hint=f"move the model back, or if it is gone for good: rm -r {shlex.quote(str(kept))}",
                path=str(kept),
            )
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
            check_same(place.info, original.info)  # before its bytes are read: it may be of any size
            write_range(files.descriptor(place.file), place.start, [original.read()])
        files.sync()
